"""Charge neutrality: approached during the reverse process and exact at its end (eq. 6)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mattergen_e.descriptors import BaderCharge
from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.predictors import DescriptorPredictor

SIZES = (1, 2, 7, 20)
SITES = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))


def totals(x: torch.Tensor, sites: torch.Tensor = SITES) -> np.ndarray:
    """Total of each crystal, in double precision."""
    return np.bincount(sites.numpy(), weights=x[:, 0].double().numpy())


def test_one_step_takes_the_hand_computed_share():
    x = torch.tensor([[1.0], [3.0], [0.5], [0.5], [2.0]])  # means 2 and 1
    sites = torch.tensor([0, 0, 1, 1, 1])
    out = BaderCharge(neutrality_power=2.0, reference_steps=10).after_step(x, s=0.5, ds=0.1, batch_idx=sites)
    assert torch.allclose(out[:, 0], torch.tensor([0.5, 2.5, 0.25, 0.25, 1.75]))  # g = 0.25


def test_the_mean_alone_changes():
    x = torch.randn(len(SITES), 1)
    out = BaderCharge().after_step(x, s=0.7, ds=0.01, batch_idx=SITES)
    shift = (x - out)[:, 0].numpy()
    for crystal in range(len(SIZES)):
        assert np.ptp(shift[crystal == SITES]) < 1e-6


def test_a_crystal_does_not_feel_the_others():
    x = torch.randn(len(SITES), 1)
    together = BaderCharge().after_step(x, s=0.8, ds=0.1, batch_idx=SITES)
    for crystal in range(len(SIZES)):
        own = x[crystal == SITES]
        alone = BaderCharge().after_step(own, s=0.8, ds=0.1, batch_idx=torch.zeros(len(own), dtype=torch.long))
        assert torch.allclose(together[crystal == SITES], alone, atol=1e-7)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    scale=st.floats(0.1, 3.0),
    seed=st.integers(0, 2**31 - 1),
)
def test_exactly_neutral_at_the_end(sizes, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    sites = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    descriptor = BaderCharge(scale=scale)
    x = descriptor.encode(5 * torch.randn(len(sites), 1, generator=generator))
    out = descriptor.decode(descriptor.after_step(x, s=1.0, ds=1e-3, batch_idx=sites))
    assert np.abs(totals(out, sites)).max() < 1e-5


@pytest.mark.parametrize("steps", [5, 50, 1000])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_reverse_process_ends_neutral_in_the_sample_and_in_the_mean(steps, scale):
    """A network that knows nothing (score of pure noise) leaves all to the constraint."""
    torch.manual_seed(steps)
    descriptor = BaderCharge(scale=scale)
    predictor = DescriptorPredictor(descriptor.corruption(), descriptor)
    x = 3.0 + torch.randn(len(SITES), 1)
    dt = torch.tensor(-1.0 / steps)
    excess = []
    for i in range(steps):
        t = torch.full((len(SIZES),), 1.0 - i / steps)
        x, mean = predictor.update_given_score(x=x, t=t, dt=dt, batch_idx=SITES, score=-x, batch=None)
        excess.append(np.abs(totals(x)).mean())
    assert np.abs(totals(descriptor.decode(x))).max() < 1e-5
    assert np.abs(totals(descriptor.decode(mean))).max() < 1e-5
    assert x.isfinite().all() and x.std() > 0.01 and mean.std() > 0.01
    if steps == 1000:  # progressive: hardly felt at first, then stronger and stronger
        quarters = [np.mean(excess[k : k + 50]) for k in (0, 250, 500, 750)]
        assert quarters[0] > 5 * quarters[2] > 5 * quarters[3] > 0
        free = Descriptor(name="free")
        torch.manual_seed(steps)
        y, free_predictor = 3.0 + torch.randn(len(SITES), 1), DescriptorPredictor(free.corruption(), free)
        for i in range(50):
            t = torch.full((len(SIZES),), 1.0 - i / steps)
            y, _ = free_predictor.update_given_score(x=y, t=t, dt=dt, batch_idx=SITES, score=-y, batch=None)
        assert quarters[0] == pytest.approx(np.abs(totals(y)).mean(), rel=0.5)


def test_sum_shrinks_towards_the_end():
    """Applied again and again without any other change, the constraint only ever shrinks the excess."""
    x = 1.0 + torch.randn(len(SITES), 1)
    first = before = np.abs(totals(x))
    for i in range(1, 101):
        x = BaderCharge().after_step(x, s=i / 100, ds=0.01, batch_idx=SITES)
        after = np.abs(totals(x))
        assert (after <= before + 1e-5).all()
        if i == 10:
            assert (after > 0.99 * first).all() and first.max() > 1.0
        before = after
    assert before.max() < 1e-5


def test_name_unit_and_field():
    descriptor = BaderCharge()
    assert (descriptor.name, descriptor.unit, descriptor.dim, descriptor.from_cache) == ("bader_charge", "e", 1, True)
