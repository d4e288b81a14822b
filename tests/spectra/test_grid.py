"""The window and its bins by hand; grids that differ are refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from pydantic import ValidationError

from mattergen_e.errors import UserError
from mattergen_e.spectra.grid import ATOMIC_GRID, TOTAL_GRID, EnergyGrid, require_same


def test_bins_of_a_small_grid() -> None:
    grid = EnergyGrid(minimum=-3, maximum=1, points=4)
    assert grid.step == 1
    assert grid.edges.tolist() == [-3, -2, -1, 0, 1]
    assert grid.energies.tolist() == [-2.5, -1.5, -0.5, 0.5]
    assert str(grid) == "4 points from -3 to 1 eV"


def test_the_grids_of_the_papers() -> None:
    assert (ATOMIC_GRID.minimum, ATOMIC_GRID.maximum, ATOMIC_GRID.points) == (-15, 5, 512)
    assert (TOTAL_GRID.minimum, TOTAL_GRID.maximum, TOTAL_GRID.points) == (-10, 10, 256)
    assert TOTAL_GRID.step == 0.078125  # the "0.078 eV" of the paper's algorithm 1
    assert ATOMIC_GRID.edges[384] == 0 and TOTAL_GRID.edges[128] == 0
    assert np.diff(ATOMIC_GRID.energies) == pytest.approx(ATOMIC_GRID.step)


@pytest.mark.parametrize(
    "fields",
    [
        {"minimum": 1, "maximum": 1, "points": 4},
        {"minimum": 2, "maximum": 1, "points": 4},
        {"minimum": 0, "maximum": 1, "points": 1},
        {"minimum": 0, "maximum": float("inf"), "points": 4},
        {"minimum": float("nan"), "maximum": 1, "points": 4},
        {"minimum": 0, "maximum": 1, "points": 2.5},
        {"minimum": 0, "maximum": 1, "points": 4, "unit": "Ha"},
    ],
)
def test_impossible_grids_are_refused(fields: dict) -> None:
    with pytest.raises(ValidationError):
        EnergyGrid(**fields)


def test_equal_grids_pass_also_when_read_back_and_used() -> None:
    used = EnergyGrid(minimum=-15, maximum=5, points=512)
    assert len(used.edges) == 513
    for other in (
        EnergyGrid.model_validate_json(used.model_dump_json()),
        pickle.loads(pickle.dumps(used)),
        ATOMIC_GRID,
    ):
        require_same(used, other, "the cache")
        assert hash(other) == hash(used)


@pytest.mark.parametrize("change", [{"minimum": -14.0}, {"maximum": 6.0}, {"points": 256}])
def test_other_grids_are_named(change: dict) -> None:
    other = ATOMIC_GRID.model_copy(update=change)
    with pytest.raises(UserError, match=r"atomic_dos of cache X is on .*512 points from -15 to 5 eV") as caught:
        require_same(ATOMIC_GRID, other, "atomic_dos of cache X")
    assert str(other) in str(caught.value)
