"""A joint model as a predictor: the structure stays as it is, only the descriptors are denoised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from mattergen.diffusion.lightning_module import DiffusionLightningModule

from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.fields import STRUCTURE_TIME
from mattergen_e.diffusion.joint import CLEAN_TIME
from mattergen_e.diffusion.plan import times_by_power
from mattergen_e.diffusion.predictors import DescriptorPredictor
from mattergen_e.errors import UserError
from mattergen_e.types import Graphs
from mattergen_e.upstream.graphs import shared_graph

#: Samples of a prediction, for the spread, and reverse steps of each. Chosen on the validation crystals of the Bader
#: charges, where 3 to 5 steps at such times err no more than 20 equal ones (docs/prediction.md).
SAMPLES, STEPS, POWER = 8, 4, 3.0


@dataclass(frozen=True)
class Prediction:
    """Mean and spread of a descriptor's results over samples, in physical units, shape (n_rows, result_dim)."""

    mean: torch.Tensor
    std: torch.Tensor


@torch.no_grad()
def predict_descriptors(
    model: DiffusionLightningModule, structures: Graphs, *, samples: int = SAMPLES, steps: int = STEPS
) -> dict[str, Prediction]:
    """Samples the descriptors of known structures.

    The network is told that the structure is clean (its time is 0) and that the descriptors are at time t, which it was
    trained for on a share of its crystals; any number of steps will do.

    Args:
        model: A joint model.
        structures: A collated batch with `pos`, `cell`, `atomic_numbers` and `num_atoms`, as in training: primitive,
            Niggli-reduced, symmetric cell matrix.
        samples: Number of samples per crystal.
        steps: Number of reverse steps of each sample.

    Returns:
        For each descriptor the mean and standard deviation of its results over the samples, (n_rows, result_dim).

    Raises:
        UserError: If the model has no descriptors or lacks what their results need, or a number is not positive.
    """
    descriptors = getattr(model, "descriptors", None)
    if not descriptors:
        raise UserError("this model has no descriptors to predict: take one that was trained with a joint recipe.")
    if samples < 1 or steps < 1:
        raise UserError("--samples and --steps must be at least 1.")
    for descriptor in descriptors.values():
        descriptor.require_ready()
    module = model.diffusion_module.eval()
    structures = structures.to(model.device)
    draws: dict[str, list[torch.Tensor]] = {name: [] for name in descriptors}
    denoiser: Any = module.model
    with shared_graph(denoiser.gemnet):  # the structures are the same in every call
        for _ in range(samples):
            final = denoise_descriptors(module, structures, descriptors, steps, POWER)
            for name, descriptor in descriptors.items():
                draws[name].append(descriptor.result(final[name]))
    return {name: _summary(torch.stack(values)) for name, values in draws.items()}


def _summary(values: torch.Tensor) -> Prediction:
    """Mean and spread over the first axis; the spread of one sample is zero."""
    return Prediction(values.mean(dim=0), values.std(dim=0, unbiased=len(values) > 1))


def denoise_descriptors(
    module: Any, structures: Graphs, descriptors: Mapping[str, Descriptor], steps: int, power: float = 1.0
) -> Graphs:
    """One reverse pass over the descriptors of a diffusion module, the structures clean; returns the last mean.

    Step i begins at the share (1 - i / steps) ** power of the diffusion time.
    """
    predictors = {n: DescriptorPredictor(module.corruption.sdes[n], d) for n, d in descriptors.items()}
    rows = {n: d.rows(structures) for n, d in descriptors.items()}
    n_crystals, device = structures.get_batch_size(), structures["pos"].device
    end = float(module.corruption.T)
    x = structures.replace(
        **{n: torch.randn(len(rows[n]), d.dim, device=device) for n, d in descriptors.items()},
        **{f"{n}_batch": rows[n] for n in descriptors},
        **{STRUCTURE_TIME: torch.full((n_crystals,), CLEAN_TIME, device=device)},
    )
    mean = x
    times = [end * share for share in times_by_power(steps, power)]
    for before, after in pairwise(times):
        t, dt = torch.full((n_crystals,), before, device=device), torch.tensor(after - before, device=device)
        score = module.score_fn(x, t)
        new = {
            n: p.update_given_score(x=x[n], t=t, dt=dt, batch_idx=rows[n], score=score[n], batch=x)
            for n, p in predictors.items()
        }
        x, mean = (x.replace(**{n: both[k] for n, both in new.items()}) for k in (0, 1))
    return mean
