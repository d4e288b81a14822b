"""Which lattice mappings of a pair of cells can be, and which certainly are, a match to pymatgen's StructureMatcher.

`StructureMatcher._strict_match` goes through lattice mappings and, for each, through translations that lay one site on
another. It pairs the sites only where every site of the smaller cell has a site of its kind in the other within a box
in fractional coordinates (`is_coord_subset_pbc`). The pair matches if one mapping and translation passes that test and
its pairing is close enough (see `displacements`); their order does not matter. The test is made here for many mappings
and translations at once, in a box wider than rounding can matter: what fails here fails there.

The cell that is laid onto the other may be given in any basis of its lattice, with its sites in pymatgen's order: the
mapped cells, and the sites modulo them, are the lattice's own, and the first of the pickiest sites is the same. Only
the matrices of the mappings are not, so that pymatgen must be told those of its own basis. The other cell must be the
reduced one, as tolerances are those of its vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mattergen_e.matching.cell import Cell
from mattergen_e.matching.limits import check_elements
from mattergen_e.matching.prefilters.displacements import CHUNK, Partners, judge
from mattergen_e.matching.prefilters.lattices import AverageCells, Mappings, Target, Tolerances, cosets, mappings

#: Mappings, and mappings and translations, that are looked at before all others: a good match is among them.
FIRST = 6
#: Distances along one axis that are looked at together, at most: what fits into a processor's cache.
BLOCK = 30_000


@dataclass(frozen=True)
class Pair:
    """Two cells, and how one is sought in the other.

    Attributes:
        moving: The cell that is laid onto the other, in any basis of its lattice.
        target: The cell that it is laid onto, reduced.
        scale: What lengths of `moving` are multiplied with, so that the two have one volume as pymatgen scales them.
        larger_moves: Whether it is `moving` that has all sites of the other (`struct1` of `_strict_match`).
        forbidden: (sites of the smaller, sites of the larger), True where sites cannot be the same; before a supercell
            is made.
        size: Cells in the supercell, which is made of `moving`.
    """

    moving: Cell
    target: Cell
    scale: float
    larger_moves: bool
    forbidden: NDArray[np.bool_]
    size: int

    @property
    def sites(self) -> int:
        """Sites of the larger structure, after a supercell is made."""
        return len(self.moving) * self.size if self.larger_moves else len(self.target)

    @property
    def copies(self) -> int:
        """Copies of a site of the larger structure."""
        return self.size if self.larger_moves else 1


def outlook(pair: Pair, tolerances: Tolerances) -> tuple[bool, NDArray[np.int64]]:
    """Whether a pair certainly matches, and if not, the mappings (n, 3, 3) that may; all others certainly fail.

    Raises:
        TooLarge: If there are too many ways to try.
    """
    target = pair.target.target
    moving = pair.moving
    found = mappings(moving.matrix * pair.scale, moving.spacing * pair.scale, target, pair.size, tolerances)
    if not len(found):
        return False, found.matrices
    forbidden = np.repeat(pair.forbidden, pair.size, axis=int(pair.larger_moves)) if pair.size > 1 else pair.forbidden
    partners = Partners(forbidden)
    promising = np.zeros(len(found), dtype=bool)
    order = np.argsort(found.strain, kind="stable")
    for part in (order[:FIRST], order[FIRST:]):
        if not len(part):
            break
        certain, possible = _try(pair, found.take(part), target, partners, tolerances)
        if certain:
            return True, found.matrices[:0]
        promising[part[possible]] = True
    return False, found.matrices[promising]


def _try(
    pair: Pair, found: Mappings, target: Target, partners: Partners, tolerances: Tolerances
) -> tuple[bool, NDArray[np.bool_]]:
    """Whether one of several mappings certainly is a match, and which of them may be."""
    cells = AverageCells.of(found, target, pair.sites, tolerances)
    moved = _supercell(pair.moving.positions, found.matrices, pair.size)
    still = np.broadcast_to(pair.target.positions, (len(found), *pair.target.positions.shape))
    big, small = (moved, still) if pair.larger_moves else (still, moved)
    mapping, shift = _survivors(big, small, partners.forbidden, cells.box, pair.copies)
    promising = cells.flat.copy()
    ends = [*range(FIRST, len(mapping), CHUNK), len(mapping)]
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        part = mapping[start:end]
        if not len(part):
            break
        offsets = small[part] + shift[start:end, None]
        possible, certain = judge(big[part], offsets, partners, cells.take(part))
        if certain:
            return True, promising
        promising[part[possible]] = True
    return False, promising


def _supercell(positions: NDArray[np.float64], found: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Positions (mappings, n * size, 3) in the mapped cells; the copies of a site follow each other."""
    moved = positions @ np.linalg.inv(found)
    if size > 1:
        check_elements(moved.size * size)
        moved = (moved[:, :, None] + cosets(found, size)[:, None]).reshape(len(found), -1, 3)
    return moved


def _survivors(
    big: NDArray[np.float64],
    small: NDArray[np.float64],
    forbidden: NDArray[np.bool_],
    box: NDArray[np.float64],
    copies: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Mappings (k,) and translations (k, 3) that put every small site into the box of a big one of its kind.

    The translations lay the pickiest small site on each big one of its kind; of the copies of a site in a supercell,
    which are a lattice vector apart, one is enough.
    """
    refused = forbidden.sum(axis=1)
    anchor = int(np.argmax(refused))
    starts = big[:, np.flatnonzero(~forbidden[anchor])[::copies]] - small[:, anchor, None]
    mapping = np.repeat(np.arange(len(big)), starts.shape[1])
    shift = starts.reshape(-1, 3)
    order = np.argsort(-refused, kind="stable")
    order = order[order != anchor]
    large, little, sides = big.transpose(2, 0, 1), small.transpose(2, 0, 1), box.T
    while len(order) and len(mapping):
        check_elements(len(mapping) * big.shape[1] * 3)
        taken = max(1, BLOCK // (len(mapping) * big.shape[1]))
        block, order = order[:taken], order[taken:]
        near = ~forbidden[block][None]
        for axis in range(3):
            places = little[axis][mapping[:, None], block] + shift[:, axis, None]
            offset = places[:, :, None] - large[axis][mapping][:, None]
            offset -= np.rint(offset)
            near = near & (np.abs(offset) <= sides[axis][mapping, None, None])
        alive = near.any(axis=2).all(axis=1)
        mapping, shift = mapping[alive], shift[alive]
    return mapping, shift
