"""Spectra of generated crystals against the curves that they were asked for, beside chance.

The metrics are those of "Density of States-Intermediated Crystal Generation" (section 5.3, tables 3 and 5). A run asks
for several crystals per curve, and `mattergen_e.spectra.comparison` knows pairs only, so that two things differ here: a
mismatched pair has another curve, never the own one in another's place, and intervals are over the curves, because the
crystals of a curve are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mattergen_e.evaluation.statistics import fractions
from mattergen_e.spectra.comparison import TE_COSINE, TE_GAPS, TE_ZERO, UNITS, bootstrap, curve_metrics, te_filter
from mattergen_e.spectra.grid import EnergyGrid

Values = NDArray[np.float64]

RESAMPLES, LEVEL = 1000, 0.95
#: With no more curves than this and one, chance is the exact mean over all mismatched pairs.
SHIFTS = 100
#: Mismatched pairs whose cosine is kept for a histogram.
KEPT = 5000
_BATCH = 100


@dataclass(frozen=True, eq=False)
class Pairs:
    """Spectra of crystals, and what each was asked for.

    Attributes:
        index: (n,) numbers of the crystals.
        curve: (n,) row of `targets` that each was asked for.
        spectra: (n, points) states/eV per atom, NaN where unknown.
        targets: (curves, points) likewise, NaN where nothing is asked.
        grid: Of both.
    """

    index: NDArray[np.int64]
    curve: NDArray[np.int64]
    spectra: NDArray[np.float32]
    targets: NDArray[np.float32]
    grid: EnergyGrid

    def __len__(self) -> int:
        return len(self.index)

    def metrics(self, shift: int = 0) -> dict[str, Values]:
        """(n,) by the names of `comparison.UNITS`.

        Args:
            shift: So many curves further is the one that a crystal is compared with, among those that any was asked
                for.
        """
        used, place = np.unique(self.curve, return_inverse=True)
        asked = self.targets[used[(place + shift) % len(used)]]
        mask = ~(np.isnan(asked) | np.isnan(self.spectra))
        some = mask.any(axis=1)  # a window may lie where nothing is known
        found = {name: np.full(len(self), np.nan) for name in UNITS}
        if some.any():
            mask = mask[some]
            a, b = (np.where(mask, values[some], 0.0) for values in (self.spectra, asked))
            for name, values in curve_metrics(a, b, self.grid, mask).items():
                found[name][some] = values
        return found


@dataclass(frozen=True, eq=False)
class Chance:
    """Mismatched pairs: (n,) means over them for each crystal, by metric, and some of their cosines."""

    means: dict[str, Values]
    cosines: Values


def chance(pairs: Pairs, seed: int = 0) -> Chance | None:
    """What crystals have in common with curves that others were asked for (section 5.3).

    Args:
        pairs: At least one.
        seed: Of the choice of the mismatched pairs, where there are more than `SHIFTS` for a crystal.

    Returns:
        None with a single curve: every pair is matched then.
    """
    curves, rng = len(np.unique(pairs.curve)), np.random.default_rng(seed)
    if curves < 2:
        return None
    shifts = rng.permutation(np.arange(1, curves))[:SHIFTS]
    sums, counts = ({name: np.zeros(len(pairs)) for name in UNITS} for _ in range(2))
    cosines = []
    for shift in shifts.tolist():
        for name, values in pairs.metrics(shift).items():
            known = ~np.isnan(values)
            sums[name] += np.where(known, values, 0.0)
            counts[name] += known
            if name == "cosine":
                cosines.append(values[known])
    kept = np.concatenate(cosines)
    means = {name: sums[name] / np.where(counts[name] > 0, counts[name], np.nan) for name in UNITS}
    return Chance(means, rng.permutation(kept)[:KEPT])


def grouped_bootstrap(
    values: ArrayLike, groups: ArrayLike, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> tuple[float | None, float | None, float | None]:
    """Mean of the values that are known, and its percentile bootstrap interval over groups that belong together.

    Args:
        values: (n,); NaN are left out.
        groups: (n,) which values belong together. With a single group, the values themselves are resampled.
        resamples: Number of resamples.
        level: Of the interval.
        seed: Of the resamples.

    Returns:
        Mean, lower and upper end; None where there is no value, the ends also with a single one.
    """
    found, members = np.asarray(values, dtype=np.float64), np.asarray(groups)
    known = ~np.isnan(found)
    kinds, place = np.unique(members[known], return_inverse=True)
    if len(kinds) < 2 or np.ptp(found[known]) == 0:
        return bootstrap(found, resamples=resamples, level=level, seed=seed)
    sums, counts = np.bincount(place, found[known]), np.bincount(place).astype(float)
    rng, means = np.random.default_rng(seed), []
    for start in range(0, resamples, _BATCH):
        drawn = rng.multinomial(len(kinds), np.full(len(kinds), 1 / len(kinds)), min(_BATCH, resamples - start))
        means.append(drawn @ sums / (drawn @ counts))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(found[known].mean()), float(low), float(high)


def summarise(pairs: Pairs, matched: dict[str, Values], random: Chance | None, seed: int = 0) -> dict[str, Any]:
    """Each metric for evaluation.json.

    Args:
        pairs: At least one.
        matched: `pairs.metrics()`.
        random: `chance(pairs)`.
        seed: Of the resamples.

    Returns:
        By name: value, low, high; random, random_low, random_high of the mismatched pairs; difference,
        difference_low, difference_high, crystal by crystal; pairs, undefined, unit. None where not known.
    """
    nothing = np.full(len(pairs), np.nan)
    found = {}
    for name, values in matched.items():
        other = nothing if random is None else random.means[name]
        entry: dict[str, Any] = {}
        for prefix, some in (("", values), ("random", other), ("difference", values - other)):
            ends = grouped_bootstrap(some, pairs.curve, seed=seed)
            keys = (prefix or "value", *(f"{prefix}_{end}".lstrip("_") for end in ("low", "high")))
            entry |= dict(zip(keys, ends, strict=True))
        missing = int(np.isnan(values).sum())
        found[name] = {**entry, "pairs": len(values) - missing, "undefined": missing, "unit": UNITS[name]}
    return found


def te_rate(pairs: Pairs, asked: int) -> dict[str, Any]:
    """Share of all asked-for crystals that pass the filter for thermoelectric materials (section 6.2).

    The curves that the run asks for are the references of the filter, so that it says something about thermoelectric
    materials only if these curves are of some.

    Args:
        pairs: At least one.
        asked: Crystals that were asked for a curve; those without a spectrum do not pass.
    """
    used = pairs.targets[np.unique(pairs.curve)]
    if np.isnan(used).any() or np.isnan(pairs.spectra).any():
        return {"count": None, "total": asked, "fraction": None, "reason": "curves are known in a window only"}
    passed = te_filter(pairs.spectra, used, pairs.grid)["passed"]
    rate = fractions([*map(bool, passed), *[False] * (asked - len(pairs))]).as_dict()
    return {**rate, "gaps": list(TE_GAPS), "zero": TE_ZERO, "least_cosine": TE_COSINE}
