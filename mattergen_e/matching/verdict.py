"""Whether two crystals are the same to MatterGen's `DefaultDisorderedStructureMatcher`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from mattergen.evaluation.utils.structure_matcher import DefaultDisorderedStructureMatcher
from pymatgen.analysis.structure_matcher import StructureMatcher
from scipy.optimize import linear_sum_assignment

from mattergen_e.matching.cell import Cell, forbidden
from mattergen_e.matching.crystal import Crystal
from mattergen_e.matching.limits import MAX_MAPPINGS, TooLarge
from mattergen_e.matching.prefilters.lattices import Tolerances
from mattergen_e.matching.prefilters.narrowed import NarrowedMatcher
from mattergen_e.matching.prefilters.outlook import Pair, outlook


def same(first: Crystal, second: Crystal) -> bool:
    """MatterGen's `fit(first, second)`; the order matters, for it is `first` that may be disordered.

    MatterGen asks first whether the two are equal, which is the rarest and not the cheapest way to be the same.

    Raises:
        ValueError: If a cell cannot be reduced, or there are too many ways to try (`TooLarge`).
        TypeError: If an element has no atomic radius, which MatterGen asks for when crystals do not match as they are.
    """
    try:
        alike = _rules().fit(first, second)
    except Exception:
        if _equal(first, second):
            return True
        raise
    return alike or _equal(first, second)


def _equal(first: Crystal, second: Crystal) -> bool:
    """pymatgen's `==`, asked only if lattices and sites are about as close as it demands (1e-5 Å and 1e-5 of them)."""
    if len(first.positions) != len(second.positions):
        return False
    other = second.matrix
    if not (np.abs(first.matrix - other) <= 1e-7 + 2e-5 * np.abs(other)).all():
        return False
    apart = np.abs(first.places[:, None] - second.places)
    close = (apart <= 3e-5 * (1 + np.abs(second.places))).all(axis=-1).any(axis=-1).all()
    return bool(close) and first.structure == second.structure


@cache
def _rules() -> _Rules:
    return _Rules()


@dataclass(frozen=True)
class _Search:
    """How pymatgen's `_get_supercell_size` and `_match` go about two cells.

    The cell with fewer sites is repeated to about the number of the other, and the structure that then has fewer is
    sought within the other.

    Attributes:
        size: Cells in the supercell.
        first_moves: Whether the supercell is made of the first.
        swapped: Whether the second is the one that has all sites of the other.
    """

    size: int
    first_moves: bool
    swapped: bool

    @classmethod
    def of(cls, first: int, second: int) -> _Search:
        """For two numbers of sites."""
        ratio = second / first
        size, first_moves = (round(1 / ratio), False) if ratio < 2 / 3 else (round(ratio), True)
        return cls(size, first_moves, first * (size if first_moves else 1 / size) < second)

    def pair(self, first: Cell, second: Cell) -> Pair | None:
        """What is to be compared; None where sites have no partners of their kind, which pymatgen looks for first."""
        larger, smaller = (second, first) if self.swapped else (first, second)
        refused = forbidden(larger, smaller)
        larger_moves = self.first_moves != self.swapped
        repeated = np.repeat(refused, self.size, axis=int(larger_moves)) if self.size > 1 else refused
        if repeated[linear_sum_assignment(repeated)].any():
            return None
        moving, target = (first, second) if self.first_moves else (second, first)
        scale = (target.volume / (moving.volume * self.size)) ** (1 / 3)
        return Pair(moving, target, scale, larger_moves, refused, self.size)


class _Rules:
    """MatterGen's matcher, taken apart."""

    def __init__(self) -> None:
        matcher = DefaultDisorderedStructureMatcher()
        self._matcher = matcher
        self._ordered = NarrowedMatcher.from_dict(StructureMatcher.as_dict(matcher.ordered_structurematcher))
        self._disordered = NarrowedMatcher.from_dict(StructureMatcher.as_dict(matcher))
        self._tolerances = Tolerances(matcher.ltol, matcher.angle_tol, matcher.stol)

    def fit(self, first: Crystal, second: Crystal) -> bool:
        """All of MatterGen's `fit` but the question whether two crystals are equal."""
        if first.ordered and second.ordered:
            return first.formula == second.formula and (
                self._fits_ordered(first, second) or self._fits_shared(first, second)
            )
        if not self._compositions_agree(first, second):
            return False
        search = _Search.of(len(first.cell), len(second.cell))
        return self._decide(self._disordered, search, first.cell, second.cell)

    def _compositions_agree(self, first: Crystal, second: Crystal) -> bool:
        """Whether fractional compositions are those of crystals that may match, one of them disordered."""
        one, two = (crystal.structure.composition.fractional_composition for crystal in (first, second))
        return one.almost_equals(two, atol=self._matcher.reduced_formula_atol, rtol=self._matcher.reduced_formula_rtol)

    def _fits_ordered(self, first: Crystal, second: Crystal) -> bool:
        """The comparison of ordered crystals: no supercells and no subsets, so that the sites must be as many.

        Crystals of one reduced formula have as many of each element then, so that each site has a partner of its kind;
        and a cell can only be reduced to a whole part of its sites.
        """
        if len(first.structure) % second.size or first.size != second.size:
            return False
        search = _Search(1, True, False)
        if first.primitive is not None:
            found = self._foresee(search, first.primitive, second.cell)
            if found is not None:
                return found
        return self._decide(self._ordered, search, first.cell, second.cell)

    def _fits_shared(self, first: Crystal, second: Crystal) -> bool:
        """The comparison in which sites are alike if the elements of one are among those of the other."""
        if not first.shares:
            return False
        loose = first.shared_primitive
        if loose is not None:
            search = _Search.of(len(loose), second.size)
            found = self._foresee(search, loose, second.cell) if search.first_moves else None
            if found is not None:
                return found
        search = _Search.of(len(first.shared_cell), second.size)
        return self._decide(self._disordered, search, first.shared_cell, second.cell)

    def _foresee(self, search: _Search, first: Cell, second: Cell) -> bool | None:
        """Whether cells match, the first in another basis than pymatgen would take; None if pymatgen must be asked."""
        pair = search.pair(first, second)
        if pair is None:
            return False
        try:
            certain, wanted = outlook(pair, self._tolerances)
        except TooLarge:
            return None
        return True if certain else None if len(wanted) else False

    def _decide(self, matcher: NarrowedMatcher, search: _Search, first: Cell, second: Cell) -> bool:
        """Whether a matcher finds a match of reduced cells; it is asked only where that is not clear without it."""
        pair = search.pair(first, second)
        if pair is None:
            return False
        certain, wanted = outlook(pair, self._tolerances)
        if len(wanted) > MAX_MAPPINGS:
            raise TooLarge(f"the two cells can be laid onto each other in {len(wanted)} ways")
        return certain or (len(wanted) > 0 and matcher.fits(first.structure, second.structure, wanted))
