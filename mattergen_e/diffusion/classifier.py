"""Classifier-based guidance: a predictor of noised crystals pulls the scores towards a spectrum (DOSMatGen, 2.3).

The score becomes s(S_t) + strength * grad log p(y | S_t) (equation 2), in the variables that MatterGen's scores are of:

    pos              fractional coordinates
    cell             the six numbers of the symmetric matrix: an element off the diagonal stands for both of its places
    atomic_numbers   no score but logits of the clean element, which the gradient with respect to the share of each
                     element at S_t is added to (as DiGress does, Vignac et al. 2023): a first-order expansion

The predictor says nothing of descriptors, whose scores stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mattergen_e.crystals.graphs import structure_rows
from mattergen_e.diffusion.guidance_target import NAME, TARGET, GuidanceTarget, read_guidance, values_of
from mattergen_e.diffusion.predictors import CrystalGuard
from mattergen_e.diffusion.site_conditions import told_key, values_key
from mattergen_e.networks.predictor.folder import load
from mattergen_e.networks.predictor.guidance import Target, energy
from mattergen_e.networks.predictor.model import Predictor
from mattergen_e.networks.predictor.neighbours import Edges, neighbours
from mattergen_e.networks.predictor.network import MASKED, per_crystal_mean

#: Logits below are those of elements that are ruled out: MatterGen gives them -1e10.
RULED_OUT = -1e9


@dataclass(frozen=True, eq=False)
class Classifier:
    """What pulls a generation towards spectra.

    Attributes:
        predictor: Of noised crystals.
        guidance: The target spectra, and how strongly they pull.
    """

    predictor: Predictor
    guidance: GuidanceTarget

    @classmethod
    def load(cls, settings: Mapping[str, Any] | GuidanceTarget | None, device: torch.device) -> Classifier | None:
        """Reads the predictor of `sampler_partial.classifier`; None where none is asked for.

        Raises:
            UserError: As `read_guidance`; or if the predictor is damaged.
        """
        guidance = settings if isinstance(settings, GuidanceTarget) else read_guidance(settings)
        return None if guidance is None else cls(load(guidance.settings.predictor, device), guidance)

    def tell(self, conditions: Any) -> Any:
        """The conditions with a spectrum per crystal: those that the loader put there, else in turn from the first."""
        if TARGET in conditions or self.guidance.targets is None:
            return conditions
        values = values_of(self.guidance.targets, range(len(conditions["num_atoms"])))
        return conditions.replace(**{TARGET: values.to(conditions["num_atoms"].device)})

    def guide(self, score: Any, x: Any, t: Tensor, guard: CrystalGuard) -> Any:
        """The score with what is added to it.

        In each crystal, what is added to `pos` and to `cell` has at most `clip` times the norm of the score there, and
        what is added to the logits of a site `clip` times theirs, both less their mean over the possible elements.

        Args:
            score: MatterGen's, of S_t.
            x: S_t.
            t: (n_crystals,) its times.
            guard: Knows the crystals that are parked, which are left alone.
        """
        strength, clip = self.guidance.settings.strength, self.guidance.settings.clip
        if strength == 0:
            return score
        edges = neighbours(x, self.predictor.settings.encoder)
        if len(edges.counts) == 0 or int(torch.bincount(edges.index[1], minlength=1).max()) < 2:
            return score  # no site sees two others: there is nothing that the network could say
        changes = {}
        for name, gradient in self.gradients(x, t, edges).items():
            if name == "atomic_numbers":
                changes[name] = _shifted(score[name], strength * gradient, clip, x.get_batch_idx("pos"), guard.parked)
            else:
                rows = structure_rows(name, x)
                changes[name] = score[name] + _limited(strength * gradient, score[name], clip, rows, guard.parked)
        return score.replace(**changes)

    def gradients(self, x: Any, t: Tensor, edges: Edges | None = None) -> dict[str, Tensor]:
        """The gradient of log p(y | S_t) in the variables of MatterGen's scores.

        Args:
            x: S_t with its target.
            t: (n_crystals,) its times.
            edges: Neighbours for the predictor, where they are known.

        Returns:
            pos (n_sites, 3), cell (n_crystals, 3, 3), symmetric, and atomic_numbers (n_sites, elements), by element.
        """
        shares = F.one_hot(x["atomic_numbers"] - 1, MASKED).to(x["pos"].dtype)
        leaves = [value.detach().clone().requires_grad_() for value in (x["pos"], x["cell"], shares)]
        with torch.enable_grad():
            structure = x.replace(pos=leaves[0], cell=leaves[1])
            target = _target(x)
            total = energy(self.predictor, structure, t, target, edges=edges, shares=leaves[2]).sum()
            pos, cell, types = torch.autograd.grad(total, leaves)
        diagonal = torch.diag_embed(cell.diagonal(dim1=1, dim2=2))
        return {"pos": -pos, "cell": diagonal - cell - cell.mT, "atomic_numbers": -types}


def _target(x: Any) -> Target:
    """The spectra that the crystals and the sites of a batch are asked for."""
    total = x[TARGET] if TARGET in x else None  # noqa: SIM401 (a batch has no `get`)
    if values_key(NAME) not in x:
        return Target(total=total)
    sites = x[values_key(NAME)]
    return Target(total=total, sites=torch.where(x[told_key(NAME)][:, None], sites, torch.full_like(sites, torch.nan)))


def _factor(added: Tensor, score: Tensor, clip: float) -> Tensor:
    """What shortens `added` to at most `clip` times the length of `score`; 0 where either is not finite."""
    factor = torch.clamp(clip * score / added.clamp(min=torch.finfo(added.dtype).tiny), max=1.0)
    return torch.where(added.isfinite() & score.isfinite(), factor, torch.zeros_like(factor))


def _times(factor: Tensor, values: Tensor) -> Tensor:
    """A product along the first axis in which a factor of 0 wins over anything."""
    factor = factor.reshape(-1, *[1] * (values.dim() - 1))
    return torch.where(factor == 0, torch.zeros_like(values), factor * values)


def _limited(added: Tensor, score: Tensor, clip: float, rows: Tensor, parked: Tensor) -> Tensor:
    """What is added to a score, shortened crystal by crystal; `rows` has the crystal of each row."""
    squares = [per_crystal_mean(v.flatten(1).square().sum(dim=1), rows, len(parked)) for v in (added, score)]
    factor = torch.where(parked, 0.0, _factor(squares[0].sqrt(), squares[1].sqrt(), clip))
    return _times(factor[rows], added)


def _shifted(logits: Tensor, added: Tensor, clip: float, sites: Tensor, parked: Tensor) -> Tensor:
    """Logits (n_sites, elements or one more for the mask) with what is added, shortened site by site."""
    added = added[:, : logits.shape[1]]
    possible = (logits > RULED_OUT) & (torch.arange(logits.shape[1], device=logits.device) < MASKED - 1)

    def centred(values: Tensor) -> Tensor:
        inside = torch.where(possible, values, torch.zeros_like(values))
        mean = inside.sum(dim=1, keepdim=True) / possible.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.where(possible, values - mean, torch.zeros_like(values))

    added = centred(added)
    factor = _factor(added.norm(dim=1), centred(logits).norm(dim=1), clip)
    return logits + _times(torch.where(parked[sites], 0.0, factor), added)
