"""What is told of a cell without reducing it, beside what pymatgen and MatterGen make of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice
from pymatgen.util.coord import lattice_points_in_supercell

from mattergen_e.matching import Crystal
from mattergen_e.matching.cell import Cell
from mattergen_e.matching.limits import check_size, is_compact
from mattergen_e.matching.prefilters.lattices import Target, Tolerances, cosets, mappings
from mattergen_e.matching.reduction import is_primitive_in_any_basis
from mattergen_e.matching.sharing import share

#: Another basis of the same lattice.
SHEAR = [[1, 1, 0], [0, 1, -1], [0, 0, 1]]


def test_cells_that_count_as_primitive_are_not_reduced_by_pymatgen(references: list[tuple[str, Any]]) -> None:
    certain = uncertain = 0
    for _, structure in references[::2]:
        sheared = structure.make_supercell(SHEAR, in_place=False, to_unit_cell=False)
        doubled = structure.make_supercell([1, 1, 2], in_place=False).perturb(0.02, seed=1)
        for cell in (structure, sheared, doubled):
            known = is_primitive_in_any_basis(Cell.of(cell))
            certain += known
            uncertain += not known
            if known:
                reduced = cell.get_reduced_structure()
                assert len(reduced.get_primitive_structure()) == len(cell)
        assert not is_primitive_in_any_basis(Cell.of(doubled))
    assert certain > 250 and uncertain >= 160


def test_a_crystal_that_shares_sites_is_reduced_as_mattergen_does(references: list[tuple[str, Any]]) -> None:
    compared = smaller = 0
    for _, structure in references[::4]:
        crystal = Crystal(structure)
        if not crystal.shares:
            continue
        ours = crystal.shared_cell.structure
        theirs = share(crystal.structure, crystal._groups).get_reduced_structure().get_primitive_structure()
        np.testing.assert_array_equal(ours.lattice.matrix, theirs.lattice.matrix)
        np.testing.assert_array_equal(ours.frac_coords, theirs.frac_coords)
        assert ours.species_and_occu == theirs.species_and_occu
        assert crystal.shared_primitive is None or len(crystal.shared_primitive) == len(theirs)
        compared += 1
        smaller += len(theirs) < len(structure)
    assert compared > 30 and smaller > 3


def test_sites_of_alloys_are_grouped_as_mattergen_does(references: list[tuple[str, Any]]) -> None:
    from mattergen.evaluation.utils.structure_matcher import check_is_disordered

    shared = 0
    for _, structure in references:
        crystal = Crystal(structure)
        possible, groups = check_is_disordered(structure)
        assert crystal.shares == possible
        if possible:
            shared += 1
            assert crystal._groups == groups
    assert 50 < shared < 300


@pytest.mark.parametrize("seed", range(4))
def test_points_in_supercells_are_pymatgens(seed: int) -> None:
    rng = np.random.default_rng(seed)
    compared = 0
    while compared < 100:
        matrix = rng.integers(-3, 4, (3, 3))
        size = round(abs(np.linalg.det(matrix)))
        if not 1 <= size <= 18:
            continue
        compared += 1
        ours = np.round(cosets(matrix[None], size)[0] * size).astype(int) % size
        theirs = np.round(lattice_points_in_supercell(matrix) * size).astype(int) % size
        assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, theirs.tolist()))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_mappings_are_all_that_pymatgen_finds_in_any_basis(size: int) -> None:
    rng = np.random.default_rng(size)
    tolerances = Tolerances(0.2, 5, 0.3)
    total = 0
    for _ in range(20):
        moving = Lattice(rng.normal(size=(3, 3)) * 0.5 + 3 * np.eye(3))
        target = Lattice(np.diag([1, 1, size]) @ moving.matrix @ (np.eye(3) + 0.05 * rng.normal(size=(3, 3))))
        found = moving.find_all_mappings(target, ltol=0.2, atol=5, skip_rotation_matrix=True)
        theirs = {m.tobytes() for _, _, m in found if round(abs(np.linalg.det(m))) == size}
        for basis in (np.eye(3, dtype=int), np.array(SHEAR)):
            cell = Cell(basis @ moving.matrix, np.zeros((1, 3)), [frozenset("H")])
            ours = mappings(cell.matrix, cell.spacing, Target(target.matrix), size, tolerances).matrices @ basis
            assert {np.ascontiguousarray(m).tobytes() for m in ours} == theirs
        total += len(theirs)
    assert total > 40


def test_compact_cells_pass_the_limits() -> None:
    rng = np.random.default_rng(0)
    compact = 0
    for _ in range(300):
        matrix = rng.normal(size=(3, 3)) * rng.uniform(0.5, 4) + rng.uniform(0, 4) * np.eye(3)
        if is_compact(matrix):
            check_size(Lattice(matrix))
            compact += 1
    assert 50 < compact < 290
    assert not is_compact(np.full((3, 3), np.nan)) and not is_compact(np.zeros((3, 3)))
    assert not is_compact(np.diag([1.0, 1.0, 3.0])) and is_compact(np.diag([1.0, 1.0, 2.0]))
