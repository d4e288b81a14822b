"""Which vasprun.xml are taken: neutral cells, and whatever VASP writes that pymatgen does not expect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from vasprun import Run, insulator

from mattergen_e.crystals.findings import LabelError
from mattergen_e.errors import UserError
from mattergen_e.labels.process import make_label
from mattergen_e.labels.settings import LabelSettings
from mattergen_e.labels.vasp import calculation as vasp
from mattergen_e.labels.vasp.vasprun import read_vasprun
from mattergen_e.targets.files import read_curves

SETTINGS = LabelSettings()


def silicon(**changes: Any) -> Run:
    return insulator(("Si", "Si"), {"Si": 4}, (-11.0, -6.0, -4.0, -2.0, 0.6, 4.0), 4, **({"efermi": 0.1} | changes))


def read(run: Run, folder: Path) -> Any:
    return vasp.read(run.write(folder), SETTINGS)


# -- charged cells ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("electrons", "told"), [(9.0, "-1 e"), (7.0, r"\+1 e"), (8.02, "-0.02 e"), (10.0, "-2 e")])
def test_a_charged_cell_is_refused(tmp_path: Path, electrons: float, told: str) -> None:
    with pytest.raises(
        LabelError, match=f"{told}.* holds {electrons:g} electrons and its potentials bring 8"
    ) as caught:
        read(silicon(electrons=electrons), tmp_path)
    assert caught.value.reason == "charged"
    with pytest.raises(UserError, match="charged cell"):
        read_curves(tmp_path / "vasprun.xml")


def test_a_neutral_cell_is_taken(tmp_path: Path) -> None:
    assert read(silicon(), tmp_path / "a").properties["dft_band_gap"] == pytest.approx(2.594, abs=1e-4)
    assert read(silicon(electrons=8.0004), tmp_path / "b").dos is not None  # rounded in the file
    virtual = replace(silicon(), valence={"Si": 4.0}, species=("Si", "Si"))
    assert read(virtual, tmp_path / "c").dos is not None


# -- what a target has to keep to -------------------------------------------------------------------------------------


def test_an_unconverged_run_is_no_target_and_no_label(tmp_path: Path) -> None:
    run = silicon(steps=60)
    with pytest.raises(LabelError) as caught:
        read(run, tmp_path)
    assert caught.value.reason == "not_converged"
    with pytest.raises(UserError, match="did not converge"):
        read_curves(tmp_path / "vasprun.xml")
    silicon().write(tmp_path)
    assert len(read_curves(tmp_path / "vasprun.xml")) == 1


# -- parts that do not hang on each other -----------------------------------------------------------------------------


def test_a_short_grid_does_not_cost_the_gap(tmp_path: Path) -> None:
    """The window of the total DOS ends at 10 eV; without projections, the gap is all that is left."""
    label = make_label(read(silicon(energies=(-30.0, 7.6, 301)), tmp_path), SETTINGS)
    assert label.properties["dft_band_gap"] == pytest.approx(2.594, abs=1e-4)
    assert not label.crystal_values and not label.site_values
    assert {(f.part, f.reason) for f in label.findings if f.refused} == {
        ("total_dos", "window"), ("atomic_dos", "no_projections"),
    }  # fmt: skip


def test_a_run_without_dos_has_a_gap(tmp_path: Path) -> None:
    label = make_label(read(silicon(energies=None), tmp_path), SETTINGS)
    assert label.properties["dft_band_gap"] == pytest.approx(2.594, abs=1e-4)


def test_the_sentence_names_what_decides(tmp_path: Path) -> None:
    """Nothing is left because of the DOS; that the gap has no upper edge is said after it, not instead of it."""
    run = insulator(("He",), {"He": 2}, (-5.0,), 1, efermi=-4.0, energies=(-20.0, -12.0, 101))
    with pytest.raises(LabelError) as caught:
        read(run, tmp_path)
    assert caught.value.reason == "no_labels"
    assert caught.value.sentence.startswith("nothing can be learned from it: the Fermi energy -4.000 eV is outside")
    assert "NBANDS" in caught.value.sentence


# -- what pymatgen does not expect ------------------------------------------------------------------------------------


def test_asterisks_in_a_parameter_that_nothing_needs(tmp_path: Path) -> None:
    run = silicon(parameters={"KINTER": "******", "MAGMOM": "2****"}, incar={"LDAUU": "*****"})
    assert read(run, tmp_path).properties["dft_band_gap"] == pytest.approx(2.594, abs=1e-4)


@pytest.mark.parametrize("name", ["NELECT", "NELM", "ISMEAR"])
def test_asterisks_in_a_parameter_that_is_needed(tmp_path: Path, name: str) -> None:
    with pytest.raises(LabelError, match=f"gives {name} as asterisks") as caught:
        read(silicon(parameters={name: "******"}), tmp_path)
    assert caught.value.reason == "damaged_file"


@pytest.mark.parametrize("number", ["38", " 48", "68", "53"])
def test_an_algorithm_by_number(tmp_path: Path, number: str) -> None:
    assert read(silicon(incar={"ALGO": number}), tmp_path).record["converged"] is True


def test_a_dielectric_run_repeats_no_structure(tmp_path: Path) -> None:
    calculation = read(silicon(structure=False, steps=1, incar={"LEPSILON": True}, parameters={"NELM": 60}), tmp_path)
    assert calculation.dos is not None and len(calculation.structure) == 2


@pytest.mark.parametrize(("algorithm", "name"), [("EVGW0", "EVGW0@PBE"), ("G0W0", "G0W0@PBE"), ("scGW", "SCGW@PBE")])
def test_a_gw_run_has_a_gap_under_its_own_name(tmp_path: Path, algorithm: str, name: str) -> None:
    """One step without a structure and without a DOS: its quasiparticle energies are what it was made for."""
    run = silicon(structure=False, steps=1, energies=None, incar={"ALGO": algorithm}, parameters={"NELM": 1})
    calculation = read(run, tmp_path)
    assert calculation.properties["dft_band_gap"] == pytest.approx(2.594, abs=1e-4)
    assert calculation.record["functional"] == name


def test_the_same_file_is_read_by_pymatgen(tmp_path: Path) -> None:
    """The files of these tests are what pymatgen's own parser takes for a calculation."""
    from pymatgen.io.vasp.outputs import Vasprun

    run = Vasprun(silicon().write(tmp_path) / "vasprun.xml", parse_potcar_file=False)
    assert run.final_structure.formula == "Si2" and run.converged_electronic
    assert run.eigenvalue_band_properties[0] == pytest.approx(2.594, abs=1e-4)
    assert read_vasprun(tmp_path / "vasprun.xml").vasp_version.strip() == "6.3.2"
