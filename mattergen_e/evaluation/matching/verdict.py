"""Whether two crystals are the same to MatterGen's `DefaultDisorderedStructureMatcher`."""

from __future__ import annotations

from functools import cache

import numpy as np
from mattergen.evaluation.utils.structure_matcher import DefaultDisorderedStructureMatcher
from numpy.typing import NDArray
from pymatgen.analysis.structure_matcher import StructureMatcher
from scipy.optimize import linear_sum_assignment

from mattergen_e.evaluation.matching.crystal import Cell, Crystal
from mattergen_e.evaluation.matching.lattices import Tolerances
from mattergen_e.evaluation.matching.limits import MAX_MAPPINGS, TooLarge
from mattergen_e.evaluation.matching.narrowed import NarrowedMatcher
from mattergen_e.evaluation.matching.prefilter import Pair, outlook


def same(first: Crystal, second: Crystal) -> bool:
    """MatterGen's `fit(first, second)`, step by step; the order matters, for it is `first` that may be disordered.

    Raises:
        ValueError: If a cell cannot be reduced, or there are too many ways to try (`TooLarge`).
        TypeError: If an element has no atomic radius, which MatterGen asks for when crystals do not match as they are.
    """
    rules = _rules()
    if _equal(first, second):
        return True
    if not (first.ordered and second.ordered):
        compositions = (crystal.structure.composition.fractional_composition for crystal in (first, second))
        return rules.compositions_agree(*compositions) and rules.fits_disordered(first.cell, second.cell)
    if first.formula != second.formula:
        return False
    if rules.fits_ordered(first.cell, second.cell):
        return True
    disordered = first.disordered_cell
    return disordered is not None and rules.fits_disordered(disordered, second.cell)


def _equal(first: Crystal, second: Crystal) -> bool:
    """pymatgen's `==`, asked only if lattices and sites are about as close as it demands (1e-5 Å and 1e-5 of them)."""
    one, two = first.structure, second.structure
    if len(one) != len(two):
        return False
    matrix, other = one.lattice.matrix, two.lattice.matrix
    if not (np.abs(matrix - other) <= 1e-7 + 2e-5 * np.abs(other)).all():
        return False
    apart = np.abs(first.places[:, None] - second.places)
    close = (apart <= 3e-5 * (1 + np.abs(second.places))).all(axis=-1).any(axis=-1).all()
    return bool(close) and one == two


@cache
def _rules() -> _Rules:
    return _Rules()


class _Rules:
    """MatterGen's matcher, taken apart."""

    def __init__(self) -> None:
        matcher = DefaultDisorderedStructureMatcher()
        self._matcher = matcher
        self._ordered = NarrowedMatcher.from_dict(StructureMatcher.as_dict(matcher.ordered_structurematcher))
        self._disordered = NarrowedMatcher.from_dict(StructureMatcher.as_dict(matcher))
        self._tolerances = Tolerances(matcher.ltol, matcher.angle_tol, matcher.stol)

    def compositions_agree(self, first, second) -> bool:
        """Whether fractional compositions are those of crystals that may match, one of them disordered."""
        return first.almost_equals(
            second, atol=self._matcher.reduced_formula_atol, rtol=self._matcher.reduced_formula_rtol
        )

    def fits_ordered(self, first: Cell, second: Cell) -> bool:
        """The comparison of ordered crystals: no supercells and no subsets, so that the sites must be as many.

        `_strict_match` returns None unless the sites can be paired, each with one of its own element: with as many
        sites in both, that is, unless each element has as many in both.
        """
        if first.counts != second.counts:
            return False
        forbidden = np.array([[one != two for one in first.kinds] for two in second.kinds])
        return self._fits(self._ordered, first, second, forbidden, 1, True)

    def fits_disordered(self, first: Cell, second: Cell) -> bool:
        """The comparison in which sites are alike if the elements of one are among those of the other.

        As pymatgen's `_get_supercell_size` and `_match`: the cell with fewer sites is repeated to about the number of
        the other, and the structure that then has fewer is sought within the other.
        """
        ratio = len(second.kinds) / len(first.kinds)
        size, first_repeats = (round(1 / ratio), False) if ratio < 2 / 3 else (round(ratio), True)
        factor = size if first_repeats else 1 / size
        swapped = len(first.kinds) * factor < len(second.kinds)
        larger, smaller = (second, first) if swapped else (first, second)
        larger_repeats = first_repeats != swapped
        forbidden = np.array([[not (one <= two or two <= one) for one in larger.kinds] for two in smaller.kinds])
        repeated = np.repeat(forbidden, size, axis=int(larger_repeats))
        if repeated[linear_sum_assignment(repeated)].any():
            return False
        return self._fits(self._disordered, first, second, forbidden, size, larger_repeats, factor, swapped)

    def _fits(
        self,
        matcher: NarrowedMatcher,
        first: Cell,
        second: Cell,
        forbidden: NDArray[np.bool_],
        size: int,
        larger_repeats: bool,
        factor: float = 1,
        swapped: bool = False,
    ) -> bool:
        """Whether a matcher finds a match; it is asked only where that is not clear without it."""
        scale = (second.volume / (first.volume * factor)) ** (1 / 6)
        one, two = (first.matrix * scale, first.positions), (second.matrix / scale, second.positions)
        larger, smaller = (two, one) if swapped else (one, two)
        certain, wanted = outlook(Pair(larger, smaller, forbidden, size, larger_repeats), self._tolerances)
        if len(wanted) > MAX_MAPPINGS:
            raise TooLarge(f"the two cells can be laid onto each other in {len(wanted)} ways")
        return certain or (len(wanted) > 0 and matcher.fits(first.structure, second.structure, wanted))
