"""Reconstruction loss of the autoencoder (Okuda et al., appendix A.2, equations 8 to 13).

The text lost the weights of equation 8, the parameter of Smooth L1, the definition of the magnitude in equation 11 and
the smoothing scales of equation 13: all are chosen here and marked.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F


class LossSettings(BaseModel):
    """Weights and parameters of the loss.

    Attributes:
        direct: Weight of equation 9, on states/eV. Chosen.
        log: Weight of equation 10, on log1p, the main term. Chosen.
        relative: Weight of equation 12, on spectra over their magnitude. Chosen.
        gradient: Weight of equation 13, on slopes of log1p at several scales. Chosen.
        transport: Weight of a term that the paper does not have: the mean Wasserstein distance of the unit-normalised
            spectra in eV, which the reconstructions are judged by. Ours; 0 gives the paper's loss.
        beta: Where Smooth L1 goes from quadratic to linear, in the unit of its term. Chosen.
        magnitude: What equation 11 takes for the magnitude of a spectrum: its largest value or its mean. Chosen.
        floor: Least magnitude, states/eV. Chosen.
        scales: Odd widths of the average pooling of equation 13, in points. Chosen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    direct: float = Field(default=0.1, ge=0)
    log: float = Field(default=2.0, ge=0)
    relative: float = Field(default=1.0, ge=0)
    gradient: float = Field(default=0.5, ge=0)
    transport: float = Field(default=1.0, ge=0)
    beta: float = Field(default=0.02, gt=0)
    magnitude: Literal["max", "mean"] = "max"
    floor: float = Field(default=1e-2, gt=0)
    scales: tuple[int, ...] = (1, 3, 7)


def reconstruction_loss(log_spectra: Tensor, target: Tensor, settings: LossSettings, step: float) -> dict[str, Tensor]:
    """The terms of equation 8 and their weighted sum.

    Args:
        log_spectra: (n, points) log1p of the reconstructions.
        target: (n, points) spectra, states/eV, each with states.
        settings: Weights and parameters.
        step: Width of a bin, eV.

    Returns:
        Scalars "direct", "log", "relative", "gradient", "transport", and "loss", their weighted sum.
    """
    log_target = torch.log1p(target)
    spectra = torch.expm1(log_spectra)
    peak = target.amax(-1, keepdim=True) if settings.magnitude == "max" else target.mean(-1, keepdim=True)
    size = peak.clamp_min(settings.floor)  # equation 11
    terms = {
        "direct": F.smooth_l1_loss(spectra, target, beta=settings.beta),
        "log": F.smooth_l1_loss(log_spectra, log_target, beta=settings.beta),
        "relative": F.smooth_l1_loss(spectra / size, target / size, beta=settings.beta),
        "gradient": _gradient_loss(log_spectra, log_target, settings),
        "transport": _transport(spectra, target) * step,
    }
    return terms | {
        "loss": sum((getattr(settings, name) * term for name, term in terms.items()), spectra.new_zeros(()))
    }


def gradient(values: Tensor, scale: int) -> Tensor:
    """Centred finite difference per point of averages over a window (equation 13).

    Args:
        values: (n, points).
        scale: Odd width of the window in points.

    Returns:
        (n, points - scale - 1); windows that reach beyond the ends are left out.
    """
    smooth = F.avg_pool1d(values.unsqueeze(1), scale, stride=1).squeeze(1)
    return (smooth[:, 2:] - smooth[:, :-2]) / 2


def _gradient_loss(values: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
    losses = [
        F.smooth_l1_loss(gradient(values, scale), gradient(target, scale), beta=settings.beta)
        for scale in settings.scales
    ]
    return torch.stack(losses).mean()


def _transport(spectra: Tensor, target: Tensor) -> Tensor:
    """Mean over spectra of the distance between cumulative shares, in bins."""
    share, target_share = (x / x.sum(-1, keepdim=True).clamp_min(1e-12) for x in (spectra, target))
    return (share - target_share).cumsum(-1).abs().sum(-1).mean()
