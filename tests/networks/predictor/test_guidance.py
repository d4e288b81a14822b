"""The energy falls where the prediction comes closer, and its gradients are those of finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mattergen.common.data.collate import collate
from torch import Tensor

from mattergen_e.crystals.graphs import to_graph
from mattergen_e.errors import UserError
from mattergen_e.networks.predictor.guidance import Target, energy, time_bin
from mattergen_e.networks.predictor.neighbours import neighbours
from mattergen_e.networks.predictor.network import MASKED

NAN = float("nan")


@pytest.fixture
def predictor(make_predictor: Callable[..., Any]) -> Any:
    return make_predictor(noisy=True)


@pytest.fixture
def batch(solids: dict[str, Any]) -> Any:
    graphs = []
    for name in ("TiO2", "ZnS"):
        structure = solids[name].copy()
        structure.perturb(0.15, seed=1)
        graphs.append(to_graph(structure))
    return collate(graphs)


def wanted(predictor: Any, seed: int = 0) -> Target:
    generator = torch.Generator().manual_seed(seed)
    return Target(total=3 * torch.rand(2, predictor.grids.total.points, generator=generator))


def test_by_hand(predictor: Any, batch: Any) -> None:
    t = torch.tensor([0.05, 0.95])
    predicted = predictor.network(batch, t)
    target = Target(total=torch.expm1(predicted.total + torch.tensor([[0.2], [0.3]])))
    # the variance goes from 0.1 in the first to 1 in the last of ten parts
    expected = torch.tensor([0.5 * 0.2**2 / 0.1, 0.5 * 0.3**2 / 1.0])
    torch.testing.assert_close(energy(predictor, batch, t, target), expected, rtol=1e-3, atol=1e-5)


def test_only_what_is_wanted_counts(predictor: Any, batch: Any) -> None:
    t = torch.tensor([0.3, 0.6])
    predicted = predictor.network(batch, t)
    sites = torch.full_like(predicted.sites, NAN)
    sites[2, 10:20] = torch.expm1(predicted.sites[2, 10:20] + 0.4)
    variance = predictor.variance[time_bin(t)]
    found = energy(predictor, batch, t, Target(sites=sites))
    torch.testing.assert_close(found, torch.tensor([0.5 * 0.4**2 / float(variance[0]), 0.0]), rtol=1e-3, atol=1e-5)
    window = torch.expm1(predicted.total)
    window[:, ::2] = NAN
    torch.testing.assert_close(energy(predictor, batch, t, Target(total=window)), torch.zeros(2), atol=1e-6, rtol=0)


def test_gradients(predictor: Any, batch: Any) -> None:
    t, target = torch.tensor([0.2, 0.2]), wanted(predictor)
    numbers = batch["atomic_numbers"]
    given = {
        "pos": batch["pos"].clone(),
        "cell": batch["cell"].clone(),
        "shares": torch.softmax(3 * torch.nn.functional.one_hot(numbers - 1, MASKED).float(), dim=-1),
    }

    edges = neighbours(batch, predictor.settings.encoder)

    def total(values: dict[str, Tensor]) -> Tensor:
        structure = batch.replace(pos=values["pos"], cell=values["cell"])
        return energy(predictor, structure, t, target, edges=edges, shares=values["shares"]).sum()

    leaves = {name: value.requires_grad_() for name, value in given.items()}
    total(leaves).backward()
    generator = torch.Generator().manual_seed(0)
    for name, leaf in leaves.items():
        assert leaf.grad is not None and leaf.grad.isfinite().all() and leaf.grad.abs().max() > 0
        direction = torch.randn(leaf.shape, generator=generator)
        step = 1e-3  # MatterGen's graph is in single precision
        with torch.no_grad():
            ends = [total({**leaves, name: leaf + sign * step * direction}) for sign in (1, -1)]
        expected = float(ends[0] - ends[1]) / (2 * step)
        assert float((leaf.grad * direction).sum()) == pytest.approx(expected, rel=0.05, abs=1e-3)


def test_refusals(make_predictor: Callable[..., Any], predictor: Any, batch: Any) -> None:
    t = torch.zeros(2)
    with pytest.raises(UserError, match="knows clean structures only"):
        energy(make_predictor(), batch, t, wanted(predictor))
    with pytest.raises(UserError, match=r"the target's total have the shape \(2, 7\)"):
        energy(predictor, batch, t, Target(total=torch.ones(2, 7)))
    with pytest.raises(UserError, match="a target needs a spectrum"):
        Target()


def test_time_bins() -> None:
    assert time_bin(torch.tensor([0.0, 0.09, 0.1, 0.55, 0.999, 1.0])).tolist() == [0, 0, 1, 5, 9, 9]
