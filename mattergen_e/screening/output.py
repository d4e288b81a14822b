"""Files of a shortlist.

    <out>/screening.json             settings, provenance, counts, the shortlist, hashes of the files
    <out>/shortlist.csv, .json       a row per crystal of the shortlist, the nearest to the target first
    <out>/screened.csv               a row per crystal asked for, with the reason why it was dropped
    <out>/crystals/gen_<index>.cif   relaxed crystals, generated descriptors as columns of the sites
    <out>/plots/<rank>_gen_<index>.png
    <out>/spectra.npz                spectra of the shortlist and the target: a file of curves
    <out>/vasp/gen_<index>/          relax/ and static/ with VASP's inputs
    <out>/gpaw_dos.py                the same with GPAW
    <out>/stages/                    results of the stages by crystal, from which a rerun goes on

A rerun replaces what the last one wrote. Inputs that were changed since, and files of others, stay.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mattergen_e.errors import UserError
from mattergen_e.evaluation.stages import FOLDER as STAGES
from mattergen_e.files import replacing
from mattergen_e.journal import hold
from mattergen_e.screening.ranking import COLUMNS

if TYPE_CHECKING:
    from pymatgen.core import Structure

FORMAT = 1
SUMMARY, SHORTLIST, ALL, SPECTRA = "screening.json", "shortlist", "screened.csv", "spectra.npz"
CRYSTALS, PLOTS, VASP, SCRIPT = "crystals", "plots", "vasp", "gpaw_dos.py"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The folder, made and locked.

    Raises:
        UserError: If it cannot be written to, holds files of another kind, or another process works in it.
    """
    ours = any((folder / name).exists() for name in (SUMMARY, STAGES))
    taken = next((name for name in (f"{SHORTLIST}.csv", CRYSTALS, PLOTS, VASP) if (folder / name).exists()), None)
    if taken and not ours:
        raise UserError(f"{folder} holds {taken}, but is no shortlist: choose another --out.")
    with hold(folder):
        yield


def write(folder: Path, contents: Mapping[str, bytes], summary: Mapping[str, Any]) -> list[str]:
    """Write a shortlist, screening.json last.

    Args:
        folder: The folder, held.
        contents: By path in the folder.
        summary: screening.json, without the hashes.

    Returns:
        Inputs for DFT that somebody changed since the last run: they were left as they are.
    """
    before, left = _before(folder), []
    for name, content in contents.items():
        path = folder / name
        if _is_input(name) and name in before and path.is_file() and _hash(path.read_bytes()) != before[name]:
            left.append(name)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as target:
            target.write(content)
    for name in before.keys() - contents.keys():
        _remove(folder, name, before[name])
    hashes = {name: before[name] if name in left else _hash(content) for name, content in contents.items()}
    with replacing(folder / SUMMARY) as target:
        target.write(to_json({**summary, "files": hashes}))
    return left


def _before(folder: Path) -> dict[str, str]:
    """Hashes of the files of the last run by path in the folder; nothing of it can be outside of the folder."""
    try:
        files = json.loads((folder / SUMMARY).read_bytes())["files"]
        inside = {
            name: digest for name, digest in files.items() if (folder / name).resolve().is_relative_to(folder.resolve())
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    return inside


def _is_input(name: str) -> bool:
    return name == SCRIPT or name.startswith(f"{VASP}/")


def _remove(folder: Path, name: str, digest: str) -> None:
    """Removes a file of the last run, if it is still what was written, and its folders where they are empty then."""
    path = folder / name
    with suppress(OSError):
        if _hash(path.read_bytes()) != digest:
            return
        path.unlink()
        for parent in path.relative_to(folder).parents[:-1]:
            (folder / parent).rmdir()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# -- contents ---------------------------------------------------------------------------------------------------------


def to_json(value: Any) -> bytes:
    """As JSON."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False).encode() + b"\n"


def to_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> bytes:
    """As CSV; what is unknown is empty, and a text that a spreadsheet would take for a formula stands behind a '."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row[column]) for column in columns] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value[:1] in tuple("=+-@\t\r") else value
    return str(value).lower() if isinstance(value, bool) else repr(value)


def to_cif(structure: Structure) -> bytes:
    """A CIF in P 1 with the sites in their order; a site property with one number per site becomes a column."""
    from pymatgen.core import Structure
    from pymatgen.io.cif import CifWriter

    numbers = {
        name: [float(value) for value in values]
        for name, values in sorted(structure.site_properties.items())
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    }
    plain = Structure(structure.lattice, structure.species, structure.frac_coords, site_properties=numbers)
    return str(CifWriter(plain, write_site_properties=bool(numbers))).encode()
