"""Spectra of sites whose electrons are known: by construction of the levels, and of real runs by a second reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.io.vasp.outputs import Vasprun
from vasprun import Run, insulator

from mattergen_e.labels.process import make_label
from mattergen_e.labels.record import Calculation
from mattergen_e.labels.settings import LabelSettings
from mattergen_e.labels.vasp import calculation as vasp

SETTINGS = LabelSettings()
LIF = ("Li", "F"), {"Li": 1, "F": 7}
#: F 2s, three of F 2p, three empty ones: what PAW spheres hold of each on Li and F.
BANDS = (-21.03, -2.41, -1.57, -0.5, 8.232, 9.41, 11.3)
PARTS = np.array([[0.03, 0.92], [0.05, 0.81], [0.06, 0.8], [0.07, 0.79], [0.2, 0.3], [0.2, 0.3], [0.2, 0.3]])


def lif(**changes: Any) -> Run:
    return insulator(*LIF, BANDS, 4, **({"parts": PARTS, "efermi": 3.0} | changes))


def held(calculation: Calculation) -> tuple[float, np.ndarray]:
    """Electrons of the cell and of its sites."""
    dos = calculation.dos
    assert dos is not None and dos.sites is not None
    occupied, step = dos.energies <= 0, dos.energies[1] - dos.energies[0]
    return float(dos.total[occupied].sum() * step), dos.sites[:, occupied].sum(axis=1) * step


@pytest.mark.parametrize("sigma", [0.2, 0.05, 0.01, 0.001])
@pytest.mark.parametrize("points", [301, 382, 2001])
def test_sites_hold_their_electrons_however_narrow_the_levels_are(tmp_path: Path, sigma: float, points: int) -> None:
    """The DOS of the sites alone holds 0 to 100 % of them: levels that fit between two energies are in no column."""
    run = lif(sigma=sigma, energies=(-30.0, 15.0, points))
    total, sites = held(vasp.read(run.write(tmp_path), SETTINGS))
    assert total == pytest.approx(8, abs=0.01)
    np.testing.assert_allclose(sites, run.on_sites(), rtol=0.01)


def test_the_file_itself_has_lost_half_of_fluorine(tmp_path: Path) -> None:
    """What the test above is about: VASP's columns, read by pymatgen, and the same file by us."""
    run = lif(sigma=0.001, energies=(-30.0, 15.0, 382))
    read = Vasprun(run.write(tmp_path) / "vasprun.xml", parse_potcar_file=False)
    energies = read.tdos.energies
    column = sum(next(iter(orbital.values())) for orbital in read.pdos[1].values())
    lost = float(np.sum(column[energies <= 3]) * (energies[1] - energies[0]))
    assert lost < 0.6 * run.on_sites()[1]
    assert held(vasp.read(tmp_path, SETTINGS))[1][1] == pytest.approx(run.on_sites()[1], rel=0.01)


def test_two_spins_of_one_level_each(tmp_path: Path) -> None:
    """Hydrogen atoms with opposite moments: one electron up on the first, one down on the second."""
    levels = np.array([[[-5.03, 2.0]], [[-5.06, 2.1]]])
    filling = np.array([[[1.0, 0.0]], [[1.0, 0.0]]])
    run = Run(("H", "H"), {"H": 1}, levels, filling, parts=np.array([[0.9, 0.0], [0.3, 0.3]]), sigma=0.005)
    total, sites = held(vasp.read(run.write(tmp_path), SETTINGS))
    assert total == pytest.approx(2, abs=0.01) and sites[0] == pytest.approx(1.8, abs=0.01)
    assert sites[1] == pytest.approx(0, abs=0.01)


def test_without_projections_of_bands_neighbours_tell_the_ratio(tmp_path: Path) -> None:
    """Levels in the middle of their intervals are lost, those on an energy of the DOS are not; both are F 2p."""
    bands = (-1.0, -1.15, -1.25, -1.35, 8.2)  # the energies of the DOS are multiples of 0.1 eV
    run = insulator(*LIF, bands, 4, parts=np.tile([0.06, 0.8], (5, 1)), efermi=3.0, sigma=0.002, projected=False)
    run = replace(run, energies=(-30.0, 15.0, 451), levels=np.broadcast_to(np.array(bands), run.levels.shape))
    calculation = vasp.read(run.write(tmp_path), SETTINGS)
    np.testing.assert_allclose(held(calculation)[1], run.on_sites(), rtol=0.02)
    assert [f.reason for f in calculation.findings if f.part == "atomic_dos"] == ["between_energies"]


def test_lost_levels_that_nothing_tells_of_cost_the_sites_alone(tmp_path: Path) -> None:
    run = lif(sigma=0.001, energies=(-30.0, 15.0, 301), projected=False)
    calculation = vasp.read(run.write(tmp_path), SETTINGS)
    assert calculation.dos is not None and calculation.dos.sites is None
    (finding,) = [f for f in calculation.findings if f.refused]
    assert finding.part == "atomic_dos" and "SIGMA or NEDOS" in finding.sentence
    label = make_label(calculation, SETTINGS)
    assert label.properties["dft_band_gap"] == pytest.approx(8.726, abs=1e-4)
    assert set(label.crystal_values) == {"total_dos"} and not label.site_values
    assert [f.reason for f in label.findings if f.part == "atomic_dos"] == ["bad_dos"]  # said once


@pytest.mark.parametrize(("part", "refused"), [(0.18, False), (0.01, True), (1.6, True)])
def test_sites_that_hold_little_do_not_cost_the_rest(tmp_path: Path, part: float, refused: bool) -> None:
    """PAW spheres hold 0.18 of fcc magnesium's electrons; a hundredth is no projection, and 1.6 is no share."""
    run = insulator(("Mg",), {"Mg": 2}, (-3.0, 1.0, 2.0), 1, parts=np.full((3, 1), part), sigma=0.1)
    calculation = vasp.read(run.write(tmp_path), SETTINGS)
    assert calculation.dos is not None and (calculation.dos.sites is None) == refused
    assert calculation.properties["dft_band_gap"] == pytest.approx(3.994, abs=1e-4)
    assert [f.part for f in calculation.findings if f.refused] == ["atomic_dos"] * refused


def test_a_tetrahedron_run_keeps_its_narrow_bands(vasp_data: Path) -> None:
    """K3Sb: its DOS steps over 1.8 of 32 electrons; the projections of its bands, read by pymatgen, hold them all."""
    path = vasp_data / "K3Sb_lobsterpy" / "vasprun.xml.gz"
    run = Vasprun(path, parse_potcar_file=False, parse_dos=False, parse_projected_eigen=True)
    assert run.eigenvalues and run.projected_eigenvalues
    weights = np.array(run.actual_kpoints_weights) / np.sum(run.actual_kpoints_weights)
    expected = np.sum(
        [
            2 / len(run.eigenvalues) * np.einsum("k,kb,kbio->i", weights, values[:, :, 1], run.projected_eigenvalues[s])
            for s, values in run.eigenvalues.items()
        ],
        axis=0,
    )
    np.testing.assert_allclose(held(vasp.read(path.parent, SETTINGS))[1], expected, rtol=0.02)
