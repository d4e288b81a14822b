"""Values of a reduced cell, found again in the cell that was given."""

from __future__ import annotations

import numpy as np
import pytest

from mattergen_e.crystals.alignment import reduce_with_map
from mattergen_e.descriptors import Descriptor
from mattergen_e.prediction.cells import CellMap


@pytest.fixture
def back(solids):
    given = solids["BaTiO3"] * (2, 1, 1)
    return CellMap(*reduce_with_map(given), given)


def test_a_vector_keeps_its_cartesian_direction(back):
    descriptor = Descriptor(name="v", dim=3, frame="crystal")
    cartesian = np.random.default_rng(0).normal(size=(len(back.reduced), 3))
    values = cartesian @ np.linalg.inv(back.reduced.lattice.matrix)
    found = back.values(descriptor, values) @ back.given.lattice.matrix
    assert np.allclose(found, cartesian[back.site_map])


def test_a_value_of_the_crystal_stays(back):
    descriptor = Descriptor(name="gap", place="crystal")
    assert back.values(descriptor, np.array([[1.5]])).tolist() == [[1.5]]


def test_probes_lie_where_they_did(back):
    """A wave of the reduced cell has the same value at the same place of space."""
    descriptor = Descriptor(name="rho", place="grid", probes=(8, 8, 8))
    axis = np.arange(8) / 8
    wave = np.cos(2 * np.pi * axis)[:, None, None] + np.zeros((8, 8, 8))
    found = back.values(descriptor, wave.reshape(-1, 1)).reshape(8, 8, 8)
    at = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1) @ back.given.lattice.matrix
    inside = at @ np.linalg.inv(back.reduced.lattice.matrix)
    assert np.allclose(found, np.cos(2 * np.pi * inside[..., 0]), atol=1e-5)
