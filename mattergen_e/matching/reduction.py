"""The primitive Niggli cell as pymatgen's StructureMatcher takes it, without a search where none can succeed."""

from __future__ import annotations

from functools import reduce
from itertools import groupby
from math import gcd
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from mattergen_e.matching.cell import Cell

#: `tolerance` of `Structure.get_primitive_structure`, in Å.
TOLERANCE = 0.25
_SLACK = 1e-6
#: Half the longest diagonal of a box with edges of 4 TOLERANCE along the vectors of a Niggli cell, in Å.
DIAGONAL = 2 * TOLERANCE * 6**0.5


def primitive(niggli: Structure) -> Structure:
    """The cell that StructureMatcher compares: Niggli-reduced first, then primitive."""
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


def is_primitive_in_any_basis(cell: Cell) -> bool:
    """Whether `is_primitive` holds after a Niggli reduction, told without it; False if that is not certain.

    The angles of a Niggli cell are between 60 and 120 degrees, and if one is below 90, all are: so the boxes that
    `is_primitive` speaks of lie within spheres of radius sqrt(6) 2 TOLERANCE, and no lattice vector is shorter than the
    least distance of lattice planes, here and there. Which of the rarest species is taken does not matter if none has a
    vector left but zero.
    """
    divisor = cell.divisor
    if divisor == 1:
        return True
    if divisor * TOLERANCE >= cell.spacing.min() * (1 - _SLACK):
        return False
    radius = DIAGONAL * (1 + 1e-3)
    box = radius / cell.spacing
    groups = [cell.positions[cell.labels == label] for label in range(len(cell.kinds))]
    groups.sort(key=len)
    differences = [sites[None, :] - sites[:, None] for sites in groups]
    for rarest in groups:
        if len(rarest) > len(groups[0]):
            break
        vectors = rarest[1:] - rarest[0]
        for apart in differences:
            vectors = vectors[_maps_all(vectors, apart, box, cell.matrix, radius)]
            if not len(vectors):
                break
        if len(vectors):
            return False
    return True


def _groups(structure: Structure) -> list[NDArray[np.float64]]:
    """Fractional positions of each species, in the order of the sites."""
    labelled = sorted(zip((site.species_string for site in structure), structure.frac_coords, strict=True), key=_label)
    return [np.array([position for _, position in group]) for _, group in groupby(labelled, key=_label)]


def _label(item: tuple[str, NDArray[np.float64]]) -> str:
    return item[0]


def _maps_all(
    vectors: NDArray[np.float64],
    differences: NDArray[np.float64],
    box: NDArray[np.float64],
    matrix: NDArray[np.float64] | None = None,
    radius: float = 0.0,
) -> NDArray[np.bool_]:
    """Which vectors (m, 3) are, for every site i, one of its differences (i, j, 3) within the box; (m,).

    With a cell (3, 3) also within a radius in Å, where the box around a sphere of that radius is given.
    """
    left = vectors[:, None, None] - differences[None]
    left -= np.round(left)
    near = (np.abs(left) < box).all(axis=-1)
    if matrix is not None and (box < 0.5).all():  # no other image is as near
        near &= ((left @ matrix) ** 2).sum(axis=-1) < radius**2
    return near.any(axis=-1).all(axis=-1)
