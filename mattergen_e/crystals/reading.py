"""Structures from whatever a user has: CIF, POSCAR, extxyz, folders of them, JSON lines, the output of a generation.

`read_entries` is the one reader: a file gives entries, each a crystal or the reason why there is none, so that a broken
one costs itself only. `read_structures` is for those who need all.

Generated crystals are `gen_<index>` in each of the files that a generation leaves, as MatterGen names its CIFs: labels,
whichever file they were computed from, find their crystal by it.
"""

from __future__ import annotations

import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifParser

from mattergen_e.crystals.dictionary import read_dictionary
from mattergen_e.errors import UserError, brief

SUFFIXES = (".cif", ".vasp", ".poscar", ".extxyz", ".xyz", ".jsonl", ".json", ".zip")
KINDS = "CIF, a zip of CIFs, POSCAR, extxyz or JSON lines"

#: What a generation leaves, the richest first; they hold the same crystals.
_GENERATED = "generated_crystals"
OUTPUTS = (f"{_GENERATED}.jsonl", f"{_GENERATED}.extxyz", f"{_GENERATED}_cif.zip")
#: Records beside crystals, which are none.
RECORDS = ("run.json", "evaluation.json")
MAX_MEMBER_BYTES = 20_000_000
#: Tolerances with which pymatgen neither joins the sites of a CIF nor moves them to simple fractions.
EXACT: dict[str, Any] = {"site_tolerance": 1e-8, "frac_tolerance": 0.0}


@dataclass(frozen=True)
class NamedStructure:
    """A structure with the name that its results go by."""

    id: str
    structure: Structure


@dataclass(frozen=True, eq=False)
class CrystalEntry:
    """One entry of a file: a crystal, or the reason why there is none.

    Attributes:
        file: The file.
        place: Where in the file it stands: a line, a frame or the member of a zip; empty if it is the whole file.
        id: Name that its results go by: what the file gives, else made of the file's name and the place.
        structure: The crystal; None if it cannot be read.
        reason: 'broken_cif' or 'broken_entry' if it cannot be read.
        problem: The same for people, as it follows the name of file and place.
        index: Number of a generated crystal, as the file tells it; may be negative.
        fields: What else a JSON line holds.
    """

    file: Path
    place: str
    id: str
    structure: Structure | None = None
    reason: Literal["broken_cif", "broken_entry"] | None = None
    problem: str = ""
    index: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)


def read_structures(sources: Iterable[str | Path]) -> list[NamedStructure]:
    """Reads all structures of files and folders, in order; folders are searched recursively, in order of names.

    Of a folder that a generation wrote to, only its crystals are read, once, and nothing below it.

    Args:
        sources: Paths of CIF, zips of CIFs, POSCAR/CONTCAR, extxyz (all frames), JSON lines ({"id", "structure":
            pymatgen dictionary} per line) or folders.

    Returns:
        Structures with ids: the file's name without suffix (with the frame's number where there are several), or the
        id of a JSON line. Generated crystals are gen_<index>.

    Raises:
        UserError: If a file is missing, empty, of an unknown kind, or cannot be read; names the file and the line.
    """
    found: list[NamedStructure] = []
    for path in (path for source in sources for path in _files(Path(source))):
        before = len(found)
        for entry in read_entries(path):
            if entry.structure is None:
                place = f"{path}, {entry.place}" if entry.place else str(path)
                raise UserError(f"{place} {entry.problem}.")
            found.append(NamedStructure(entry.id, entry.structure))
        if len(found) == before:
            raise UserError(f"{path} " + ("holds no CIF." if path.suffix.lower() == ".zip" else "is empty."))
    if not found:
        raise UserError(f"no structures found: give {KINDS}, or folders of them.")
    return found


def is_structure_file(path: Path) -> bool:
    """Whether a file has a name as files of structures have."""
    name = path.name.lower()
    if name in RECORDS:
        return False
    return path.suffix.lower() in SUFFIXES or name.startswith(("poscar", "contcar"))


def natural_key(name: str) -> list[str | int]:
    """A key that sorts gen_2 before gen_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def read_entries(path: Path, *, as_written: bool = False) -> Iterator[CrystalEntry]:
    """Entries of a file, in order.

    Args:
        path: CIF, zip of CIFs (in the order of their numbers), POSCAR, extxyz, JSON lines, or JSON with one structure
            or a list.
        as_written: Take a CIF as it is: its coordinates, as in a zip always, since generated sites may be closer than
            pymatgen takes for two; and sites whose occupancies add up to more than one.

    Yields:
        Crystals, or why they cannot be read. Behind a broken count of sites nothing of an extxyz can be read: the rest
        is one broken entry.

    Raises:
        UserError: If the file cannot be opened, or is a zip that is damaged as a whole.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in (".jsonl", ".json"):
            yield from _json(path)
        elif suffix in (".extxyz", ".xyz"):
            yield from _extxyz(path)
        elif suffix == ".zip":
            yield from _zip(path, as_written)
        else:
            yield from _text(path, as_written)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(_inside(path))
    if not path.is_file():
        raise UserError(f"{path} does not exist.")
    if not is_structure_file(path):
        raise UserError(f"{path} is of no known kind: use {KINDS}.")
    return [path]


def _inside(folder: Path) -> Iterator[Path]:
    for name, subfolders, files in os.walk(folder):
        here = Path(name)
        output = next((output for output in OUTPUTS if output in files), None)
        if output is not None:
            subfolders.clear()
            yield here / output
        else:
            yield from (here / file for file in files if is_structure_file(here / file))


def _tried(entry: CrystalEntry, make: Callable[[], CrystalEntry]) -> CrystalEntry:
    """The entry that `make` gives, or `entry` with why there is none: a damaged crystal may fail in any way."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()
    except Exception as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        cif = entry.file.suffix.lower() in (".cif", ".zip")
        return replace(entry, reason="broken_cif" if cif else "broken_entry", problem=f"cannot be read: {words}")


# -- CIF and POSCAR ---------------------------------------------------------------------------------------------------


def _text(path: Path, as_written: bool) -> Iterator[CrystalEntry]:
    text = path.read_text(encoding="utf-8", errors="replace")
    entry = CrystalEntry(path, "", path.stem if path.suffix else path.name)
    if path.suffix.lower() == ".cif":
        yield _tried(entry, lambda: replace(entry, structure=_cif(text, as_written, as_written)))
    else:
        yield _tried(entry, lambda: replace(entry, structure=Structure.from_str(text, fmt="poscar")))


def _cif(text: str, exact: bool, as_written: bool) -> Structure:
    """The first crystal; `exact`: no coordinate is moved, `as_written`: no sum of occupancies is checked."""
    parser = CifParser.from_str(text, **(EXACT if exact else {}))
    return parser.parse_structures(primitive=False, check_occu=not as_written)[0]


def _zip(path: Path, as_written: bool) -> Iterator[CrystalEntry]:
    try:
        with ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.lower().endswith(".cif")]
            for member in sorted(members, key=lambda member: natural_key(member.filename)):
                entry = CrystalEntry(path, member.filename, Path(member.filename).stem)
                yield _tried(entry, partial(_member, archive, member, entry, as_written))
    except BadZipFile as error:
        raise UserError(f"{path} is no zip file or is cut off ({error}): put back a copy of it.") from error


def _member(archive: ZipFile, member: ZipInfo, entry: CrystalEntry, as_written: bool) -> CrystalEntry:
    if member.file_size > MAX_MEMBER_BYTES:
        raise ValueError(f"it has {member.file_size} bytes, more than {MAX_MEMBER_BYTES}")
    structure = _cif(archive.read(member).decode("utf-8", errors="replace"), True, as_written)
    found = re.fullmatch(r"(?:.*/)?gen_(\d+)\.cif", member.filename)
    return replace(entry, structure=structure, index=int(found[1]) if found else None)


# -- extxyz -----------------------------------------------------------------------------------------------------------


def _extxyz(path: Path) -> Iterator[CrystalEntry]:
    frames = list(_frames(path.read_text(encoding="utf-8", errors="replace").splitlines()))
    for number, text in enumerate(frames):
        counted = _generated(number) if path.stem == _GENERATED else None
        name = counted or (path.stem if len(frames) == 1 else f"{path.stem}_{number}")
        entry = CrystalEntry(path, f"frame {number}", name)
        yield _tried(entry, partial(_frame, text, entry))


def _frames(lines: list[str]) -> Iterator[str]:
    """The text of each frame; the rest of the file as one behind a broken count of sites."""
    start = 0
    while start < len(lines):
        count = lines[start].strip()
        if not count:
            start += 1
            continue
        stop = start + 2 + int(count) if count.isdecimal() else len(lines) + 1
        yield "\n".join(lines[start:stop]) + "\n"
        start = stop


def _frame(text: str, entry: CrystalEntry) -> CrystalEntry:
    import ase.io

    count, *rest = text.splitlines()
    if not count.strip().isdecimal() or len(rest) < 1 + int(count):
        raise ValueError(f"{count.strip()[:50]!r} is not its number of sites")
    atoms: Any = ase.io.read(io.StringIO(text), format="extxyz")
    if not all(atoms.pbc):
        raise ValueError("a crystal needs three periodic directions; set pbc and Lattice")
    atoms.calc = None
    index = atoms.info.get("index")
    index = int(index) if isinstance(index, Integral) and not isinstance(index, bool) else None
    name = str(atoms.info.get("id", _generated(index) or entry.id))
    structure = AseAtomsAdaptor.get_structure(atoms)
    structure.properties = {key: _plain(value) for key, value in structure.properties.items()}
    return replace(entry, id=name, structure=structure, index=index)


def _plain(value: Any) -> Any:
    """A number or an array of numpy's, as what JSON can hold."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _generated(index: Any) -> str | None:
    """Id of a crystal by the index that a generation gave it."""
    whole = isinstance(index, Integral) and not isinstance(index, bool)
    return f"gen_{index}" if whole and int(index) >= 0 else None


# -- JSON lines -------------------------------------------------------------------------------------------------------


def _json(path: Path) -> Iterator[CrystalEntry]:
    # a JSON string may hold what splitlines splits at
    lines = [(number, line) for number, line in enumerate(path.read_bytes().split(b"\n"), start=1) if line.strip()]
    if path.suffix.lower() == ".json":
        with suppress(ValueError, RecursionError):
            whole = json.loads(b"\n".join(line for _, line in lines))
            items = whole if isinstance(whole, list) else [whole]
            lines = [(number, json.dumps(item).encode()) for number, item in enumerate(items, start=1)]
    for number, line in lines:
        entry = CrystalEntry(path, f"line {number}", f"{path.stem}_{number}")
        yield _tried(entry, partial(_line, line, entry))


def _line(line: bytes, entry: CrystalEntry) -> CrystalEntry:
    try:
        fields = json.loads(line)
        structure = read_dictionary(fields.get("structure", fields))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'expected {{"id": ..., "structure": pymatgen dictionary}} ({brief(error)})') from error
    given = fields.get("id", fields.get("material_id"))
    index = fields.get("index")
    return replace(
        entry,
        id=str((_generated(index) or entry.id) if given is None else given),
        structure=structure,
        index=index if isinstance(index, int) and not isinstance(index, bool) else None,
        fields={key: value for key, value in fields.items() if key not in ("structure", "lattice", "sites")},
    )
