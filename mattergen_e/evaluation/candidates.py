"""The crystals to judge, as many as were asked for: what cannot be read, or was never made, stays in the list."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from mattergen_e.crystals.cells import physical_cell
from mattergen_e.crystals.checks import EntryError
from mattergen_e.errors import UserError
from mattergen_e.evaluation.reading import read_entries
from mattergen_e.generation.records import RUN_NAME, RunRecord

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from mattergen_e.evaluation.reading import Entry
    from mattergen_e.spectra.objects import CrystalSpectra

#: Why a crystal cannot be judged, besides the reasons of `data.checks.REASONS`.
NOT_GENERATED = "not_generated"
#: Most crystals that may be missing: what a file says beyond that is not believed.
MAX_MISSING = 10**6
REASONS = {
    "broken_entry": "the line or its structure cannot be read",
    "broken_cif": "the CIF cannot be read",
    "missing_structure": "there are no sites",
    "absurd_cell": "the cell has no physical size, or numbers that are not finite",
    "overlapping_sites": "a CIF has several atoms in one place, which its reader takes for one site",
    "disordered": "sites are shared by several species or partly occupied",
    "unknown_element": "a site holds no chemical element",
    NOT_GENERATED: "it was asked for, but no draw gave a crystal",
}


@dataclass(frozen=True, eq=False)
class Candidate:
    """One crystal that was asked for.

    Attributes:
        index: Its number in the run, or its place in the file.
        structure: The crystal without oxidation states, site properties as generated; None if it cannot be judged.
        reason: Why it cannot be judged, a key of `REASONS`; None if it can.
        sentence: The same for people.
        key: SHA-256 of atomic numbers, cell and fractional coordinates: the same crystal has the same key.
        conditions: Values that it was asked to have, by MatterGen's name.
        spectra: Of its sites, where the model generated them.
        values: Of the crystal, by descriptor, where the model generated any.
        arrays: Of a grid in its cell, (nx, ny, nz, dim) by descriptor.
        name: What the input calls it: the file's name or the number of the line or frame.
    """

    index: int
    structure: Structure | None
    reason: str | None
    key: str
    conditions: dict[str, Any] = field(default_factory=dict)
    spectra: CrystalSpectra | None = None
    sentence: str | None = None
    name: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Candidates(Sequence[Candidate]):
    """All crystals that were asked for, in the order of their indices.

    Attributes:
        items: The crystals.
        files: What was read: paths.
        run: run.json of a joint model's output; empty if there is none.
        conditions: That all of them share.
    """

    items: tuple[Candidate, ...]
    files: tuple[Path, ...]
    run: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    @property
    def readable(self) -> list[Candidate]:
        """Those that can be judged."""
        return [candidate for candidate in self.items if candidate.structure is not None]

    @property
    def conditions(self) -> dict[str, Any]:
        """What all readable crystals were asked to have; without any of them, what the run was asked for."""
        found = [candidate.conditions for candidate in self.readable]
        if not found:
            return dict(self.run.get("settings", {}).get("conditions") or {})
        return {name: value for name, value in found[0].items() if all(c.get(name) == value for c in found)}


def structure_key(structure: Structure) -> str:
    """SHA-256 of atomic numbers, cell and fractional coordinates, as hexadecimal digits."""
    digest = hashlib.sha256(np.asarray(structure.atomic_numbers, dtype="<i4").tobytes())
    for array in (structure.lattice.matrix, structure.frac_coords):
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()


def read_candidates(path: str | Path, asked: int | None = None) -> Candidates:
    """Read generated crystals, whoever made them.

    Args:
        path: Output folder of a joint model or of MatterGen (generated_crystals.jsonl, .extxyz or _cif.zip, the first
            that is there), a folder of CIF, POSCAR, extxyz or JSON lines files, or one such file or a zip of CIFs.
        asked: How many crystals were asked for. By default what run.json says (crystals and failed ones), otherwise
            the number of entries.

    Returns:
        One candidate per crystal asked for, sorted by index. An entry that cannot be read takes the place of a
        crystal, with the reason.

    Raises:
        UserError: If the path does not exist or holds no crystals, or fewer were asked for than there are.
    """
    path = Path(path)
    entries, files = read_entries(path)
    run, run_file = _read_run(path if path.is_dir() else path.parent, files)
    given = asked is not None
    if asked is None and run:
        asked = max(run["crystals"] + run["failed"], len(entries))
    if asked is None:
        asked = len(entries)
    if asked == 0:
        raise UserError(
            f"{path} holds no crystals: give the output folder of a generation, or files or folders of CIFs."
        )
    if asked - len(entries) > MAX_MISSING:
        said = f"--asked is {asked}" if given else f"{run_file[0]} says that {asked} were asked for"
        raise UserError(f"{path} holds {len(entries)} crystals, but {said}: give --asked with the right number.")
    if asked < len(entries):
        raise UserError(f"{path} holds {len(entries)} crystals, but --asked is {asked}: give at least {len(entries)}.")
    conditions = dict(run.get("settings", {}).get("conditions") or {})
    items = [_candidate(entry, conditions) for entry in _with_own_index(entries)]
    items += _absent({candidate.index for candidate in items}, asked - len(items), conditions)
    return Candidates(tuple(sorted(items, key=lambda item: item.index)), (*files, *run_file), run)


def _read_run(folder: Path, files: Sequence[Path]) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """run.json beside generated_crystals files, as plain JSON; nothing where it is missing or of another program."""
    path = folder / RUN_NAME
    if not any(file.parent == folder and file.name.startswith("generated_crystals") for file in files):
        return {}, ()
    try:
        return RunRecord.model_validate_json(path.read_bytes()).model_dump(mode="json"), (path,)
    except FileNotFoundError:
        return {}, ()
    except (OSError, ValidationError) as error:
        raise UserError(
            f"{path} is damaged, so the number of crystals asked for is unknown: put back a copy of it, or remove it "
            "and give --asked."
        ) from error


def _with_own_index(entries: Sequence[Entry]) -> list[Entry]:
    """Entries with an index each; those of the input where all have one and no two the same."""
    own = [entry.index for entry in entries if entry.index is not None]
    if len(set(own)) < len(own) or any(index < 0 for index in own):
        return [replace(entry, index=place) for place, entry in enumerate(entries)]
    free = iter(sorted(set(range(len(entries))) - set(own)))
    return [entry if entry.index is not None else replace(entry, index=next(free)) for entry in entries]


def _candidate(entry: Entry, conditions: Mapping[str, Any]) -> Candidate:
    structure, reason, sentence = entry.structure, entry.reason, entry.sentence
    if structure is not None:
        try:
            structure = _judgeable(structure)
        except EntryError as error:
            structure, reason, sentence = None, error.reason, error.sentence
    return Candidate(
        index=entry.index or 0,
        structure=structure,
        reason=reason,
        sentence=sentence,
        key=structure_key(structure) if structure is not None else _key_of_nothing(entry.index, str(reason)),
        conditions={**_of_crystal(conditions, entry.index or 0), **entry.conditions},
        spectra=entry.spectra if structure is not None else None,
        name=entry.name,
        values=entry.values,
        arrays=entry.arrays,
    )


def _of_crystal(conditions: Mapping[str, Any], index: int) -> dict[str, Any]:
    """What one crystal of a run was asked for: several values are given in turn."""
    return {
        name: value[index % len(value)] if isinstance(value, list) and value else value
        for name, value in conditions.items()
    }


def _judgeable(structure: Structure) -> Structure:
    """The structure without oxidation states.

    Raises:
        EntryError: If it has no sites, no physical cell however it is chosen, or sites that are not one whole atom.
    """
    if len(structure) == 0:
        raise EntryError("missing_structure", "the structure has no sites")
    for i, site in enumerate(structure):
        if site.species.num_atoms > 1 + 1e-6:
            raise EntryError("overlapping_sites", f"several atoms share the place of site {i} ({site.species_string})")
        if not site.is_ordered:
            raise EntryError("disordered", f"site {i} is shared or partly occupied ({site.species_string})")
        if not _is_element(site.specie):
            raise EntryError("unknown_element", f"site {i} is {site.species_string}, which is no chemical element")
    reduced = physical_cell(structure)
    if isinstance(reduced, str):
        raise EntryError("absurd_cell", reduced)
    bare = structure.copy()
    bare.remove_oxidation_states()
    return bare


def _is_element(specie: Any) -> bool:
    from pymatgen.core import Element, Species

    return isinstance(specie, Element) or type(specie) is Species


def _key_of_nothing(index: int | None, reason: str) -> str:
    return hashlib.sha256(f"{reason} {index}".encode()).hexdigest()


def _absent(present: set[int], number: int, conditions: Mapping[str, Any]) -> list[Candidate]:
    """Crystals that were asked for and never came: they take the first free indices."""
    free = (index for index in range(len(present) + number + max(present, default=0) + 1) if index not in present)
    return [
        Candidate(
            index=index,
            structure=None,
            reason=NOT_GENERATED,
            sentence=REASONS[NOT_GENERATED],
            key=_key_of_nothing(index, NOT_GENERATED),
            conditions=_of_crystal(conditions, index),
        )
        for index, _ in zip(free, range(number), strict=False)
    ]
