"""Calculators by name: what is there works, what is not is named in one sentence, and nothing is downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.energies import calculators
from mattergen_e.energies.elements import element_crystals, element_energies
from mattergen_e.errors import UserError

FACTORY = """
from ase.calculators.lj import LennardJones

def make(device):
    calculator = LennardJones()
    calculator.asked = device
    return calculator

def nothing():
    return 3

def broken():
    raise RuntimeError("no licence")
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_potentials.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))


def chgnet() -> Any:
    pytest.importorskip("chgnet", reason="chgnet is not installed")
    return calculators.make("chgnet")


def test_batches_give_what_one_by_one_gives(solids: dict[str, Any]) -> None:
    """CHGNet's own batches against its ASE calculator."""
    calculator, crystals = chgnet(), list(solids.values())
    batched = calculators.energies(calculator, crystals, batch_size=3)
    single = [calculators._by_ase(calculator, crystal) for crystal in crystals]
    np.testing.assert_allclose(batched, single, atol=1e-5)
    names = list(solids)
    assert batched[names.index("NaCl")] == pytest.approx(-3.70, abs=0.1)  # MP: -3.39, and -0.31 of correction for Cl
    assert batched[names.index("MgO")] == pytest.approx(-6.29, abs=0.1)  # MP: -5.95, and -0.34 of correction for O


def test_a_crystal_that_fails_does_not_take_its_batch_along(solids: dict[str, Any]) -> None:
    from pymatgen.core import Lattice, Structure

    calculator = chgnet()
    curium = Structure(Lattice.cubic(3.5), ["Cm"], [[0, 0, 0]])  # Z = 96, CHGNet ends at 94
    found = calculators.energies(calculator, [solids["NaCl"], curium, solids["MgO"]])
    assert np.isnan(found).tolist() == [False, True, False]
    assert calculators.energies(calculator, []).shape == (0,)


def test_elements_have_the_energies_of_materials_project() -> None:
    """eV/atom of MP's ground states, which CHGNet learnt; sulphur needs its rings."""
    expected = {"H": -3.39, "F": -1.91, "S": -4.14, "K": -1.11, "Se": -3.50, "Br": -1.63, "Cs": -0.86, "Ce": -5.93}
    found = element_energies(chgnet(), expected)
    assert set(found) == set(expected)
    for symbol, energy in expected.items():
        assert found[symbol] == pytest.approx(energy, abs=0.1), symbol


def test_sulphur_comes_in_rings_of_eight() -> None:
    crystal = element_crystals(["S", "Fr"])
    assert set(crystal) == {"S"} or len(crystal["Fr"]) > 0
    sulphur = crystal["S"]
    assert len(sulphur) == 32
    bonds = [sorted(n.nn_distance for n in sulphur.get_neighbors(site, 2.6)) for site in sulphur]
    np.testing.assert_allclose(bonds, np.full((32, 2), 2.05), atol=0.03)


def test_description_names_version_and_weights() -> None:
    pytest.importorskip("chgnet", reason="chgnet is not installed")
    found = calculators.describe("chgnet")
    assert found["name"] == "chgnet" and found["model"] == "0.3.0" and len(found["weights_sha256"]) == 64
    assert found["version"] and calculators.describe("chgnet") == found


def test_a_factory_of_the_users_own(factories: None) -> None:
    from ase.build import bulk

    made = calculators.make("my_potentials:make")
    assert made.asked == "cpu"
    atoms = bulk("Ar")
    atoms.calc = made
    assert np.isfinite(atoms.get_potential_energy())
    assert len(calculators.describe("my_potentials:make")["module_sha256"]) == 64


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("my_potentials:nothing", "made a int, which is no ASE calculator"),
        ("my_potentials:broken", "no licence"),
        ("my_potentials:absent", "cannot be made"),
        ("not_there_at_all:make", "cannot be found"),
        ("chgnett", "is unknown: give chgnet, sevenn, mattersim, mace, orb or module:factory"),
        ("os.system('x')", "is unknown"),
        ("", "is unknown"),
    ],
)
def test_calculators_that_cannot_be_made(name: str, sentence: str, factories: None) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        calculators.make(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["sevenn", "mattersim", "mace", "orb"])
def test_what_would_need_a_download_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.delenv(calculators.ORB_WEIGHTS, raising=False)
    known = calculators.KNOWN[name]
    installed = importlib.util.find_spec(known.module) is not None
    if installed and name == "sevenn":
        assert calculators.describe(name)["weights_sha256"]
        return
    with pytest.raises(UserError, match="nothing is downloaded" if installed else "pip install"):
        calculators.make(name)
    assert not list(tmp_path.iterdir())


def test_devices() -> None:
    import torch

    calculators.check_device("cpu")
    with pytest.raises(UserError, match="is unknown"):
        calculators.check_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="torch sees no GPU"):
            calculators.check_device("cuda")
