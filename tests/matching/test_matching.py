"""Verdicts of `evaluation.matching` beside those of MatterGen's own evaluator on the same crystals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from mattergen_e.matching import ReferenceIndex, prepare, unique
from mattergen_e.matching.reduction import is_primitive

#: Copper and gold may take each other's places by MatterGen's Hume-Rothery rule.
L1_0 = Structure(Lattice.tetragonal(2.8, 3.7), ["Cu", "Au"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def _alloy(species: Sequence[str], length: float = 3.8) -> Structure:
    """A layer of a face-centred cubic cell, doubled, with the elements as given on its eight sites."""
    fcc = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    positions = [[x, y, (z + layer) / 2] for layer in (0, 1) for x, y, z in fcc]
    return Structure(Lattice.tetragonal(length, 2 * length), species, positions)


def _same_as_upstream(ours: tuple[list[int], list[list[str]]], theirs: tuple[list[bool], list[list[str]]]) -> None:
    representatives, found = ours
    assert [i == j for i, j in enumerate(representatives)] == theirs[0]
    assert found == theirs[1]


def test_verdicts_are_those_of_the_evaluator(
    references: list[tuple[str, Any]], look_alikes: Callable[..., Any], as_reference: Callable[..., Any], upstream: Any
) -> None:
    structures = [structure for _, structure in references]
    crystals = [*structures[::8], *look_alikes(structures), *look_alikes(structures[:40:2], seed=1)]
    crystals = [crystals[i] for i in np.random.default_rng(2).permutation(len(crystals))]
    assert len(crystals) > 300
    theirs = upstream(crystals, references)
    assert 50 < sum(theirs[0]) < len(crystals) - 40 and 50 < sum(map(bool, theirs[1])) < len(crystals) - 50
    index = ReferenceIndex(as_reference(references))
    prepared = prepare(crystals)
    _same_as_upstream((unique(prepared, jobs=1), index.find(prepared, jobs=1, first_only=False)), theirs)
    first = index.find(crystals, jobs=1)
    assert first == [names[:1] for names in theirs[1]]


def test_disordered_crystals_switch_to_chemical_systems(
    references: list[tuple[str, Any]], look_alikes: Callable[..., Any], as_reference: Callable[..., Any], upstream: Any
) -> None:
    few = [pair for pair in references if len(pair[1]) <= 6][:60]
    mixed = _alloy(["Cu", "Au"] * 4)
    mixed.replace_species({"Cu": {"Cu": 0.5, "Au": 0.5}, "Au": {"Cu": 0.5, "Au": 0.5}})
    quarter = _alloy(["Cu", "Au", "Au", "Au"] * 2)
    quarter.replace_species({"Cu": {"Cu": 0.9, "Au": 0.1}})
    vacant = Structure(Lattice.cubic(5.64), ["Na", {"Cl": 0.9}], [[0, 0, 0], [0.5, 0.5, 0.5]])
    pairs = [*few, ("ordered", L1_0), ("shared", mixed), ("quarter", quarter), ("vacant", vacant)]
    crystals = [
        mixed.copy().scale_lattice(100), L1_0, quarter, _alloy(["Cu", "Cu", "Au", "Au"] * 2), vacant,
        *look_alikes([structure for _, structure in few]),
    ]  # fmt: skip
    theirs = upstream(crystals, pairs)
    assert any(theirs[1][:4]) and not all(theirs[1])
    index = ReferenceIndex(as_reference(pairs, ordered=False))
    _same_as_upstream((unique(crystals, jobs=1), index.find(crystals, jobs=1, first_only=False)), theirs)


@pytest.mark.parametrize("seed", range(3))
def test_orderings_of_alloys(seed: int, as_reference: Callable[..., Any], upstream: Any) -> None:
    rng = np.random.default_rng(seed)
    pure = [("Fe", "Co"), ("Ni", "Pt"), ("Mo", "W")][seed % 3]
    crystals = [_alloy([pure[k] for k in rng.permutation([0] * 4 + [1] * 4)]) for _ in range(8)]
    crystals += [
        crystal.copy().perturb(float(d), seed=seed) for crystal, d in zip(crystals, rng.uniform(0, 0.9, 8), strict=True)
    ]
    pairs = [(str(i), crystal) for i, crystal in enumerate(crystals[:4])]
    theirs = upstream(crystals, pairs)
    assert sum(map(bool, theirs[1])) > 4
    index = ReferenceIndex(as_reference(pairs))
    _same_as_upstream((unique(crystals, jobs=1), index.find(crystals, jobs=1, first_only=False)), theirs)


@pytest.mark.parametrize("kind", ["sites", "lengths", "angles"])
def test_at_the_border_of_the_tolerances(
    kind: str, solids: dict[str, Any], as_reference: Callable[..., Any], upstream: Any
) -> None:
    rng = np.random.default_rng(3)
    crystals = []
    for name in ("TiO2", "BaTiO3", "ZnS"):
        base = solids[name].copy()
        base.remove_site_property("bader_charge")
        length = (base.volume / len(base)) ** (1 / 3)
        direction = rng.normal(size=(len(base), 3))
        direction -= direction.mean(axis=0)
        direction /= np.linalg.norm(direction, axis=1).max()
        for amount in np.linspace(0.8, 1.2, 21):
            changed = base.copy()
            a, b, c, alpha, beta, gamma = base.lattice.parameters
            if kind == "sites":
                moved = base.cart_coords + 0.3 * amount * length * direction
                changed = Structure(base.lattice, base.species, moved, coords_are_cartesian=True)
            elif kind == "lengths":
                changed.lattice = Lattice.from_parameters(a, b, c * 1.2 ** (1.5 * amount), alpha, beta, gamma)
            else:
                changed.lattice = Lattice.from_parameters(a, b, c, alpha, beta, gamma + 5 * amount)
            crystals.append(changed)
    pairs = [(name, solids[name]) for name in ("TiO2", "BaTiO3", "ZnS")]
    theirs = upstream(crystals, pairs)
    assert 0 < sum(map(bool, theirs[1])) < len(crystals)
    index = ReferenceIndex(as_reference(pairs))
    _same_as_upstream((unique(crystals, jobs=1), index.find(crystals, jobs=1, first_only=False)), theirs)


def test_training_crystals_are_not_novel(references: list[tuple[str, Any]], as_reference: Callable[..., Any]) -> None:
    found = ReferenceIndex(as_reference(references)).find([s for _, s in references[::3]], jobs=1)
    assert all(found)


def test_copies_are_one_crystal(solids: dict[str, Any]) -> None:
    assert unique([solids["BaTiO3"]] * 64) == [0] * 64
    assert unique([]) == []
    assert unique([solids["NaCl"], solids["MgO"], solids["NaCl"].make_supercell(2, in_place=False)]) == [0, 1, 0]


def test_workers_change_nothing(
    references: list[tuple[str, Any]],
    look_alikes: Callable[..., Any],
    as_reference: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crystals = [*look_alikes([s for _, s in references[:30]]), *(s for _, s in references[:20])]
    index = ReferenceIndex(as_reference(references))
    alone = unique(crystals, jobs=1), index.find(crystals, jobs=1)
    monkeypatch.setattr("mattergen_e.matching.grouping.WORTH_WORKERS", 0)
    assert (unique(crystals, jobs=2), index.find(crystals, jobs=2)) == alone
    assert (unique(crystals, jobs=2, backend="threading"), index.find(crystals, jobs=2, backend="threading")) == alone


def test_only_groups_that_occur_are_built(references: list[tuple[str, Any]], as_reference: Callable[..., Any]) -> None:
    reference = as_reference(references)
    built: list[int] = []
    build = reference.structure
    reference.structure = lambda i: built.append(i) or build(i)
    wanted = references[5][1]
    ReferenceIndex(reference).find([wanted], jobs=1)
    assert built == [i for i, f in enumerate(reference.formulas) if f == wanted.composition.reduced_formula]


def test_crystals_that_cannot_be_compared_are_counted(as_reference: Callable[..., Any], solids: dict[str, Any]) -> None:
    salt = solids["NaCl"]
    broken = salt.copy()
    broken.lattice = Lattice(np.full((3, 3), np.nan))
    flat = salt.copy()
    flat.lattice = Lattice([[4, 0, 0], [0, 4, 0], [4, 4, 1e-12]])
    needle = salt.copy()
    needle.lattice = Lattice.orthorhombic(1e-4, 100, 100)
    helium = [
        Structure(Lattice.cubic(a), ["He", "Ne"], [[0, 0, 0], position])
        for a, position in ((3, [0.5, 0.5, 0.5]), (4, [0.5, 0, 0]))
    ]
    crystals = [broken, flat, needle, *helium, salt]
    told: dict[int, str] = {}
    index = ReferenceIndex(as_reference([("salt", salt), ("helium", helium[0])]))
    found = index.find(crystals, jobs=1, undecided=told.__setitem__)
    assert found == [[], [], [], ["helium"], [], ["salt"]]
    assert set(told) >= {0, 1} and "finite" in told[0]
    told.clear()
    assert unique(crystals, jobs=1, undecided=told.__setitem__)[5] == 5
    assert 1 in told


def test_a_decent_lattice_in_a_skewed_basis_is_compared(
    as_reference: Callable[..., Any], solids: dict[str, Any]
) -> None:
    salt = solids["NaCl"]
    skewed = salt.make_supercell([[1, 7, 3], [0, 1, 40], [0, 0, 1]], in_place=False, to_unit_cell=False)
    assert max(skewed.lattice.abc) > 150
    told: dict[int, str] = {}
    index = ReferenceIndex(as_reference([("salt", salt)]))
    assert index.find([skewed], jobs=1, undecided=told.__setitem__) == [["salt"]]
    assert not told


def test_primitive_cells_are_known_without_a_search(references: list[tuple[str, Any]]) -> None:
    known = 0
    for _, structure in references:
        for cell in (structure, structure.make_supercell([1, 1, 2], in_place=False).get_reduced_structure()):
            if is_primitive(cell):
                known += 1
                assert len(cell.get_primitive_structure()) == len(cell)
    assert known > 250
