"""Whether the sites of two cells, laid onto each other, are close enough for pymatgen's StructureMatcher.

For a mapping and translation that pass its first test, `StructureMatcher._cart_dists` pairs every small site with a big
one at the least sum of squared distances in the average cell, takes the mean displacement off, and the two match if the
largest displacement left is below r = stol (volume / sites)^(1/3). What follows from that without its arithmetic:

- Necessary. If mapping and translation match, all displacements lie within r of their mean, so within 2r of each other,
  and the translation that lays the anchor site on its partner, which is tried too, leaves every site within 2r of its
  partner. So a mapping is out if, for each of its translations, a site has no site of its kind within 2r; and if every
  site has just one within 2r, these are the partners, and their displacements from the mean must be below r.
- Sufficient. If every site has just one site of its kind within 2r, and no two the same, that pairing has the smallest
  distance of every site, so it is the least sum; the match is certain if its displacements from the mean are below r
  and the mapping is within the tolerances.

Both hold with a slack that is far beyond rounding; what lies between is for pymatgen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mattergen_e.matching.limits import MAX_ELEMENTS
from mattergen_e.matching.prefilters.lattices import AverageCells, grid

#: Mappings and translations that are looked at together, at most.
CHUNK = 32
#: How much less or more than r is certain, as a share.
SLACK = 1e-6


class Partners:
    """The pairs of sites that can be the same.

    Attributes:
        forbidden: (m, n), True where sites cannot be the same.
        site: (pairs,), of the smaller structure, increasing.
        partner: (pairs,), of the larger one.
        first: (m,), where the pairs of each site begin.
    """

    def __init__(self, forbidden: NDArray[np.bool_]) -> None:
        self.forbidden = forbidden
        self.site, self.partner = (~forbidden).nonzero()
        self.first = self.site.searchsorted(np.arange(len(forbidden)))


def judge(
    big: NDArray[np.float64], small: NDArray[np.float64], partners: Partners, cells: AverageCells
) -> tuple[NDArray[np.bool_], bool]:
    """Which of several mappings and translations may match, and whether one certainly does.

    Args:
        big: (k, n, 3), fractional.
        small: (k, m, 3), the translation added.
        partners: The pairs of sites that can be the same.
        cells: The k average cells.
    """
    extent = [int(side + 0.5) for side in cells.box.max(axis=0).tolist()]
    copies = (2 * extent[0] + 1) * (2 * extent[1] + 1) * (2 * extent[2] + 1)
    if cells.flat.any() or len(big) * partners.forbidden.size * 3.0 * copies > MAX_ELEMENTS:
        return np.ones(len(big), dtype=bool), False
    offset = big[:, partners.partner] - small[:, partners.site]
    offset -= np.rint(offset)
    if copies > 1:
        offset = (offset[:, :, None] + grid(*extent)).reshape(len(big), -1, 3)
    vectors = offset @ cells.matrix
    reach = 4 * cells.radius**2
    near = np.einsum("kpi,kpi->kp", vectors, vectors) <= (reach * (1 + SLACK))[:, None]
    count = np.add.reduceat(near, partners.first * copies, axis=1, dtype=np.int64)
    possible = (count > 0).all(axis=1)
    k = (count == 1).all(axis=1).nonzero()[0]
    if not len(k):
        return possible, False
    chosen = near[k].nonzero()[1].reshape(len(k), -1)
    paired = vectors[k[:, None], chosen]
    moved = paired - paired.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.einsum("kpi,kpi->kp", moved, moved).max(axis=1))
    possible[k] = spread < cells.radius[k] * (1 + SLACK)
    longest = np.einsum("kpi,kpi->kp", paired, paired).max(axis=1)
    certain = cells.tight[k] & (spread < cells.radius[k] * (1 - SLACK)) & (longest < reach[k] * (1 - SLACK))
    for i in certain.nonzero()[0].tolist():
        others = partners.partner[chosen[i] // copies].tolist()
        if len(set(others)) == len(others):
            return possible, _reached(cells.matrix[k[i]], float(longest[i]) ** 0.5)
    return possible, False


def _reached(matrix: NDArray[np.float64], longest: float) -> bool:
    """Whether pymatgen, which looks at 27 images of an LLL-reduced cell, sees all vectors up to a length in Å.

    It does if their components along the reduced vectors are below 1: half of that is asked for, since an LLL-reduced
    cell is not the only one. The components are at most the length times 2^1.5 over the least distance of lattice
    planes, as that is no more than any vector, and the product of the reduced vectors at most 2^1.5 times the volume.
    """
    from pymatgen.core import Lattice

    planes = np.sqrt((np.linalg.inv(matrix) ** 2).sum(axis=0)).max()
    if longest * 2**1.5 * planes < 0.5:
        return True
    reduced = np.linalg.inv(Lattice(matrix).lll_matrix)
    return bool(longest * np.linalg.norm(reduced, axis=0).max() < 0.5)
