"""Gaps that follow from occupations, wherever VASP put its Fermi energy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from vasprun import Run, insulator

from mattergen_e.crystals.findings import LabelError
from mattergen_e.labels.settings import LabelSettings
from mattergen_e.labels.vasp import calculation as vasp

SETTINGS = LabelSettings()
LIF = ("Li", "F"), {"Li": 1, "F": 7}
BANDS = (-21.0, -2.4, -1.5, -0.5, 8.232, 9.4)  # each rises by 6 meV: the gap is from -0.494 to 8.232 eV


@pytest.mark.parametrize("efermi", [8.232 + 0.0019, 9.3, 50.0, -0.4945, -0.6, -1.55, 3.0])
def test_the_gap_follows_from_occupations(tmp_path: Path, efermi: float) -> None:
    run = insulator(*LIF, BANDS, 4, efermi=efermi, ismear=-5, sigma=0.05)
    calculation = vasp.read(run.write(tmp_path), SETTINGS)
    assert calculation.properties["dft_band_gap"] == pytest.approx(8.726, abs=1e-4)
    dos = calculation.dos
    assert dos is not None
    below = float(dos.total[dos.energies <= 0].sum() * (dos.energies[1] - dos.energies[0]))
    assert below == pytest.approx(8, abs=0.01)
    moved = [f for f in calculation.findings if f.reason == "fermi_energy_moved"]
    assert len(moved) == (0 if -0.494 < efermi < 8.232 else 1)
    assert calculation.record["fermi_energy_ev"] == pytest.approx(efermi if not moved else 3.869, abs=1e-4)


def test_a_small_gap_with_the_fermi_energy_in_the_conduction_band(tmp_path: Path) -> None:
    """As in GaAs: 84.3 meV by occupations, and the Fermi energy 2 meV above the conduction band."""
    run = insulator(("Ga", "As"), {"Ga": 3, "As": 5}, (-12.0, -6.0, -2.0, -0.006, 0.0843, 4.0), 4, efermi=0.0863)
    assert vasp.read(run.write(tmp_path), SETTINGS).properties["dft_band_gap"] == pytest.approx(0.0843, abs=1e-4)


def test_bands_that_are_filled_at_some_points_only_make_a_metal(tmp_path: Path) -> None:
    levels = np.array([[[-5.0, -0.5, 1.0], [-4.0, 0.5, 1.0]]])
    filling = np.array([[[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]])
    run = Run(("Al",), {"Al": 3}, levels, filling, efermi=0.0)
    assert vasp.read(run.write(tmp_path), SETTINGS).properties["dft_band_gap"] == 0


def test_spins_with_another_number_of_bands_each(tmp_path: Path) -> None:
    """A ferromagnetic insulator: three bands up, one down; the gap is between the highest and the lowest of both."""
    up, down = [-4.0, -3.0, -2.0, 5.0], [-4.0, 1.5, 2.0, 3.0]
    levels = np.array([[up, up], [down, down]])
    filling = np.array([[[1.0, 1.0, 1.0, 0.0]] * 2, [[1.0, 0.0, 0.0, 0.0]] * 2])
    for efermi in (0.0, 1.6, -2.1):
        run = Run(("N",), {"N": 4}, levels, filling, efermi=efermi)
        calculation = vasp.read(run.write(tmp_path), SETTINGS)
        assert calculation.properties["dft_band_gap"] == pytest.approx(3.5, abs=1e-4)


def test_points_without_weight_narrow_the_gap_and_fill_nothing(tmp_path: Path) -> None:
    """A band structure by a hybrid: the Fermi energy of the mesh lies above a conduction band that dips on a line."""
    levels = np.array([[[-5.0, 3.0], [-5.0, 3.0], [-4.8, 0.4]]])
    filling = np.array([[[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]]])
    run = Run(("He",), {"He": 2}, levels, filling, weights=np.array([0.5, 0.5, 0.0]), efermi=0.5)
    assert vasp.read(run.write(tmp_path), SETTINGS).properties["dft_band_gap"] == pytest.approx(5.2, abs=1e-4)


def test_an_excited_filling_gives_no_gap(tmp_path: Path) -> None:
    """Fixed occupations: a filled band above an empty one is no ground state."""
    run = insulator(("He",), {"He": 2}, (-5.0, 1.0, 3.0), 1, efermi=2.0)
    run.filling = np.broadcast_to(np.array([0.0, 1.0, 0.0]), run.levels.shape)
    with pytest.raises(LabelError, match="is empty: the Fermi energy is wrong"):
        vasp.read(run.write(tmp_path), SETTINGS)


def test_a_gap_whose_upper_edge_was_not_calculated_is_not_known(tmp_path: Path) -> None:
    run = insulator(("He",), {"He": 2}, (-5.0,), 1, efermi=-4.0)
    calculation = vasp.read(run.write(tmp_path), SETTINGS)
    assert "dft_band_gap" not in calculation.properties and calculation.dos is not None
    (finding,) = [f for f in calculation.findings if f.refused]
    assert (finding.part, finding.reason) == ("band_gap", "window") and "NBANDS" in finding.sentence
