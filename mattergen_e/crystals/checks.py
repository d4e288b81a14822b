"""What makes an entry unusable: every finding is one sentence for people and one reason code for programs."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pymatgen.core import Structure

REASONS = {
    "broken_entry": "the line or its structure cannot be read",
    "broken_cif": "the CIF cannot be read",
    "missing_id": "there is no id",
    "missing_structure": "there is no structure",
    "duplicate_id": "an earlier entry has the same id",
    "bad_split": "the split is none of train, val, test",
    "bad_property": "a property of the crystal is no finite number, or no space group",
    "disordered": "sites are shared by several species or partly occupied",
    "unknown_element": "MatterGen does not generate the element",
    "too_many_sites": "the reduced cell has too many sites",
    "absurd_cell": "the cell has no physical size",
    "overlapping_sites": "two sites are at the same place",
    "site_count_mismatch": "the number of values is not that of the sites",
    "nan_values": "values are known for a part of the sites only, or are no finite numbers",
    "not_neutral": "the charges do not add up to zero",
    "not_aligned": "sites cannot be followed into the reduced cell, or joined sites disagree",
}

NEUTRAL_SITE_VALUES = frozenset({"bader_charge"})
SITE_VALUE_UNITS = {
    "bader_charge": "e",
    "mulliken_charge": "e",
    "loewdin_charge": "e",
    "magmom": "mu_B",
    "atomic_dos": "states/eV",
    "total_dos": "states/eV/atom",
}
SITE_VALUE_DIMS = {"bader_charge": 1, "mulliken_charge": 1, "loewdin_charge": 1, "magmom": 1}

#: Values of a crystal that do not depend on the choice of the cell; every other one belongs to the sites.
CRYSTAL_VALUES = frozenset({"total_dos"})
#: Spectra: joined ones are compared by their area.
SPECTRA = frozenset({"atomic_dos"})

MAX_INPUT_SITES = 1000
MIN_VOLUME_PER_SITE = 1.0
MAX_VOLUME_PER_SITE = 2000.0
MAX_SLENDERNESS = 1e5
MIN_DISTANCE = 0.5


class EntryError(ValueError):
    """One entry that cannot be used.

    Attributes:
        reason: One of the keys of `REASONS`.
        sentence: What is wrong and where, for people.
        entry_id: Id of the entry, as far as it could be read.
    """

    def __init__(self, reason: str, sentence: str, entry_id: str | None = None) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence
        self.entry_id = entry_id


@dataclass(frozen=True)
class CheckOptions:
    """Limits of the checks.

    Attributes:
        elements: Atomic numbers that MatterGen generates.
        max_atoms: Most sites of a reduced cell.
        neutrality_tolerance: Largest |sum of charges| of a crystal, in e.
        merge_tolerance: Largest deviation of joined site values from their mean, in the unit of the value.
        spectrum_tolerance: Largest area between joined spectra and their mean, as a share of the mean's area.
    """

    elements: frozenset[int]
    max_atoms: int = 20
    neutrality_tolerance: float = 0.05
    merge_tolerance: float = 0.02
    spectrum_tolerance: float = 0.1


@cache
def mattergen_names() -> tuple[frozenset[int], tuple[str, ...]]:
    """Atomic numbers that MatterGen generates, and the names of the properties that it knows."""
    with contextlib.redirect_stdout(io.StringIO()):
        from mattergen.common.utils.globals import PROPERTY_SOURCE_IDS, SELECTED_ATOMIC_NUMBERS
    return frozenset(SELECTED_ATOMIC_NUMBERS), tuple(PROPERTY_SOURCE_IDS)


def check_input(structure: Structure, options: CheckOptions) -> None:
    """Check a cell as it comes from the file, before it is reduced.

    Raises:
        EntryError: With reason absurd_cell, disordered, unknown_element or too_many_sites.
    """
    if len(structure) == 0:
        raise EntryError("missing_structure", "the structure has no sites")
    if len(structure) > MAX_INPUT_SITES:
        raise EntryError(
            "too_many_sites", f"the input cell has {len(structure)} sites, more than {MAX_INPUT_SITES} are not read"
        )
    check_cell(structure)
    if not structure.is_ordered:
        site = next(i for i, s in enumerate(structure) if not s.is_ordered)
        raise EntryError(
            "disordered",
            f"site {site} is shared or partly occupied ({structure.sites[site].species_string}); MatterGen needs one "
            "whole atom per site",
        )
    for i, site in enumerate(structure):
        if getattr(site.specie, "Z", None) not in options.elements:
            raise EntryError("unknown_element", f"site {i} is {site.species_string}, which MatterGen does not generate")


def check_cell(structure: Structure) -> None:
    """Check that a cell has a physical size.

    Raises:
        EntryError: With reason absurd_cell.
    """
    if not all(structure.lattice.pbc):
        raise EntryError("absurd_cell", "the cell is not periodic in all three directions")
    if not np.all(np.isfinite(structure.frac_coords)):
        raise EntryError("absurd_cell", "the positions are not finite numbers")
    check_lattice(structure.lattice.matrix, len(structure))


def check_lattice(matrix: NDArray[np.floating], n_sites: int) -> None:
    """Check the size of a lattice.

    Args:
        matrix: (3, 3), rows are the lattice vectors in Å.
        n_sites: Number of sites, at least 1.

    Raises:
        EntryError: With reason absurd_cell.
    """
    if matrix.shape != (3, 3) or not np.all(np.isfinite(matrix)):
        raise EntryError("absurd_cell", "the cell is not made of three vectors of three finite numbers")
    with np.errstate(all="ignore"):
        volume = abs(float(np.linalg.det(matrix)))
        longest = float(np.linalg.norm(matrix, axis=1).max())
    per_site = volume / n_sites
    if not MIN_VOLUME_PER_SITE <= per_site <= MAX_VOLUME_PER_SITE:
        raise EntryError(
            "absurd_cell",
            f"the cell has {per_site:.4g} Å^3 per site, expected {MIN_VOLUME_PER_SITE:g} to {MAX_VOLUME_PER_SITE:g}",
        )
    if not longest**3 / volume <= MAX_SLENDERNESS:
        raise EntryError(
            "absurd_cell", f"the cell has an edge of {longest:.4g} Å but a volume of only {volume:.4g} Å^3"
        )


def check_reduced(structure: Structure, options: CheckOptions) -> None:
    """Check a reduced cell.

    Raises:
        EntryError: With reason too_many_sites or overlapping_sites.
    """
    if len(structure) > options.max_atoms:
        raise EntryError(
            "too_many_sites", f"the reduced cell has {len(structure)} sites, more than the {options.max_atoms} allowed"
        )
    check_distances(structure)


_IMAGES = np.array([(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)], dtype=float)


def check_distances(structure: Structure) -> None:
    """Check that no two sites of a reduced cell are closer than `MIN_DISTANCE`.

    Raises:
        EntryError: With reason overlapping_sites.
    """
    n_sites = len(structure)
    if n_sites < 2:
        return
    first, second = np.triu_indices(n_sites, 1)
    frac = structure.frac_coords
    delta = frac[first] - frac[second]
    delta -= np.round(delta)
    vectors = (delta[:, None, :] + _IMAGES[None, :, :]) @ structure.lattice.matrix
    distance = np.sqrt((vectors**2).sum(axis=-1).min(axis=1))
    pair = int(np.argmin(distance))
    if distance[pair] < MIN_DISTANCE:
        raise EntryError(
            "overlapping_sites",
            f"sites {first[pair]} and {second[pair]} of the reduced cell are {distance[pair]:.3g} Å apart, less than "
            f"{MIN_DISTANCE:g} Å",
        )


def check_site_values(name: str, values: NDArray[np.floating], n_sites: int) -> bool:
    """Check the values of one kind on the sites of the input cell.

    Args:
        name: Name of the site value.
        values: Array (n_values, dim).
        n_sites: Number of sites of the input cell.

    Returns:
        Whether the values are known (False: every one is NaN).

    Raises:
        EntryError: With reason site_count_mismatch or nan_values.
    """
    if values.ndim != 2 or len(values) != n_sites:
        raise EntryError("site_count_mismatch", f"{name} has {len(values)} values for {n_sites} sites")
    dim = SITE_VALUE_DIMS.get(name)
    if values.shape[1] == 0 or dim not in (None, values.shape[1]):
        raise EntryError(
            "site_count_mismatch", f"{name} has {values.shape[1]} numbers per site, expected {dim or 'at least one'}"
        )
    if np.isnan(values).all():
        return False
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(values.astype(np.float32)).all(axis=1)
    if np.any(bad):
        raise EntryError(
            "nan_values",
            f"{name} has no finite value at {int(bad.sum())} of {n_sites} sites (first: site {int(np.argmax(bad))})",
        )
    return True


def check_crystal_value(name: str, values: NDArray[np.floating]) -> bool:
    """Check an array of a crystal.

    Args:
        name: Name of the value.
        values: Array (dim,).

    Returns:
        Whether the values are known (False: every one is NaN).

    Raises:
        EntryError: With reason site_count_mismatch or nan_values.
    """
    if values.ndim != 1 or len(values) == 0:
        raise EntryError("site_count_mismatch", f"{name} has the shape {values.shape}, expected one list of numbers")
    if np.isnan(values).all():
        return False
    if not np.isfinite(values).all():
        raise EntryError("nan_values", f"{name} has {int((~np.isfinite(values)).sum())} values that are not finite")
    return True


def check_neutral(name: str, values: NDArray[np.floating], tolerance: float) -> None:
    """Check that the charges of a reduced cell add up to zero; values that need not are passed.

    Args:
        name: Name of the site value.
        values: (n_sites, dim), in e.
        tolerance: Largest |sum|, in e per crystal. The values are never shifted.

    Raises:
        EntryError: With reason not_neutral.
    """
    if name not in NEUTRAL_SITE_VALUES:
        return
    total = float(np.abs(values.sum(axis=0)).max())
    if total > tolerance:
        signed = float(values.sum())
        raise EntryError(
            "not_neutral", f"{name} adds up to {signed:+.4g} e in the reduced cell, more than {tolerance:g} e from zero"
        )
