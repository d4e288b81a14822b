"""Reduced cells and compositions."""

from __future__ import annotations

import numpy as np
from pymatgen.core import Lattice, Structure

from mattergen_e.crystals.cells import physical_cell, reduced_counts


def test_the_reduced_cell_is_the_same_crystal(solids: dict[str, Structure]) -> None:
    cell = solids["BaTiO3"]
    whole = np.array([[1, 3, 0], [0, 1, 7], [0, 0, 1]])
    long = Structure(whole @ cell.lattice.matrix, cell.species, cell.frac_coords @ np.linalg.inv(whole))
    found = physical_cell(long)
    assert isinstance(found, Structure)
    np.testing.assert_allclose(sorted(found.lattice.abc), sorted(cell.lattice.abc))
    assert found.species == cell.species
    np.testing.assert_allclose(found.distance_matrix, cell.distance_matrix, atol=1e-9)


def test_compositions_are_reduced(conventional: dict[str, Structure]) -> None:
    assert reduced_counts(conventional["TiO2"]) == ((8, 22), (2, 1))
    assert reduced_counts(None) == "there is no crystal"


def test_cells_that_cannot_be_reduced() -> None:
    for matrix in (np.full((3, 3), np.nan), np.zeros((3, 3)), np.full((3, 3), 1e200), np.diag([1e-3, 1.0, 1.0])):
        assert isinstance(physical_cell(Structure(Lattice(matrix), ["Na"], [[0, 0, 0]])), str)
