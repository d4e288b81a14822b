"""Values of crystals and of grids, and components along the cell's vectors, through reductions and into batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mattergen.common.data.collate import collate
from pymatgen.core import Lattice, Structure

from mattergen_e.crystals.alignment import reduce_cell
from mattergen_e.crystals.quantity import Quantity
from mattergen_e.data.build import build_cache
from mattergen_e.data.cache import load_manifest, open_rows
from mattergen_e.data.dataset import JointCrystalDataset
from mattergen_e.descriptors import Descriptor
from mattergen_e.errors import UserError

FORCE = Descriptor(name="force", dim=3, frame="crystal", unit="eV/Å")
DIPOLE = Descriptor(name="dipole", place="crystal", dim=3, frame="crystal")
ENERGY = Descriptor(name="energy", place="crystal", unit="eV")
DENSITY = Descriptor(name="density", place="grid", probes=(4, 4, 4))
KNOWN = [descriptor.quantity() for descriptor in (FORCE, DIPOLE, ENERGY, DENSITY)]

#: A cell in general position without symmetry, so that nothing agrees by accident.
BASE = Structure(
    Lattice.from_parameters(4.1, 4.9, 5.7, 83, 97, 104),
    ["Na", "Cl", "O"],
    [[0.02, 0.03, 0.05], [0.51, 0.42, 0.61], [0.23, 0.77, 0.34]],
)
SHEAR = np.array([[1, 2, 0], [0, 1, 0], [1, 0, 1]])  # determinant 1


def cell_of(change, order=None, rotation=None) -> Structure:
    """The crystal in the cell M A, turned, its sites in another order."""
    structure = reduce_cell(BASE).copy()
    structure.make_supercell(change, to_unit_cell=True)
    order = range(len(structure)) if order is None else order
    turn = np.eye(3) if rotation is None else rotation
    return Structure(
        structure.lattice.matrix @ turn, [structure[i].specie for i in order], structure.frac_coords[list(order)]
    )


def rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def entry(name: str, structure: Structure, **values) -> dict:
    return {
        "material_id": name,
        "species": [site.specie.symbol for site in structure],
        "cell": structure.lattice.matrix.tolist(),
        "positions": structure.cart_coords.tolist(),
        **values,
    }


def components(cartesian, structure: Structure) -> np.ndarray:
    """Along a, b and c."""
    return np.asarray(cartesian) @ np.linalg.inv(structure.lattice.matrix)


def field(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A function with the period of the crystal, at cartesian points, without any symmetry."""
    frac = points @ np.linalg.inv(matrix)
    x, y, z = np.moveaxis(2 * np.pi * frac, -1, 0)
    return np.sin(x) + 0.5 * np.cos(y + 0.3) - 0.7 * np.sin(x + z) + 0.2 * np.cos(2 * z - y)


def points_of(structure: Structure, n: int) -> np.ndarray:
    axes = np.arange(n) / n
    return np.stack(np.meshgrid(axes, axes, axes, indexing="ij"), axis=-1) @ structure.lattice.matrix


def build(tmp_path, write, entries, **options):
    path = write(tmp_path / "x.jsonl", entries)
    return build_cache(
        [path], tmp_path / "cache", jobs=1, quantities=KNOWN, split_fractions=(1, 0, 0), progress=False, **options
    )


OF_SPECIES = {"Na": [0.3, -0.2, 0.9], "Cl": [-1.1, 0.4, 0.25], "O": [0.6, 0.7, -0.8]}


@pytest.mark.parametrize("turn", [None, rotation(3)])
@pytest.mark.parametrize("change", [np.eye(3, dtype=int), SHEAR, [[2, 0, 0], [0, 1, 0], [1, 0, 1]]])
def test_a_vector_stays_the_same_vector(tmp_path, write, change, turn):
    sites = round(abs(np.linalg.det(change))) * 3
    given = cell_of(change, np.random.default_rng(1).permutation(sites), turn)
    turning = np.eye(3) if turn is None else turn
    forces = np.array([OF_SPECIES[site.specie.symbol] for site in given]) @ turning
    dipole = np.array([0.5, -0.4, 1.5]) @ turning
    values = {
        "force": components(forces, given).tolist(),
        "dipole": components(dipole, given).tolist(),
        "energy": -3.25,
    }
    manifest = build(tmp_path, write, [entry("x", given, **values)])
    split = tmp_path / "cache" / "train"
    cell, numbers = np.load(split / "cell.npy")[0], np.load(split / "atomic_numbers.npy")
    assert len(numbers) == 3
    found = open_rows(split, FORCE.quantity()) @ cell
    symbols = {11: "Na", 17: "Cl", 8: "O"}
    assert np.allclose(found, np.array([OF_SPECIES[symbols[z]] for z in numbers]) @ turning, atol=1e-5)
    assert np.allclose(open_rows(split, DIPOLE.quantity()) @ cell, dipole, atol=1e-5)
    assert open_rows(split, ENERGY.quantity()).tolist() == [[-3.25]]
    assert manifest.site_values["force"].unit == "eV/Å" and manifest.crystal_values["energy"].unit == "eV"


@pytest.mark.parametrize("change", [np.eye(3, dtype=int), SHEAR, SHEAR.T, [[0, 1, 0], [0, 0, 1], [1, 0, 0]]])
def test_a_grid_is_the_same_function_in_the_reduced_cell(tmp_path, write, change):
    given, period = cell_of(change), reduce_cell(BASE).lattice.matrix
    grid = field(points_of(given, 4), period)
    build(tmp_path, write, [entry("x", given, density=grid.tolist())])
    split = tmp_path / "cache" / "train"
    stored = np.load(split / "grids" / "density.npy")
    assert stored.shape == (1, 4, 4, 4, 1) and stored.dtype == np.float32
    reduced = Structure(np.load(split / "cell.npy")[0], ["Na"], [[0, 0, 0]])
    assert np.allclose(stored[0, ..., 0], field(points_of(reduced, 4), period), atol=1e-5)


def test_a_grid_of_a_supercell_is_dropped_with_a_reason(tmp_path, write):
    whole, twice = cell_of(np.eye(3, dtype=int)), cell_of([[2, 0, 0], [0, 1, 0], [0, 0, 1]])
    zeros, ones = np.zeros((4, 4, 4)).tolist(), np.ones((4, 4, 4)).tolist()
    entries = [entry("whole", whole, density=ones), entry("twice", twice, density=zeros)]
    entries += [entry("other", whole, density=np.zeros((2, 4, 4)).tolist()), entry("none", whole)]
    manifest = build(tmp_path, write, entries)
    assert {item.id: item.reason for item in manifest.dropped} == {
        "twice": "grid_not_aligned",
        "other": "grid_mismatch",
    }
    info = load_manifest(tmp_path / "cache").grid_values["density"]
    assert info.probes == (4, 4, 4) and info.splits["train"].labelled_crystals == 1
    rows = open_rows(tmp_path / "cache" / "train", DENSITY.quantity())
    assert rows.shape == (128, 1) and (rows[:64] == 1).all() and np.isnan(rows[64:]).all()


def test_items_hold_the_rows_of_every_place(tmp_path, write):
    given = cell_of(np.eye(3, dtype=int))
    grids = [np.arange(64.0).reshape(4, 4, 4) + 100 * i for i in range(3)]
    entries = [
        entry(f"x{i}", given, density=grids[i].tolist(), energy=i, dipole=[i, 0, 0], force=[[i, 0, 0]] * 3)
        for i in range(3)
    ]
    build(tmp_path, write, entries)
    descriptors = {descriptor.name: descriptor for descriptor in (FORCE, DIPOLE, ENERGY, DENSITY)}
    dataset = JointCrystalDataset.from_cache_path(str(tmp_path / "cache" / "train"), descriptors=descriptors)
    batch = collate([dataset[i] for i in range(3)])
    assert batch["energy"].tolist() == [[0.0], [1.0], [2.0]]
    assert torch.equal(batch["density"][:, 0].reshape(3, 4, 4, 4), torch.tensor(np.array(grids)).float())
    for descriptor in descriptors.values():
        assert torch.equal(batch.get_batch_idx(descriptor.name), descriptor.rows(batch)), descriptor.name
    last = dataset.subset([2, 0]).repeat(2)
    assert [float(last[i]["energy"]) for i in range(4)] == [2.0, 0.0, 2.0, 0.0]
    assert float(last[2]["density"][0, 0]) == 200.0


def test_values_of_another_shape_are_refused(tmp_path, write):
    build(tmp_path, write, [entry("x", cell_of(np.eye(3, dtype=int)), density=np.ones((4, 4, 4)).tolist())])
    split = tmp_path / "cache" / "train"
    with pytest.raises(UserError, match=r"of grids the cache has no 'other'; it has: density"):
        open_rows(split, Quantity(name="other", place="grid"))
    with pytest.raises(UserError, match="expected float32"):
        open_rows(split, Quantity(name="density", place="grid", probes=(8, 8, 8)))
