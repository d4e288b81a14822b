"""Which lattice mappings of a pair of cells can be, and which certainly are, a match to pymatgen's StructureMatcher.

`StructureMatcher._strict_match` goes through lattice mappings and, for each, through translations that lay one site on
another. It pairs the sites only where every site of the smaller cell has a site of its kind in the other within a box
in fractional coordinates (`is_coord_subset_pbc`). The pair matches if one mapping and translation passes that test and
its pairing is close enough (see `displacements`); their order does not matter. The test is made here for many mappings
and translations at once, in a box wider than rounding can matter: what fails here fails there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pymatgen.util.coord import lattice_points_in_supercell

from mattergen_e.evaluation.matching.displacements import CHUNK, judge
from mattergen_e.evaluation.matching.lattices import AverageCells, Tolerances, mappings
from mattergen_e.evaluation.matching.limits import check_elements

#: Mappings, and mappings and translations, that are looked at before all others: a good match is among them.
FIRST = 6


@dataclass(frozen=True)
class Pair:
    """Two reduced cells, scaled to one volume as pymatgen scales them, and how one is sought in the other.

    Attributes:
        larger: Cell (3, 3) in Å and fractional positions (n, 3) of the structure that has all sites of the other:
            `struct1` of `_strict_match`.
        smaller: The same of `struct2`, (m, 3).
        forbidden: (m, n), True where sites cannot be the same; before a supercell is made.
        size: Cells in the supercell.
        larger_moves: Whether the supercell is made of the larger structure.
    """

    larger: tuple[NDArray[np.float64], NDArray[np.float64]]
    smaller: tuple[NDArray[np.float64], NDArray[np.float64]]
    forbidden: NDArray[np.bool_]
    size: int
    larger_moves: bool


def outlook(pair: Pair, tolerances: Tolerances) -> tuple[bool, NDArray[np.int64]]:
    """Whether a pair certainly matches, and if not, the mappings (n, 3, 3) that may; all others certainly fail.

    Raises:
        TooLarge: If there are too many ways to try.
    """
    moving, target = (pair.larger, pair.smaller) if pair.larger_moves else (pair.smaller, pair.larger)
    found = mappings(moving[0], target[0], pair.size, tolerances)
    if not len(found):
        return False, found
    cells = AverageCells.of(found @ moving[0], target[0], len(pair.larger[1]) * _copies(pair), tolerances)
    promising = cells.flat.copy()
    order = np.argsort(cells.strain, kind="stable")
    for part in np.split(order, [FIRST]):
        if not len(part):
            break
        certain, possible = _try(pair, found[part], cells.take(part))
        if certain:
            return True, found[:0]
        promising[part[possible]] = True
    return False, found[promising]


def _try(pair: Pair, found: NDArray[np.int64], cells: AverageCells) -> tuple[bool, NDArray[np.int64]]:
    """Whether one of several mappings certainly is a match, and the positions of those that may be."""
    moving, target = (pair.larger, pair.smaller) if pair.larger_moves else (pair.smaller, pair.larger)
    moved = _supercell(moving[1], found, pair.size)
    still = np.broadcast_to(target[1], (len(found), *target[1].shape))
    forbidden = np.repeat(pair.forbidden, pair.size, axis=int(pair.larger_moves))
    big, small = (moved, still) if pair.larger_moves else (still, moved)
    mapping, shift = _survivors(big, small, forbidden, cells.box, _copies(pair))
    promising = []
    ends = [*range(FIRST, len(mapping), CHUNK), len(mapping)]
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        part = mapping[start:end]
        if not len(part):
            break
        offsets = small[part] + shift[start:end, None]
        possible, certain = judge(big[part], offsets, forbidden, cells.take(part))
        if certain:
            return True, part[:0]
        promising.append(part[possible])
    return False, np.unique(np.concatenate(promising)) if promising else mapping


def _copies(pair: Pair) -> int:
    """Copies of a site of the larger structure."""
    return pair.size if pair.larger_moves else 1


def _supercell(positions: NDArray[np.float64], found: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Positions (mappings, n * size, 3) in the mapped cells; the copies of a site follow each other."""
    moved = positions @ np.linalg.inv(found)
    if size > 1:
        check_elements(moved.size * size)
        points = np.stack([lattice_points_in_supercell(mapping) for mapping in found])
        moved = (moved[:, :, None] + points[:, None]).reshape(len(found), -1, 3)
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
    anchor = int(np.argmax(forbidden.sum(axis=1)))
    starts = big[:, np.flatnonzero(~forbidden[anchor])[::copies]] - small[:, anchor, None]
    mapping = np.repeat(np.arange(len(big)), starts.shape[1])
    shift = starts.reshape(-1, 3)
    for site in np.argsort(-forbidden.sum(axis=1), kind="stable"):
        if site == anchor:
            continue
        partners = np.flatnonzero(~forbidden[site])
        check_elements(len(mapping) * len(partners) * 3)
        offset = (shift + small[mapping, site])[:, None] - big[mapping[:, None], partners]
        offset -= np.round(offset)
        alive = (np.abs(offset) <= box[mapping, None]).all(axis=-1).any(axis=-1)
        mapping, shift = mapping[alive], shift[alive]
        if not len(mapping):
            break
    return mapping, shift
