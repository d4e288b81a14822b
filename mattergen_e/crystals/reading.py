"""Structures from whatever a user has: CIF, POSCAR, extxyz, folders of them, JSON lines, the output of a generation.

`read_structures` is for those who need all, `read_readable` for those who go on without what is broken.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pymatgen.core import Structure

from mattergen_e.crystals.entries import CrystalEntry, read_entries
from mattergen_e.crystals.names import KINDS, OUTPUTS, kind_of, run_file, structure_files
from mattergen_e.errors import UserError


@dataclass(frozen=True)
class NamedStructure:
    """A structure with the name that its results go by."""

    id: str
    structure: Structure


def read_structures(sources: Iterable[str | Path]) -> list[NamedStructure]:
    """Reads all structures of files and folders, in order; folders are searched recursively, in order of names.

    Of a folder that a generation wrote to, only its crystals are read, once, and nothing below it. Of a VASP run in a
    folder, CONTCAR is read, or POSCAR if there is none or it is empty.

    Args:
        sources: Paths of CIF (all data blocks), zips of CIFs, POSCAR/CONTCAR, XDATCAR and extxyz (all frames), JSON
            lines ({"id", "structure": pymatgen dictionary} per line), each also packed (.gz, .bz2, .xz), or folders.

    Returns:
        Structures with ids: the id of a JSON line; the name of its folder for POSCAR, CONTCAR and XDATCAR; else the
        file's name without suffix (with the name of the block or the number of the frame where there are several,
        with the folder's where two files have the same). Generated crystals are gen_<index>.

    Raises:
        UserError: If a file is missing, empty, of an unknown kind, or cannot be read; names the file and the line.
    """
    found, problems = _read(sources, stop=True)
    if problems:
        raise UserError(problems[0])
    return found


def read_readable(sources: Iterable[str | Path]) -> tuple[list[NamedStructure], list[str]]:
    """As `read_structures`, but what cannot be read costs itself only.

    Returns:
        The structures, and a sentence for each file, or part of one, that cannot be read.

    Raises:
        UserError: If a path does not exist, or nothing can be read.
    """
    found, problems = _read(sources)
    if not found:
        more = f" ({len(problems) - 1} more cannot be read)" if len(problems) > 1 else ""
        raise UserError(f"{problems[0].rstrip('.')}{more}: nothing is left to read.")
    return found, problems


def _read(sources: Iterable[str | Path], stop: bool = False) -> tuple[list[NamedStructure], list[str]]:
    """Structures and what is wrong with others; `stop` at the first."""
    files = [path for source in sources for path in _files(Path(source))]
    entries: list[CrystalEntry] = []
    problems: list[str] = []
    for path in files:
        if stop and problems:
            break
        before = len(entries) + len(problems)
        try:
            for entry in read_entries(path):
                if entry.structure is None:
                    problems.append(
                        f"{path}, {entry.place} {entry.problem}." if entry.place else f"{path} {entry.problem}."
                    )
                else:
                    entries.append(entry)
        except UserError as error:
            problems.append(str(error))
        if len(entries) + len(problems) == before:
            problems.append(f"{path} " + ("holds no CIF." if kind_of(path) == "zip" else "is empty."))
    if not files:
        raise UserError(f"no structures found: give {KINDS}, or folders of them.")
    return _distinct(entries), problems


def _distinct(entries: Sequence[CrystalEntry]) -> list[NamedStructure]:
    """Structures by their ids; where files of several folders have one name, with the folder's."""
    files: dict[str, set[Path]] = {}
    for entry in entries:
        files.setdefault(entry.id, set()).add(entry.file)
    named = []
    for entry in entries:
        if not entry.told and len(files[entry.id]) > 1 and entry.structure is not None:
            folder = entry.file.resolve().parent
            above = (folder.parent if run_file(entry.file) else folder).name
            entry = replace(entry, id=f"{above}_{entry.id}" if above else entry.id)
        if entry.structure is not None:
            named.append(NamedStructure(entry.id, entry.structure))
    return named


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(_inside(path))
    if not path.is_file():
        raise UserError(f"{path} does not exist.")
    return [path]


def _inside(folder: Path) -> Iterator[Path]:
    for name, subfolders, files in os.walk(folder):
        here = Path(name)
        output = next((output for output in OUTPUTS if output in files), None)
        if output is not None:
            subfolders.clear()
            yield here / output
        else:
            yield from structure_files(here / file for file in files)
