"""Positions and cells that are given: exact in the result, and on the way as the training has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice

from mattergen_e.diffusion.held import FixedTypes, Held, Template
from mattergen_e.diffusion.placed import HeldCell, HeldPositions
from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader

SIZES = [2, 5, 3]
FIRST = np.cumsum([0, *SIZES[:-1]])
POINTS = {1: [0.25, 0.5, 0.75], 0: [0.0, 1.25, -0.5]}
LATTICE = Lattice.from_parameters(3.0, 4.0, 5.0, 80, 95, 110)


@pytest.fixture(scope="module")
def conditions():
    def make(sizes=SIZES):
        return ConditionLoader(len(sizes), len(sizes)).make(np.array(sizes))

    return make


def held(model, *, cell=True, positions=True, **words):
    corruptions = model.diffusion_module.corruption.corruptions
    placed = {}
    if positions:
        placed["pos"] = HeldPositions(POINTS, corruptions["pos"])
    if cell:
        placed["cell"] = HeldCell(LATTICE.matrix.tolist(), corruptions["cell"])
    return Held(placed=placed, **words)


def sample(sampler, conditions, seed=0):
    torch.manual_seed(seed)
    return sampler.sample(conditions)


def same_cell(cell):
    """Whether a matrix has the given lengths and angles."""
    return np.allclose(Lattice(cell.double().numpy()).parameters, LATTICE.parameters, atol=1e-4)


@pytest.mark.parametrize("eps_t", [None, 0.25])
def test_positions_and_cell_are_exact_wherever_the_last_step_ends(make_joint, make_sampler, conditions, eps_t):
    model = make_joint()
    sampler = make_sampler(model, constraints=held(model, types=FixedTypes({0: 12})), eps_t=eps_t)
    for batch in sample(sampler, conditions()):
        assert batch["pos"][FIRST].tolist() == [[0.0, 0.25, 0.5]] * 3
        assert batch["pos"][FIRST + 1].tolist() == [[0.25, 0.5, 0.75]] * 3
        assert batch["atomic_numbers"][FIRST].tolist() == [12] * 3
        assert all(same_cell(cell) for cell in batch["cell"])
        assert torch.equal(batch["cell"], batch["cell"].mT)
    assert not sampler.guard.parked.any()


def test_one_of_the_two_leaves_the_other_free(make_joint, make_sampler, conditions):
    model = make_joint()
    _, mean = sample(make_sampler(model, constraints=held(model, cell=False)), conditions())
    assert not any(same_cell(cell) for cell in mean["cell"]) and mean["pos"][FIRST + 1].tolist() == [POINTS[1]] * 3
    _, mean = sample(make_sampler(model, constraints=held(model, positions=False)), conditions())
    assert all(same_cell(cell) for cell in mean["cell"]) and mean["pos"][FIRST + 1].tolist() != [POINTS[1]] * 3


def test_on_the_way_they_are_noised_to_the_common_time(make_joint, conditions):
    """Mean and deviation over many crystals are those of the forward process."""
    model = make_joint()
    corruptions = model.diffusion_module.corruption.corruptions
    batch = conditions([2] * 4000)
    both = held(model)
    both.begin(batch)
    for t in (0.6, 0.2):
        times = torch.full((4000,), t)
        torch.manual_seed(0)
        cell = both.placed["cell"].hold(batch["cell"], t)
        clean = both.placed["cell"].hold(batch["cell"], 0.0)
        mean, std = corruptions["cell"].marginal_prob(clean, times, batch=batch)
        assert torch.allclose(cell.mean(0), mean[0], atol=float(4 * std[0].max() / 4000**0.5 + 0.02))
        assert torch.allclose(cell.std(0), std[0].expand(3, 3), rtol=0.06)
        pos = both.placed["pos"].hold(torch.zeros(8000, 3), t)[1::2]
        sites = torch.arange(4000).repeat_interleave(2)
        _, std = corruptions["pos"].marginal_prob(torch.zeros(8000, 3), times, sites, batch)
        # of a wrapped normal distribution: |E exp(2 pi i (x - mu))| = exp(-2 pi^2 sigma^2)
        turned = torch.exp(2j * torch.pi * (pos - torch.tensor(POINTS[1]))).mean()
        assert turned.real == pytest.approx(np.exp(-2 * np.pi**2 * float(std[0, 0]) ** 2), abs=0.03)
        assert abs(float(turned.imag)) < 0.03


def test_a_template_gets_them(make_joint, make_sampler, conditions, solids):
    from mattergen_e.crystals.graphs import to_graph

    model = make_joint()
    template = Template(to_graph(solids["MgO"]), 0.3, model)
    _, mean = sample(make_sampler(model, constraints=held(model, template=template)), conditions([2, 2]))
    assert mean["pos"][1::2].tolist() == [POINTS[1]] * 2 and all(same_cell(cell) for cell in mean["cell"])


def test_a_parked_crystal_does_not_move_the_others(make_joint, make_sampler, conditions, collapse):
    model = make_joint()
    sampler = make_sampler(model, constraints=held(model))
    collapse(sampler)
    _, mean = sample(sampler, conditions())
    assert sampler.guard.parked.tolist() == [False, True, False]
    assert mean["pos"][FIRST + 1].tolist() == [POINTS[1]] * 3 and same_cell(mean["cell"][0])


def test_a_cell_that_the_sampler_would_scale(make_joint, make_sampler, conditions):
    model = make_joint()
    sampler = make_sampler(model, constraints=held(model), volume_per_site=[20, None])
    with pytest.raises(UserError, match="the given cell has 18.* a crystal of 3 sites, but the sampler keeps .* 20 to"):
        sample(sampler, conditions())
