"""Conditions of chosen sites: projected and added to the embedding of those sites, switched with MatterGen's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mattergen.property_embeddings import SetEmbeddingType, get_use_unconditional_embedding
from torch import nn

from mattergen_e.data.cache import open_sites
from mattergen_e.descriptors.networks import zero_ended_mlp
from mattergen_e.errors import UserError
from mattergen_e.upstream import register_property

#: Share of the training crystals that are told nothing where the model has no word on it (DOSMatGen, section 2.4).
P_UNCONDITIONAL = 0.2


def values_key(name: str) -> str:
    """Batch entry with what sites are told, shape (n_sites, dim)."""
    return f"{name}_values"


def told_key(name: str) -> str:
    """Batch entry that tells which sites are told, shape (n_sites,), bool."""
    return f"{name}_told"


def draw_shares(whole: float, n_crystals: int, device: torch.device) -> torch.Tensor:
    """A share of the sites for each crystal, (n_crystals,): 1 for `whole` of them, else anything from 0 to 1."""
    share = torch.rand(n_crystals, device=device)
    return torch.where(torch.rand(n_crystals, device=device) < whole, torch.ones_like(share), share)


@dataclass(frozen=True, kw_only=True)
class SiteCondition:
    """Something that chosen sites can be told.

    Attributes:
        name: Of the condition.
        dim: Numbers per site.
        width: Of the hidden layer of its projection.
        whole: Share of the training crystals all of whose sites are told; of the others a random share is. Chosen.
    """

    name: str
    dim: int
    width: int = 128
    whole: float = 0.25

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.dim < 1 or self.width < 1 or not 0 <= self.whole <= 1:
            raise UserError(
                f"site condition '{self.name}': give dim and width of at least 1, and 'whole', a share from 0 to 1."
            )

    @property
    def n_features(self) -> int:
        """Numbers per site that the projection takes."""
        return self.dim

    def features(self, values: torch.Tensor) -> torch.Tensor:
        """What the projection takes of values (n_sites, dim), shape (n_sites, n_features)."""
        return values

    def read_cache(self, split_dir: Path) -> np.ndarray:
        """Training values of a split of a cache, (sites, dim) float32; NaN where a site has none.

        Raises:
            UserError: If the cache has none.
        """
        return open_sites(split_dir, self.name)

    def draw_told(self, known: torch.Tensor, batch_idx: torch.Tensor, n_crystals: int) -> torch.Tensor:
        """Random sites of a training batch that are told, at least one of each crystal with any known.

        Args:
            known: Which sites have a value, (n_sites,).
            batch_idx: Crystal of each site, (n_sites,).
            n_crystals: Number of crystals.

        Returns:
            (n_sites,), bool.
        """
        device = known.device
        share = draw_shares(self.whole, n_crystals, device)
        u = torch.where(known, torch.rand(len(known), device=device), torch.full((len(known),), 2.0, device=device))
        least = torch.full((n_crystals,), 2.0, device=device).scatter_reduce(0, batch_idx, u, "amin")
        return known & ((u < share[batch_idx]) | (u == least[batch_idx]))


class SiteConditions(nn.Module):
    """Adds what sites are told to their embedding (DOSMatGen, section 2.4 and figure 1).

    The projections end in zeros: with fresh ones a model gives what it gave before, bit by bit. Nothing is added to
    sites that are not told, and to none where MatterGen's switch says that a condition is not to be used: the dropout
    of the training, the unconditional half of the guidance, and no condition at all.
    """

    def __init__(self, conditions: Mapping[str, SiteCondition], atom_dim: int) -> None:
        super().__init__()
        self.conditions = dict(conditions)
        self.projections = nn.ModuleDict(
            {name: zero_ended_mlp(c.n_features, c.width, atom_dim, 1) for name, c in self.conditions.items()}
        )
        self._batch: Any = None

    def attach(self, denoiser: Any) -> None:
        """Hooks this module into a MatterGen denoiser (base or adapter)."""
        denoiser.register_forward_pre_hook(self._begin, with_kwargs=True)
        denoiser.gemnet.atom_emb.register_forward_hook(self._embed)
        denoiser.register_forward_hook(self._end)

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self._batch = kwargs["x"] if "x" in kwargs else args[0]

    def _embed(self, module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        assert self._batch is not None
        sites = self._batch.get_batch_idx("pos")
        for name, projection in self.projections.items():
            if values_key(name) not in self._batch:
                continue
            unused = get_use_unconditional_embedding(self._batch, name)[:, 0]  # type: ignore[arg-type]
            told = self._batch[told_key(name)] & ~unused[sites]
            added = projection(self.conditions[name].features(self._batch[values_key(name)]))
            output = output + torch.where(told[:, None], added, torch.zeros_like(added))
        return output

    def _end(self, module: nn.Module, args: tuple, output: Any) -> None:
        self._batch = None


class Telling:
    """Chooses the sites of a training batch that are told; runs before MatterGen drops conditions."""

    def __init__(self, first: Callable, conditions: Mapping[str, SiteCondition]) -> None:
        # A model without conditions of its own may have nothing that drops any.
        self.drop = first if isinstance(first, SetEmbeddingType) else SetEmbeddingType(P_UNCONDITIONAL, True)
        self.first = None if self.drop is first else first
        self.conditions = conditions

    def __call__(self, batch: Any) -> Any:
        """Adds the told sites, and one number per crystal that MatterGen knows the condition by: NaN where none is."""
        sites, n_crystals = batch.get_batch_idx("pos"), batch.get_batch_size()
        fields: dict[str, torch.Tensor] = {}
        for name, condition in self.conditions.items():
            if values_key(name) not in batch:
                raise UserError(
                    f"the training data has no site values of '{name}': read it as configs/site_dos.yaml does."
                )
            values = batch[values_key(name)]
            known = values.isfinite().all(dim=1)
            told = condition.draw_told(known, sites, n_crystals)
            any_told = torch.zeros(n_crystals, device=sites.device).index_add_(0, sites, told.float()) > 0
            fields[values_key(name)] = torch.where(known[:, None], values, torch.zeros_like(values))
            fields[told_key(name)] = told
            fields[name] = torch.where(any_told, 1.0, torch.nan)[:, None]
        batch = self.drop(batch.replace(**fields))
        return batch if self.first is None else self.first(batch)


def attach_site_conditions(module: Any, conditions: Mapping[str, SiteCondition]) -> SiteConditions:
    """Attaches conditions to the denoiser and the training of a MatterGen diffusion module, in place.

    Call it before descriptors are attached.

    Args:
        module: Any diffusion module of MatterGen: base or adapter, fresh or pretrained.
        conditions: By name.

    Returns:
        The new parameters, registered as `module.site_conditions`.

    Raises:
        UserError: If a name is taken by a field or a property of the crystal.
    """
    embeddings = {**module.model.property_embeddings, **getattr(module.model, "property_embeddings_adapt", {})}
    taken = sorted(set(conditions) & {*module.corruption.corrupted_fields, *embeddings})
    if taken:
        raise UserError(f"site condition '{taken[0]}' has the name of a field or condition of the crystal: rename it.")
    for name in conditions:
        register_property(name)  # what MatterGen drops and switches is what its list names
    attached = SiteConditions(conditions, module.model.gemnet.atom_emb.emb_size)
    attached.attach(module.model)
    module.site_conditions = attached
    module.pre_corruption_fn = Telling(module.pre_corruption_fn, conditions)
    return attached
