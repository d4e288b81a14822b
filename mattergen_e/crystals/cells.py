"""What every judgement of a crystal begins with: what it is made of, and a cell of physical size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mattergen_e.crystals.checks import MAX_VOLUME_PER_SITE, MIN_VOLUME_PER_SITE, EntryError, check_cell

if TYPE_CHECKING:
    from pymatgen.core import Lattice, Structure

NO_CRYSTAL = "there is no crystal"
NOT_ELEMENTS = "its sites are not single elements"

Composition = tuple[tuple[int, ...], tuple[int, ...]]
"""Atomic numbers, ascending, and how many atoms each has in the reduced formula."""


def reduced_counts(structure: Structure | None) -> Composition | str:
    """The composition of a crystal, or why there is none."""
    if structure is None or len(structure) == 0:
        return NO_CRYSTAL
    try:
        numbers, counts = np.unique(np.asarray(structure.atomic_numbers, dtype=np.int64), return_counts=True)
    except (AttributeError, TypeError, ValueError):  # shared sites
        return NOT_ELEMENTS
    counts = counts // np.gcd.reduce(counts)
    return tuple(numbers.tolist()), tuple(counts.tolist())


def physical_cell(structure: Structure | None) -> Structure | str:
    """The crystal in a reduced cell (LLL), its sites in their order, or why its cell is not one of a crystal.

    A model may describe a sound crystal by a long and flat cell. So the limits of training data (1 to 2000 Å^3 per
    site, no edge that is absurd for the volume; see `mattergen_e.crystals.checks`) are applied to the reduced cell.
    """
    from pymatgen.core import Structure

    if structure is None or len(structure) == 0:
        return NO_CRYSTAL
    try:
        lattice = _reduced(structure.lattice, len(structure))
        if lattice is not structure.lattice:
            positions = structure.cart_coords
            structure = Structure(lattice, structure.species_and_occu, positions, coords_are_cartesian=True)
        check_cell(structure)
    except EntryError as error:
        return error.sentence
    return structure


def _reduced(lattice: Lattice, n_sites: int) -> Lattice:
    """The lattice itself if its volume is out of bounds, or no number."""
    with np.errstate(all="ignore"):
        volume = abs(float(np.linalg.det(lattice.matrix))) / n_sites
    if not MIN_VOLUME_PER_SITE <= volume <= MAX_VOLUME_PER_SITE:
        return lattice
    return lattice.get_lll_reduced_lattice()
