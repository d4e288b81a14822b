"""Reading generated crystals entry by entry: one that is broken costs itself only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from numpy.typing import NDArray

from mattergen_e.crystals import entries
from mattergen_e.crystals.entries import CrystalEntry
from mattergen_e.crystals.names import KINDS, OUTPUTS, is_structure_file, natural_key, structure_files
from mattergen_e.errors import UserError
from mattergen_e.limits import open_npz
from mattergen_e.spectra.files import DOS_NAME, read_dos

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from mattergen_e.spectra.objects import CrystalSpectra


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
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


def read_entries(path: Path) -> tuple[list[Entry], list[Path]]:
    """All entries of a file or folder, and the files that were read.

    Raises:
        UserError: If the path does not exist, is of no known kind, or a file as a whole is damaged.
    """
    files = _files(path)
    found = [entry for file in files for entry in _read(file)]
    if len(files) > 1:
        found = [replace(entry, index=None) for entry in found]
    has_spectra = any(entry.spectra is not None for entry in found)
    return found, [*files, *(file.parent / DOS_NAME for file in files if has_spectra)]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        for name in OUTPUTS:
            if (path / name).is_file():
                return [path / name]
        files = (file for file in path.iterdir() if file.is_file())
        return sorted(structure_files(files), key=lambda file: natural_key(file.name))
    if not path.is_file():
        raise UserError(f"{path} does not exist: give the output folder of a generation, or files of crystals.")
    if not is_structure_file(path):
        raise UserError(f"{path} is of no known kind: give {KINDS}.")
    return [path]


def _read(file: Path) -> Iterator[Entry]:
    found = list(entries.read_entries(file, as_written=True))
    having = [entry.index for entry in found if entry.index is not None and "dos" in entry.fields]
    spectra = dict(zip(having, read_dos(file.parent / DOS_NAME, having), strict=True)) if having else {}
    opened: dict[Path, dict[str, NDArray[Any]]] = {}
    for entry in found:
        own = spectra.get(entry.index) if entry.index is not None and "dos" in entry.fields else None
        yield replace(_entry(entry, own), arrays=_arrays(file.parent, entry.fields.get("arrays"), opened))


def _arrays(folder: Path, told: Any, opened: dict[Path, dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Arrays of npz files beside the crystals, by descriptor.

    Args:
        folder: Of the crystals.
        told: What a JSON line says of them.
        opened: Contents of the files that were read already.

    Raises:
        UserError: If a file is missing or damaged.
    """
    arrays = {}
    for name, where in (told if isinstance(told, dict) else {}).items():
        file = folder / Path(str(where.get("file") if isinstance(where, dict) else where)).name
        try:
            if file not in opened:
                with open_npz(file) as content:
                    opened[file] = dict(content)
            if (key := where["keys"].get(name)) is not None:
                arrays[name] = opened[file][key]
        except (OSError, ValueError, LookupError, EOFError, AttributeError, TypeError, BadZipFile) as error:
            raise UserError(f"{file} is missing or damaged ({error}): put back a copy of it.") from None
    return arrays


def _entry(entry: CrystalEntry, spectra: CrystalSpectra | None) -> Entry:
    if entry.file.suffix.lower() == ".zip":
        name = entry.place
    else:
        name = f"{entry.file.name}, {entry.place}" if entry.place else entry.file.name
    conditions, values = entry.fields.get("conditions"), entry.fields.get("values")
    return Entry(
        str(entry.fields.get("id", entry.fields.get("material_id", name))),
        entry.structure,
        entry.reason,
        f"{name} {entry.problem}" if entry.reason else None,
        entry.index,
        conditions if isinstance(conditions, dict) else {},
        spectra,
        values if isinstance(values, dict) else {},
    )
