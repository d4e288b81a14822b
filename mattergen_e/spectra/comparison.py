"""Pairs of curves compared as the papers do, beside what chance pairing gives.

`curve_metrics` holds the metrics of "Density of States-Intermediated Crystal Generation" (section 5.3, tables 3, 5 and
10): a generated crystal's curve against its condition. Each comes with the mean over mismatched pairs, which tells what
the condition itself adds beyond the distribution of the curves, and a bootstrap interval over the curves.
`surrogate_errors` and `crystal_matches` are those of DOSMatGen (tables 1 and 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mattergen_e.errors import UserError
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.spectra.metrics import cosine, masked, mean_absolute_error
from mattergen_e.spectra.quantities import band_gap, dos_at_fermi, states_below_fermi

if TYPE_CHECKING:
    from pymatgen.core import Structure

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Unit by metric; "" where it is a similarity or a divergence.
UNITS = {
    "cosine": "",
    "pearson": "",
    "js_divergence": "",
    "mae": "states/eV",
    "band_gap": "eV",
    "dos_at_fermi": "states/eV",
    "states_below_fermi": "states",
}
#: The thermoelectric filter (section 6.2): band gaps in eV, and the least cosine with the reference.
TE_GAPS, TE_COSINE = (0.1, 1.0), 0.9
#: Below this DOS at the Fermi energy a smeared curve counts as zero there, states/eV per atom. The paper asks for 0.
TE_ZERO = 1e-2
#: Tolerances of a structure match (DOSMatGen, table 2), as pymatgen's `StructureMatcher` calls them.
STOL, ANGLE_TOL, LTOL = 0.5, 10.0, 0.3


@dataclass(frozen=True)
class Metric:
    """One metric over pairs of curves.

    Attributes:
        mean: Mean over the pairs, None where it is defined for none.
        low: Lower end of its interval; None with fewer than two pairs.
        high: Upper end.
        random: Mean over mismatched pairs.
        random_low: Lower end of its interval.
        random_high: Upper end.
        pairs: Pairs for which it is defined.
        undefined: Pairs for which it is not, e.g. with a curve without states.
        unit: Of all of them.
    """

    mean: float | None
    low: float | None
    high: float | None
    random: float | None
    random_low: float | None
    random_high: float | None
    pairs: int
    undefined: int
    unit: str


def pearson(curves: ArrayLike, reference: ArrayLike, mask: ArrayLike | None = None) -> Values:
    """Pearson's correlation over the points of each pair (..., points); NaN where a curve is constant."""
    a, b, weights = masked(curves, reference, mask)
    count = weights.sum(axis=-1, keepdims=True)
    a, b = (np.where(weights, x - (x * weights).sum(axis=-1, keepdims=True) / count, 0.0) for x in (a, b))
    size = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    scale = np.finfo(float).eps * count[..., 0]
    return (a * b).sum(axis=-1) / np.where(size > scale, size, np.nan)


def js_divergence(curves: ArrayLike, reference: ArrayLike, mask: ArrayLike | None = None, base: float = np.e) -> Values:
    """Jensen-Shannon divergence of curves normalised to unit sum.

    The paper prints neither the base of the logarithm nor whether it is the divergence or its root, the distance. Here
    it is the divergence in nats, between 0 and ln 2 = 0.693.

    Args:
        curves: (..., points); negative values count as zero.
        reference: (..., points), likewise.
        mask: (points,) or (..., points), the points that count.
        base: Of the logarithm.

    Returns:
        (...); NaN where one of the two has no states.
    """
    from scipy.special import rel_entr

    a, b, weights = masked(curves, reference, mask)
    shares = []
    for values in (a, b):
        positive = np.maximum(values, 0.0) * weights
        area = positive.sum(axis=-1, keepdims=True)
        shares.append(positive / np.where(area > 0, area, np.nan))
    p, q = shares
    middle = 0.5 * (p + q)
    return 0.5 * (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=-1) / np.log(base)


def curve_metrics(
    curves: ArrayLike, reference: ArrayLike, grid: EnergyGrid, mask: ArrayLike | None = None
) -> dict[str, Values]:
    """All metrics of pairs of curves.

    Outside of a mask nothing is compared: the gap goes no further than the mask reaches from the Fermi energy, the
    states below it are those inside the mask, and the DOS at the Fermi energy is undefined where the mask lacks one of
    the two bins beside it.

    Args:
        curves: (n, points) states/eV, per atom for the numbers that the paper prints.
        reference: (n, points) likewise.
        grid: Grid of both, with the Fermi energy at an edge.
        mask: (points,) or (n, points), the points that count.

    Returns:
        (n,) by the names of `UNITS`; of band gap, DOS at the Fermi energy and states below it the absolute errors.

    Raises:
        UserError: If shapes or grid do not fit.
    """
    a, b = (_curves(x, grid) for x in (curves, reference))
    if a.shape != b.shape:
        raise UserError(f"{len(a)} curves are compared with {len(b)} references: give one reference per curve")
    weights = None if mask is None else np.asarray(mask, dtype=bool)
    found = {
        "cosine": cosine(a, b, weights),
        "pearson": pearson(a, b, weights),
        "js_divergence": js_divergence(a, b, weights),
        "mae": mean_absolute_error(a, b, weights),
    }
    for name, values in scalars(a, grid, weights).items():
        found[name] = np.abs(values - scalars(b, grid, weights)[name])
    return found


def scalars(curves: ArrayLike, grid: EnergyGrid, mask: ArrayLike | None = None) -> dict[str, Values]:
    """Band gap, DOS at the Fermi energy and states below it of curves (n, points), as `curve_metrics` reads them."""
    values = _curves(curves, grid)
    weights = np.broadcast_to(np.ones(grid.points, bool) if mask is None else np.asarray(mask, bool), values.shape)
    inside = np.where(weights, values, 0.0)
    known = dos_at_fermi(weights.astype(float), grid) == 1.0
    return {
        "band_gap": band_gap(np.where(weights, values, 1e6), grid),
        "dos_at_fermi": np.where(known, dos_at_fermi(inside, grid), np.nan),
        "states_below_fermi": states_below_fermi(inside, grid),
    }


def compare_with_chance(
    curves: ArrayLike,
    reference: ArrayLike,
    grid: EnergyGrid,
    mask: ArrayLike | None = None,
    *,
    permutations: int = 100,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Metric]:
    """Metrics of pairs beside those of mismatched pairs (section 5.3), both with bootstrap intervals.

    Args:
        curves: (n, points) of the generated crystals.
        reference: (n, points), what each was conditioned on. A mask belongs to the reference and goes with it.
        grid: Grid of both.
        mask: (points,) or (n, points), the points that count.
        permutations: Mismatched pairings that chance is averaged over: permutations without a fixed point.
        resamples: Of the bootstrap, over the references.
        level: Of the intervals.
        seed: Of both.

    Returns:
        By name, as in `curve_metrics`. With fewer than two pairs there is no chance and no interval.

    Raises:
        UserError: If shapes or grid do not fit, or there is no pair.
    """
    a, b = _curves(curves, grid), _curves(reference, grid)
    matched = curve_metrics(a, b, grid, mask)
    if len(a) == 0:
        raise UserError("there is no pair of curves to compare: give at least one")
    rng = np.random.default_rng(seed)
    chance: dict[str, Values] = {name: np.full(len(a), np.nan) for name in matched}
    if len(a) > 1 and permutations > 0:
        draws = [curve_metrics(a[derangement(len(a), rng)], b, grid, mask) for _ in range(permutations)]
        chance = {name: _mean_of_known(np.stack([draw[name] for draw in draws])) for name in matched}
    found = {}
    for name, values in matched.items():
        mean, low, high = bootstrap(values, resamples=resamples, level=level, seed=seed)
        random, random_low, random_high = bootstrap(chance[name], resamples=resamples, level=level, seed=seed)
        missing = int(np.isnan(values).sum())
        counts = (len(values) - missing, missing)
        found[name] = Metric(mean, low, high, random, random_low, random_high, *counts, UNITS[name])
    return found


def derangement(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A random permutation of n things, at least two, that leaves none in its place; all are equally likely."""
    if n < 2:
        raise ValueError("one thing cannot be put in another's place")
    while True:  # a share 1/e of all permutations has no fixed point
        order = rng.permutation(n)
        if not (order == np.arange(n)).any():
            return order


def bootstrap(
    values: ArrayLike, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float | None, float | None, float | None]:
    """Mean of the values that are known, and the ends of its percentile bootstrap interval.

    Args:
        values: (n,); NaN are left out.
        resamples: Number of resamples.
        level: Of the interval.
        seed: Of the resamples.

    Returns:
        Mean, lower and upper end; None where there is no value, the ends also with a single one.
    """
    from scipy import stats

    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if len(known) == 0:
        return None, None, None
    mean = float(known.mean())
    if len(known) == 1:
        return mean, None, None
    if np.ptp(known) == 0:
        return mean, mean, mean
    interval = stats.bootstrap(
        (known,), np.mean, n_resamples=resamples, confidence_level=level, method="percentile", rng=seed, batch=100
    ).confidence_interval
    return mean, float(interval.low), float(interval.high)


def te_filter(
    curves: ArrayLike,
    references: ArrayLike,
    grid: EnergyGrid,
    *,
    gaps: tuple[float, float] = TE_GAPS,
    zero: float = TE_ZERO,
    least_cosine: float = TE_COSINE,
) -> dict[str, Mask]:
    """Which curves pass the filter for thermoelectric materials (section 6.2).

    A band gap in [0.1, 1.0] eV, no states at the Fermi energy, and a cosine above 0.9 with a thermoelectric's curve.

    Args:
        curves: (n, points) states/eV per atom.
        references: (m, points) of thermoelectrics; the best cosine counts.
        grid: Grid of all.
        gaps: Least and largest gap, eV.
        zero: DOS at the Fermi energy that still counts as none, states/eV per atom; chosen, since smeared curves have
            tails.
        least_cosine: Above which a curve is like the reference.

    Returns:
        (n,) by criterion: "gap", "dos_at_fermi", "cosine", and "passed" for all three.
    """
    values, known = _curves(curves, grid), _curves(references, grid)
    quantities = scalars(values, grid)
    best = np.full(len(values), -np.inf)
    for reference in known:
        best = np.fmax(best, cosine(values, reference))
    found = {
        "gap": (quantities["band_gap"] >= gaps[0]) & (quantities["band_gap"] <= gaps[1]),
        "dos_at_fermi": quantities["dos_at_fermi"] <= zero,
        "cosine": best > least_cosine,
    }
    return found | {"passed": found["gap"] & found["dos_at_fermi"] & found["cosine"]}


def surrogate_errors(
    generated: ArrayLike, predicted: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None, *, seed: int = 0
) -> dict[str, tuple[float | None, float | None, float | None]]:
    """Mean absolute errors of DOSMatGen's table 1, with bootstrap intervals over the curves.

    Args:
        generated: (n, points) curves predicted for the generated crystals, y_gen.
        predicted: (n, points) predicted for the crystals that the targets are of, y_hat.
        target: (n, points) the targets, y.
        mask: (points,) or (n, points), the points that count.
        seed: Of the bootstrap.

    Returns:
        Mean, lower and upper end, in the curves' unit: "generated_target", MAE(y_gen, y); "generated_predicted",
        MAE(y_gen, y_hat), free of the predictor's own error; "predicted_target", MAE(y_hat, y), which is that error.
    """
    pairs = {
        "generated_target": (generated, target),
        "generated_predicted": (generated, predicted),
        "predicted_target": (predicted, target),
    }
    return {name: bootstrap(mean_absolute_error(a, b, mask), seed=seed) for name, (a, b) in pairs.items()}


def crystal_matches(generated: Sequence[Structure], references: Sequence[Structure]) -> dict[str, Mask]:
    """Which generated crystals are the ones that their targets are of (DOSMatGen, table 2).

    Args:
        generated: Crystals.
        references: One for each.

    Returns:
        (n,) "structure", by pymatgen's `StructureMatcher` with the tolerances of the paper, and "composition", whether
        the reduced formulas are the same.

    Raises:
        UserError: If there are not as many references as crystals.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    if len(generated) != len(references):
        raise UserError(f"{len(generated)} crystals are compared with {len(references)}: give one reference each")
    matcher = StructureMatcher(stol=STOL, angle_tol=ANGLE_TOL, ltol=LTOL)
    pairs = list(zip(generated, references, strict=True))
    same = [a.composition.reduced_formula == b.composition.reduced_formula for a, b in pairs]
    # a structure cannot match where the composition does not, and comparing formulas costs nothing
    fits = [alike and bool(matcher.fit(a, b)) for alike, (a, b) in zip(same, pairs, strict=True)]
    return {"structure": np.array(fits, dtype=bool), "composition": np.array(same, dtype=bool)}


def _mean_of_known(values: Values) -> Values:
    """Mean over the first axis of what is not NaN; NaN where all are."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    return np.where(known, values, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan)


def _curves(values: ArrayLike, grid: EnergyGrid) -> Values:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] != grid.points:
        raise UserError(
            f"the curves have the shape {found.shape}, expected (curves, {grid.points}) on {grid}: resample them"
        )
    return found
