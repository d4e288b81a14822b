"""Distances between spectra, against SciPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from mattergen_e.errors import UserError
from mattergen_e.spectra.grid import ATOMIC_GRID, EnergyGrid
from mattergen_e.spectra.metrics import (
    at_quantiles,
    compare,
    cosine,
    mean_absolute_error,
    summarise,
    summarise_by_element,
    wasserstein,
)

SMALL = EnergyGrid(minimum=-2, maximum=2, points=8)  # bins of 0.5 eV


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Forty random spectra with gaps, and as many others."""
    rng = np.random.default_rng(3)
    values = rng.exponential(size=(2, 40, 512)) * (rng.random((2, 40, 512)) < 0.3)
    return values[0], values[1]


def test_wasserstein_is_scipys(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pairs
    energies = ATOMIC_GRID.energies
    expected = [wasserstein_distance(energies, energies, x, y) for x, y in zip(a, b, strict=True)]
    assert wasserstein(a, b, ATOMIC_GRID) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("bins", [0, 1, 5])
def test_moved_states(bins: int) -> None:
    a, b = np.zeros(8), np.zeros(8)
    a[1], b[1 + bins] = 3.0, 0.2  # areas differ: only the shapes count
    assert wasserstein(a, b, SMALL) == pytest.approx(bins * 0.5)


def test_half_of_the_states_moved() -> None:
    assert wasserstein([2, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 1, 0, 0, 0], SMALL) == pytest.approx(0.5 * 4 * 0.5)


def test_distance_of_spectra_constant_in_their_bins_is_no_larger(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pairs
    difference = np.cumsum(a / a.sum(1, keepdims=True) - b / b.sum(1, keepdims=True), axis=1)
    edges = np.pad(difference, [(0, 0), (1, 0)])
    parts = (np.arange(1000) + 0.5) / 1000
    inside = edges[:, :-1, None] * (1 - parts) + edges[:, 1:, None] * parts  # the linear course within each bin
    exact = np.abs(inside).mean(-1).sum(-1) * ATOMIC_GRID.step
    found = wasserstein(a, b, ATOMIC_GRID)
    assert np.all(exact <= found + 1e-6)
    assert np.all(found - exact < ATOMIC_GRID.step / 2)


def test_metric(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pairs
    c = a[::-1]
    ab, bc, ac = (wasserstein(x, y, ATOMIC_GRID) for x, y in ((a, b), (b, c), (a, c)))
    assert np.all(ac <= ab + bc + 1e-12) and np.all(ab > 0)
    assert wasserstein(b, a, ATOMIC_GRID) == pytest.approx(ab)
    assert wasserstein(a * 7, b * 0.1, ATOMIC_GRID) == pytest.approx(ab)


def test_undefined_distances() -> None:
    full, empty, unknown = np.ones(8), np.zeros(8), np.full(8, np.nan)
    found = wasserstein([full, empty, full, unknown, -full], [full, full, empty, full, full], SMALL)
    assert found[0] == 0 and np.all(np.isnan(found[1:]))


def test_negative_values_count_as_zero() -> None:
    assert wasserstein([-5, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, -1, 0], SMALL) == pytest.approx(0.5)


def test_broadcasting(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pairs
    found = wasserstein(a[:3, None], b[None, :5], ATOMIC_GRID)
    assert found.shape == (3, 5)
    assert found[2, 4] == pytest.approx(wasserstein(a[2], b[4], ATOMIC_GRID))


def test_absolute_error_and_cosine_by_hand() -> None:
    a, b = [1, 0, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, -2]
    assert mean_absolute_error(a, b) == pytest.approx(3 / 8)
    assert cosine(a, b) == pytest.approx(1 / np.sqrt(6))
    assert np.isnan(cosine(a, np.zeros(8)))


def test_compare_has_all(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    a, _ = pairs
    errors = compare(2 * a, a, ATOMIC_GRID)
    assert errors.wasserstein == pytest.approx(np.zeros(40))
    assert errors.cosine == pytest.approx(np.ones(40))
    assert errors.mae == pytest.approx(np.abs(a).mean(1))


def test_wrong_number_of_points() -> None:
    with pytest.raises(UserError, match="shape \\(3, 7\\)"):
        compare(np.ones((3, 7)), np.ones((3, 8)), SMALL)


def test_summary() -> None:
    found = summarise([4.0, np.nan, 1.0, 2.0, 3.0, 10.0], quantiles=(0.25, 1))
    assert (found.sites, found.undefined, found.mean, found.median) == (5, 1, 4.0, 3.0)
    assert found.quantiles == {"0.25": 2.0, "1": 10.0}
    assert summarise([np.nan]).median is None


def test_summary_by_element() -> None:
    found = summarise_by_element([1.0, 2.0, 9.0, 3.0], [8, 8, 22, 8])
    assert list(found) == ["O", "Ti"]
    assert (found["O"].sites, found["O"].mean, found["Ti"].median) == (3, 2.0, 9.0)


def test_sites_at_quantiles() -> None:
    values = np.array([5.0, np.nan, 1.0, 3.0, 2.0, 4.0])
    assert values[at_quantiles(values, (0, 0.25, 0.5, 1))].tolist() == [1, 2, 3, 5]
    with pytest.raises(UserError, match="no site"):
        at_quantiles([np.nan])
