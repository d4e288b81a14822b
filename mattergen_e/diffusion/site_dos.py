"""DOSMatGen: the density of states of chosen sites as a condition ("Electronic Structure Guided Inverse Design")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from mattergen_e.data.cache import load_manifest, open_sites
from mattergen_e.data.dataset import JointCrystalDataset
from mattergen_e.diffusion.site_conditions import SiteCondition, values_key
from mattergen_e.errors import UserError
from mattergen_e.spectra.grid import ATOMIC_GRID, EnergyGrid, require_same
from mattergen_e.upstream import exit_on_user_error

#: Array of the cache that the condition is read from.
CACHED = "atomic_dos"


@dataclass(frozen=True, kw_only=True)
class SiteDosCondition(SiteCondition):
    """Spectra that chosen sites shall have (section 2.4), states/eV with the spins summed.

    Spectra are pooled to wider bins, then log(1 + d) goes into the projection. The paper prints neither the grid, nor
    the scaling, nor how the sites of a training crystal are chosen: those here are ours.

    Attributes:
        bins: Bins that the points of the grid are pooled to.
        grid: Energies of the spectra.
    """

    name: str = "site_dos"
    dim: int = ATOMIC_GRID.points
    bins: int = 128
    grid: EnergyGrid = ATOMIC_GRID

    def __post_init__(self) -> None:
        if isinstance(self.grid, Mapping):
            object.__setattr__(self, "grid", EnergyGrid(**self.grid))
        object.__setattr__(self, "dim", self.grid.points)
        super().__post_init__()
        if self.bins < 1 or self.dim % self.bins:
            raise UserError(f"site condition '{self.name}': bins is {self.bins}, but it must divide {self.grid}.")

    @property
    def n_features(self) -> int:
        """One per bin."""
        return self.bins

    def features(self, values: torch.Tensor) -> torch.Tensor:
        """log(1 + mean over each bin) of spectra (n_sites, points), shape (n_sites, bins)."""
        return torch.log1p(values.reshape(len(values), self.bins, -1).mean(dim=-1))

    def read_cache(self, split_dir: Path) -> np.ndarray:
        """Spectra of the sites of a split of a cache, (sites, points) float32; NaN where a site has none.

        Raises:
            UserError: If the cache has none, or they are on another grid.
        """
        values = open_sites(split_dir, CACHED)
        require_same(self.grid, cached_grid(split_dir), f"'{CACHED}' of {split_dir}")
        return values


def cached_grid(split_dir: str | Path) -> EnergyGrid:
    """The energies of the spectra of sites of a cache.

    Raises:
        UserError: If its manifest does not tell.
    """
    try:
        return EnergyGrid(**load_manifest(split_dir).processing[CACHED]["grid"])
    except (ValidationError, KeyError, TypeError) as error:
        raise UserError(
            f"the manifest of {Path(split_dir).parent} tells no grid of '{CACHED}': build the cache anew."
        ) from error


@exit_on_user_error
def dataset_from_cache(
    cache_path: str,
    site_conditions: Mapping[str, SiteCondition],
    dataset_transforms: Iterable[Any] | None = None,
    **arguments: Any,
) -> JointCrystalDataset:
    """As `JointCrystalDataset.from_cache_path`, with the values of site conditions.

    Args:
        cache_path: `<cache>/<split>`.
        site_conditions: By name.
        dataset_transforms: Applied to the whole data set.
        **arguments: As of `JointCrystalDataset.from_cache_path`.

    Returns:
        The data set; its items have `<name>_values`, (n_sites, dim).

    Raises:
        UserError: If the cache lacks something.
    """
    dataset: Any = JointCrystalDataset.from_cache_path(cache_path, **arguments)
    values = {values_key(name): c.read_cache(Path(cache_path)) for name, c in site_conditions.items()}
    dataset = replace(dataset, site_values={**dataset.site_values, **values})
    for transform in dataset_transforms or ():
        dataset = transform(dataset)
    return dataset
