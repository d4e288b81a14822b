"""Appendix B of the DOS-intermediated paper, computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.spectra.grid import ATOMIC_GRID, TOTAL_GRID, EnergyGrid
from mattergen_e.spectra.processing import TotalDosSettings, total_dos
from mattergen_e.spectra.quantities import band_gap, dos_at_fermi, states_below_fermi
from mattergen_e.spectra.raw import RawDos

SMALL = EnergyGrid(minimum=-2, maximum=2, points=8)  # bins of 0.5 eV, four on each side of E_F


@pytest.mark.parametrize(
    ("dos", "bins"),
    [
        ([9, 9, 9, 0, 0, 9, 9, 9], 2),  # one empty bin on each side
        ([9, 9, 9, 9, 0, 0, 9, 9], 2),  # E_F at the valence band: both on the right
        ([9, 9, 9, 9, 9, 9, 9, 9], 0),
        ([0, 0, 0, 0, 0, 0, 0, 0], 8),
        # left: c = 0.02, 0.06 -> 0.8 + 0.4, then nothing; right: c = 0.05, 0.09, 0.1 -> 0.5 + 0.1 + 0
        ([9, 9, 0.04, 0.02, 0.05, 0.04, 0.01, 9], 1.8),
        # negative values count as zero: left c = 0, 0.05 -> 1 + 0.5; right none
        ([9, 9, 0.05, -3, 9, -9, 0, 0], 1.5),
        # states within the gap end it, whatever lies beyond
        ([0, 0, 0, 0.1, 0.1, 0, 0, 0], 0),
    ],
)
def test_band_gap_by_hand(dos: list[float], bins: float) -> None:
    assert band_gap(dos, SMALL) == pytest.approx(bins * 0.5, abs=1e-12)


def test_sharpness() -> None:
    dos = [9, 9, 9, 0.1, 0.1, 9, 9, 9]
    assert band_gap(dos, SMALL, sharpness=5) == pytest.approx(2 * 0.5 * 0.5)
    assert band_gap(dos, SMALL, sharpness=10) == 0


def literal_gap(dos: list[float], step: float, k: float) -> float:
    """Algorithm 1 line by line, in Python's numbers."""
    half = len(dos) // 2
    total = 0.0
    for side in (dos[:half][::-1], dos[half:]):
        c = 0.0
        for value in side:
            c += max(value, 0.0)
            total += max(1 - k * c, 0.0)
    return total * step


def test_a_batch_is_its_members() -> None:
    rng = np.random.default_rng(0)
    dos = rng.exponential(0.01, (2, 3, 256)) - 0.002
    gaps, at, below = band_gap(dos, TOTAL_GRID), dos_at_fermi(dos, TOTAL_GRID), states_below_fermi(dos, TOTAL_GRID)
    assert gaps.shape == at.shape == below.shape == (2, 3)
    assert len(np.unique(gaps)) == 6
    for index in np.ndindex(2, 3):
        row = dos[index].tolist()
        assert gaps[index] == pytest.approx(literal_gap(row, 20 / 256, 10))
        assert at[index] == pytest.approx((row[127] + row[128]) / 2)
        assert below[index] == pytest.approx(sum(row[:128]) * 20 / 256)


def test_fermi_energy_by_hand() -> None:
    dos = [1, 2, 3, 4, 6, 7, 8, 9]
    assert dos_at_fermi(dos, SMALL) == 5
    assert states_below_fermi(dos, SMALL) == (1 + 2 + 3 + 4) * 0.5
    uneven = EnergyGrid(minimum=-3, maximum=1, points=8)
    assert dos_at_fermi(dos, uneven) == 7.5
    assert states_below_fermi(dos, uneven) == (1 + 2 + 3 + 4 + 6 + 7) * 0.5
    assert band_gap([9, 9, 9, 9, 9, 0, 0, 9], uneven) == pytest.approx(2 * 0.5)


def test_free_electrons() -> None:
    """g = 3 N / (2 E_F) sqrt(E / E_F) holds N electrons up to E_F and is 3 N / (2 E_F) there."""
    energies, width = np.linspace(-8, 12, 20001), 8.0
    raw = RawDos(energies, 3 * 3 / (2 * width) * np.sqrt((energies + width) / width))
    dos, _ = total_dos(raw, 1, TotalDosSettings(smearing=0))
    assert states_below_fermi(dos, TOTAL_GRID) == pytest.approx(3, rel=1e-4)
    assert dos_at_fermi(dos, TOTAL_GRID) == pytest.approx(9 / 16, rel=1e-4)
    assert band_gap(dos, TOTAL_GRID) == 0


@pytest.mark.parametrize("function", [band_gap, dos_at_fermi, states_below_fermi])
def test_what_cannot_be_read_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"shape \(100,\), but their grid has 256 points"):
        function(np.ones(100), TOTAL_GRID)
    with pytest.raises(UserError, match="256 points"):
        function(1.0, TOTAL_GRID)
    within = EnergyGrid(minimum=-1, maximum=1, points=5)
    with pytest.raises(UserError, match="not at an edge"):
        function(np.ones(5), within)
    above = EnergyGrid(minimum=1, maximum=2, points=5)
    with pytest.raises(UserError, match="not at an edge"):
        function(np.ones(5), above)
    assert np.isfinite(function(np.ones(512), ATOMIC_GRID))


def test_valence_electrons_of_mgo(read_vasp: Callable[[str], Any]) -> None:
    """Six O 2p electrons lie within 10 eV below E_F, over two atoms; O 2s lies at -17 eV. E_F is in the gap."""
    run = read_vasp("MgO_vise")
    dos, _ = total_dos(run.raw, 2, TotalDosSettings(smearing=0))
    assert states_below_fermi(dos, TOTAL_GRID) == pytest.approx(3, abs=1e-4)
    assert dos_at_fermi(dos, TOTAL_GRID) == pytest.approx(0, abs=1e-9)
    # The lowest conduction band is light and holds 0.1 states/eV only 0.4 eV above its bottom: the algorithm sees more.
    assert run.gap == pytest.approx(4.6586)
    assert run.gap < band_gap(dos, TOTAL_GRID) < run.gap + 0.5


def test_valence_electrons_of_k3sb(read_vasp: Callable[[str], Any]) -> None:
    """Eight electrons (Sb 5s and 5p) lie within 10 eV below E_F, over four atoms."""
    run = read_vasp("K3Sb_lobsterpy")
    energies = run.raw.energies
    settings = TotalDosSettings(grid=EnergyGrid(minimum=-10, maximum=6, points=256), smearing=0)
    raw = RawDos(energies, run.density)
    dos, _ = total_dos(raw, 4, settings)
    assert states_below_fermi(dos, settings.grid) == pytest.approx(2, abs=1e-3)
    assert run.gap == pytest.approx(0.6621)
    assert run.gap < band_gap(dos, settings.grid) < run.gap + 0.5
