"""What files of crystals are called, and what they call their crystals."""

from __future__ import annotations

import re
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Any

from mattergen_e.crystals.compressed import read_bytes, unpacked_name
from mattergen_e.errors import UserError

KINDS = "CIF, a zip of CIFs, POSCAR, XDATCAR, extxyz or JSON lines"
_SUFFIXES = {
    ".cif": "cif",
    ".vasp": "poscar",
    ".poscar": "poscar",
    ".extxyz": "extxyz",
    ".xyz": "extxyz",
    ".jsonl": "json",
    ".json": "json",
    ".zip": "zip",
}
_VASP = {"poscar": "poscar", "contcar": "poscar", "xdatcar": "xdatcar"}
#: Files of a VASP run that hold its crystal, the best first; all the others are left alone where folders are searched.
_OF_RUN = ("contcar", "poscar", "xdatcar")

#: What a generation leaves, the richest first; they hold the same crystals.
GENERATED = "generated_crystals"
OUTPUTS = (f"{GENERATED}.jsonl", f"{GENERATED}.extxyz", f"{GENERATED}_cif.zip")
#: Records beside crystals, which are none.
RECORDS = ("run.json", "evaluation.json")


def kind_of(path: Path) -> str | None:
    """Of the readers of this module, the one for a file; None if it is none's."""
    name = unpacked_name(path).lower()
    if name in RECORDS:
        return None
    if (kind := _SUFFIXES.get(Path(name).suffix)) is not None:
        return None if kind == "zip" and name != path.name.lower() else kind
    return next((kind for start, kind in _VASP.items() if name.startswith(start)), None)


def run_file(path: Path) -> str | None:
    """The name in small letters, if it is that of a file of a VASP run, which says nothing of the crystal."""
    name = unpacked_name(path).lower()
    return name if name in _VASP else None


def stem_of(path: Path) -> str:
    """What a file calls its crystal: its name without endings, or that of its folder where it is VASP's."""
    if run_file(path):
        return path.resolve().parent.name or unpacked_name(path)
    name = unpacked_name(path)
    return Path(name).stem if Path(name).suffix else name


def is_structure_file(path: Path) -> bool:
    """Whether a file has a name as files of structures have."""
    return kind_of(path) is not None


def structure_files(files: Iterable[Path]) -> list[Path]:
    """Files of structures among those of one folder: of a VASP run the one that holds its last crystal."""
    found = [path for path in files if is_structure_file(path)]
    of_run = [path for name in _OF_RUN for path in sorted(found) if run_file(path) == name]
    filled = [path for path in of_run if _is_filled(path)]
    dropped = {*of_run} - {*(filled or of_run)[:1]}
    return [path for path in found if path not in dropped]


def _is_filled(path: Path) -> bool:
    try:
        return path.stat().st_size > 0 and (path.stat().st_size > 100 or bool(read_bytes(path).strip()))
    except (OSError, UserError):
        return False


def natural_key(name: str) -> list[str | int]:
    """A key that sorts gen_2 before gen_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def generated_id(index: Any) -> str | None:
    """Id of a crystal by the index that a generation gave it."""
    whole = isinstance(index, Integral) and not isinstance(index, bool)
    return f"gen_{index}" if whole and int(index) >= 0 else None
