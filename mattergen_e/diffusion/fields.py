"""The parts that a denoiser gets for its descriptors, and where they are hooked into it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from mattergen_e.descriptors.base import Descriptor
from mattergen_e.descriptors.networks import Times

#: Batch entry with the structure's own diffusion time, shape (n_crystals,); absent: the common time.
STRUCTURE_TIME = "structure_time"


def time_key(name: str) -> str:
    """Batch entry with a descriptor's own diffusion time of each row, shape (n_rows,); absent: the common time."""
    return f"{name}_time"


class JointFields(nn.Module):
    """Embeds noisy descriptors into a MatterGen denoiser and reads their noise off its site features.

    Hooks do the work, so that no line and no parameter name of MatterGen changes: one adds the embedding of the noisy
    descriptors to the atom embedding, one lets descriptors that ask for it exchange messages with the sites after each
    interaction block, one keeps the site features that the network ends with, one puts the descriptors' prediction into
    the denoiser's output. What is added starts at zero: a fresh joint model gives the structure outputs of the model
    that it is attached to, bit by bit.

    Structure and descriptors may be at different diffusion times (as in UniDiffuser, Bao et al. 2023), the descriptors
    row by row: equal times generate jointly, the structure at time 0 predicts its descriptors, a descriptor at time 0
    at some rows is a condition.

    The head predicts the velocity v, and the returned noise is sigma x + alpha v: exact at the noisy end, where a plain
    head would have to copy its input.
    """

    def __init__(self, descriptors: Mapping[str, Descriptor], hidden_dim: int, atom_dim: int, blocks: int) -> None:
        """Makes the parts that the descriptors bring.

        Args:
            descriptors: By field name.
            hidden_dim: Width of the denoiser's site features at its end.
            atom_dim: Width of the denoiser's site features on the way.
            blocks: Number of its interaction blocks.
        """
        super().__init__()
        self.descriptors = dict(descriptors)
        self.corruptions = {name: d.corruption() for name, d in self.descriptors.items()}
        self.embeddings = nn.ModuleDict({name: d.embedding(atom_dim) for name, d in self.descriptors.items()})
        self.norm = nn.LayerNorm(hidden_dim)
        self.heads = nn.ModuleDict({name: d.head(hidden_dim) for name, d in self.descriptors.items()})
        self.companions = _present({name: d.companion() for name, d in self.descriptors.items()})
        self.exchanges = _present({name: d.exchange(atom_dim, blocks) for name, d in self.descriptors.items()})
        self._noisy: Any = None
        self._times: dict[str, Times] = {}
        self._features: torch.Tensor | None = None

    def attach(self, denoiser: Any) -> None:
        """Hooks this module into a MatterGen denoiser (base or adapter)."""
        denoiser.register_forward_pre_hook(self._begin, with_kwargs=True)
        denoiser.gemnet.atom_emb.register_forward_hook(self._embed)
        if self.exchanges:
            for block, interaction in enumerate(denoiser.gemnet.int_blocks):
                interaction.register_forward_hook(partial(self._exchange, block))
        denoiser.gemnet.register_forward_hook(self._keep_features)
        denoiser.register_forward_hook(self._end)

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Before the denoiser: note the noisy batch, and tell the network the structure's own time."""
        x = kwargs["x"] if "x" in kwargs else args[0]
        t = kwargs["t"] if "t" in kwargs else args[1]
        t_structure = x[STRUCTURE_TIME] if STRUCTURE_TIME in x else t  # noqa: SIM401 (a batch has no `get`)
        self._noisy = x
        self._times = {
            name: Times(x[time_key(name)] if time_key(name) in x else t[descriptor.rows(x)], t_structure)
            for name, descriptor in self.descriptors.items()
        }
        return (x, t_structure), {}

    def _embed(self, module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        for name, embedding in self.embeddings.items():
            output = output + embedding(self._noisy[name], self._times[name], self._noisy)
        return output

    def _exchange(self, block: int, module: nn.Module, args: tuple, output: tuple) -> tuple:
        features, edges = output  # (n_sites, atom_dim), (n_edges, edge_dim)
        for name, exchange in self.exchanges.items():
            features = features + exchange(block, features, self._noisy[name], self._times[name], self._noisy)
        return features, edges

    def _keep_features(self, module: nn.Module, args: tuple, output):
        self._features = output.node_embeddings  # (n_sites, hidden_dim)

    def _end(self, module: nn.Module, args: tuple, output):
        """After the denoiser: minus the predicted noise of each descriptor takes the field's place in the output."""
        features = self.norm(self._features)
        predictions = {}
        for name, head in self.heads.items():
            noisy, times = self._noisy[name], self._times[name]
            velocity = head(features, noisy, times, self._noisy)
            alpha, sigma = self.corruptions[name].mean_coeff_and_std(x=noisy, t=times.field)
            predictions[name] = -(sigma * noisy + alpha * velocity)
        self._noisy, self._times, self._features = None, {}, None
        return output.replace(**predictions)


def _present(modules: Mapping[str, nn.Module | None]) -> nn.ModuleDict:
    return nn.ModuleDict({name: module for name, module in modules.items() if module is not None})
