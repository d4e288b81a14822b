"""Two grids on a common one."""

from __future__ import annotations

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.networks.predictor.grids import Grids
from mattergen_e.spectra.grid import ATOMIC_GRID, TOTAL_GRID, EnergyGrid


def test_the_papers_grids() -> None:
    grids = Grids()
    assert (grids.common.minimum, grids.common.maximum, grids.common.points) == (-15.0, 10.0, 640)
    assert grids.per_bin == 2
    energies = grids.common.energies
    np.testing.assert_allclose(grids.on_sites(energies), ATOMIC_GRID.energies, atol=1e-12)
    np.testing.assert_allclose(grids.on_total(energies), TOTAL_GRID.energies, atol=1e-12)


def test_states_are_kept() -> None:
    grids = Grids()
    values = np.random.default_rng(0).random((3, 640))
    inside = values[:, 128:]  # from -10 eV
    states = grids.on_total(values).sum(-1) * TOTAL_GRID.step
    np.testing.assert_allclose(states, inside.sum(-1) * ATOMIC_GRID.step, rtol=1e-12)
    assert grids.on_sites(values).shape == (3, 512) and np.shares_memory(grids.on_sites(values), values)


def test_total_inside_the_sites_window() -> None:
    grids = Grids(sites=ATOMIC_GRID, total=EnergyGrid(minimum=-5, maximum=5, points=256))
    assert grids.common == ATOMIC_GRID and grids.per_bin == 1
    np.testing.assert_array_equal(grids.on_total(np.arange(512)), np.arange(256, 512))


@pytest.mark.parametrize(
    "total",
    [
        EnergyGrid(minimum=-10, maximum=10, points=200),
        EnergyGrid(minimum=-10.01, maximum=9.99, points=256),
        EnergyGrid(minimum=-10, maximum=10, points=1024),
    ],
)
def test_grids_that_do_not_line_up(total: EnergyGrid) -> None:
    with pytest.raises(UserError, match="not a whole number; label anew"):
        Grids(total=total)
