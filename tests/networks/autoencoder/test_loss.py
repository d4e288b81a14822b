"""Equations 8 to 13, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mattergen_e.networks.autoencoder.loss import LossSettings, gradient, reconstruction_loss
from mattergen_e.spectra.grid import ATOMIC_GRID
from mattergen_e.spectra.metrics import wasserstein

STEP = ATOMIC_GRID.step


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """log1p of five reconstructions, and five spectra."""
    rng = torch.Generator().manual_seed(5)
    return torch.rand(5, 512, generator=rng), 4 * torch.rand(5, 512, generator=rng) ** 3


def smooth_l1(difference: np.ndarray, beta: float) -> float:
    size = np.abs(difference)
    return float(np.where(size < beta, size**2 / (2 * beta), size - beta / 2).mean())


@pytest.mark.parametrize("magnitude", ["max", "mean"])
def test_terms(pair: tuple[torch.Tensor, torch.Tensor], magnitude: Any) -> None:
    settings = LossSettings(
        direct=0.3, log=0.7, relative=1.1, gradient=1.3, transport=1.7, beta=0.3, magnitude=magnitude, scales=(1, 5)
    )
    found = {name: float(term) for name, term in reconstruction_loss(*pair, settings, STEP).items()}
    logs, target = (x.double().numpy() for x in pair)
    spectra, log_target = np.exp(logs) - 1, np.log(1 + target)
    size = getattr(target, magnitude)(axis=1)[:, None]

    def slopes(values: np.ndarray, scale: int) -> np.ndarray:
        smooth = np.stack([np.convolve(row, np.ones(scale) / scale, mode="valid") for row in values])
        return (smooth[:, 2:] - smooth[:, :-2]) / 2

    expected = {
        "direct": smooth_l1(spectra - target, 0.3),
        "log": smooth_l1(logs - log_target, 0.3),
        "relative": smooth_l1((spectra - target) / size, 0.3),
        "gradient": np.mean([smooth_l1(slopes(logs, s) - slopes(log_target, s), 0.3) for s in (1, 5)]),
        "transport": wasserstein(spectra, target, ATOMIC_GRID).mean(),
    }
    weights = {"direct": 0.3, "log": 0.7, "relative": 1.1, "gradient": 1.3, "transport": 1.7}
    expected["loss"] = sum(weights[name] * value for name, value in expected.items())
    assert found == pytest.approx(expected, rel=1e-4)


def test_nothing_is_lost_on_the_target_itself(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, target = pair
    terms = reconstruction_loss(torch.log1p(target), target, LossSettings(), STEP)
    assert all(float(term) < 1e-5 for term in terms.values())


def test_relative_term_does_not_see_the_scale(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    logs, target = pair
    settings = LossSettings()
    once = reconstruction_loss(logs, target, settings, STEP)["relative"]
    tenfold = reconstruction_loss(torch.log1p(10 * torch.expm1(logs)), 10 * target, settings, STEP)["relative"]
    assert float(tenfold) == pytest.approx(float(once), rel=1e-4)


def test_floor_of_the_magnitude() -> None:
    target = torch.full((1, 512), 1e-6)
    found = reconstruction_loss(torch.log1p(2 * target), target, LossSettings(floor=0.01, beta=1.0), STEP)
    assert float(found["relative"]) == pytest.approx(0.5 * (1e-6 / 0.01) ** 2, rel=1e-3)


@pytest.mark.parametrize("scale", [1, 3, 7])
def test_slope_of_a_line(scale: int) -> None:
    found = gradient(torch.arange(20.0).repeat(2, 1) * 0.3, scale)
    assert found.shape == (2, 20 - scale - 1)
    torch.testing.assert_close(found, torch.full_like(found, 0.3))


def test_dark_reconstruction_has_finite_gradients() -> None:
    logs = torch.zeros(2, 512, requires_grad=True)
    reconstruction_loss(logs, torch.ones(2, 512), LossSettings(), STEP)["loss"].backward()
    assert logs.grad is not None and torch.isfinite(logs.grad).all()
