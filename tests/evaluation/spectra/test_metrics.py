"""Chance and intervals where several crystals share a curve."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mattergen_e.evaluation.spectra.metrics import Pairs, chance, grouped_bootstrap, summarise, te_rate
from mattergen_e.spectra.comparison import UNITS, bootstrap, compare_with_chance, cosine
from mattergen_e.spectra.grid import TOTAL_GRID


def pairs(spectra: Any, curve: list[int], targets: Any) -> Pairs:
    index = np.arange(len(curve)) * 2
    return Pairs(index, np.array(curve), np.asarray(spectra, np.float32), np.asarray(targets, np.float32), TOTAL_GRID)


def test_crystals_that_have_what_was_asked_for(peaks: Any) -> None:
    """Peaks that do not overlap: the own cosine is 1, that with others exp(-d²/4σ²) for a distance d."""
    curve = [0, 0, 0, 1, 2]
    found = pairs(peaks[curve], curve, peaks)
    result = summarise(found, found.metrics(), chance(found))
    assert set(result) == set(UNITS)
    assert result["cosine"]["value"] == pytest.approx(1) and result["mae"]["value"] == 0
    overlap = {d: math.exp(-(d**2) / (4 * 0.5**2)) for d in (3, 5, 8)}
    means = [overlap[3] + overlap[8]] * 3 + [overlap[3] + overlap[5], overlap[8] + overlap[5]]
    assert result["cosine"]["random"] == pytest.approx(np.mean(means) / 2, rel=1e-3)
    assert result["js_divergence"]["random"] == pytest.approx(math.log(2), rel=0.02)
    assert result["cosine"]["difference"] == pytest.approx(1 - result["cosine"]["random"])
    assert result["mae"]["pairs"] == 5 and result["mae"]["unit"] == "states/eV"


def test_no_mismatched_pair_has_the_own_curve(peaks: Any) -> None:
    """With two curves of two crystals, chance is the other curve exactly; single crystals would pair with a twin."""
    found = pairs(peaks[[0, 0, 1, 1]], [0, 0, 1, 1], peaks)
    random = chance(found)
    assert random is not None
    np.testing.assert_allclose(random.means["cosine"], cosine(peaks[0], peaks[1]), rtol=1e-6)
    twins = compare_with_chance(peaks[[0, 0, 1, 1]], peaks[[0, 0, 1, 1]], TOTAL_GRID)
    assert twins["cosine"].random is not None and twins["cosine"].random > 0.3


def test_with_a_crystal_per_curve_it_is_the_comparison_of_pairs() -> None:
    rng = np.random.default_rng(1)
    targets, spectra = rng.random((2, 40, 256)).astype(np.float32)
    found = pairs(spectra, list(range(40)), targets)
    result, other = (
        summarise(found, found.metrics(), chance(found)),
        compare_with_chance(spectra, targets, TOTAL_GRID, permutations=400),
    )
    for name, metric in other.items():
        assert result[name]["value"] == pytest.approx(metric.mean, rel=1e-6)
        assert result[name]["random"] == pytest.approx(metric.random, rel=0.02, abs=2e-3)
        assert (result[name]["low"], result[name]["high"]) == pytest.approx(
            (metric.low, metric.high), rel=0.1, abs=2e-3
        )


def test_one_curve_has_no_mismatched_pair(peaks: Any) -> None:
    found = pairs(peaks, [1, 1, 1], peaks)
    assert chance(found) is None
    entry = summarise(found, found.metrics(), None)["cosine"]
    assert entry["random"] is None and entry["difference"] is None
    assert entry["low"] < entry["value"] < entry["high"]


def test_outside_of_a_window_nothing_counts(peaks: Any) -> None:
    targets = np.where(np.abs(TOTAL_GRID.energies) < 4, peaks, np.nan)
    spectra = peaks[[1, 2, 0]] + 100.0 * (np.abs(TOTAL_GRID.energies) > 4)
    found = pairs(spectra, [1, 2, 0], targets)
    np.testing.assert_allclose(found.metrics()["cosine"][:2], 1, rtol=1e-6)
    unknown = pairs(np.where(np.abs(TOTAL_GRID.energies) < 4, np.nan, spectra), [1, 2, 0], targets)
    assert np.isnan(unknown.metrics()["cosine"]).all()
    assert te_rate(found, 3)["fraction"] is None


def test_crystals_of_a_curve_are_not_independent() -> None:
    """Copies of a value in a group tell nothing new: the interval stays that of the groups."""
    values = np.random.default_rng(0).normal(size=50)
    copies = np.repeat(values, 8)
    mean, low, high = grouped_bootstrap(copies, np.repeat(np.arange(50), 8), resamples=4000)
    assert (mean, low, high) == pytest.approx(bootstrap(values, resamples=4000), abs=0.03)
    _, narrow, wide = bootstrap(copies)
    assert low is not None and high is not None and narrow is not None and wide is not None
    assert (high - low) / (wide - narrow) == pytest.approx(math.sqrt(8), rel=0.1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], (None, None, None)), ([math.nan], (None, None, None)), ([2.0], (2.0, None, None)), ([2, 2], (2, 2, 2))],
)
def test_too_little_for_an_interval(values: list[float], expected: tuple[float | None, ...]) -> None:
    assert grouped_bootstrap(values, np.arange(len(values))) == expected


def test_thermoelectric_filter_counts_failed_crystals() -> None:
    """A gap of 0.625 eV (8 bins), nothing at the Fermi energy, and the very curve of the target; against a metal."""
    gapped = np.ones(256)
    gapped[124:132] = 0
    spectra = [gapped, np.ones(256)]
    found = pairs(spectra, [0, 0], [gapped])
    rate = te_rate(found, 4)
    assert (rate["count"], rate["total"], rate["fraction"]) == (1, 4, 0.25)
