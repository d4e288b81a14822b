"""Structures from whatever a user has: CIF, POSCAR, extxyz, folders of them, JSON lines."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from mattergen_e.errors import UserError

SUFFIXES = (".cif", ".vasp", ".poscar", ".extxyz", ".xyz", ".jsonl", ".json")


@dataclass(frozen=True)
class NamedStructure:
    """A structure with the name that its results go by."""

    id: str
    structure: Structure


def read_structures(sources: Iterable[str | Path]) -> list[NamedStructure]:
    """Reads all structures of files and folders, in order; folders are searched recursively, in order of names.

    Args:
        sources: Paths of CIF, POSCAR/CONTCAR, extxyz (all frames), JSON lines ({"id", "structure": pymatgen
            dictionary} per line) or folders.

    Returns:
        Structures with ids: the file's name without suffix (with the frame's number where there are several), or the
        id of a JSON line.

    Raises:
        UserError: If a file is missing, empty, of an unknown kind, or cannot be read; names the file and the line.
    """
    found = [named for source in sources for path in _files(Path(source)) for named in _read(path)]
    if not found:
        raise UserError("no structures found: give CIF, POSCAR, extxyz or JSON lines files, or folders of them.")
    return found


def _is_structure_file(path: Path) -> bool:
    name = path.name.lower()
    return path.suffix.lower() in SUFFIXES or name.startswith(("poscar", "contcar"))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file() and _is_structure_file(p))
    if not path.is_file():
        raise UserError(f"{path} does not exist.")
    if not _is_structure_file(path):
        raise UserError(f"{path} is of no known kind: use CIF, POSCAR, extxyz or JSON lines.")
    return [path]


def _read(path: Path) -> Iterator[NamedStructure]:
    suffix = path.suffix.lower()
    try:
        if suffix in (".jsonl", ".json"):
            yield from _read_json_lines(path)
        elif suffix in (".extxyz", ".xyz"):
            yield from _read_extxyz(path)
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
        name = path.stem if len(frames) == 1 else f"{path.stem}_{i}"
        plain = atoms.copy()
        plain.calc = None
        yield NamedStructure(str(atoms.info.get("id", name)), AseAtomsAdaptor.get_structure(plain))


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
            name = entry.get("id", entry.get("material_id", f"{path.stem}_{number}"))
            yield NamedStructure(str(name), Structure.from_dict(given))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f'{path}, line {number}: expected {{"id": ..., "structure": pymatgen dictionary}} ({error}).'
            ) from error
