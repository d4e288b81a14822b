"""Curves of any energies on the grid of the condition: states kept, unknown bins marked, nonsense refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mattergen_e.errors import UserError
from mattergen_e.spectra.curves import NOT_GIVEN, Curve, check_curve, check_window, inside, on_grid
from mattergen_e.spectra.grid import TOTAL_GRID, EnergyGrid

pytestmark = pytest.mark.usefixtures("list_of_conditions")


def gauss(energies, centre=0.0, width=0.5, area=3.0):
    return area * np.exp(-0.5 * ((energies - centre) / width) ** 2) / (width * np.sqrt(2 * np.pi))


def curve(energies, dos, **fields):
    return Curve("a", np.asarray(energies, dtype=float), np.asarray(dos, dtype=float), **fields)


def test_the_grid_itself_is_taken_as_it_is():
    dos = gauss(TOTAL_GRID.energies)
    dos[:3] = np.nan
    found = on_grid(curve(TOTAL_GRID.energies, dos), TOTAL_GRID)
    assert found.dtype == np.float32 and (found[:3] == NOT_GIVEN).all()
    assert np.array_equal(found[3:], dos[3:].astype(np.float32))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(150, 3000), centre=st.floats(-6, 6), width=st.floats(0.3, 1.0))
def test_states_are_kept_on_any_mesh(n, centre, width):
    energies = np.linspace(-12, 12, n)
    found = on_grid(curve(energies, gauss(energies, centre, width)), TOTAL_GRID)
    assert (found >= 0).all()
    assert found.sum() * TOTAL_GRID.step == pytest.approx(3.0, rel=1e-2)


def test_smearing_adds_variances():
    energies = np.linspace(-12, 12, 2401)
    found = on_grid(curve(energies, gauss(energies, width=0.3), smearing=0.4), TOTAL_GRID)
    assert np.allclose(found, gauss(TOTAL_GRID.energies, width=0.5), atol=0.01)


def test_a_file_of_a_part_gives_a_part():
    energies = np.linspace(-2, 2, 81)
    found = on_grid(curve(energies, np.full(81, 0.7)), TOTAL_GRID)
    told = found >= 0
    assert np.allclose(found[told], 0.7, atol=1e-6)  # to its ends: nothing is smeared out of the window
    assert np.array_equal(told, inside(TOTAL_GRID, -2.025, 2.025)) and 50 < told.sum() < 54


def test_a_hole_stays_a_hole():
    energies = np.linspace(-10, 10, 201)
    dos = np.where(abs(energies) < 1.01, np.nan, 1.0)
    found = on_grid(curve(energies, dos), TOTAL_GRID)
    assert (found[inside(TOTAL_GRID, -1.05, 1.05)] == NOT_GIVEN).all()
    assert (found[~inside(TOTAL_GRID, -1.11, 1.11)] > 0.99).all()


def test_what_is_known_can_be_more_or_less_than_the_mesh():
    energies = np.linspace(-5, 8, 500)
    found = on_grid(curve(energies, np.where(energies > -4, 1.0, 0.0), known=(-np.inf, 6.0)), TOTAL_GRID)
    assert (found[TOTAL_GRID.energies < -5] == 0).all() and (found[TOTAL_GRID.energies > 6.1] == NOT_GIVEN).all()


@pytest.mark.parametrize(
    ("energies", "dos", "sentence"),
    [
        ([0, 1, 2], [1, 1], "2 values for 3 energies"),
        ([0], [1], "1 values for 1 energies"),
        ([0, 1, 1], [1, 1, 1], "not finite and ascending"),
        ([0, np.inf], [1, 1], "not finite and ascending"),
        ([np.nan, 1], [1, 1], "not finite and ascending"),
        ([0, 1], [1, np.inf], "infinite values"),
        ([0, 1], [np.nan, np.nan], "or none at all"),
        ([0, 1], [0, 0], "zero everywhere"),
        ([0, 1], [-0.5, 1], r"falls to -0.5 states/eV at 0.00 eV"),
        ([0, 1], [-2, -1], "falls to -2"),
    ],
)
def test_what_is_no_density_of_states(energies, dos, sentence):
    with pytest.raises(UserError, match=f"file, curve 'a' .*{sentence}"):
        check_curve(curve(energies, dos), "file, curve 'a'")


def test_lobes_of_a_smearing_are_no_negative_states():
    energies = np.linspace(-10, 10, 201)
    dos = gauss(energies) - 0.05 * gauss(energies, 1.5)
    check_curve(curve(energies, dos), "x")
    assert on_grid(curve(energies, dos), TOTAL_GRID).min() == 0


@pytest.mark.parametrize("window", [(2, -2), (1, 1), (-11, 0), (0, 10.1), (np.nan, 1)])
def test_windows_that_are_none(window):
    with pytest.raises(UserError, match="is none of the grid: give two ascending energies from -10 to 10 eV"):
        check_window(window, TOTAL_GRID, "x")


def test_window_between_two_bins():
    with pytest.raises(UserError, match="holds no bin"):
        check_window((0.001, 0.002), TOTAL_GRID, "x")


@pytest.mark.parametrize("target", [TOTAL_GRID, EnergyGrid(minimum=-3, maximum=3, points=7)])
def test_rebin_keeps_the_states(target):
    rng = np.random.default_rng(0)
    grid = EnergyGrid(minimum=-4, maximum=2, points=30)
    values = rng.random((5, 30))
    found = grid.rebin(values, target)
    fine = np.linspace(target.minimum, target.maximum, 400 * target.points, endpoint=False)
    fine += (fine[1] - fine[0]) / 2
    inside_grid = (fine > -4) & (fine < 2)
    place = np.clip(((fine + 4) / grid.step).astype(int), 0, 29)
    by_hand = np.where(inside_grid, values[:, place], 0).reshape(5, target.points, 400).mean(axis=-1)
    assert np.allclose(found, by_hand, atol=5e-3)
    assert np.allclose(grid.rebin(values, grid), values)
