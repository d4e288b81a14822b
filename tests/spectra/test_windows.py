"""Statistics of the windows that a training sees."""

from __future__ import annotations

import math

import pytest
import torch

from mattergen_e.spectra.grid import TOTAL_GRID
from mattergen_e.spectra.windows import RandomWindows

pytestmark = pytest.mark.usefixtures("list_of_conditions")

N = 20_000


def runs(told):
    """Number of connected stretches of told bins per row, and their number of bins."""
    edges = torch.diff(told.int(), dim=1, prepend=torch.zeros(len(told), 1, dtype=torch.int))
    return (edges == 1).sum(dim=1), told.sum(dim=1)


def test_shares_of_the_three_kinds():
    torch.manual_seed(0)
    told = RandomWindows(TOTAL_GRID, full=0.5, outside=0.1)(N)
    stretches, bins = runs(told)
    assert told.shape == (N, 256)
    full = (bins == 256).float().mean()
    assert abs(full - 0.5) < 5 * math.sqrt(0.25 / N) + 0.01  # a window of almost all energies is full too
    two = (stretches == 2).float().mean()
    assert abs(two - 0.1) < 5 * math.sqrt(0.09 / N) + 0.002  # a hole at an end of the grid leaves one stretch
    assert stretches.max() <= 2 and stretches.min() == 1


def test_width_is_uniform_and_never_narrower():
    torch.manual_seed(1)
    stretches, bins = runs(RandomWindows(TOTAL_GRID, full=0.0, outside=0.0, narrowest=2.0)(N))
    width = bins * TOTAL_GRID.step
    assert (stretches == 1).all()
    assert width.min() > 2.0 - 2 * TOTAL_GRID.step
    assert abs(width.mean() - 11.0) < 5 * 18 / math.sqrt(12 * N)
    assert abs((width < 6.5).float().mean() - 0.25) < 0.02


def test_every_energy_is_told_and_the_grid_mirrors():
    torch.manual_seed(2)
    share = RandomWindows(TOTAL_GRID, full=0.0, outside=0.0)(N).float().mean(dim=0)
    assert share.min() > 0.01
    assert torch.allclose(share, share.flip(0), atol=0.02)
    assert share[128] > share[0]


def test_all_but_a_window_hides_at_most_half():
    torch.manual_seed(3)
    _, bins = runs(RandomWindows(TOTAL_GRID, full=0.0, outside=1.0)(N))
    assert bins.min() >= 127 and bins.max() < 256


def test_everything_can_be_told():
    assert RandomWindows(TOTAL_GRID, full=1.0, outside=0.0)(50).all()
