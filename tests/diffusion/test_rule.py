"""One reverse step: against Bayes' rule, exact Gaussians, and MatterGen's own predictors."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from mattergen.common.diffusion.corruption import LatticeVPSDE, NumAtomsVarianceAdjustedWrappedVESDE
from mattergen.common.diffusion.predictors_correctors import LatticeAncestralSamplingPredictor
from mattergen.diffusion.corruption.sde_lib import VPSDE
from mattergen.diffusion.sampling.predictors import AncestralSamplingPredictor
from mattergen.diffusion.wrapped.wrapped_predictors_correctors import WrappedAncestralSamplingPredictor

from mattergen_e.diffusion.plan import read_plan
from mattergen_e.diffusion.rule import advance, noise_like

ETAS = [0.0, 1.0, 4.0, 16.0, math.inf]
INF = math.inf


def signal(t):
    """Coefficient and noise of the variance-preserving process, by hand (Song et al. 2021, eq. 29)."""
    alpha = math.exp(-0.25 * t**2 * 19.9 - 0.5 * t * 0.1)
    return alpha, math.sqrt(1 - alpha**2)


def scalar_step(x, score, t, s, eta):
    """A step of a scalar field of many rows of one crystal."""
    time = torch.tensor([t]), None if s is None else torch.tensor([s])
    rows = torch.zeros(len(x), dtype=torch.long)
    return advance(VPSDE(), x, score, t=time[0], s=time[1], eta=eta, batch_idx=rows, batch=None)


# -- against Bayes' rule ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("t", "s"), [(1.0, 0.9), (0.6, 0.1), (0.05, 0.04), (0.9, 0.001)])
def test_ancestral_step_is_bayes_rule(t, s):
    """Where x_0 is known, q(x_s | x_t, x_0) is q(x_s | x_0) q(x_t | x_s), normalised: a product of two Gaussians."""
    x0, xt = 1.7, -0.4
    (at, st), (as_, ss) = signal(t), signal(s)
    ratio = at / as_
    width = st**2 - ss**2 * ratio**2  # variance of x_t given x_s
    precision = 1 / ss**2 + ratio**2 / width
    mean = (as_ * x0 / ss**2 + ratio * xt / width) / precision
    torch.manual_seed(0)
    x = torch.full((200_000, 1), xt)
    sample, centre = scalar_step(x, -(x - at * x0) / st**2, t, s, 1.0)
    assert torch.allclose(centre, torch.tensor(mean), atol=2e-4)
    assert float(sample.std()) == pytest.approx(math.sqrt(1 / precision), rel=0.01)


@pytest.mark.parametrize("eta", ETAS)
def test_every_eta_leaves_the_marginal_of_the_forward_process(eta):
    """x_t drawn for a known x_0 goes to x_s of mean a_s x_0 and deviation s_s, whatever of the noise is renewed."""
    x0, t, s = 0.8, 0.5, 0.2
    (at, st), (as_, ss) = signal(t), signal(s)
    torch.manual_seed(1)
    x = at * x0 + st * torch.randn(200_000, 1)
    sample, _ = scalar_step(x, -(x - at * x0) / st**2, t, s, eta)
    assert float(sample.mean()) == pytest.approx(as_ * x0, abs=5 * ss / math.sqrt(len(x)))
    assert float(sample.std()) == pytest.approx(ss, rel=0.01)
    correlation = float(torch.corrcoef(torch.stack([x[:, 0], sample[:, 0]]))[0, 1])
    kept = 0.0 if eta == INF else (ss * at / (st * as_)) ** eta
    assert correlation == pytest.approx(kept, abs=0.01)


# -- whole passes -----------------------------------------------------------------------------------------------------


def moments(times, eta, mean, variance):
    """Mean and variance at the end of a pass over data N(mean, variance) with its exact E[x_0 | x_t], by hand.

    x_t = a m + d; E[x_0 | x_t] = m + k d with k = a v / (a^2 v + s^2), and the noise that is left is (1 - a k) d / s.
    """
    shift, spread = -signal(times[0])[0] * mean, 1.0  # the pass starts at N(0, 1)
    for t, s in pairwise(times):
        (at, st), (as_, ss) = signal(t), (1.0, 0.0) if s == 0 else signal(s)
        gain = at * variance / (at**2 * variance + st**2)
        if s == 0:
            shift, spread = gain * shift, gain**2 * spread
            break
        rho = 0.0 if eta == INF else (ss * at / (st * as_)) ** eta
        factor = as_ * gain + ss * rho * (1 - at * gain) / st
        shift, spread = factor * shift, factor**2 * spread + ss**2 * (1 - rho**2)
    return mean + shift, spread


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize(("steps", "power"), [(1, 1.0), (5, 1.0), (12, 1.5), (40, 1.5)])
def test_gaussian_data_at_any_number_of_steps(eta, steps, power):
    mean, variance = 1.5, 0.36
    plan = read_plan({"steps": steps, "times": power, "eta": eta}, {"x"})
    assert plan is not None and plan.steps == steps
    torch.manual_seed(2)
    x = torch.randn(20_000, 1)
    for t, s in pairwise(plan.times):
        alpha, sigma = signal(t)
        score = -(x - alpha * mean) / (alpha**2 * variance + sigma**2)
        x, _ = scalar_step(x, score, t, s or None, eta)
    expected, spread = moments(plan.times, eta, mean, variance)
    assert float(x.mean()) == pytest.approx(expected, abs=5 * math.sqrt(spread / len(x)) + 2e-4)
    assert float(x.var()) == pytest.approx(spread, rel=0.05, abs=1e-6)


@pytest.mark.parametrize("eta", ETAS[:-1])
def test_many_steps_reproduce_the_data(eta):
    """The closed form of the test above tends to the data's mean and variance, with an error like 1 / steps."""
    errors = []
    for steps in (1000, 2000, 4000):
        mean, variance = moments([1 - i / steps for i in range(steps + 1)], eta, 1.5, 0.36)
        assert mean == pytest.approx(1.5, abs=0.01)
        errors.append(abs(variance / 0.36 - 1))
    assert errors[2] < 0.1
    assert eta < 1 or errors[1] / errors[2] == pytest.approx(2, rel=0.2)


def test_fast_renewal_in_few_steps_narrows_a_distribution():
    """What docs/sampling.md warns of: each estimate of x_0 is a mean, and noise that is kept carries the rest."""
    widths = {
        eta: math.sqrt(moments([(1 - i / 50) ** 1.5 for i in range(51)], eta, 0.0, 0.36)[1] / 0.36) for eta in ETAS
    }
    assert [round(w, 2) for w in widths.values()] == [0.97, 0.93, 0.84, 0.7, 0.68]


# -- against MatterGen ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crystals(solids, to_batch):
    batch = to_batch(list(solids.values()))
    torch.manual_seed(3)
    return batch.replace(pos=torch.rand_like(batch["pos"]), cell=batch["cell"] + torch.randn(8, 3, 3))


def theirs(predictor, name, batch, score, t, s):
    arguments = {"x": batch[name], "t": t, "dt": s - t[0], "batch_idx": batch.get_batch_idx(name), "batch": batch}
    return predictor.update_given_score(score=score, **arguments), predictor._get_coeffs(**arguments)[2]


@pytest.mark.parametrize("trained", [200, 1000])
@pytest.mark.parametrize("field", ["pos", "cell", "bader_charge"])
def test_ancestral_steps_of_the_training_are_mattergens_predictors(crystals, field, trained):
    """Mean and deviation of each step k/N to (k - 1)/N, at eta = 1, to rounding."""
    sde, kind = {
        "pos": (NumAtomsVarianceAdjustedWrappedVESDE(), WrappedAncestralSamplingPredictor),
        "cell": (LatticeVPSDE(), LatticeAncestralSamplingPredictor),
        "bader_charge": (VPSDE(), AncestralSamplingPredictor),
    }[field]
    predictor, rows = kind(sde, score_fn=None), crystals.get_batch_idx(field)
    plan = read_plan({"steps": trained, "times": 1, "eta": 1.0}, {field})
    assert plan is not None
    for k in (0, 1, trained // 2, trained - 10, trained - 2):
        t, s = torch.full((8,), plan.times[k]), torch.full((8,), plan.times[k + 1])
        _, sigma = sde.mean_coeff_and_std(x=crystals[field], t=t, batch_idx=rows, batch=crystals)
        score = torch.randn_like(crystals[field]) / sigma
        (_, mean), deviation = theirs(predictor, field, crystals, score, t, s[0])
        torch.manual_seed(4)
        sample, centre = advance(sde, crystals[field], score, t=t, s=s, eta=1.0, batch_idx=rows, batch=crystals)
        torch.manual_seed(4)
        expected = mean + deviation * noise_like(sde, crystals[field])
        for ours, wanted in ((centre, mean), (sample, expected)):
            difference = ours - wanted
            difference = difference - difference.round() if field == "pos" else difference
            assert float(difference.abs().max()) < 2e-4 * float(deviation.max())


def test_the_last_step_of_the_training_is_mattergens_mean(crystals):
    """From 1/N to 0 MatterGen's predictor adds no noise; its mean is the estimate of the clean crystal."""
    sde, field = LatticeVPSDE(), "cell"
    t = torch.full((8,), 1 / 200)
    score = torch.randn_like(crystals[field])
    (sample, mean), _ = theirs(
        LatticeAncestralSamplingPredictor(sde, score_fn=None), field, crystals, score, t, torch.tensor(0.0)
    )
    ours, _ = advance(sde, crystals[field], score, t=t, s=None, eta=1.0, batch_idx=None, batch=crystals)
    assert torch.equal(sample, mean) and torch.allclose(ours, mean, atol=1e-4)


def test_noise_of_the_cell_has_six_independent_numbers(crystals):
    """As in the forward process; MatterGen's predictor draws one number for all nine."""
    batch = crystals.replace(num_atoms=torch.full((4000,), 4))
    cell = 5 * torch.eye(3).repeat(4000, 1, 1)
    t, s = torch.full((4000,), 0.5), torch.full((4000,), 0.49)
    arguments = {"x": cell, "t": t, "batch_idx": None, "batch": batch}
    score, found = torch.zeros_like(cell), {}
    torch.manual_seed(5)
    theirs = LatticeAncestralSamplingPredictor(LatticeVPSDE(), score_fn=None)
    ours = advance(LatticeVPSDE(), cell, score, t=t, s=s, eta=1.0, batch_idx=None, batch=batch)
    for who, (sample, mean) in {
        "theirs": theirs.update_given_score(score=score, dt=s[0] - t[0], **arguments),
        "ours": ours,
    }.items():
        noise = (sample - mean) / theirs._get_coeffs(dt=s[0] - t[0], **arguments)[2]
        assert torch.allclose(noise, noise.mT, atol=1e-3)
        upper = noise[:, *torch.triu_indices(3, 3)]
        found[who] = torch.linalg.eigvalsh(torch.cov(upper.T))
    assert found["ours"].tolist() == pytest.approx([1.0] * 6, abs=0.15)
    assert found["theirs"][:5].abs().max() < 1e-3 and float(found["theirs"][5]) == pytest.approx(9.0, rel=0.1)
