"""Reverse steps: against MatterGen's own, against exact Gaussians, and with crystals that fall apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mattergen.diffusion.corruption.sde_lib import VPSDE
from mattergen.diffusion.sampling.predictors import AncestralSamplingPredictor

from mattergen_e.descriptors import BaderCharge, Descriptor, Dummy
from mattergen_e.diffusion.predictors import CrystalGuard, DescriptorPredictor, Guarded, reverse_time

# -- reverse time -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("t", "dt", "expected"),
    [
        (1.0, -0.1, (0.1, 0.1)),
        (0.6, -0.1, (0.5, 0.1)),
        (0.1, -0.1, (1.0, 0.1)),
        (0.1, -0.09999, (1.0, 0.09999)),  # lands on zero up to rounding
        (0.001, -0.00999, (1.0, 0.00999)),  # beyond zero
        (0.2, -0.1, (0.9, 0.1)),
    ],
)
def test_reverse_time(t, dt, expected):
    assert reverse_time(t, dt, 1.0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("steps", [2, 10, 200, 1000])
def test_last_step_of_mattergens_sampler_counts_as_the_end(steps):
    times = torch.linspace(1.0, 1 / steps, steps)
    dt = -torch.tensor((1.0 - 1 / steps) / (steps - 1))
    s = [reverse_time(float(t), float(dt), 1.0)[0] for t in times]
    assert s[-1] == 1.0
    assert all(x < 1.0 for x in s[:-1])
    assert np.allclose(np.diff([0.0, *s]), 1 / steps, atol=1e-5)


def test_reverse_time_of_a_longer_process():
    assert reverse_time(4.0, -1.0, 5.0) == pytest.approx((0.4, 0.2))


# -- the descriptor's step --------------------------------------------------------------------------------------------


def test_without_a_constraint_it_is_mattergens_predictor():
    sde = VPSDE()
    ours = DescriptorPredictor(sde, Dummy())
    theirs = AncestralSamplingPredictor(sde, score_fn=None)
    sites = torch.tensor([0, 0, 1, 1, 1])
    arguments = {"x": torch.randn(5, 3), "score": torch.randn(5, 3), "batch_idx": sites, "batch": None}
    for t, dt in ((1.0, -0.01), (0.5, -0.1), (0.1, -0.1)):
        arguments |= {"t": torch.full((2,), t), "dt": torch.tensor(dt)}
        torch.manual_seed(1)
        a = ours.update_given_score(**arguments)
        torch.manual_seed(1)
        b = theirs.update_given_score(**arguments)
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_the_constraint_sees_sample_and_mean_and_the_time_after_the_step():
    calls = []

    class Watched(Descriptor):
        def after_step(self, x, *, s, ds, batch_idx):
            calls.append((s, ds, batch_idx))
            return x + 1.0

    torch.manual_seed(0)
    x, sites = torch.randn(4, 1), torch.tensor([0, 0, 0, 1])
    arguments = {"x": x, "t": torch.full((2,), 0.5), "dt": torch.tensor(-0.25), "batch_idx": sites, "batch": None}
    torch.manual_seed(2)
    sample, mean = DescriptorPredictor(VPSDE(), Watched(name="x")).update_given_score(score=-x, **arguments)
    torch.manual_seed(2)
    free, free_mean = AncestralSamplingPredictor(VPSDE(), score_fn=None).update_given_score(score=-x, **arguments)
    assert torch.allclose(sample, free + 1.0) and torch.allclose(mean, free_mean + 1.0)
    assert [call[:2] for call in calls] == [pytest.approx((0.75, 0.25))] * 2
    assert all(call[2] is sites for call in calls)


def reverse(descriptor, mean, variance, sizes, steps=1000):
    """A whole reverse process with the exact score of data distributed as N(mean, variance) at every site."""
    sde = descriptor.corruption()
    predictor = DescriptorPredictor(sde, descriptor)
    sites = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    x = torch.randn(len(sites), 1)
    dt = torch.tensor(-1.0 / steps)
    for i in range(steps):
        end = 1.0 - i / steps
        alpha = math.exp(-0.5 * (descriptor.beta_min * end + (descriptor.beta_max - descriptor.beta_min) * end**2 / 2))
        score = -(x - alpha * mean) / (alpha**2 * variance + 1 - alpha**2)
        t = torch.full((len(sizes),), end)
        x, _ = predictor.update_given_score(x=x, t=t, dt=dt, batch_idx=sites, score=score, batch=None)
    return x[:, 0], sites


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (1.5, 0.25), (-2.0, 4.0)])
def test_exact_score_reproduces_a_gaussian(mean, variance):
    torch.manual_seed(0)
    x, _ = reverse(Dummy(), mean, variance, [20_000])
    error = math.sqrt(variance / len(x))
    assert float(x.mean()) == pytest.approx(mean, abs=5 * error + 0.01)
    assert float(x.var()) == pytest.approx(variance, rel=0.04)


@pytest.mark.parametrize("size", [2, 5])
def test_exact_score_of_neutral_crystals(size):
    """Independent charges conditioned on a zero sum have variance s2 (1 - 1/n) and covariance -s2/n."""
    torch.manual_seed(0)
    x, _ = reverse(BaderCharge(), 0.0, 2.0, [size] * 6000, steps=500)
    charges = x.reshape(-1, size).double().numpy()
    assert np.abs(charges.sum(axis=1)).max() < 1e-5
    covariance = np.cov(charges.T)
    expected = 2.0 * (np.eye(size) - 1 / size)
    assert np.abs(covariance - expected).max() < 0.15


# -- the guard --------------------------------------------------------------------------------------------------------


@pytest.fixture
def guard():
    guard = CrystalGuard(cutoff=6.0)
    guard.begin(torch.tensor([2, 4, 8, 1, 3, 5]))
    return guard


def cubes(guard, volumes):
    """Cubic cells of some volumes per site."""
    edge = (torch.tensor(volumes) * guard.num_atoms) ** (1 / 3)
    return torch.eye(3) * edge[:, None, None]


def test_healthy_cells_are_left_bit_equal(guard):
    torch.manual_seed(0)
    cell = cubes(guard, [4.0, 10.0, 17.0, 30.0, 60.0, 120.0]) + 0.1 * torch.randn(6, 3, 3)
    out = guard.cell(cell)
    assert torch.equal(out, cell)
    assert not guard.parked.any()
    assert torch.equal(guard.cell(-cell), -cell)  # a left-handed cell is a cell


def test_cells_that_are_no_cells_are_parked(guard):
    cell = cubes(guard, [20.0] * 6)
    original = cell.clone()
    cell[1, 0, 2] = math.nan
    cell[2] *= 1e15  # its volume is not a number of single precision
    cell[3, 2] = cell[3, 1]  # flat
    cell[4, 1, 1] = math.inf
    out = guard.cell(cell)
    assert guard.parked.tolist() == [False, True, True, True, True, False]
    assert torch.equal(out[~guard.parked], original[~guard.parked])
    parked = out[guard.parked]
    assert out.isfinite().all()
    density = guard.num_atoms[guard.parked] / torch.linalg.det(parked)
    assert torch.allclose(density, torch.full((4,), 0.0577), rtol=1e-3)
    assert torch.linalg.cond(parked).max() == pytest.approx(1.0, abs=1e-4)


def test_huge_and_tiny_cells_are_scaled_to_the_bounds_and_go_on(guard):
    largest = 6.0**3 / math.sqrt(2)  # close packing of spheres as wide as the cutoff: 152.7 cubic angstrom each
    cell = cubes(guard, [0.99 * largest, 1.01 * largest, 1e6, 0.49, 1e-3, 20.0])
    cell[2] = cell[2] @ torch.tensor([[1.0, 0.3, 0.0], [0.0, 0.8, 0.1], [0.2, 0.0, 1.3]])
    out = guard.cell(cell)
    assert not guard.parked.any()
    volumes = torch.linalg.det(out) / guard.num_atoms
    assert volumes.tolist() == pytest.approx([0.99 * largest, largest, largest, 0.5, 0.5, 20.0], rel=1e-4)
    assert torch.equal(out[[0, 5]], cell[[0, 5]])
    ratio = out / cell  # the shape stays
    for i in (1, 2, 3, 4):
        kept = ratio[i][cell[i].abs() > 1e-3]
        assert kept.std() / kept.mean() < 1e-5


def test_below_the_largest_volume_some_pair_is_within_the_cutoff(guard):
    """The densest packing is the extreme case: fcc with neighbours exactly at the cutoff."""
    a = 6.0 * math.sqrt(2)
    assert a**3 / 4 == pytest.approx(guard.largest_volume)


def test_bounds_can_be_set_but_not_beyond_the_cutoff():
    assert CrystalGuard(6.0).least_volume == 0.5
    narrow = CrystalGuard(6.0, least_volume=2.0, largest_volume=60.0)
    narrow.begin(torch.tensor([1, 2, 4]))
    out = narrow.cell(cubes(narrow, [1.0, 20.0, 100.0]))
    assert (torch.linalg.det(out) / narrow.num_atoms).tolist() == pytest.approx([2.0, 20.0, 60.0], rel=1e-4)
    assert not narrow.parked.any()
    assert CrystalGuard(6.0, largest_volume=1000.0).largest_volume == pytest.approx(6.0**3 / math.sqrt(2))


def test_parked_crystals_stay_parked(guard):
    cell = cubes(guard, [20.0] * 6)
    bad = cell.clone()
    bad[2] = math.nan
    guard.cell(bad)
    again = guard.cell(cell * 1.1)
    assert guard.parked.tolist() == [False, False, True, False, False, False]
    assert torch.equal(again[2], guard.cube[2])
    assert torch.equal(again[:2], cell[:2] * 1.1)
    guard.begin(torch.tensor([2, 2]))
    assert guard.parked.tolist() == [False, False]


def test_positions_that_are_not_finite(guard):
    sites = torch.repeat_interleave(torch.arange(6), guard.num_atoms)
    x = torch.rand(len(sites), 3)
    bad = x.clone()
    bad[3] = math.nan  # crystal 1
    bad[-1, 1] = math.inf  # crystal 5
    out = guard.rows(bad, sites)
    assert guard.parked.tolist() == [False, True, False, False, False, True]
    untouched = torch.ones(len(sites), dtype=torch.bool)
    untouched[[3, -1]] = False
    assert torch.equal(out[untouched], x[untouched])
    assert out.isfinite().all() and (out >= 0).all() and (out < 1).all()


def test_whole_numbers_pass(guard):
    numbers = torch.tensor([8, 22, 0])
    assert guard.clean("atomic_numbers", numbers, torch.tensor([0, 0, 0])) is numbers


def test_scores_that_are_not_finite(guard, to_batch, solids):
    batch = to_batch(list(solids.values()))
    guard.begin(batch["num_atoms"])
    sites = batch.get_batch_idx("pos")
    score = batch.replace(pos=torch.randn(len(sites), 3), cell=torch.randn(8, 3, 3))
    rows = {"pos": sites, "cell": torch.arange(8), "bader_charge": sites}
    same = guard.score(score, rows)
    assert all(torch.equal(same[name], score[name]) for name in rows) and not guard.parked.any()
    pos, cell = score["pos"].clone(), score["cell"].clone()
    pos[(sites == 2).nonzero()[1]] = math.nan
    cell[5, 0, 0] = -math.inf
    out = guard.score(score.replace(pos=pos, cell=cell), rows)
    bad = torch.tensor([i in (2, 5) for i in range(8)])
    assert torch.equal(guard.parked, bad)
    for name in ("pos", "bader_charge"):
        assert torch.equal(out[name][~bad[sites]], score[name][~bad[sites]])
        assert not out[name][bad[sites]].any()
    assert torch.equal(out["cell"][~bad], score["cell"][~bad]) and not out["cell"][bad].any()


def test_guarded_step_cleans_sample_and_mean(guard):
    class Step:
        def update_given_score(self, *, x, batch_idx, **_):
            bad = x.clone()
            bad[0] = math.nan
            return x, bad

        step_given_score = update_given_score

    cell = cubes(guard, [20.0] * 6)
    for method in ("update_given_score", "step_given_score"):
        guard.begin(guard.num_atoms)
        sample, mean = getattr(Guarded(Step(), "cell", guard), method)(x=cell, batch_idx=None)
        assert guard.parked.tolist() == [True] + [False] * 5
        assert torch.equal(sample, cell)
        assert mean.isfinite().all() and torch.equal(mean[1:], cell[1:])
