"""Labels of generated crystals, and putting their sites together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.core.operations import SymmOp

from mattergen_e.crystals.alignment import AlignmentError
from mattergen_e.errors import UserError
from mattergen_e.evaluation.candidates import Candidate, structure_key
from mattergen_e.evaluation.labels import pair, read_labels, site_order


@pytest.fixture(scope="module")
def crystal() -> Structure:
    """A crystal without symmetry, so that there is one right order only."""
    positions = [[0.02, 0.03, 0.05], [0.5, 0.1, 0.45], [0.28, 0.61, 0.22], [0.81, 0.55, 0.71], [0.13, 0.84, 0.66]]
    return Structure(Lattice.from_parameters(5.1, 5.9, 6.8, 83, 97, 104), ["Na", "Mg", "O", "O", "F"], positions)


def _candidate(structure: Structure, index: int = 0, **fields: Any) -> Candidate:
    return Candidate(index=index, structure=structure, reason=None, key=structure_key(structure), **fields)


def _shuffled(structure: Structure, order: list[int]) -> Structure:
    return Structure(structure.lattice, [structure.species[i] for i in order], structure.frac_coords[order])


ORDER = [3, 0, 4, 2, 1]


def _turned(structure: Structure) -> Structure:
    turned = structure.copy()
    turned.apply_operation(SymmOp.from_axis_angle_and_translation(np.array([1, 2, 3]), 77))
    return turned


def _standard(structure: Structure) -> Structure:
    elsewhere = structure.frac_coords + np.array([0, 1, -2])
    return Structure(Lattice.from_parameters(*structure.lattice.parameters), structure.species, elsewhere)


def _negative(structure: Structure) -> Structure:
    return Structure(-structure.lattice.matrix, structure.species, -structure.frac_coords)


def _relaxed(structure: Structure) -> Structure:
    rng = np.random.default_rng(0)
    strain = np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))
    moved = structure.copy()
    moved.perturb(0.2)
    return Structure(structure.lattice.matrix @ strain, moved.species, moved.frac_coords)


def _other_cell(structure: Structure) -> Structure:
    return Structure.from_sites(structure.get_reduced_structure().sites)


def _sheared(structure: Structure) -> Structure:
    """Another choice of a cell, turned as well."""
    whole = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
    other = Structure(whole @ structure.lattice.matrix, structure.species, structure.frac_coords @ np.linalg.inv(whole))
    return _turned(other)


@pytest.mark.parametrize("change", [_turned, _standard, _negative, _relaxed, _other_cell, _sheared])
def test_sites_are_found_again(crystal: Structure, change: Any) -> None:
    label = change(_shuffled(crystal, ORDER))
    order = site_order(crystal, label)
    assert [ORDER[i] for i in order] == [0, 1, 2, 3, 4]


def test_what_is_not_the_crystal_is_told_apart(crystal: Structure) -> None:
    other = crystal.copy()
    other.replace(0, "K")
    with pytest.raises(AlignmentError, match="its label is of K1"):
        site_order(crystal, other)
    larger = crystal.copy()
    larger.make_supercell([2, 1, 1])
    with pytest.raises(AlignmentError, match="its label is of"):
        site_order(crystal, larger)
    moved = Structure(crystal.lattice, crystal.species, [[0, 0, 0.5 * i / 5] for i in range(5)])
    with pytest.raises(AlignmentError, match="moved too far"):
        site_order(crystal, moved)


def _write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("name", [{"index": 7}, {"id": "gen_7"}, {"id": "mine"}, {"key": None}, {"id": "7"}])
def test_names_of_a_file(crystal: Structure, tmp_path: Path, name: dict[str, Any]) -> None:
    name = {"key": structure_key(crystal)} if "key" in name else name
    path = _write(tmp_path / "charges.jsonl", {**name, "bader_charge": [1, 2, -1, -1, -1]})
    labels = read_labels(path)
    pairs, reasons = pair([_candidate(crystal, 7, name="mine.cif"), _candidate(crystal, 8)], labels)
    assert [item.candidate.index for item in pairs if "key" not in name or item.candidate.index == 7] == [7]
    assert pairs[0].order.tolist() == [0, 1, 2, 3, 4]
    assert reasons == ({} if "key" in name else {8: "it has no label"})
    assert labels.grid is None and labels.source == f"charges.jsonl (sha256 {labels.sha256[:12]})"


def test_the_very_crystal_needs_no_name(crystal: Structure, solids: dict[str, Structure], tmp_path: Path) -> None:
    label = _shuffled(crystal, ORDER)
    strange = {"id": "generated_crystals_1", "structure": label.as_dict(), "bader_charge": [-1, 1, -1, -1, 2]}
    labels = read_labels(_write(tmp_path / "charges.jsonl", strange))
    relaxed = _relaxed(crystal)
    pairs, reasons = pair([_candidate(solids["NaCl"], 0), _candidate(crystal, 4), _candidate(relaxed, 5)], labels)
    assert [item.candidate.index for item in pairs] == [4]
    assert pairs[0].label.charges is not None
    assert pairs[0].label.charges[pairs[0].order].tolist() == [1, 2, -1, -1, -1]
    assert set(reasons) == {0, 5}


def test_labels_of_other_crystals_are_refused(crystal: Structure, tmp_path: Path) -> None:
    labels = read_labels(_write(tmp_path / "charges.jsonl", {"index": 3, "bader_charge": [0.0]}))
    with pytest.raises(UserError, match=r"none of the 1 labels .* it has no label\): give labels whose ids"):
        pair([_candidate(crystal, 1)], labels)
    with pytest.raises(UserError, match="its label has 1 charges for 5 sites"):
        pair([_candidate(crystal, 3)], labels)
    assert pair([], labels) == ([], {})


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"index": 0, "bader_charge": [1, None]}, "line 1: bader_charge is no list of finite numbers"),
        ({"index": 0, "bader_charge": "1"}, "no list of finite numbers"),
        ({"index": 0, "bader_charge": [[1], [2]]}, "no list of finite numbers"),
        ({"bader_charge": [1]}, "line 1: the row has no name"),
        ({"index": 0, "structure": {"a": 1}}, "the structure cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_labels(_write(tmp_path / "charges.jsonl", line))


def test_sources_that_hold_no_labels(crystal: Structure, tmp_path: Path) -> None:
    wrong = {"index": 0, "structure": crystal.as_dict(), "bader_charge": [1, -1]}
    with pytest.raises(UserError, match="2 numbers for the 5 sites"):
        read_labels(_write(tmp_path / "wrong.jsonl", wrong))
    with pytest.raises(UserError, match="0 occurs twice"):
        read_labels(_write(tmp_path / "twice.jsonl", *[{"index": 0, "bader_charge": [1]}] * 2))
    with pytest.raises(UserError, match="holds no label"):
        read_labels(_write(tmp_path / "empty.jsonl"))
    with pytest.raises(UserError, match="data label"):
        read_labels(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        read_labels(tmp_path / "none.jsonl")
