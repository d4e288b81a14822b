"""The primitive Niggli cell as pymatgen's StructureMatcher takes it, without a search where none can succeed."""

from __future__ import annotations

from functools import reduce
from itertools import groupby
from math import gcd
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mattergen_e.evaluation.matching.limits import check_size

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: `tolerance` of `Structure.get_primitive_structure`, in Å.
TOLERANCE = 0.25
_SLACK = 1e-6


def reduced(structure: Structure) -> Structure:
    """The cell that StructureMatcher compares: Niggli-reduced first, then primitive.

    Raises:
        TooLarge: If the cell is so absurd that the reduction might not end.
        ValueError: If pymatgen finds no Niggli cell.
    """
    check_size(structure.lattice)
    niggli = structure.get_reduced_structure()
    return niggli if is_primitive(niggli) else niggli.get_primitive_structure()  # type: ignore[return-value]


def is_primitive(structure: Structure) -> bool:
    """Whether `get_primitive_structure` certainly returns a copy of the structure; False if that is not certain.

    It tries sublattices of index n for the divisors n > 1 of the greatest common divisor g of the numbers of sites of
    each species: there are none if g = 1. Otherwise it keeps of the vectors from one site of the rarest species to the
    others (and zero) those that take every site to one of its kind within a box of 2 TOLERANCE along each cell vector,
    and each row of the inverse of a sublattice's Hermite matrix must be one of these within a box of TOLERANCE. Where
    zero alone is left, the row with the last diagonal element m > 1 would have to be zero: its element 1/m, with
    m <= g, must be below TOLERANCE / length of a cell vector. It is not if g TOLERANCE < length for all three.
    """
    groups = _groups(structure)
    divisor = reduce(gcd, map(len, groups))
    if divisor == 1:
        return True
    lengths = np.array(structure.lattice.abc)
    if divisor >= lengths.min() / TOLERANCE * (1 - _SLACK):
        return False
    box = 2 * TOLERANCE / lengths * (1 + _SLACK) + _SLACK
    groups.sort(key=len)
    vectors = groups[0] - groups[0][0]
    for sites in groups:
        differences = sites[None, :] - sites[:, None]
        vectors = vectors[_maps_all(vectors, differences, box)]
        if len(vectors) == 1:
            return True
    return False


def _groups(structure: Structure) -> list[NDArray[np.float64]]:
    """Fractional positions of each species, in the order of the sites."""
    labelled = sorted(zip((site.species_string for site in structure), structure.frac_coords, strict=True), key=_label)
    return [np.array([position for _, position in group]) for _, group in groupby(labelled, key=_label)]


def _label(item: tuple[str, NDArray[np.float64]]) -> str:
    return item[0]


def _maps_all(
    vectors: NDArray[np.float64], differences: NDArray[np.float64], box: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which vectors (m, 3) are, for every site i, one of its differences (i, j, 3) within the box; (m,)."""
    left = vectors[:, None, None] - differences[None]
    left -= np.round(left)
    return (np.abs(left) < box).all(axis=-1).any(axis=-1).all(axis=-1)
