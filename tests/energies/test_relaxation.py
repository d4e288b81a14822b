"""Relaxation finds minima, and whatever a calculator does costs its own crystal only."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.energies.relaxation import REASONS, RelaxError, RelaxSettings, displacement, relax, relax_many
from mattergen_e.errors import UserError

MISCHIEF = """
import os, re
import numpy as np
from ase.calculators.lj import LennardJones

class Mischief(LennardJones):
    "A pair potential; the element says what else it does."

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        symbols = set(atoms.symbols)
        if "Mg" in symbols:
            re.match(r"(a+)+$", "a" * 60 + "b")  # for ever, in C, without a place for an exception
        if "Zn" in symbols:
            raise RuntimeError("no such luck")
        if "Ba" in symbols:
            os._exit(9)
        super().calculate(atoms, properties, system_changes)
        if "Cs" in symbols:
            self.results["energy"] = self.results["free_energy"] = np.nan
        if "Li" in symbols:
            self.results["stress"] = np.array([-1e3, -1e3, -1e3, 0, 0, 0])

def make():
    return Mischief(sigma=2.0, epsilon=0.1, rc=6.0)

def broken():
    raise RuntimeError("no licence")
"""


@pytest.fixture
def mischief(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mischief.py").write_text(MISCHIEF)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "mischief:make"


def test_a_long_and_flat_cell_is_reduced_first(solids: dict[str, Any], mischief: str) -> None:
    """Neighbours of a cell of 200 Å and a height of a hundredth of one are sought until the memory is full."""
    plain = solids["NaCl"]
    sheared = np.array([[1, 0, 0], [0, 1, 0], [31, 23, 1]]) @ plain.lattice.matrix
    flat = type(plain)(sheared, plain.species, plain.cart_coords, coords_are_cartesian=True)
    settings = RelaxSettings(calculator=mischief, fmax=0.05, steps=3)
    expected = relax(plain, settings)
    for found in (relax(flat, settings), next(iter(relax_many([("flat", flat)], settings, jobs=1)))[1]):
        energy = found["energy_per_atom"] if isinstance(found, dict) else found.energy_per_atom
        structure = found["structure"] if isinstance(found, dict) else found.structure.as_dict()
        assert energy == pytest.approx(expected.energy_per_atom, abs=1e-4)
        assert max(structure["lattice"][edge] for edge in "abc") < 10
        assert [site["label"] for site in structure["sites"]] == [site.specie.symbol for site in plain]


def test_rattled_salt_finds_back_to_its_lattice(solids: dict[str, Any]) -> None:
    pytest.importorskip("chgnet", reason="chgnet is not installed")
    ideal = relax(solids["NaCl"], RelaxSettings(fmax=0.01))
    salt = solids["NaCl"].copy()
    salt.perturb(0.15)
    salt.scale_lattice(salt.volume * 1.12)
    found = relax(salt, RelaxSettings(fmax=0.01))
    edge = (4 * found.structure.volume) ** (1 / 3)  # of the conventional cube
    assert found.converged and found.steps > 3
    assert edge == pytest.approx((4 * ideal.structure.volume) ** (1 / 3), rel=3e-3)
    assert edge == pytest.approx(5.69, abs=0.1)  # PBE
    assert found.energy_per_atom == pytest.approx(ideal.energy_per_atom, abs=2e-3)
    assert found.rmsd is not None and 0.01 < found.rmsd < 0.6
    fixed = relax(salt, RelaxSettings(cell=False))
    np.testing.assert_array_equal(fixed.structure.lattice.matrix, salt.lattice.matrix)
    assert fixed.energy_per_atom > found.energy_per_atom


def test_displacement_is_that_of_matter_gen(solids: dict[str, Any]) -> None:
    from mattergen.evaluation.utils.utils import compute_rmsd_angstrom, preprocess_structure

    rutile = solids["TiO2"]
    assert displacement(rutile, rutile) == pytest.approx(0.0, abs=1e-6)
    moved = rutile.copy()
    moved.perturb(0.2, seed=1) if "seed" in moved.perturb.__code__.co_varnames else moved.perturb(0.2)
    expected = compute_rmsd_angstrom(moved, preprocess_structure(rutile))
    assert displacement(rutile, moved) == expected and 0.05 < expected < 0.3
    # what cannot be aligned has the largest distance of the matcher
    volume = (solids["NaCl"].volume + solids["NaCl"].volume) / 2
    assert displacement(solids["NaCl"], solids["MgO"]) is not None
    other = solids["NaCl"].copy()
    other.replace_species({"Na": "K"})
    assert displacement(solids["NaCl"], other) == pytest.approx(0.5 * (volume / 2) ** (1 / 3), rel=1e-6)


def test_each_failure_has_its_reason_and_costs_nothing_else(mischief: str, solids: dict[str, Any]) -> None:
    from pymatgen.core import Lattice, Structure

    argon = Structure(Lattice.cubic(3.3), ["Ar"] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    nowhere = Structure(Lattice.cubic(4.0), ["Ar", "Ar"], [[0, 0, 0], [math.nan, 0.5, 0.5]])
    shared = Structure(Lattice.cubic(3.3), [{"Ar": 0.5, "Kr": 0.5}], [[0, 0, 0]])
    on_top = Structure(Lattice.cubic(4.0), ["Ar", "Ar"], [[0, 0, 0], [0, 0, 0.05]])
    crystals = {
        "hangs": solids["MgO"], "before": argon, "raises": solids["ZnS"], "dies": solids["BaTiO3"],
        "nan": solids["CsCl"], "explodes": solids["Li2O"], "nowhere": nowhere, "shared": shared, "on top": on_top,
        "after": argon,
    }  # fmt: skip
    settings = RelaxSettings(calculator=mischief, seconds=8, steps=100)
    found = dict(relax_many(crystals.items(), settings, jobs=1))
    reasons = {name: result["reason"] for name, result in found.items()}
    assert reasons == {
        "hangs": "time_limit", "before": None, "raises": "raised", "dies": "crashed", "nan": "not_finite",
        "explodes": "exploded", "nowhere": "bad_structure", "shared": "bad_structure", "on top": "too_close",
        "after": None,
    }  # fmt: skip
    assert set(reasons.values()) - {None} <= set(REASONS)
    assert "no such luck" in found["raises"]["sentence"] and "exit code 9" in found["dies"]["sentence"]
    assert 8 <= found["hangs"]["seconds"] < 60
    before, after = found["before"], found["after"]
    assert before["ok"] and before["converged"] and before["steps"] > 0 and before["rmsd"] is not None
    assert before["structure"] == after["structure"]
    relaxed = Structure.from_dict(before["structure"])
    # the fcc crystal of Lennard-Jones has its nearest neighbours at 1.09 to 1.12 sigma
    assert 1.08 * 2 < relaxed.volume ** (1 / 3) / math.sqrt(2) < 1.13 * 2
    assert all(not r["ok"] and r["energy_per_atom"] is None and r["structure"] is None
               for n, r in found.items() if n not in ("before", "after"))  # fmt: skip


def test_a_calculator_that_cannot_be_made_ends_it_all(mischief: str, solids: dict[str, Any]) -> None:
    items = [("a", solids["NaCl"])]
    with pytest.raises(UserError, match="no licence"):
        list(relax_many(items, RelaxSettings(calculator="mischief:broken"), jobs=1))
    with pytest.raises(UserError, match="is unknown"):
        list(relax_many(items, RelaxSettings(calculator="vasp"), jobs=1))
    with pytest.raises(UserError, match="is unknown"):
        list(relax_many(items, RelaxSettings(device="abacus"), jobs=1))


def test_elements_that_the_calculator_does_not_know() -> None:
    from pymatgen.core import DummySpecies, Lattice, Structure

    pytest.importorskip("chgnet", reason="chgnet is not installed")
    for species in ("Cm", DummySpecies("X")):
        with pytest.raises(RelaxError, match="does not know") as caught:
            relax(Structure(Lattice.cubic(4.0), [species], [[0, 0, 0]]))
        assert caught.value.reason == "unknown_element"


def test_too_few_steps_are_not_an_error(mischief: str) -> None:
    from pymatgen.core import Lattice, Structure

    argon = Structure(Lattice.cubic(4.0), ["Ar", "Ar"], [[0, 0, 0], [0.4, 0.5, 0.5]])
    found = relax(argon, RelaxSettings(calculator=mischief, steps=1, fmax=1e-6))
    assert not found.converged and found.steps == 1


@pytest.mark.parametrize("change", [{"fmax": 0}, {"steps": 0}, {"seconds": math.inf}, {"optimizer": "md"}, {"fmx": 1}])
def test_settings_out_of_range(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        RelaxSettings(**change)
