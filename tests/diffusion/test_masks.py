"""The skipped chain of masks: against the product of MatterGen's one-step matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mattergen.diffusion.corruption.d3pm_corruption import D3PMCorruption
from mattergen.diffusion.d3pm.d3pm import MaskDiffusion, create_discrete_diffusion_schedule

from mattergen_e.diffusion.masks import MaskChain
from mattergen_e.errors import UserError

N, TYPES = 20, 6  # the last type is the mask


def corruption(kind="standard"):
    schedule = create_discrete_diffusion_schedule(kind=kind, num_steps=N)
    return D3PMCorruption(MaskDiffusion(dim=TYPES, schedule=schedule), offset=1)


def one_step(chain, first, last):
    """The product of the one-step matrices from noise level `first` to `last`; columns are where from."""
    product = torch.eye(TYPES, dtype=torch.float64)
    for level in range(first, last):
        product = chain.get(torch.tensor(level)).double() @ product
    return product


def posterior(chain, clean, level, skipped):
    """q(x_level | x_(level + skipped) = mask) for x_0 of a distribution, by Bayes' rule with these matrices."""
    before = one_step(chain, 0, level) @ clean
    joint = one_step(chain, level, level + skipped)[-1] * before
    return joint / joint.sum()


@pytest.mark.parametrize("kind", ["standard", "cosine"])
@pytest.mark.parametrize(("level", "skipped"), [(19, 1), (12, 7), (3, 10), (1, 1), (0, 20), (0, 4)])
def test_skipped_steps_are_the_product_of_the_steps(kind, level, skipped):
    """Frequencies over 40,000 crystals of one site, which are masked at the later level."""
    torch.manual_seed(level)
    clean = torch.rand(TYPES, dtype=torch.float64)
    clean[-1] = 0.0
    clean /= clean.sum()
    process = corruption(kind)
    process.d3pm.state[-1] = 0.0
    chain, n = MaskChain(process), 40_000
    x = torch.full((n,), TYPES)
    chain.begin(x, torch.arange(n), (level + skipped) / N)
    found = chain.advance(x, clean.log().float().expand(n, TYPES), level / N)
    shares = torch.bincount(found - 1, minlength=TYPES) / n
    matrices = process.d3pm
    expected = posterior(matrices, clean, level, skipped)
    assert (shares - expected).abs().max() < 5 * float((expected * (1 - expected)).max().sqrt()) / n**0.5 + 1e-3
    # what shows its type stays
    again = chain.advance(found, torch.randn(n, TYPES), max(level - 1, 0) / N)
    assert torch.equal(again[found < TYPES], found[found < TYPES])


def test_survival_is_that_of_the_chain_and_linear_between_its_steps():
    process = corruption("cosine")
    chain = MaskChain(process)
    for level in (0, 1, 7, N - 1):
        kept = one_step(process.d3pm, 0, level)[0, 0]
        assert chain.survival(level / N) == pytest.approx(float(kept), abs=1e-6)
    middle = (chain.survival(7 / N) + chain.survival(8 / N)) / 2
    assert chain.survival(7.5 / N) == pytest.approx(middle)
    assert chain.survival(1.0) == 0.0 and chain.survival(0.0) == 1.0


def test_several_steps_are_one_step():
    """Sites that show their type at a time: as many, whichever times came before."""
    n, shares = 20_000, []
    for times in ((0.3,), (0.9, 0.55, 0.3), tuple(np.linspace(0.95, 0.3, 14))):
        torch.manual_seed(0)
        chain, x = MaskChain(corruption()), torch.full((n,), TYPES)
        chain.begin(x, torch.arange(n), 1.0)
        for t in times:
            x = chain.advance(x, torch.zeros(n, TYPES), float(t))
        shares.append(float((x < TYPES).float().mean()))
    assert shares == pytest.approx([0.7] * 3, abs=0.015)


def test_sites_of_a_crystal_fall_one_after_the_other():
    """Of n sites, n a(t) have fallen at t, up to one; which ones is chance, the same for each."""
    sizes = torch.tensor([2, 5, 8, 20] * 200)
    crystals = torch.arange(len(sizes)).repeat_interleave(sizes)
    torch.manual_seed(1)
    chain, x = MaskChain(corruption()), torch.full((len(crystals),), TYPES)
    chain.begin(x, crystals, 1.0)
    first = sizes.cumsum(0) - sizes
    for t in (0.83, 0.4, 0.11):
        x = chain.advance(x, torch.zeros(len(x), TYPES), t)
        fallen = torch.zeros(len(sizes)).index_add_(0, crystals, (x < TYPES).float())
        assert float((fallen - sizes * (1 - t)).abs().max()) < 1
        for place in (0, 1):
            share = float((x[first + place] < TYPES).float().mean())
            assert share == pytest.approx(1 - t, abs=5 * (t * (1 - t) / len(sizes)) ** 0.5)


def test_sites_that_show_their_type_at_the_start_are_no_part_of_it():
    """Half way, with some types given: the masked ones fall as the chain says of masked ones."""
    torch.manual_seed(2)
    x = torch.tensor([1, TYPES, TYPES, 2, TYPES]).repeat(4000)
    crystals = torch.arange(4000).repeat_interleave(5)
    chain = MaskChain(corruption())
    chain.begin(x, crystals, 0.5)
    after = chain.advance(x, torch.zeros(len(x), TYPES), 0.25)
    masked = (x == TYPES).reshape(4000, 5)
    fallen = (after < TYPES).reshape(4000, 5) & masked
    assert torch.equal(after[x < TYPES], x[x < TYPES])
    # (a(s) - a(t)) / (1 - a(t)) = (0.75 - 0.5) / 0.5
    assert fallen.float().sum(0).div(4000).tolist() == pytest.approx([0.0, 0.5, 0.5, 0.0, 0.5], abs=0.04)
    assert set(fallen.sum(1).tolist()) == {1, 2}


def test_the_mask_is_never_drawn_and_nothing_is_masked_at_the_end():
    chain, x = MaskChain(corruption()), torch.full((500,), TYPES)
    chain.begin(x, torch.zeros(500, dtype=torch.long), 1.0)
    logits = torch.zeros(500, TYPES)
    logits[:, -1] = 50.0
    assert set(chain.advance(x, logits, 0.0).tolist()) == {1, 2, 3, 4, 5}


def test_other_chains_are_refused():
    process = corruption()
    process.d3pm = type("UniformDiffusion", (), {"dim": TYPES, "num_steps": N})()
    with pytest.raises(UserError, match="have the diffusion UniformDiffusion, not that of masks: set .*steps to null"):
        MaskChain(process)
