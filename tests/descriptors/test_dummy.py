"""The control experiment: numbers without meaning."""

from __future__ import annotations

import pytest
import torch

from mattergen_e.descriptors import Dummy


@pytest.mark.parametrize("dim", [1, 3])
def test_values_are_standard_normal_and_new_each_time(dim):
    torch.manual_seed(0)
    batch = {"pos": torch.rand(20_000, 3)}
    first, second = Dummy(dim=dim).training_values(batch), Dummy(dim=dim).training_values(batch)
    assert first.shape == (20_000, dim)
    assert first.mean(dim=0).abs().max() < 0.03
    assert (first.std(dim=0) - 1).abs().max() < 0.03
    for column in range(dim):  # unrelated to what was drawn before
        assert abs(float(torch.corrcoef(torch.stack([first[:, column], second[:, column]]))[0, 1])) < 0.03


def test_needs_nothing_from_the_cache(solids, to_batch):
    batch = to_batch(list(solids.values()), fields=())
    assert not Dummy.from_cache
    assert Dummy().training_values(batch).shape == (len(batch["pos"]), 1)


def test_is_not_constrained():
    x = torch.ones(4, 1)
    assert torch.equal(Dummy().after_step(x, s=1.0, ds=0.1, batch_idx=torch.zeros(4, dtype=torch.long)), x)
