"""How badly a noised structure fits a target: the energy of classifier-based guidance (DOSMatGen, section 2.3).

A time-dependent predictor g(S_t, t) gives the mean of the spectra of the clean crystal, and its square error at that
time on the validation split the variance. With one degree of freedom per curve,

    -log p(y | S_t) = mean over the known points of (log(1 + g) - log(1 + y))^2 / (2 variance(t)) + constant,

whose gradient, times a strength, is added to the score of the diffusion model (equation 2). The paper prints neither
the classifier's likelihood nor a scale; this one is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mattergen_e.errors import UserError
from mattergen_e.networks.predictor.neighbours import Edges
from mattergen_e.networks.predictor.network import per_crystal_mean
from mattergen_e.networks.predictor.settings import TIMES

if TYPE_CHECKING:
    from mattergen_e.networks.predictor.model import Predictor

#: Smallest variance: a perfect prediction must not give an endless force.
LEAST_VARIANCE = 1e-4


@dataclass(frozen=True)
class Target:
    """What spectra are wanted; at least one of the two.

    Attributes:
        total: (n_crystals, points) states/eV per atom on the grid of the total; NaN wherever anything will do.
        sites: (n_sites, points) states/eV on the grid of the sites; NaN likewise.
    """

    total: Tensor | None = None
    sites: Tensor | None = None

    def __post_init__(self) -> None:
        if self.total is None and self.sites is None:
            raise UserError("a target needs a spectrum: give one of the crystal, or of some of its sites")


def time_bin(t: Tensor) -> Tensor:
    """Which of the parts of [0, 1] times lie in, (n,)."""
    return (t * TIMES).long().clamp(0, TIMES - 1)


def energy(
    predictor: Predictor,
    structure: Any,
    t: Tensor,
    target: Target,
    *,
    edges: Edges | None = None,
    shares: Tensor | None = None,
) -> Tensor:
    """-log p(y | S_t), up to a constant.

    Args:
        predictor: One that was trained on noised structures.
        structure: MatterGen's batch, noised; positions and cell may require gradients.
        t: (n_crystals,) its times.
        target: The wanted spectra.
        edges: Neighbours, where they are known; else they are found. Gradients take them as fixed: where a neighbour
            enters or leaves the list of the nearest, the energy itself has a small jump.
        shares: (n_sites, elements) shares of elements in the place of atomic numbers, the mask last: for gradients with
            respect to what the diffusion model says of the elements.

    Returns:
        (n_crystals,), differentiable with respect to `pos`, `cell` and `shares`. Crystals without any known point have
        zero.

    Raises:
        UserError: If the predictor was trained on clean structures only, or the target has another shape.
    """
    if not predictor.settings.noisy:
        raise UserError("this predictor knows clean structures only: train one with --noisy to guide a generation")
    predicted = predictor.network(structure, t, edges, shares)
    crystals = structure.get_batch_idx("pos")
    squares = torch.zeros_like(t)
    if target.total is not None:
        squares = squares + _square(predicted.total, target.total, "total")
    if target.sites is not None:
        per_site = _square(predicted.sites, target.sites, "sites")
        wanted = target.sites.isfinite().any(dim=-1).to(per_site.dtype)
        total, share = (per_crystal_mean(x, crystals, len(t)) for x in (per_site, wanted))
        squares = squares + total / share.clamp(min=torch.finfo(share.dtype).tiny)
    return 0.5 * squares / predictor.variance.to(t)[time_bin(t)].clamp(min=LEAST_VARIANCE)


def _square(logs: Tensor, target: Tensor, name: str) -> Tensor:
    """Mean square over the known points of each curve, (n,)."""
    if target.shape != logs.shape:
        raise UserError(
            f"the target's {name} have the shape {tuple(target.shape)}, but {tuple(logs.shape)} are needed: give one "
            "curve each on the predictor's grid"
        )
    known = target.isfinite()
    wanted = torch.log1p(torch.where(known, target, torch.zeros_like(target)).clamp_min(0.0))
    squares = torch.where(known, (logs - wanted).square(), torch.zeros_like(logs))
    return squares.sum(dim=-1) / known.sum(dim=-1).clamp(min=1)
