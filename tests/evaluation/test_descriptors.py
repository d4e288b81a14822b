"""Accuracy of generated charges and spectra, by hand and by the way from a calculation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from scipy.stats import wasserstein_distance

from mattergen_e.descriptors import AtomicDos, BaderCharge
from mattergen_e.errors import UserError
from mattergen_e.evaluation.candidates import Candidate, structure_key
from mattergen_e.evaluation.descriptors import compare, compare_all
from mattergen_e.evaluation.labels import read_labels
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.spectra.objects import CrystalSpectra


def _candidate(index: int, structure: Structure, charges: Any = None, spectra: Any = None) -> Candidate:
    structure = structure.copy()
    if charges is not None:
        structure.add_site_property("bader_charge", list(charges))
    return Candidate(
        index=index,
        structure=structure,
        reason=None,
        key=structure_key(structure),
        spectra=spectra,
        name=f"gen_{index}.cif",
    )


@pytest.fixture
def salt() -> Structure:
    return Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture
def water() -> Structure:
    return Structure(Lattice.cubic(6.0), ["O", "H", "H"], [[0, 0, 0], [0.16, 0, 0], [0, 0.16, 0]])


def test_charges_by_hand(salt: Structure, water: Structure, tmp_path: Path) -> None:
    swapped = Structure(water.lattice, ["H", "H", "O"], [[0, 0.165, 0], [0.16, 0, 0], [0, 0, 0]])
    lines = [
        {"index": 0, "bader_charge": [0.8, -0.8]},
        {"id": "gen_2", "structure": swapped.as_dict(), "bader_charge": [0.5, 0.7, -1.2]},
        {"index": 3, "bader_charge": None},
    ]
    path = tmp_path / "charges.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    crystals = [
        _candidate(0, salt, [0.9, -0.9]),
        Candidate(index=1, structure=None, reason="broken_cif", key=""),
        _candidate(2, water, [-1.0, 0.4, 0.6]),
        _candidate(3, salt, [0.9, -0.9]),
        _candidate(4, salt, [0.9, -0.9]),
        _candidate(5, salt),
    ]
    found = compare(BaderCharge(), crystals, read_labels(path))
    assert found is not None
    np.testing.assert_allclose(found.generated[:, 0], [0.9, -0.9, -1.0, 0.4, 0.6])
    np.testing.assert_allclose(found.reference[:, 0], [0.8, -0.8, -1.2, 0.7, 0.5])
    assert found.index.tolist() == [0, 0, 2, 2, 2] and found.site.tolist() == [0, 1, 0, 1, 2]
    assert found.number.tolist() == [11, 17, 8, 1, 1]
    assert found.rows[0]["charge_mae"] == pytest.approx(0.1)
    assert found.rows[2]["charge_mae"] == pytest.approx(0.2)
    assert dict(found.reasons) == {3: "its label has no charges", 4: "it has no label"}
    summary = found.summary(sun={2, 4})
    assert summary["all"] == {"mae": pytest.approx(0.16), "sites": 5, "crystals": 2}
    assert summary["sun"] == {"mae": pytest.approx(0.2), "sites": 3, "crystals": 1}
    assert next(iter(summary["by_element"])) == "H"
    assert summary["by_element"]["H"] == {"mae": pytest.approx(0.2), "sites": 2, "crystals": 1}
    assert summary["by_element"]["Na"] == {"mae": pytest.approx(0.1), "sites": 1, "crystals": 1}
    assert (summary["compared"], summary["not_compared"]) == (2, 2)
    assert summary["source"].startswith("charges.jsonl")
    assert found.arrays({2})["charge_sun"].tolist() == [False, False, True, True, True]
    json.dumps(summary, allow_nan=False)
    assert found.summary()["sun"] == {"mae": None, "sites": 0, "crystals": 0}


def test_charges_that_are_no_numbers(salt: Structure, tmp_path: Path) -> None:
    path = tmp_path / "charges.jsonl"
    path.write_text('{"index": 0, "bader_charge": [1, -1]}\n{"index": 1, "bader_charge": [1, -1]}\n')
    found = compare(
        BaderCharge(), [_candidate(0, salt, [np.nan, 1]), _candidate(1, salt, [[1.0], [-1.0]])], read_labels(path)
    )
    assert found is not None
    assert dict(found.reasons) == {0: "it has no charges"}
    assert found.rows == {1: {"charge_mae": 0.0}}
    assert compare(BaderCharge(), [_candidate(0, salt)], read_labels(path)) is None


@pytest.fixture(scope="module")
def labelled(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of three computed crystals that stand for generated ones."""
    from mattergen_e.labels.run import label

    computed, out = tmp_path_factory.mktemp("computed"), tmp_path_factory.mktemp("labelled") / "labels"
    chosen = [name for name in ("mp-1000", "mp-1001790", "mp-1002069") if (real_data / f"gpaw/{name}.npz").exists()]
    for i, name in enumerate(chosen):
        (computed / f"gen_{i}.npz").write_bytes((real_data / f"gpaw/{name}.npz").read_bytes())
    label([computed], out, jobs=1, progress=False)
    return out


def test_from_a_calculation_to_the_accuracy(labelled: Path) -> None:
    labels = read_labels(labelled)
    assert [label.id for label in labels.items] == ["gen_0", "gen_1", "gen_2"] and labels.grid is not None
    crystals, shift = [], 0.25
    for i, item in enumerate(labels.items):
        cell, spectra, charges = item.structure, item.spectra(), item.charges
        assert cell is not None and spectra is not None and charges is not None
        back = np.arange(len(cell))[::-1]
        generated = Structure(
            Lattice.from_parameters(*cell.lattice.parameters),
            [cell.species[j] for j in back],
            cell.frac_coords[back] + 1e-3,
        )
        bins = round(shift / labels.grid.step)
        moved = CrystalSpectra(
            np.roll(spectra, bins, axis=1)[back], labels.grid, np.zeros((len(back), 2), np.float32), "hand-made"
        )
        crystals.append(_candidate(i, generated, charges[back] + 0.05, moved))
    charges = compare(BaderCharge(), crystals, labels)
    assert charges is not None and not charges.reasons
    np.testing.assert_allclose(charges.generated - charges.reference, 0.05)
    assert charges.summary()["all"]["mae"] == pytest.approx(0.05)
    spectra = compare(AtomicDos(), crystals, labels)
    assert spectra is not None and spectra.grid is not None and not spectra.reasons
    energies = spectra.grid.energies
    expected = [
        wasserstein_distance(energies, energies, a, b)
        for a, b in zip(spectra.generated, spectra.reference, strict=True)
    ]
    np.testing.assert_allclose(spectra.distance, expected, rtol=1e-5)
    mean = {i: np.mean(np.array(expected)[spectra.index == i]) for i in range(3)}
    assert {i: row["dos_wasserstein"] for i, row in spectra.rows.items()} == pytest.approx(mean)
    summary = spectra.summary(sun=[1])
    assert summary["all"]["mean"] == pytest.approx(np.mean(expected))
    assert summary["sun"]["median"] == pytest.approx(np.median(np.array(expected)[spectra.index == 1]))
    assert summary["sun"]["crystals"] == 1
    arrays = spectra.arrays(sun=[1])
    assert arrays["dos_generated"].dtype == np.float16 and arrays["dos_generated"].shape == (len(expected), 512)
    assert len({len(arrays[name]) for name in arrays if name != "dos_energies"}) == 1


def test_grids_are_not_mixed(labelled: Path) -> None:
    labels = read_labels(labelled)
    cell = labels.items[0].structure
    assert cell is not None
    grid = EnergyGrid(minimum=-10, maximum=10, points=8)
    spectra = CrystalSpectra(
        np.ones((len(cell), 8), dtype=np.float32), grid, np.zeros((len(cell), 2), np.float32), "other"
    )
    with pytest.raises(UserError, match="label with the settings that the model was trained with"):
        compare(AtomicDos(), [_candidate(0, cell, spectra=spectra)], labels)


def test_labels_of_a_file_have_no_spectra(salt: Structure, tmp_path: Path) -> None:
    path = tmp_path / "charges.jsonl"
    path.write_text('{"index": 0, "bader_charge": [1, -1]}\n')
    grid = EnergyGrid(minimum=-10, maximum=10, points=8)
    spectra = CrystalSpectra(np.ones((2, 8), dtype=np.float32), grid, np.zeros((2, 2), dtype=np.float32), "x")
    found = compare(AtomicDos(), [_candidate(0, salt, spectra=spectra)], read_labels(path))
    assert found is not None
    assert dict(found.reasons) == {0: "its label has no spectra"}
    assert found.rows == {} and found.arrays() == {} and found.summary()["all"]["mean"] is None
    assert compare(AtomicDos(), [_candidate(0, salt)], read_labels(path)) is None


def test_a_line_cannot_name_a_file_outside_its_folder(labelled: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(labelled, tmp_path / "copy")
    lines = (tmp_path / "copy/labels.jsonl").read_text().replace("arrays/gen_0.npz", "../../gen_0.npz")
    (tmp_path / "copy/labels.jsonl").write_text(lines)
    with pytest.raises(UserError, match="outside of"):
        read_labels(tmp_path / "copy")


def test_damaged_arrays(labelled: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(labelled, tmp_path / "copy")
    content = (labelled / "arrays/gen_0.npz").read_bytes()
    (tmp_path / "copy/arrays/gen_0.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="is damaged"):
        read_labels(tmp_path / "copy").items[0].spectra()


def _write_labels(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_vector_of_sites_of_an_unknown_package(water: Structure, tmp_path: Path) -> None:
    crystal = water.copy()
    crystal.add_site_property("moment", [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    swapped = Structure(water.lattice, ["H", "H", "O"], [[0, 0.16, 0], [0.16, 0, 0], [0, 0, 0]])
    moments = [[0.0, 0.0, 3.3], [0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]
    labels = read_labels(
        _write_labels(tmp_path / "m.jsonl", {"id": "gen_0", "structure": swapped.as_dict(), "moment": moments})
    )
    fields = {"moment": {"place": "site", "dim": 3, "unit": "mu_B", "probes": None, "label": "Magnetic moment"}}
    found = compare_all([_candidate(0, crystal)], labels, fields)["moment"]
    np.testing.assert_allclose(found.distance, [0, 0, 0.1])
    assert found.rows == {0: {"moment_mae": pytest.approx(0.1 / 3)}}
    summary = found.summary()
    assert summary["all"] == {"mae": pytest.approx(0.1 / 3), "sites": 3, "crystals": 1}
    assert summary["by_element"]["H"]["mae"] == pytest.approx(0.05)
    assert summary["measure"]["axis"] == "Magnetic moment (mu_B)"
    assert found.arrays()["moment_generated"].shape == (3, 3)


def test_values_of_the_crystal_and_grids(salt: Structure, tmp_path: Path) -> None:
    from dataclasses import replace

    grid = np.arange(8.0).reshape(2, 2, 2, 1)
    line = {"index": 0, "gap": 1.5, "density": (grid[..., 0] + 0.5).tolist()}
    crystal = replace(_candidate(0, salt), values={"gap": 1.25}, arrays={"density": grid})
    found = compare_all([crystal], read_labels(_write_labels(tmp_path / "g.jsonl", line)))
    assert found["gap"].rows == {0: {"gap_mae": 0.25}}
    assert found["gap"].summary()["all"] == {"mae": 0.25, "rows": 1, "crystals": 1}
    assert found["density"].rows == {0: {"density_mae": 0.5}} and found["density"].summary()["by_element"] == {}
    assert len(found["density"].index) == 8


def test_components_go_along_with_the_choice_of_the_cell(tmp_path: Path) -> None:
    from mattergen_e.evaluation.labels import components

    cell = Structure(Lattice.orthorhombic(3.0, 4.0, 5.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    other = cell.copy()
    other.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
    turned = components(cell, other)
    assert turned is not None
    along = np.array([[0.2, -0.4, 0.7]])
    np.testing.assert_allclose(along @ turned @ cell.lattice.matrix, along @ other.lattice.matrix, atol=1e-12)
    far = Structure(Lattice.cubic(3.9), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert components(cell, far) is None
