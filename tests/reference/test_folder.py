"""What was built is read back: structures, fingerprints, energies, properties; and damage is seen."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.provenance import hash_file
from mattergen_e.reference import Reference
from mattergen_e.reference.build import BuildSettings, build

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def folder(write_dos_cache: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference of 24 crystals with CHGNet's energies, in chunks of 7."""
    pytest.importorskip("chgnet", reason="chgnet is not installed")
    place = tmp_path_factory.mktemp("reference")
    build([write_dos_cache(place / "cache")], place / "ref", BuildSettings(chunk=7), jobs=1)
    return place / "ref"


def test_crystals_are_read_back_in_order(folder: Path, solids: dict[str, Any]) -> None:
    reference = Reference.open(folder)
    assert reference.ids.tolist() == [f"{split}-{name}" for split in SPLITS for name in solids]
    assert reference.split.tolist() == [split for split in SPLITS for _ in solids]
    assert reference.formulas[:8].tolist() == [s.composition.reduced_formula for s in solids.values()]
    assert reference.chemical_systems[:2].tolist() == ["Cl-Na", "Cl-Cs"]
    for i, solid in enumerate([*solids.values()] * 3):
        read = reference.structure(i)
        np.testing.assert_allclose(read.lattice.matrix, solid.lattice.matrix)
        np.testing.assert_allclose(read.frac_coords, solid.frac_coords % 1)
        assert read.species == solid.species
    assert [len(s) for s in reference.structures([8, 13])] == [2, 5]
    np.testing.assert_allclose(reference.properties["dft_band_gap"][8:16], np.linspace(0, 5, 8))
    assert isinstance(reference.energies, np.memmap) or reference.energies.base is not None


def test_fingerprints_and_energies_are_those_of_their_modules(folder: Path, solids: dict[str, Any]) -> None:
    from mattergen_e.energies.calculators import energies, make
    from mattergen_e.reference.fingerprints import amd, magpie

    reference, crystals = Reference.open(folder), list(solids.values())
    np.testing.assert_allclose(reference.magpie[16:], magpie(crystals), rtol=1e-5)
    np.testing.assert_allclose(reference.amd[16:], amd(crystals), rtol=1e-4)
    np.testing.assert_allclose(reference.energies[:8], energies(make("chgnet"), crystals), atol=1e-5)
    assert reference.energy_source["kind"] == "calculator" and reference.energy_source["name"] == "chgnet"


def test_hull_knows_compounds_and_elements(folder: Path) -> None:
    reference = Reference.open(folder)
    hull, salt = reference.hull(), float(reference.energies[0])
    assert hull.energy_above_hull("NaCl", salt) <= 1e-4  # one of three copies whose last digits may differ
    assert hull.formation_energy("NaCl", salt) == pytest.approx(-2.13, abs=0.1)  # experiment: -411 kJ/mol = -2.13
    assert reference.manifest.missing_elements == [] and set(hull.elements) >= {"Na", "Cl", "S", "Ti", "O"}
    assert hull.missing("NaXe") == ["Xe"]


def test_it_travels_to_workers_and_knows_itself(folder: Path) -> None:
    reference = Reference.open(folder)
    copy = pickle.loads(pickle.dumps(reference))
    assert copy.hash == reference.hash and len(pickle.dumps(reference)) < 1000
    assert len(reference) == 24 and reference.name == "ref"
    reference.verify()


def test_damage_is_seen(folder: Path, tmp_path: Path) -> None:
    import shutil

    broken = shutil.copytree(folder, tmp_path / "broken")
    data = bytearray((broken / "energies.npy").read_bytes())
    data[-1] ^= 1
    (broken / "energies.npy").write_bytes(data)
    with pytest.raises(UserError, match="energies.npy is not what was built"):
        Reference.open(broken)
    (broken / "energies.npy").write_bytes(data[:-8])
    with pytest.raises(UserError, match="energies.npy is missing or not whole"):
        Reference.open(broken)
    (broken / "manifest.json").write_text('{"format_version": 2}')
    with pytest.raises(UserError, match="not of a reference of format 1"):
        Reference.open(broken)
    with pytest.raises(UserError, match="is no reference"):
        Reference.open(tmp_path / "nowhere")


def test_arrays_that_hold_objects_are_not_unpickled(folder: Path, tmp_path: Path) -> None:
    import shutil

    broken = shutil.copytree(folder, tmp_path / "broken")
    np.save(broken / "energies.npy", np.array([{}] * 24, dtype=object), allow_pickle=True)
    manifest = json.loads((broken / "manifest.json").read_text())
    manifest["arrays"]["energies.npy"]["size"] = (broken / "energies.npy").stat().st_size
    manifest["arrays"]["energies.npy"]["sha256"] = hash_file(broken / "energies.npy")
    (broken / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="is not a plain array"):
        _ = Reference.open(broken).energies


def test_files_join_caches_and_the_first_of_an_id_counts(
    tmp_path: Path, write_dos_cache: Callable[..., Path], solids: dict[str, Any]
) -> None:
    lines = [
        {"material_id": "mine", "structure": solids["MgO"].as_dict(), "dft_band_gap": 4.4, "split": "val"},
        {"material_id": "train-NaCl", "structure": solids["MgO"].as_dict()},
        {"material_id": "bad", "structure": {}},
    ]
    file = tmp_path / "more.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    settings = BuildSettings(calculator=None, splits=("train", "val"))
    manifest, _ = build([write_dos_cache(tmp_path / "cache"), file], tmp_path / "ref", settings, jobs=1)
    reference = Reference.open(tmp_path / "ref")
    assert reference.ids.tolist()[-1] == "mine" and len(reference) == 17
    assert reference.formulas[0] == "NaCl" and reference.split[-1] == "val"
    assert reference.properties["dft_band_gap"][-1] == 4.4
    assert manifest.dropped_by_reason["duplicate_id"] == 1 and sum(manifest.dropped_by_reason.values()) == 2
    assert [source["kind"] for source in manifest.sources] == ["cache", "file"]
    assert np.isnan(reference.energies).all()
