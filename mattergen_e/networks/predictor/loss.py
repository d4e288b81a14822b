"""What the predictor minimises: distances of spectra and of their cumulative numbers of states."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mattergen_e.networks.predictor.grids import Grids
from mattergen_e.networks.predictor.network import Spectra


class LossSettings(BaseModel):
    """Weights of the terms. All chosen: neither paper prints its surrogate's.

    Attributes:
        cumulative: Of the distance of the numbers of states below each energy, beside that of the spectra.
        total: Of the crystal's spectrum, beside those of the sites.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cumulative: float = Field(default=1.0, ge=0)
    total: float = Field(default=1.0, ge=0)


def curve_loss(log_predicted: Tensor, reference: Tensor, step: float, cumulative: float) -> Tensor:
    """Distance of curves.

        mean |log(1 + p) - log(1 + r)| + cumulative * mean |P - R| / (1 + R_end),

    with the numbers of states P and R below each energy. The second term is the Wasserstein distance of spectra that
    are not normalised, over window and number of states: unlike the first it tells how far a band is from its place.

    Args:
        log_predicted: (n, points) log(1 + states/eV).
        reference: (n, points) states/eV; rows with NaN do not count.
        step: Width of a bin, eV.
        cumulative: Weight of the second term.

    Returns:
        Mean over the known rows, a scalar; zero without any.
    """
    known = reference.isfinite().all(dim=-1)
    logs, target = log_predicted[known], reference[known]
    if len(target) == 0:
        return log_predicted.sum() * 0.0
    distance = (logs - torch.log1p(target)).abs().mean(dim=-1)
    states = step * (torch.expm1(logs) - target).cumsum(dim=-1)
    moved = states.abs().mean(dim=-1) / (1.0 + step * target.sum(dim=-1))
    return (distance + cumulative * moved).mean()


def spectra_loss(predicted: Spectra, sites: Tensor, total: Tensor, grids: Grids, settings: LossSettings) -> dict:
    """Loss of a batch by its parts: "sites", "total" and "loss", their weighted sum."""
    parts = {
        "sites": curve_loss(predicted.sites, sites, grids.sites.step, settings.cumulative),
        "total": curve_loss(predicted.total, total, grids.total.step, settings.cumulative),
    }
    return parts | {"loss": parts["sites"] + settings.total * parts["total"]}
