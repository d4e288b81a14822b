"""The parts that a denoiser gets for its descriptors: an embedding on the way in and a head on the way out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mattergen_e.descriptors.base import Descriptor

#: Batch entry with the structure's own diffusion time, shape (n_crystals,); absent: the common time.
STRUCTURE_TIME = "structure_time"


def time_key(name: str) -> str:
    """Batch entry with a descriptor's own diffusion time at each site, shape (n_sites,); absent: the common time."""
    return f"{name}_time"


class TimeFeatures(nn.Module):
    """Sines and cosines of a diffusion time in [0, 1], from half a period to 2**7 half periods."""

    dim = 16
    frequencies: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(self.dim // 2), persistent=False)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        """Maps (n,) to (n, 16)."""
        angles = t[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def zero_ended_mlp(dim_in: int, hidden: int, dim_out: int, layers: int) -> nn.Sequential:
    """A fully connected network with `layers` hidden layers, whose last layer starts at zero."""
    sizes = [dim_in] + [hidden] * layers
    steps: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        steps += [nn.Linear(a, b), nn.SiLU()]
    last = nn.Linear(hidden, dim_out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*steps, last)


class JointFields(nn.Module):
    """Embeds noisy descriptors into a MatterGen denoiser and reads their noise off its site features.

    Three hooks do the work, so that no line and no parameter name of MatterGen changes: one adds the embedding of the
    noisy descriptors to the atom embedding, one keeps the site features that the network ends with, one puts the
    descriptors' prediction into the denoiser's output. The embedding starts at zero: a fresh joint model gives the
    structure outputs of the model that it is attached to, bit by bit.

    Structure and descriptors may be at different diffusion times (as in UniDiffuser, Bao et al. 2023), the descriptors
    site by site: equal times generate jointly, the structure at time 0 predicts its descriptors, a descriptor at time 0
    at some sites is a condition of those sites.

    The head predicts the velocity v, and the returned noise is sigma x + alpha v: exact at the noisy end, where a plain
    head would have to copy its input.
    """

    def __init__(self, descriptors: Mapping[str, Descriptor], hidden_dim: int, atom_dim: int, width: int = 64) -> None:
        """Makes embeddings and heads.

        Args:
            descriptors: By field name.
            hidden_dim: Width of the denoiser's site features.
            atom_dim: Width of the denoiser's atom embedding.
            width: Width of the hidden layers of the embeddings; the heads have the denoiser's.
        """
        super().__init__()
        self.descriptors = dict(descriptors)
        self.corruptions = {name: d.corruption() for name, d in self.descriptors.items()}
        self.times = TimeFeatures()
        n_time = 2 * TimeFeatures.dim  # the descriptor's time and the structure's
        self.embeddings = nn.ModuleDict(
            {name: zero_ended_mlp(d.dim + n_time, width, atom_dim, 2) for name, d in self.descriptors.items()}
        )
        self.norm = nn.LayerNorm(hidden_dim)
        self.heads = nn.ModuleDict(
            {
                name: zero_ended_mlp(hidden_dim + d.dim + n_time, hidden_dim, d.dim, 2)
                for name, d in self.descriptors.items()
            }
        )
        companions = {name: d.companion() for name, d in self.descriptors.items()}
        self.companions = nn.ModuleDict({name: module for name, module in companions.items() if module is not None})
        self._noisy: Any = None
        self._times: tuple[torch.Tensor, dict[str, torch.Tensor]] | None = None
        self._features: torch.Tensor | None = None

    def attach(self, denoiser: Any) -> None:
        """Hooks this module into a MatterGen denoiser (base or adapter)."""
        denoiser.register_forward_pre_hook(self._begin, with_kwargs=True)
        denoiser.gemnet.atom_emb.register_forward_hook(self._embed)
        denoiser.gemnet.register_forward_hook(self._keep_features)
        denoiser.register_forward_hook(self._end)

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Before the denoiser: note the noisy batch, and tell the network the structure's own time."""
        x = kwargs["x"] if "x" in kwargs else args[0]
        t = kwargs["t"] if "t" in kwargs else args[1]
        t_structure = x[STRUCTURE_TIME] if STRUCTURE_TIME in x else t  # noqa: SIM401 (a batch has no `get`)
        t_fields = {
            name: x[time_key(name)] if time_key(name) in x else t[x.get_batch_idx(name)] for name in self.descriptors
        }
        self._noisy, self._times = x, (t_structure, t_fields)
        return (x, t_structure), {}

    def _site_input(self, name: str) -> torch.Tensor:
        """The noisy descriptor with both times, shape (n_sites, dim + 32)."""
        assert self._noisy is not None
        assert self._times is not None
        batch_idx = self._noisy.get_batch_idx(name)
        t_structure, t_fields = self._times
        times = [self.times(t_fields[name]), self.times(t_structure)[batch_idx]]
        return torch.cat([self._noisy[name], *times], dim=-1)

    def _embed(self, module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        for name, embedding in self.embeddings.items():
            output = output + embedding(self._site_input(name))
        return output

    def _keep_features(self, module: nn.Module, args: tuple, output):
        self._features = output.node_embeddings  # (n_sites, hidden_dim)

    def _end(self, module: nn.Module, args: tuple, output):
        """After the denoiser: minus the predicted noise of each descriptor takes the field's place in the output."""
        assert self._times is not None
        features = self.norm(self._features)
        predictions = {}
        for name, head in self.heads.items():
            site_input = self._site_input(name)
            velocity = head(torch.cat([features, site_input], dim=-1))
            noisy = self._noisy[name]
            alpha, sigma = self.corruptions[name].mean_coeff_and_std(x=noisy, t=self._times[1][name])
            predictions[name] = -(sigma * noisy + alpha * velocity)
        self._noisy = self._times = self._features = None
        return output.replace(**predictions)
