"""Structures from whatever a user has: CIF, POSCAR, extxyz, folders of them, JSON lines, the output of a generation.

Generated crystals are `gen_<index>` in each of the files that a generation leaves, as MatterGen names its CIFs: labels,
whichever file they were computed from, find their crystal by it.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, ZipInfo

from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from mattergen_e.errors import UserError

SUFFIXES = (".cif", ".vasp", ".poscar", ".extxyz", ".xyz", ".jsonl", ".json", ".zip")
KINDS = "CIF, a zip of CIFs, POSCAR, extxyz or JSON lines"

#: What a generation leaves, the richest first; they hold the same crystals.
_GENERATED = "generated_crystals"
OUTPUTS = (f"{_GENERATED}.jsonl", f"{_GENERATED}.extxyz", f"{_GENERATED}_cif.zip")
MAX_MEMBER_BYTES = 20_000_000


@dataclass(frozen=True)
class NamedStructure:
    """A structure with the name that its results go by."""

    id: str
    structure: Structure


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
    found = [named for source in sources for path in _files(Path(source)) for named in _read(path)]
    if not found:
        raise UserError(f"no structures found: give {KINDS}, or folders of them.")
    return found


def _is_structure_file(path: Path) -> bool:
    name = path.name.lower()
    return path.suffix.lower() in SUFFIXES or name.startswith(("poscar", "contcar"))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(_inside(path))
    if not path.is_file():
        raise UserError(f"{path} does not exist.")
    if not _is_structure_file(path):
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
            yield from (here / file for file in files if _is_structure_file(here / file))


def _read(path: Path) -> Iterator[NamedStructure]:
    suffix = path.suffix.lower()
    try:
        if suffix in (".jsonl", ".json"):
            yield from _read_json_lines(path)
        elif suffix in (".extxyz", ".xyz"):
            yield from _read_extxyz(path)
        elif suffix == ".zip":
            yield from _read_zip(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield NamedStructure(path.stem if suffix else path.name, Structure.from_file(str(path)))
    except UserError:
        raise
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} cannot be read as a structure: {first}") from error


def _read_extxyz(path: Path) -> Iterator[NamedStructure]:
    import ase.io

    frames: Any = ase.io.read(path, index=":", format="extxyz")
    if not frames:
        raise UserError(f"{path} is empty.")
    for i, atoms in enumerate(frames):
        if not all(atoms.pbc):
            raise UserError(f"{path}, frame {i}: a crystal needs three periodic directions; set pbc and Lattice.")
        generated = _generated(atoms.info.get("index", i if path.stem == _GENERATED else None))
        name = generated or (path.stem if len(frames) == 1 else f"{path.stem}_{i}")
        plain = atoms.copy()
        plain.calc = None
        yield NamedStructure(str(atoms.info.get("id", name)), AseAtomsAdaptor.get_structure(plain))


def _generated(index: Any) -> str | None:
    """Id of a crystal by the index that a generation gave it."""
    whole = isinstance(index, Integral) and not isinstance(index, bool)
    return f"gen_{index}" if whole and int(index) >= 0 else None


def _read_zip(path: Path) -> Iterator[NamedStructure]:
    try:
        with ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.lower().endswith(".cif")]
            if not members:
                raise UserError(f"{path} holds no CIF.")
            for member in sorted(members, key=lambda member: _natural(member.filename)):
                yield NamedStructure(Path(member.filename).stem, _member(archive, member, path))
    except BadZipFile as error:
        raise UserError(f"{path} is no zip file or is cut off ({error}): put back a copy of it.") from error


def _natural(name: str) -> list[Any]:
    """A key that sorts gen_2 before gen_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def _member(archive: ZipFile, member: ZipInfo, path: Path) -> Structure:
    """A CIF as it was written: generated sites may be closer than pymatgen takes for two."""
    from pymatgen.io.cif import CifParser

    if member.file_size > MAX_MEMBER_BYTES:
        raise UserError(f"{path}: {member.filename} has {member.file_size} bytes, more than {MAX_MEMBER_BYTES}.")
    try:
        text = archive.read(member).decode("utf-8", errors="replace")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser = CifParser.from_str(text, site_tolerance=1e-8, frac_tolerance=0.0)
            return parser.parse_structures(primitive=False)[0]
    except BadZipFile:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path}: {member.filename} cannot be read as a structure: {lines[0]}") from error


def _read_json_lines(path: Path) -> Iterator[NamedStructure]:
    text = path.read_text()
    if not text.strip():
        raise UserError(f"{path} is empty.")
    for number, line in enumerate(text.split("\n"), start=1):  # a JSON string may hold what splitlines splits at
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            given = entry.get("structure", entry)
            named = entry.get("id", entry.get("material_id"))
            name = (_generated(entry.get("index")) or f"{path.stem}_{number}") if named is None else named
            yield NamedStructure(str(name), Structure.from_dict(given))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f'{path}, line {number}: expected {{"id": ..., "structure": pymatgen dictionary}} ({error}).'
            ) from error
