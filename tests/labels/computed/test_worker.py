"""The script that runs in GPAW's Python: its files and grids here, GPAW itself in test_compute.py."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp import Chgcar

from mattergen_e.labels.computed import worker

TRICLINIC = Lattice.from_parameters(3.1, 4.2, 5.3, 80, 95, 110)
FRAC = np.array([[0.1, 0.2, 0.3], [0.5, 0.5, 0.5], [0.6, 0.7, 0.8], [0.9, 0.05, 0.4]])


def test_it_stands_alone_in_python_3_9():
    source = Path(worker.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert "gpaw" in imported
    assert not [name for name in imported if name.split(".")[0] in ("", "mattergen_e", "pymatgen")]


@pytest.mark.parametrize("shape", [(3, 4, 5), (6, 2, 3), (1, 1, 1), (50, 40, 27)])
def test_chgcar_is_read_back_by_pymatgen(tmp_path, shape):
    symbols = ["Cl", "Na", "Cl", "Na"]
    density = np.random.default_rng(0).random(shape) * 1e3
    order = worker.write_chgcar(tmp_path / "CHGCAR", TRICLINIC.matrix, symbols, FRAC, density)
    found = Chgcar.from_file(str(tmp_path / "CHGCAR"))
    assert order == [0, 2, 1, 3]
    assert [site.specie.symbol for site in found.structure] == ["Cl", "Cl", "Na", "Na"]
    assert np.allclose(found.structure.frac_coords, FRAC[order], atol=1e-9)
    assert np.allclose(found.structure.lattice.matrix, TRICLINIC.matrix, atol=1e-9)
    assert found.data["total"].shape == shape
    assert np.allclose(found.data["total"] / TRICLINIC.volume, density, rtol=1e-9)


def test_resampling_is_exact_for_what_both_grids_can_hold():
    def wave(shape):
        x, y, z = np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij")
        return 2.0 + np.cos(2 * np.pi * (x + 2 * y)) + np.sin(2 * np.pi * (3 * z - y))

    assert np.allclose(worker.resample(wave((9, 10, 15)), 32), wave((32, 32, 32)))
    assert np.allclose(worker.resample(wave((48, 40, 36)), 32), wave((32, 32, 32)))


def test_resampling_keeps_the_electrons():
    density = np.random.default_rng(1).random((14, 45, 32))
    assert worker.resample(density, 32).mean() == pytest.approx(density.mean())


def test_a_left_handed_cell_is_the_same_crystal_and_the_same_density():
    left = TRICLINIC.matrix[[1, 0, 2]]
    cell, frac, flipped = worker.right_handed(left, FRAC)
    assert flipped and np.linalg.det(cell) > 0
    species = ["Na", "Cl", "K", "F"]
    ours, given = Structure(Lattice(cell), species, frac), Structure(Lattice(left), species, FRAC)
    assert np.allclose(ours.distance_matrix, given.distance_matrix)
    assert np.allclose(ours.cart_coords, given.cart_coords)

    def density(matrix, shape):
        points = np.stack(np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij"), axis=-1)
        phases = 2 * np.pi * (points @ matrix) @ np.linalg.inv(left)
        return np.sin(phases[..., 0]) + np.cos(phases[..., 1]) + np.sin(2 * phases[..., 2])

    assert np.allclose(worker.turned(density(cell, (6, 5, 4))), density(left, (6, 5, 4)))
    assert not np.allclose(density(cell, (6, 5, 4)), density(left, (6, 5, 4)))


def test_a_right_handed_cell_stays_as_it_is():
    cell, frac, flipped = worker.right_handed(TRICLINIC.matrix, FRAC)
    assert not flipped and cell is TRICLINIC.matrix and frac is FRAC
