"""Metrics of pairs of curves by hand, and by scipy and pymatgen as second implementations."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from mattergen_e.errors import UserError
from mattergen_e.spectra import comparison
from mattergen_e.spectra.comparison import (
    UNITS,
    bootstrap,
    compare_with_chance,
    cosine,
    crystal_matches,
    curve_metrics,
    derangement,
    js_divergence,
    pearson,
    surrogate_errors,
    te_filter,
)
from mattergen_e.spectra.grid import TOTAL_GRID, EnergyGrid
from mattergen_e.spectra.quantities import band_gap, dos_at_fermi, states_below_fermi

GRID = EnergyGrid(minimum=-4, maximum=4, points=32)
RNG = np.random.default_rng(0)
A, B = RNG.random((2, 6, 32))


def test_shapes_by_scipy() -> None:
    for i in range(6):
        assert cosine(A, B)[i] == pytest.approx(1 - distance.cosine(A[i], B[i]))
        assert pearson(A, B)[i] == pytest.approx(stats.pearsonr(A[i], B[i])[0])
        assert js_divergence(A, B)[i] == pytest.approx(distance.jensenshannon(A[i], B[i]) ** 2)
        assert js_divergence(A, B, base=2)[i] == pytest.approx(distance.jensenshannon(A[i], B[i], base=2) ** 2)


def test_shapes_by_hand() -> None:
    a, b = np.array([[3.0, 4.0, 0.0, 0.0]]), np.array([[4.0, 3.0, 0.0, 0.0]])
    assert cosine(a, b) == pytest.approx(24 / 25)
    assert js_divergence(a, [[0.0, 0.0, 1.0, 1.0]]) == pytest.approx(np.log(2))
    assert js_divergence(a, 7 * a) == pytest.approx(0.0)
    assert pearson([[1.0, 2.0, 3.0]], [[-1.0, -2.0, -3.0]]) == pytest.approx(-1.0)
    assert comparison.mean_absolute_error(a, b) == pytest.approx(0.5)


def test_undefined_is_nan() -> None:
    zero, flat = np.zeros((1, 4)), np.full((1, 4), 0.1)
    some = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert np.isnan(cosine(zero, some)).all() and np.isnan(js_divergence(some, zero)).all()
    assert np.isnan(pearson(flat, some)).all()


def test_scalars_are_those_of_the_paper() -> None:
    found = curve_metrics(A, B, GRID)
    assert list(found) == list(UNITS)
    for name, function in (
        ("band_gap", band_gap), ("dos_at_fermi", dos_at_fermi), ("states_below_fermi", states_below_fermi)
    ):  # fmt: skip
        np.testing.assert_allclose(found[name], np.abs(function(A, GRID) - function(B, GRID)))


def test_gap_of_a_step() -> None:
    curve = np.ones((2, 32))
    curve[0, 12:20] = 0.0  # 8 bins of 0.25 eV
    found = curve_metrics(curve[:1], curve[1:], GRID)
    assert found["band_gap"] == pytest.approx(2.0)
    assert found["dos_at_fermi"] == pytest.approx(1.0)
    assert found["states_below_fermi"] == pytest.approx(1.0)


def test_window_is_the_curve_cut() -> None:
    mask = np.abs(GRID.energies) < 2
    assert mask.sum() == 16 and mask[8] and not mask[7]
    spoilt = np.where(mask, A, np.nan)
    found, cut = curve_metrics(spoilt, B, GRID, mask), EnergyGrid(minimum=-2, maximum=2, points=16)
    expected = curve_metrics(A[:, mask], B[:, mask], cut)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], err_msg=name)


def test_window_beside_the_fermi_energy() -> None:
    found = curve_metrics(A, B, GRID, (GRID.energies > 1) & (GRID.energies < 3))
    assert np.isnan(found["dos_at_fermi"]).all()
    assert (found["states_below_fermi"] == 0).all() and (found["band_gap"] == 0).all()
    assert np.isfinite(found["cosine"]).all()


def test_mask_of_each_curve() -> None:
    masks = RNG.random((6, 32)) < 0.6
    found = cosine(A, B, masks)
    np.testing.assert_allclose(found[3], cosine(A[3, masks[3]], B[3, masks[3]]))


def test_derangements_are_all_equally_likely() -> None:
    rng = np.random.default_rng(0)
    allowed = {p for p in itertools.permutations(range(4)) if all(p[i] != i for i in range(4))}
    drawn = [tuple(derangement(4, rng).tolist()) for _ in range(1800)]
    assert set(drawn) == allowed and len(allowed) == 9
    assert stats.chisquare(np.unique(drawn, axis=0, return_counts=True)[1]).pvalue > 1e-3
    with pytest.raises(ValueError, match="one thing"):
        derangement(1, rng)


def test_chance_is_the_mean_over_all_other_pairs() -> None:
    found = compare_with_chance(A, B, GRID, permutations=600)
    others = [curve_metrics(A[[j]], B[[i]], GRID)["mae"] for i in range(6) for j in range(6) if i != j]
    assert found["mae"].random == pytest.approx(np.mean(others), rel=0.01)
    assert found["mae"].mean == pytest.approx(np.abs(A - B).mean())
    assert found["cosine"].pairs == 6 and found["band_gap"].unit == "eV"


def test_chance_of_distinct_curves() -> None:
    curves = np.eye(8)[:, :, None] * np.ones(4)  # eight curves that share no bin
    curves = curves.reshape(8, 32)
    found = compare_with_chance(curves, 2 * curves, GRID, permutations=5, seed=3)
    assert found["cosine"].mean == pytest.approx(1.0) and found["cosine"].random == pytest.approx(0.0)
    assert found["js_divergence"].mean == pytest.approx(0.0)
    assert found["js_divergence"].random == pytest.approx(np.log(2))
    assert found == compare_with_chance(curves, 2 * curves, GRID, permutations=5, seed=3)


def test_undefined_pairs_are_counted() -> None:
    curves = A.copy()
    curves[2] = 0.0
    found = compare_with_chance(curves, B, GRID, permutations=3)
    assert found["cosine"].undefined == 1 and found["cosine"].pairs == 5 and found["mae"].undefined == 0
    assert found["cosine"].mean == pytest.approx(np.delete(cosine(A, B), 2).mean())


def test_one_pair_has_no_chance() -> None:
    found = compare_with_chance(A[:1], B[:1], GRID)
    assert found["cosine"].mean is not None
    assert found["cosine"].random is None and found["cosine"].low is None
    with pytest.raises(UserError, match="no pair of curves"):
        compare_with_chance(A[:0], B[:0], GRID)


def test_bootstrap_interval() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    mean, low, high = bootstrap(np.append(values, np.nan))
    assert mean == pytest.approx(values.mean()) and low is not None and high is not None
    half = 1.96 * values.std(ddof=1) / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.05)
    assert high == pytest.approx(values.mean() + half, abs=0.05)
    assert bootstrap(np.array([np.nan])) == (None, None, None)
    assert bootstrap(np.full(5, 2.0)) == (2.0, 2.0, 2.0)


def test_surrogate_errors() -> None:
    target = np.zeros((4, 3))
    found = surrogate_errors(target + 3, target + 1, target)
    assert [found[k][0] for k in ("generated_target", "generated_predicted", "predicted_target")] == [3.0, 2.0, 1.0]


def semiconductor(gap: float, filling: float = 0.0) -> np.ndarray:
    """(256,) ones with a gap around the Fermi energy, which may have some states in it."""
    inside = np.abs(TOTAL_GRID.energies) < gap / 2
    return np.where(inside, filling, 1.0)


def test_thermoelectric_filter() -> None:
    reference = semiconductor(0.5)
    middle = semiconductor(0.5)
    middle[127:129] = 0.05  # states at the Fermi energy
    other = np.where(np.arange(256) % 2 == 0, semiconductor(0.5), 0.0)  # half of the states: cosine 0.71
    curves = np.stack([reference, semiconductor(0.0), semiconductor(2.0), middle, other, 3 * reference])
    found = te_filter(curves, reference[None], TOTAL_GRID)
    assert found["passed"].tolist() == [True, False, False, False, False, True]
    assert found["gap"].tolist() == [True, False, False, True, True, True]
    assert found["dos_at_fermi"].tolist() == [True, False, True, False, True, True]
    assert found["cosine"].tolist() == [True, True, True, True, False, True]
    both = te_filter(curves, np.stack([reference, other]), TOTAL_GRID)
    assert both["passed"].tolist() == [True, False, False, False, True, True]


def test_crystal_matches(solids: dict[str, Any], conventional: dict[str, Any]) -> None:
    strained = solids["MgO"].copy()
    strained.apply_strain(0.03)
    zinc_blende = solids["ZnS"].from_spacegroup("F-43m", [[5.41, 0, 0], [0, 5.41, 0], [0, 0, 5.41]], ["Zn", "S"],
                                                [[0, 0, 0], [0.25, 0.25, 0.25]])  # fmt: skip
    rock_salt = conventional["NaCl"].copy()
    rock_salt.replace_species({"Na": "Cs"})
    generated = [conventional["NaCl"], strained, zinc_blende, rock_salt, solids["TiO2"]]
    references = [solids["NaCl"], solids["MgO"], solids["ZnS"], solids["CsCl"], solids["BaTiO3"]]
    found = crystal_matches(generated, references)
    assert found["composition"].tolist() == [True, True, True, True, False]
    assert found["structure"].tolist() == [True, True, False, False, False]
    with pytest.raises(UserError, match="1 crystals are compared with 0"):
        crystal_matches(generated[:1], [])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: curve_metrics(A, B[:3], GRID), "6 curves are compared with 3 references"),
        (lambda: curve_metrics(A[:, :7], B, GRID), r"the curves have the shape \(6, 7\), expected \(curves, 32\)"),
        (lambda: cosine(A, B, np.zeros(32)), "the mask leaves nothing"),
        (lambda: cosine(A, B, np.ones(5)), "do not fit"),
    ],
)
def test_refusals(call: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        call()
