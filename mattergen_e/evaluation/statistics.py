"""How sure a rate is, and whether two rates differ by more than luck.

The test is the one of Okuda et al. (section 2.2): the two-sided two-proportion z-test, here with the pooled variance
(the text does not say which), so that z squared is Pearson's chi-squared of the 2 x 2 table. Intervals are Wilson's
for a rate and Newcombe's (his method 10, made of two Wilson intervals) for a difference: both stay within the possible
values and work for none and for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mattergen_e.errors import UserError

if TYPE_CHECKING:
    from types import ModuleType

CONFIDENCE = 0.95

#: Below this expected count, with or without the property, the normal approximation of the z-test is rough.
LEAST_EXPECTED = 5.0


@dataclass(frozen=True)
class Proportion:
    """A share of a number of crystals.

    Attributes:
        count: Crystals that have the property; None where it is not known for all of them.
        total: All crystals, failed ones included.
        fraction: count / total; None where it is not known.
        low, high: Wilson interval of the fraction; None where it is not known.
        evaluated: Crystals for which it is known whether they have the property.
        reason: Why the fraction is not known; None where it is.
    """

    count: int | None
    total: int
    fraction: float | None
    low: float | None
    high: float | None
    evaluated: int
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `evaluated` and `reason` only where the fraction is not known."""
        found: dict[str, Any] = {name: getattr(self, name) for name in ("count", "total", "fraction", "low", "high")}
        return found if self.reason is None else {**found, "evaluated": self.evaluated, "reason": self.reason}


@dataclass(frozen=True)
class Difference:
    """One rate against another.

    Attributes:
        difference: Fraction minus the fraction of the baseline.
        low, high: Newcombe interval of the difference.
        cohens_h: 2 arcsin sqrt(fraction) minus that of the baseline: 0.2 is called small, 0.5 medium, 0.8 large.
        z: Statistic of the two-proportion z-test with pooled variance; 0 where all or none have the property in both.
        p: Its two-sided p-value.
        rough: Whether an expected count is below `LEAST_EXPECTED`, where the p-value is an approximation only.
    """

    difference: float
    low: float
    high: float
    cohens_h: float
    z: float
    p: float
    rough: bool


def wilson(count: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson interval of count / total.

    Raises:
        ValueError: Unless 0 <= count <= total and total > 0.
    """
    _check(count, total)
    low, high = _proportions().proportion_confint(count, total, alpha=1 - confidence, method="wilson")
    return (float(low) if count else 0.0), (float(high) if count < total else 1.0)  # not 1 minus a rounding error


def proportion(count: int, total: int, confidence: float = CONFIDENCE) -> Proportion:
    """A rate with its Wilson interval; of no crystals at all it is not known.

    Raises:
        ValueError: Unless 0 <= count <= total.
    """
    if total == 0 and count == 0:
        return Proportion(None, 0, None, None, None, 0, "there are no crystals")
    low, high = wilson(count, total, confidence)
    return Proportion(count, total, count / total, low, high, total)


def fractions(mask: Iterable[bool | None], confidence: float = CONFIDENCE) -> Proportion:
    """Share of the true ones of a mask, an entry per crystal.

    Args:
        mask: True, False, or None where a crystal has not been evaluated. One None makes the share unknown: it is not
            taken for False.
        confidence: Of the Wilson interval.

    Returns:
        The share, or why it is not known.
    """
    values = list(mask)
    known = [bool(value) for value in values if value is not None]
    if len(known) == len(values):
        return proportion(sum(known), len(values), confidence)
    reason = f"evaluated for {len(known)} of {len(values)} crystals" if known else "not evaluated"
    return Proportion(None, len(values), None, None, None, len(known), reason)


def compare(
    count: int, total: int, baseline_count: int, baseline_total: int, confidence: float = CONFIDENCE
) -> Difference:
    """Tests a rate against that of a baseline, and says how large the difference is.

    Raises:
        ValueError: Unless 0 <= count <= total and total > 0, for both.
    """
    _check(count, total)
    _check(baseline_count, baseline_total)
    stats = _proportions()
    counts, totals = np.array([count, baseline_count]), np.array([total, baseline_total])
    low, high = stats.confint_proportions_2indep(
        count, total, baseline_count, baseline_total, method="newcomb", compare="diff", alpha=1 - confidence
    )
    pooled = counts.sum() / totals.sum()
    z, p = (0.0, 1.0) if pooled in (0.0, 1.0) else stats.proportions_ztest(counts, totals)
    shares = counts / totals
    return Difference(
        difference=float(shares[0] - shares[1]),
        low=float(low),
        high=float(high),
        cohens_h=float(stats.proportion_effectsize(*shares)),
        z=float(z),
        p=float(p),
        rough=bool(totals.min() * min(pooled, 1 - pooled) < LEAST_EXPECTED),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's method, in the given order: significant where below alpha."""
    if len(p_values) == 0:
        return []
    _proportions()  # one sentence if statsmodels is missing
    from statsmodels.stats.multitest import multipletests  # type: ignore[import-not-found]

    corrected: Any = multipletests(p_values, method="holm")[1]
    return [float(p) for p in corrected]


def _check(count: int, total: int) -> None:
    if not (total > 0 and 0 <= count <= total):
        raise ValueError(f"{count} of {total} is no proportion")


def _proportions() -> ModuleType:
    try:
        from statsmodels.stats import proportion as module  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError("statsmodels is not installed: run `pip install 'mattergen-e[evaluation]'`.") from error
    return module
