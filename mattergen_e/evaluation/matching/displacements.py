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

from mattergen_e.evaluation.matching.lattices import AverageCells
from mattergen_e.evaluation.matching.limits import MAX_ELEMENTS

#: Mappings and translations that are looked at together, at most.
CHUNK = 32
#: How much less or more than r is certain, as a share.
SLACK = 1e-6


def judge(
    big: NDArray[np.float64], small: NDArray[np.float64], forbidden: NDArray[np.bool_], cells: AverageCells
) -> tuple[NDArray[np.bool_], bool]:
    """Which of several mappings and translations may match, and whether one certainly does.

    Args:
        big: (k, n, 3), fractional.
        small: (k, m, 3), the translation added.
        forbidden: (m, n), True where sites cannot be the same.
        cells: The k average cells.
    """
    extent = np.floor(cells.box.max(axis=0) + 0.5).astype(int)
    if cells.flat.any() or len(big) * forbidden.size * 3 * float(np.prod(2.0 * extent + 1)) > MAX_ELEMENTS:
        return np.ones(len(big), dtype=bool), False
    images = np.stack(np.meshgrid(*(np.arange(-e, e + 1) for e in extent), indexing="ij"), axis=-1).reshape(-1, 3)
    site, partner = np.nonzero(~forbidden)
    first = np.searchsorted(site, np.arange(len(forbidden))) * len(images)
    offset = big[:, partner] - small[:, site]
    offset -= np.round(offset)
    vectors = (offset[:, :, None] + images).reshape(len(big), -1, 3) @ cells.matrix
    reach = 4 * cells.radius**2
    near = np.einsum("kpi,kpi->kp", vectors, vectors) <= (reach * (1 + SLACK))[:, None]
    count = np.add.reduceat(near, first, axis=1, dtype=np.int64)
    possible = (count > 0).all(axis=1)
    single = (count == 1).all(axis=1)
    chosen = np.nonzero(near[single])[1].reshape(-1, len(forbidden))
    k = np.flatnonzero(single)
    paired = vectors[k[:, None], chosen]
    spread = np.sqrt(((paired - paired.mean(axis=1, keepdims=True)) ** 2).sum(axis=-1).max(axis=1))
    possible[k] = spread < cells.radius[k] * (1 + SLACK)
    partners = np.sort(partner[chosen // len(images)], axis=1)
    longest = (paired**2).sum(axis=-1).max(axis=1)
    certain = cells.tight[k] & (partners[:, 1:] != partners[:, :-1]).all(axis=1)
    certain &= (spread < cells.radius[k] * (1 - SLACK)) & (longest < reach[k] * (1 - SLACK))
    return possible, any(_reached(cells.matrix[k[i]], float(longest[i]) ** 0.5) for i in np.flatnonzero(certain)[:1])


def _reached(matrix: NDArray[np.float64], longest: float) -> bool:
    """Whether pymatgen, which looks at 27 images of an LLL-reduced cell, sees all vectors up to a length in Å.

    It does if their components along the reduced vectors are below 1: half of that is asked for, since an LLL-reduced
    cell is not the only one.
    """
    from pymatgen.core import Lattice

    reduced = np.linalg.inv(Lattice(matrix).lll_matrix)
    return bool(longest * np.linalg.norm(reduced, axis=0).max() < 0.5)
