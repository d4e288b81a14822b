"""What makes an entry unusable: every finding is one sentence for people and one reason code for programs."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.quantity import Quantity
from mattergen_e.upstream import mattergens_properties

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
    "bad_charge": "a charge is beyond what its element can lose or take",
    "grid_mismatch": "the values are not on the grid that was declared",
    "grid_not_aligned": "the grid of the file has no points in common with a grid of the reduced cell",
    "other_functional": "the label is of another functional than the one that was asked for",
    "not_aligned": "sites cannot be followed into the reduced cell, or joined sites disagree",
}

MAX_INPUT_SITES = 1000
#: Å^3, of crystals that are read as well as of generated ones that are kept; solid hydrogen under pressure has more.
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
        from mattergen.common.utils.globals import SELECTED_ATOMIC_NUMBERS
    return frozenset(SELECTED_ATOMIC_NUMBERS), mattergens_properties()


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


def check_site_values(quantity: Quantity, values: NDArray[np.floating], n_sites: int) -> bool:
    """Check the values of one kind on the sites of the input cell.

    Args:
        quantity: Of the values.
        values: Array (n_values, dim).
        n_sites: Number of sites of the input cell.

    Returns:
        Whether the values are known (False: every one is NaN).

    Raises:
        EntryError: With reason site_count_mismatch or nan_values.
    """
    name = quantity.name
    if values.ndim != 2 or len(values) != n_sites:
        raise EntryError("site_count_mismatch", f"{name} has {len(values)} values for {n_sites} sites")
    if values.shape[1] == 0 or quantity.dim not in (None, values.shape[1]):
        expected = quantity.dim or "at least one"
        raise EntryError("site_count_mismatch", f"{name} has {values.shape[1]} numbers per site, expected {expected}")
    if np.isnan(values).all():
        return False
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(values.astype(np.float32)).all(axis=1)
    if np.any(bad):
        raise EntryError(
            "nan_values",
            f"{name} has no finite value at {int(bad.sum())} of {n_sites} sites (first: site {int(np.argmax(bad))})",
        )
    if quantity.check is not None:
        quantity.check(values)
    return True


def check_crystal_value(quantity: Quantity, values: NDArray[np.floating]) -> bool:
    """Check a value of a crystal, or its values on a grid.

    Args:
        quantity: Of the values.
        values: Array (dim,), or (nx, ny, nz, dim) for a grid.

    Returns:
        Whether the values are known (False: every one is NaN).

    Raises:
        EntryError: With reason site_count_mismatch, grid_mismatch or nan_values.
    """
    name, n_axes = quantity.name, 4 if quantity.place == "grid" else 1
    if values.ndim != n_axes or values.size == 0:
        expected = "one list of numbers" if n_axes == 1 else "(nx, ny, nz, dim)"
        raise EntryError(
            "site_count_mismatch" if n_axes == 1 else "grid_mismatch",
            f"{name} has the shape {values.shape}, expected {expected}",
        )
    if quantity.dim not in (None, values.shape[-1]):
        raise EntryError("site_count_mismatch", f"{name} has {values.shape[-1]} numbers, expected {quantity.dim}")
    if n_axes == 4 and quantity.probes not in (None, values.shape[:3]):
        raise EntryError(
            "grid_mismatch", f"{name} has {values.shape[:3]} points along a, b and c, expected {quantity.probes}"
        )
    if np.isnan(values).all():
        return False
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32))
    if not finite.all():
        raise EntryError("nan_values", f"{name} has {int((~finite).sum())} values that are not finite")
    if quantity.check is not None:
        quantity.check(values.reshape(-1, values.shape[-1]))
    return True


def check_neutral(quantity: Quantity, values: NDArray[np.floating], tolerance: float) -> None:
    """Check that values of a reduced cell that have to add up to zero do so.

    Args:
        quantity: Of the values.
        values: (n_sites, dim).
        tolerance: Largest |sum| per crystal. The values are never shifted.

    Raises:
        EntryError: With reason not_neutral.
    """
    if not quantity.sums_to_zero:
        return
    total, unit = float(np.abs(values.sum(axis=0)).max()), quantity.unit
    if total > tolerance:
        signed = float(values.sum())
        raise EntryError(
            "not_neutral",
            f"{quantity.name} adds up to {signed:+.4g} {unit} in the reduced cell, more than {tolerance:g} {unit} from "
            "zero",
        )
