"""The distances of curves by hand and by scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from mattergen_e.networks.predictor.loss import LossSettings, curve_loss, spectra_loss
from mattergen_e.networks.predictor.network import Spectra
from mattergen_e.networks.predictor.settings import NetworkSettings


def test_cumulative_term_is_the_wasserstein_distance() -> None:
    rng, step = np.random.default_rng(0), 0.25
    a, b = rng.random((2, 40))
    b *= a.sum() / b.sum()  # the same number of states
    states = step * a.sum()
    centres = step * np.arange(40)
    distance = wasserstein_distance(centres, centres, a, b)
    logs, reference = torch.from_numpy(np.log1p(b))[None], torch.from_numpy(a)[None]
    both, first = (curve_loss(logs, reference, step, weight) for weight in (1.0, 0.0))
    assert float(first) == pytest.approx(np.abs(np.log1p(a) - np.log1p(b)).mean())
    assert float(both - first) == pytest.approx(distance * states / (40 * step) / (1 + states))


def test_unknown_curves_do_not_count() -> None:
    reference = torch.tensor([[1.0, 0.0], [float("nan"), 0.0]])
    logs = torch.zeros(2, 2, requires_grad=True)
    loss = curve_loss(logs, reference, 1.0, 0.0)
    assert float(loss) == pytest.approx(np.log(2) / 2)
    loss.backward()
    assert logs.grad is not None and logs.grad[1].tolist() == [0.0, 0.0] and logs.grad[0, 0] != 0
    nothing = curve_loss(logs, torch.full((2, 2), float("nan")), 1.0, 1.0)
    assert float(nothing) == 0.0 and nothing.requires_grad


def test_parts(shape: NetworkSettings) -> None:
    grids, settings = shape.grids, LossSettings(cumulative=0.5, total=3.0)
    predicted = Spectra(torch.rand(5, 64), torch.rand(2, 32))
    sites, total = torch.rand(5, 64), torch.rand(2, 32)
    parts = spectra_loss(predicted, sites, total, grids, settings)
    assert float(parts["total"]) == pytest.approx(float(curve_loss(predicted.total, total, 0.625, 0.5)))
    assert float(parts["loss"]) == pytest.approx(float(parts["sites"] + 3 * parts["total"]))
    perfect = spectra_loss(Spectra(torch.log1p(sites), torch.log1p(total)), sites, total, grids, settings)
    assert float(perfect["loss"]) == pytest.approx(0.0, abs=1e-6)
