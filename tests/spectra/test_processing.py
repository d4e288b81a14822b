"""Resampling against closed forms and a brute-force second implementation; the semicore cut and the checks by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import norm

from mattergen_e.crystals.findings import LabelError
from mattergen_e.spectra.grid import ATOMIC_GRID, TOTAL_GRID, EnergyGrid
from mattergen_e.spectra.processing import (
    AtomicDosSettings,
    TotalDosSettings,
    atomic_dos,
    cut_semicore,
    resample,
    total_dos,
)
from mattergen_e.spectra.raw import RawDos

SMALL = EnergyGrid(minimum=-2, maximum=2, points=16)
ROUGH = AtomicDosSettings(grid=EnergyGrid(minimum=-4, maximum=4, points=8), smearing=0, semicore_threshold=-2)


def brute_force(energies: np.ndarray, spectrum: np.ndarray, grid: EnergyGrid, smearing: float) -> np.ndarray:
    """The convolution as a sum over a fine mesh, and the mean of a bin as the mean of the fine points in it."""
    h = grid.step / 250
    reach = int(np.ceil(10 * smearing / h))
    n = grid.points * 250
    fine = grid.minimum + (np.arange(-reach, n + reach) + 0.5) * h
    f = np.interp(fine, energies, spectrum, left=0, right=0)
    if smearing > 0:
        f = np.convolve(f, norm.pdf(np.arange(-reach, reach + 1) * h, scale=smearing) * h, mode="same")
    return f[reach : reach + n].reshape(grid.points, 250).mean(axis=1)


@st.composite
def spectra(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Uneven energies, some a thousandth of an eV apart, within or around [-3, 3] eV, and values that may end high."""
    n = draw(st.integers(2, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    gaps = 10 ** rng.uniform(-3, 0, n - 1)
    energies = np.concatenate([[0.0], np.cumsum(gaps)])
    energies = draw(st.floats(-3, -0.5)) + energies * draw(st.floats(1, 5)) / energies[-1]
    return energies, rng.exponential(1, n) * rng.integers(0, 2, n)


class TestResample:
    @settings(deadline=None, max_examples=60)
    @given(spectra(), st.sampled_from([0.0, 1e-6, 0.02, 0.1, 0.7]))
    def test_no_state_is_lost(self, spectrum: tuple[np.ndarray, np.ndarray], smearing: float) -> None:
        energies, values = spectrum
        wide = EnergyGrid(minimum=-20, maximum=20, points=333)
        result = resample(energies, values, wide, smearing)
        exact = (0.5 * (values[1:] + values[:-1]) * np.diff(energies)).sum()
        assert result.sum() * wide.step == pytest.approx(exact, rel=1e-9, abs=1e-9)
        assert result.min() > -1e-9

    @settings(deadline=None, max_examples=40)
    @given(spectra(), st.sampled_from([0.03, 0.1, 0.5]))
    def test_equals_a_sum_over_a_fine_mesh(self, spectrum: tuple[np.ndarray, np.ndarray], smearing: float) -> None:
        energies, values = spectrum
        # Jumps at the two ends cost the sum an error of about half a fine cell.
        expected = brute_force(energies, values, SMALL, smearing)
        assert resample(energies, values, SMALL, smearing) == pytest.approx(expected, abs=6e-3 * values.max() + 1e-12)

    def test_equals_the_sum_closely_where_the_ends_are_zero(self) -> None:
        rng = np.random.default_rng(3)
        energies = np.sort(rng.uniform(-2.5, 2.5, 40))
        values = rng.exponential(1, 40)
        values[[0, -1]] = 0
        for smearing in (0.0, 0.02, 0.1, 0.5):
            expected = brute_force(energies, values, SMALL, smearing)
            assert resample(energies, values, SMALL, smearing) == pytest.approx(expected, abs=1e-3)

    @pytest.mark.parametrize("smearing", [0.05, 0.1, 0.4])
    def test_a_sharp_peak_becomes_a_gaussian(self, smearing: float) -> None:
        centre, width = 0.317, 1e-5
        energies = np.array([centre - width, centre, centre + width])
        values = resample(energies, np.array([0, 3 / width, 0]), SMALL, smearing)
        expected = 3 * np.diff(norm.cdf(SMALL.edges, centre, smearing)) / SMALL.step
        assert values == pytest.approx(expected, rel=1e-6, abs=1e-8)

    @pytest.mark.parametrize("width", [0.3, 0.01, 2.1e-3, 1.9e-3, 1e-4, 1e-7])
    def test_a_triangle_becomes_a_mean_of_gaussians(self, width: float) -> None:
        """On both sides of the width below which the trapezoidal rule takes over (0.002 eV for this smearing)."""
        values = resample(np.array([0.317 - width, 0.317, 0.317 + width]), np.array([0, 1 / width, 0]), SMALL, 0.1)
        offsets, weights = np.polynomial.legendre.leggauss(40)
        expected = sum(
            np.diff(norm.cdf(SMALL.edges, 0.317 + sign * width * x, 0.1)) * (1 - x) * w / 2 / SMALL.step
            for x, w in zip((offsets + 1) / 2, weights, strict=True)
            for sign in (-1, 1)
        )
        assert values == pytest.approx(expected, abs=1e-8)

    def test_a_coarse_mesh_leaves_a_straight_line_straight(self) -> None:
        energies = np.array([-40.0, -3.1, 2.9, 40.0])
        values = resample(energies, 2 + 0.05 * energies, SMALL, 0.1)
        assert values == pytest.approx(2 + 0.05 * SMALL.energies, abs=1e-12)

    def test_means_of_bins_by_hand(self) -> None:
        grid = EnergyGrid(minimum=0, maximum=4, points=4)
        # A triangle of height 2 over [0.5, 2.5] with its tip at 1.5, then nothing.
        values = resample(np.array([0.5, 1.5, 2.5]), np.array([0.0, 2.0, 0.0]), grid, 0)
        assert values == pytest.approx([0.25, 1.5, 0.25, 0.0])

    @settings(deadline=None, max_examples=30)
    @given(spectra(), st.integers(1, 6), st.sampled_from([0.0, 0.1]))
    def test_a_shift_by_whole_bins(self, spectrum: tuple[np.ndarray, np.ndarray], bins: int, smearing: float) -> None:
        energies, values = spectrum
        here = resample(energies, values, SMALL, smearing)
        there = resample(energies + bins * SMALL.step, values, SMALL, smearing)
        assert there[bins:] == pytest.approx(here[:-bins], abs=1e-7)

    def test_linear_and_batched(self) -> None:
        rng = np.random.default_rng(5)
        energies = np.sort(rng.uniform(-4, 4, 300))
        many = rng.normal(size=(2, 3, 300))
        result = resample(energies, many, TOTAL_GRID, 0.1)
        assert result.shape == (2, 3, 256)
        assert result[1, 2] == pytest.approx(resample(energies, many[1, 2], TOTAL_GRID, 0.1))
        mixed = resample(energies, 2 * many[0, 0] - 3 * many[1, 1], TOTAL_GRID, 0.1)
        assert mixed == pytest.approx(2 * result[0, 0] - 3 * result[1, 1], abs=1e-10)

    def test_finer_bins_add_up_to_coarse_ones(self) -> None:
        rng = np.random.default_rng(6)
        energies = np.linspace(-3, 3, 77)
        values = rng.exponential(1, 77)
        fine = EnergyGrid(minimum=-2, maximum=2, points=16 * 8)
        means = resample(energies, values, fine, 0.1).reshape(16, 8).mean(axis=1)
        assert resample(energies, values, SMALL, 0.1) == pytest.approx(means, abs=1e-11)

    def test_outside_of_the_mesh_there_is_nothing(self) -> None:
        assert not resample(np.array([10.0, 11.0]), np.ones(2), SMALL, 0.1).any()
        assert not resample(np.array([-11.0, -10.0]), np.ones(2), SMALL, 0.1).any()


class TestSemicore:
    # Centres: -3.5, -2.5, -1.5, -0.5, 0.5, ... eV; the threshold is -2 eV.
    @pytest.mark.parametrize(
        ("spectrum", "expected"),
        [
            ([5, 0, 3, 2, 1, 1, 1, 1], [0, 0, 3, 2, 1, 1, 1, 1]),  # zero at -2.5: what is below goes
            ([5, 4, 0, 2, 1, 1, 1, 1], [5, 4, 0, 2, 1, 1, 1, 1]),  # zero at -1.5 only: too high, nothing goes
            ([5, 0, 0, 2, 1, 1, 1, 1], [0, 0, 0, 2, 1, 1, 1, 1]),
            ([5, 4, 3, 2, 1, 1, 1, 1], [5, 4, 3, 2, 1, 1, 1, 1]),  # no zero
            ([0, 4, 3, 2, 1, 1, 1, 1], [0, 4, 3, 2, 1, 1, 1, 1]),  # a band across the threshold stays
            ([5, 1e-3, 3, 2, 0, 0, 0, 0], [0, 0, 3, 2, 0, 0, 0, 0]),  # as good as zero
            ([5, 2e-3, 3, 2, 0, 0, 0, 0], [5, 2e-3, 3, 2, 0, 0, 0, 0]),
            ([0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]),
        ],
    )
    def test_by_hand(self, spectrum: list[float], expected: list[float]) -> None:
        assert cut_semicore(np.array(spectrum), ROUGH.grid, -2, 1e-3).tolist() == expected

    def test_every_site_for_itself(self) -> None:
        sites = np.array([[5, 0, 3, 2, 1, 1, 1, 1], [5, 4, 3, 2, 1, 1, 1, 1]], dtype=float)
        before = sites.copy()
        assert cut_semicore(sites, ROUGH.grid, -2, 0).tolist() == [[0, 0, 3, 2, 1, 1, 1, 1], [5, 4, 3, 2, 1, 1, 1, 1]]
        assert np.array_equal(sites, before)

    def test_smeared_first(self) -> None:
        """The foot of a band that ends at the threshold stays; a level below goes with all of its tail."""
        energies = np.linspace(-20, 6, 2601)
        level = 10 * (np.abs(energies + 13) < 0.2)
        band = 1.0 * ((energies > -9.98) & (energies < -5))
        values, _ = atomic_dos(RawDos(energies, level + band, (level + band)[None]), AtomicDosSettings())
        grid = ATOMIC_GRID
        alone = resample(energies, band, grid, 0.1)
        assert not values[0, grid.energies < -10.5].any()
        assert values[0, grid.energies > -10.2] == pytest.approx(alone[grid.energies > -10.2], abs=1e-9)
        assert values[0, grid.energies < -10].max() > 0.1


def raw_dos(energies: Any, *sites: Any, **changes: Any) -> RawDos:
    rows = np.array(sites, dtype=float)
    return RawDos(np.array(energies, dtype=float), rows.sum(axis=0), rows, **changes)


BOX = ([-6, -5, -4.9, 4.9, 5, 6], [0, 0, 1, 1, 0, 0])


class TestLabels:
    def test_values_by_hand(self) -> None:
        raw = raw_dos([-5, -1, -1 + 1e-9, 1 - 1e-9, 1, 5], [0, 0, 2, 2, 0, 0], [0, 0, 1, 1, 0, 0])
        values, findings = atomic_dos(raw, ROUGH)
        assert findings == []
        assert values == pytest.approx(np.array([[0, 0, 0, 2, 2, 0, 0, 0], [0, 0, 0, 1, 1, 0, 0, 0]]), abs=1e-8)
        per_atom, findings = total_dos(raw, 2, TotalDosSettings(grid=ROUGH.grid, smearing=0))
        assert findings == []
        assert per_atom == pytest.approx([0, 0, 0, 1.5, 1.5, 0, 0, 0], abs=1e-8)

    def test_a_mesh_that_ends_with_the_window_keeps_its_ends(self) -> None:
        raw = raw_dos([-4, 4], [2, 2])
        for smearing in (0.0, 0.1):
            values, _ = atomic_dos(raw, ROUGH.model_copy(update={"smearing": smearing}))
            assert values == pytest.approx(np.full((1, 8), 2.0))
        # Within one step of the window's ends the last value goes on.
        values, _ = atomic_dos(raw_dos([-3.1, 3.1], [2, 2]), ROUGH)
        assert values == pytest.approx(np.full((1, 8), 2.0))

    @pytest.mark.parametrize(
        ("energies", "values", "fragment"),
        [
            ([-3, -2.9], [0, 1], "ends at -2.90 eV, before the 4 eV"),
            ([-6, 2.9], [1, 1], "ends at 2.90 eV"),
            (
                [-2.9, 6],
                [1, 1],
                "starts at -2.90 eV, above the -4 eV of the grid, and the DOS of site 0 is 1 states/eV",
            ),
        ],
    )
    def test_window(self, energies: list[float], values: list[float], fragment: str) -> None:
        with pytest.raises(LabelError, match=fragment) as caught:
            atomic_dos(raw_dos(energies, values), ROUGH)
        assert caught.value.reason == "window"

    def test_below_a_zero_there_are_no_states(self) -> None:
        values, _ = atomic_dos(raw_dos([-2, -1, 1, 6], [0, 1, 1, 1]), ROUGH)
        assert values[0] == pytest.approx([0, 0, 0.5, 1, 1, 1, 1, 1])

    @pytest.mark.parametrize(
        ("energies", "values", "fragment"),
        [
            ([-6, 0, 0, 6], [0, 1, 1, 0], "do not ascend .0 eV is followed by 0 eV"),
            ([-6, 1, 0, 6], [0, 1, 1, 0], "do not ascend .1 eV is followed by 0 eV"),
            ([-6, np.nan, 0, 6], [0, 1, 1, 0], "energies of the DOS are not finite"),
            ([-6, 0, np.inf], [0, 1, 1], "energies of the DOS are not finite"),
            ([-6, 0, 6], [0, np.nan, 1], "the DOS of site 0 is not made of finite numbers"),
            ([-6, 0, 6], [0, np.inf, 1], "the DOS of site 0 is not made of finite numbers"),
            ([-6, 0, 6], [0, 1e300, 1], "the DOS of site 0 is not made of finite numbers"),
            ([-6, 0, 6], [0, 1], "2 values for 3 energies"),
            ([6], [0], "1 energies, at least 2"),
        ],
    )
    def test_bad_numbers(self, energies: list[float], values: list[float], fragment: str) -> None:
        with pytest.raises(LabelError, match=fragment) as caught:
            atomic_dos(raw_dos(energies, values), ROUGH)
        assert caught.value.reason == "bad_dos"
        with pytest.raises(LabelError) as caught:
            total_dos(RawDos(np.array(energies), np.array(values)), 1, TotalDosSettings(grid=ROUGH.grid))
        assert caught.value.reason == "bad_dos"

    def test_missing_projections_and_odd_shapes(self) -> None:
        energies = np.array([-6.0, 6.0])
        with pytest.raises(LabelError, match="LORBIT") as caught:
            atomic_dos(RawDos(energies, np.ones(2)), ROUGH)
        assert caught.value.reason == "no_projections"
        for sites in (np.ones(2), np.ones((0, 2)), np.ones((1, 2, 2))):
            with pytest.raises(LabelError, match="shape") as caught:
                atomic_dos(RawDos(energies, np.ones(2), sites), ROUGH)
            assert caught.value.reason == "bad_dos"
        with pytest.raises(LabelError, match="shape"):
            total_dos(RawDos(energies, np.ones((1, 2))), 1, TotalDosSettings(grid=ROUGH.grid))

    def test_missing_bands_are_said(self) -> None:
        raw = raw_dos(*BOX, complete_to=2.5)
        _, (finding,) = atomic_dos(raw, ROUGH)
        assert (finding.part, finding.reason, finding.refused) == ("atomic_dos", "incomplete", False)
        assert "above 2.50 eV" in finding.sentence and "4 eV" in finding.sentence
        _, (finding,) = total_dos(raw, 1, TotalDosSettings(grid=ROUGH.grid))
        assert finding.part == "total_dos"
        assert atomic_dos(raw_dos(*BOX, complete_to=4.0), ROUGH)[1] == []


def methfessel_paxton(u: np.ndarray, order: int) -> np.ndarray:
    """The smearing function of order 1 or 2 (Phys. Rev. B 40, 3616), by its polynomials."""
    polynomial = {1: 1.5 - u**2, 2: 1.875 - 2.5 * u**2 + 0.5 * u**4}[order]
    return polynomial * np.exp(-(u**2)) / np.sqrt(np.pi)


class TestNegative:
    energies = np.linspace(-12, 12, 4801)

    @pytest.mark.parametrize(("order", "lobe"), [(1, 0.0547), (2, 0.0911)])
    @pytest.mark.parametrize("smearing", [0.0, 0.1])
    def test_lobes_of_a_smearing_are_clipped_and_said(self, order: int, lobe: float, smearing: float) -> None:
        level = 2 * methfessel_paxton((self.energies + 3) / 0.2, order) / 0.2
        assert level.min() / level.max() == pytest.approx(-lobe, rel=0.01)
        values, findings = total_dos(RawDos(self.energies, level), 1, TotalDosSettings(smearing=smearing))
        assert values.min() == 0
        states = values.sum() * TOTAL_GRID.step
        (finding,) = findings
        assert (finding.reason, finding.refused) == ("negative_dos", False)
        assert f"adds {states - 2:.3g} states to the total DOS" in finding.sentence
        assert 2 < states < 2.4

    def test_noise_is_no_news(self) -> None:
        values, findings = total_dos(
            RawDos(self.energies, 1.0 + np.where(np.arange(4801) == 2000, -1.001, 0)), 1, TotalDosSettings()
        )
        assert findings == []
        assert values.min() > 0

    def test_more_is_refused_with_the_site(self) -> None:
        good = np.exp(-((self.energies + 1) ** 2))
        bad = good - 0.5 * np.exp(-((self.energies - 1) ** 2) / 0.1)
        raw = RawDos(self.energies, good + bad, np.array([good, bad]))
        with pytest.raises(LabelError, match=r"the DOS of site 1 falls to -0\.4\d+ states/eV at 1\.0\d eV") as caught:
            atomic_dos(raw, AtomicDosSettings(grid=TOTAL_GRID))
        assert caught.value.reason == "negative_dos"
        with pytest.raises(LabelError, match="the total DOS falls to"):
            total_dos(RawDos(self.energies, -good), 1, TotalDosSettings())


@pytest.mark.parametrize(
    "fields", [{"smearing": -0.1}, {"smearing": float("nan")}, {"sigma": 0.1}, {"grid": {"minimum": 0}}]
)
def test_impossible_settings_are_refused(fields: dict) -> None:
    with pytest.raises(ValidationError):
        AtomicDosSettings(**fields)
    with pytest.raises(ValidationError):
        TotalDosSettings(**fields)


def test_settings_survive_writing() -> None:
    ours = AtomicDosSettings(smearing=0.2, grid=TOTAL_GRID)
    assert AtomicDosSettings.model_validate_json(ours.model_dump_json()) == ours != AtomicDosSettings()


class TestRealSpectra:
    def test_sites_of_mgo(self, read_vasp: Callable[[str], Any]) -> None:
        """O 2p and the conduction bands as written: sums over the mesh between -10 and 5 eV, where no band is cut."""
        run = read_vasp("MgO_vise")
        energies, sites = run.raw.energies, run.raw.sites
        assert run.symbols == ["Mg", "O"]
        values, findings = atomic_dos(run.raw, AtomicDosSettings())
        assert findings == []
        assert values.shape == (2, 512)
        assert not values[:, ATOMIC_GRID.energies < -10].any()
        below = (energies > -10) & (energies < 0)
        occupied = values[:, ATOMIC_GRID.energies < 0].sum(axis=1) * ATOMIC_GRID.step
        assert occupied == pytest.approx(sites[:, below].sum(axis=1) * 0.01, abs=1e-4)
        # Of the six O 2p electrons VASP's spheres hold 3.6 at O and 0.4 at Mg, the rest lies between them.
        assert occupied == pytest.approx([0.367, 3.589], abs=2e-3)

    def test_sites_of_k3sb(self, read_vasp: Callable[[str], Any]) -> None:
        """K 3p lies at -14 and -15 eV, within the window, and is cut; what remains is Sb 5s and 5p."""
        run = read_vasp("K3Sb_lobsterpy")
        grid = ATOMIC_GRID
        whole = resample(run.raw.energies, run.raw.sites, grid, 0.1)
        values, _ = atomic_dos(run.raw, AtomicDosSettings())
        semicore = grid.energies < -10
        potassium = np.array([symbol == "K" for symbol in run.symbols])
        assert (whole[potassium][:, semicore].sum(axis=1) * grid.step > 1).all()
        assert not values[:, semicore].any()
        assert values[:, ~semicore] == pytest.approx(whole[:, ~semicore], abs=1e-9)
        # Two equivalent K sites, and one of its own.
        assert values[1] == pytest.approx(values[2], abs=5e-3 * values[1].max())

    def test_integrated_dos_holds_all_electrons_of_k3sb(self, read_vasp: Callable[[str], Any]) -> None:
        """32 valence electrons; K 3s, narrower than the mesh, is missing from the DOS as written."""
        run = read_vasp("K3Sb_lobsterpy")
        energies = run.raw.energies
        grid = EnergyGrid(minimum=-32, maximum=0, points=640)
        exact = resample(energies, run.density, grid, 0)
        assert exact.sum() * grid.step == pytest.approx(32, abs=2e-2)
        level = (grid.energies > -31.7) & (grid.energies < -31.4)
        assert exact[level].sum() * grid.step == pytest.approx(2, abs=1e-3)
        assert resample(energies, run.raw.total, grid, 0)[level].sum() == 0

    def test_si_has_no_projections_and_few_bands(self, read_vasp: Callable[[str], Any]) -> None:
        run = read_vasp("Si_aiida")
        with pytest.raises(LabelError) as caught:
            atomic_dos(run.raw, AtomicDosSettings())
        assert caught.value.reason == "no_projections"

    def test_gpaw(self, gpaw_runs: dict[str, RawDos]) -> None:
        """Sums of the trapezoidal rule over the stored mesh, which has points at -15, -10, 5 and 10 eV."""
        uncut = AtomicDosSettings(smearing=0, semicore_threshold=-15)
        for name, raw in gpaw_runs.items():
            assert raw.sites is not None
            sites, findings = atomic_dos(raw, uncut)
            assert findings == [], name
            weights = np.where(raw.energies < 5 + 1e-4, 0.025, 0.0)
            weights[[0, np.flatnonzero(weights)[-1]]] /= 2
            assert sites.sum(axis=1) * ATOMIC_GRID.step == pytest.approx(raw.sites @ weights, rel=1e-4), name
            total, _ = total_dos(raw, len(raw.sites), TotalDosSettings(smearing=0))
            weights = np.where(raw.energies > -10 - 1e-4, 0.025, 0.0)
            weights[[np.flatnonzero(weights)[0], -1]] /= 2
            assert total.sum() * TOTAL_GRID.step * len(raw.sites) == pytest.approx(raw.total @ weights, rel=1e-4), name
