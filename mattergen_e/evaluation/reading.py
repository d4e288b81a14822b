"""Reading generated crystals entry by entry: one that is broken costs itself only."""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import numpy as np

from mattergen_e.errors import UserError

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from mattergen_e.spectra.objects import CrystalSpectra

#: What MatterGen and joint models leave, the richest first.
OUTPUTS = ("generated_crystals.jsonl", "generated_crystals.extxyz", "generated_crystals_cif.zip")
MAX_ENTRY_BYTES = 20_000_000
_SUFFIXES = (".cif", ".vasp", ".poscar", ".extxyz", ".xyz", ".jsonl", ".json", ".zip")


@dataclass(frozen=True, eq=False)
class Entry:
    """One entry of the input.

    Attributes:
        name: File and place, for people.
        structure: The crystal, None if it cannot be read.
        reason: `broken_entry` or `broken_cif`, if it cannot be read.
        sentence: The same for people.
        index: What the input says.
        conditions: What the input says.
        spectra: Of the sites.
        values: Of the crystal, by descriptor.
        arrays: Of a grid in the cell, by descriptor.
    """

    name: str
    structure: Structure | None = None
    reason: str | None = None
    sentence: str | None = None
    index: int | None = None
    conditions: dict[str, Any] = field(default_factory=dict)
    spectra: CrystalSpectra | None = None
    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)


def read_entries(path: Path) -> tuple[list[Entry], list[Path]]:
    """All entries of a file or folder, and the files that were read.

    Raises:
        UserError: If the path does not exist, is of no known kind, or a file as a whole is damaged.
    """
    from mattergen_e.spectra.files import DOS_NAME

    files = _files(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        entries = [entry for file in files for entry in _read(file)]
    if len(files) > 1:
        entries = [replace(entry, index=None) for entry in entries]
    has_spectra = any(entry.spectra is not None for entry in entries)
    return entries, [*files, *(file.parent / DOS_NAME for file in files if has_spectra)]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        for name in OUTPUTS:
            if (path / name).is_file():
                return [path / name]
        return sorted((f for f in path.iterdir() if f.is_file() and _known(f)), key=lambda f: _natural(f.name))
    if not path.is_file():
        raise UserError(f"{path} does not exist: give the output folder of a generation, or files of crystals.")
    if not _known(path):
        raise UserError(f"{path} is of no known kind: give CIF, a zip of CIFs, POSCAR, extxyz or JSON lines.")
    return [path]


def _known(path: Path) -> bool:
    name = path.name.lower()
    if name in ("run.json", "evaluation.json"):
        return False
    return path.suffix.lower() in _SUFFIXES or name.startswith(("poscar", "contcar"))


def _natural(name: str) -> list[Any]:
    """A key that sorts gen_2 before gen_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _read(path: Path) -> Iterator[Entry]:
    suffix = path.suffix.lower()
    try:
        if suffix in (".jsonl", ".json"):
            yield from _json(path)
        elif suffix == ".zip":
            yield from _zip(path)
        elif suffix in (".extxyz", ".xyz"):
            yield from _extxyz(path.name, path.read_text(encoding="utf-8", errors="replace"))
        else:
            yield _text(path.name, path.read_text(encoding="utf-8", errors="replace"), suffix == ".cif")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error


def _tried(name: str, reason: str, make: Callable[[], Entry]) -> Entry:
    """The entry that `make` gives, or one that says why there is none: a damaged crystal may fail in any way."""
    try:
        return make()
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Entry(name, reason=reason, sentence=f"{name} cannot be read: {lines[0][:200]}")


# -- JSON lines -------------------------------------------------------------------------------------------------------


def _json(path: Path) -> list[Entry]:
    """Entries of JSON lines, or of a .json file with one structure or a list of them, with their spectra."""
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    if path.suffix.lower() == ".json":
        with suppress(ValueError):
            whole = json.loads(b"\n".join(lines))
            lines = [json.dumps(item).encode() for item in (whole if isinstance(whole, list) else [whole])]
    names = [f"{path.name}, line {number}" for number in range(1, len(lines) + 1)]
    entries = [_tried(n, "broken_entry", lambda n=n, x=x: _line(x, n)) for n, x in zip(names, lines, strict=True)]
    return _with_arrays(path, _with_spectra(path, entries, lines), lines)


def _with_spectra(path: Path, entries: list[Entry], lines: list[bytes]) -> list[Entry]:
    """The entries, with the spectra that their lines refer to."""
    from mattergen_e.spectra.files import DOS_NAME, read_dos

    having = [
        place
        for place, (entry, line) in enumerate(zip(entries, lines, strict=True))
        if entry.structure is not None and entry.index is not None and b'"dos"' in line and "dos" in json.loads(line)
    ]
    if having:
        spectra = read_dos(path.parent / DOS_NAME, [entries[place].index or 0 for place in having])
        for place, found in zip(having, spectra, strict=True):
            entries[place] = replace(entries[place], spectra=found)
    return entries


def _with_arrays(path: Path, entries: list[Entry], lines: list[bytes]) -> list[Entry]:
    """The entries, with the arrays of npz files that their lines refer to.

    Raises:
        UserError: If such a file is missing or damaged.
    """
    having = [i for i, line in enumerate(lines) if entries[i].structure is not None and b'"arrays"' in line]
    files: dict[Path, dict[str, Any]] = {}
    for place in having:
        found = json.loads(lines[place]).get("arrays")
        arrays = {}
        for name, told in (found if isinstance(found, dict) else {}).items():
            file = path.parent / Path(str(told.get("file"))).name
            try:
                if file not in files:
                    with np.load(file, allow_pickle=False) as content:
                        files[file] = dict(content)
                key = told["keys"].get(name)
                arrays |= {} if key is None else {name: files[file][key]}
            except (OSError, ValueError, LookupError, EOFError, AttributeError, zipfile.BadZipFile) as error:
                raise UserError(f"{file} is missing or damaged ({error}): put back a copy of it.") from None
        entries[place] = replace(entries[place], arrays=arrays)
    return entries


def _line(line: bytes, name: str) -> Entry:
    from pymatgen.core import Structure

    fields = json.loads(line)
    structure = Structure.from_dict(fields.get("structure", fields))
    index, conditions, values = (fields.get(key) for key in ("index", "conditions", "values"))
    return Entry(
        str(fields.get("id", fields.get("material_id", name))),
        structure,
        index=index if isinstance(index, int) and not isinstance(index, bool) else None,
        conditions=conditions if isinstance(conditions, dict) else {},
        values=values if isinstance(values, dict) else {},
    )


# -- CIF, POSCAR, extxyz ----------------------------------------------------------------------------------------------


def _zip(path: Path) -> Iterator[Entry]:
    try:
        with ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.lower().endswith(".cif")]
            for member in sorted(members, key=lambda m: _natural(m.filename)):
                yield _tried(member.filename, "broken_cif", lambda member=member: _member(archive, member))
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is no zip file or is cut off ({error}): put back a copy of it.") from error


def _member(archive: ZipFile, member: zipfile.ZipInfo) -> Entry:
    if member.file_size > MAX_ENTRY_BYTES:
        raise ValueError(f"it has {member.file_size} bytes, more than {MAX_ENTRY_BYTES}")
    found = re.fullmatch(r"(?:.*/)?gen_(\d+)\.cif", member.filename)
    entry = _text(member.filename, archive.read(member).decode("utf-8", errors="replace"), is_cif=True)
    return replace(entry, index=int(found[1]) if found else None)


def _text(name: str, text: str, is_cif: bool) -> Entry:
    return _tried(name, "broken_cif" if is_cif else "broken_entry", lambda: _parsed(name, text, is_cif))


def _parsed(name: str, text: str, is_cif: bool) -> Entry:
    if not is_cif:
        from pymatgen.io.vasp import Poscar

        return Entry(name, Poscar.from_str(text).structure)
    from pymatgen.io.cif import CifParser

    # coordinates as written: pymatgen would join close sites and move others to simple fractions
    parser = CifParser.from_str(text, site_tolerance=1e-8, frac_tolerance=0.0)
    return Entry(name, parser.parse_structures(primitive=False, check_occu=False)[0])


def _extxyz(name: str, text: str) -> Iterator[Entry]:
    """Frames; behind a broken count of sites nothing can be read, so the rest is one broken entry."""
    lines = text.splitlines()
    start = frame = 0
    while start < len(lines):
        if not lines[start].strip():
            start += 1
            continue
        place = f"{name}, frame {frame}"
        count = lines[start].strip()
        if not count.isdigit() or start + 2 + int(count) > len(lines):
            yield Entry(place, reason="broken_entry", sentence=f"{place}: {count[:50]!r} is not its number of sites")
            return
        part = "\n".join(lines[start : start + 2 + int(count)]) + "\n"
        yield _tried(place, "broken_entry", lambda part=part, place=place: _frame(part, place))
        start, frame = start + 2 + int(count), frame + 1


def _frame(text: str, place: str) -> Entry:
    import ase.io
    from pymatgen.io.ase import AseAtomsAdaptor

    atoms: Any = ase.io.read(io.StringIO(text), format="extxyz")
    if not all(atoms.pbc):
        raise ValueError("a crystal needs three periodic directions")
    atoms.calc = None
    index = atoms.info.get("index")
    structure = AseAtomsAdaptor.get_structure(atoms)
    return Entry(place, structure, index=int(index) if isinstance(index, Integral) else None)
