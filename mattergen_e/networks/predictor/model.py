"""The predictor as everything else uses it: with the grids of its spectra, and an identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mattergen.common.data.collate import collate
from numpy.typing import NDArray
from torch import Tensor

from mattergen_e.crystals.element_means import element_means
from mattergen_e.data.cache import load_manifest, require_processing
from mattergen_e.networks.predictor.data import SITES, TOTAL, Crystals, Processing
from mattergen_e.networks.predictor.grids import Grids
from mattergen_e.networks.predictor.network import Network
from mattergen_e.networks.predictor.noise import Noise
from mattergen_e.networks.predictor.settings import TIMES, NetworkSettings
from mattergen_e.provenance import hash_weights


@dataclass(frozen=True)
class Predicted:
    """Spectra of some crystals.

    Attributes:
        sites: (n_sites, points) float32 states/eV, in the order of the sites.
        total: (n_crystals, points) float32 states/eV per atom.
        n_sites: (n_crystals,) sites of each.
    """

    sites: NDArray[np.float32]
    total: NDArray[np.float32]
    n_sites: NDArray[np.int64]


class Predictor:
    """A trained network with what its spectra are; it never changes.

    Attributes:
        network: The layers, without gradients of their own, in evaluation mode.
        processing: How the spectra it was trained on were made.
        variance: (10,) mean square error of log(1 + d) of the validation split's totals, by time.
        record: How it was trained and how good it is; no part of its identity.
        noise: Of the crystals that it was trained on; None if they were clean, or if nobody wrote it down.
    """

    def __init__(
        self,
        network: Network,
        processing: Processing,
        variance: Sequence[float],
        record: dict[str, Any] | None = None,
        noise: Noise | None = None,
    ) -> None:
        """Takes a network, which is frozen.

        Args:
            network: The layers.
            processing: How the spectra it was trained on were made.
            variance: (10,) by time.
            record: Anything that JSON can hold.
            noise: What `describe_noise` tells of it.
        """
        self.network = network.eval().requires_grad_(False)
        self.processing = processing
        self.variance = torch.tensor(list(variance), dtype=torch.float32)
        if self.variance.shape != (TIMES,):
            raise ValueError(f"the variance has the shape {tuple(self.variance.shape)}, expected ({TIMES},)")
        self.record = record or {}
        self.noise = noise

    @property
    def settings(self) -> NetworkSettings:
        """Shape of the network."""
        return self.network.settings

    @property
    def grids(self) -> Grids:
        """Grids of the spectra."""
        return self.network.grids

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def to(self, device: str | torch.device) -> Predictor:
        """Moves the network, and returns the predictor itself."""
        self.network.to(device)
        return self

    @cached_property
    def fingerprint(self) -> str:
        """Identity: SHA-256 over weights, architecture, processing, variance and noise, as hexadecimal digits."""
        parts = {
            "weights": hash_weights(self.network.state_dict()),
            "network": self.settings.model_dump(mode="json"),
            "processing": self.processing.model_dump(mode="json"),
            "variance": hash_weights({"variance": self.variance}),
        }
        if self.noise is not None:
            parts["noise"] = self.noise
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def require_cache(self, cache: str | Path) -> None:
        """Check that the spectra of a cache were made as those of this predictor.

        Raises:
            UserError: If the cache does not say, or a grid, a smearing or the semicore cut is another.
        """
        manifest = load_manifest(cache)
        require_processing(manifest, SITES, self.processing.atomic_dos)
        require_processing(manifest, TOTAL, self.processing.total_dos)

    @torch.no_grad()
    def predict(self, structures: Sequence[Any], batch_size: int = 64) -> Predicted:
        """Spectra of clean structures.

        Args:
            structures: MatterGen's graphs: primitive, Niggli-reduced, symmetric cell matrix.
            batch_size: Crystals per network call.

        Returns:
            Their spectra, in the order of the structures and of their sites.
        """
        sites, totals = [], []
        for start in range(0, len(structures), batch_size):
            batch: Any = collate(list(structures[start : start + batch_size])).to(self.device)
            found = self.network(batch, torch.zeros(batch.get_batch_size(), device=self.device))
            sites.append(torch.expm1(found.sites).cpu().numpy())
            totals.append(torch.expm1(found.total).cpu().numpy())
        counts = np.array([len(structure["pos"]) for structure in structures], dtype=np.int64)
        empty = [np.empty((0, grid.points), dtype=np.float32) for grid in (self.grids.sites, self.grids.total)]
        return Predicted(np.concatenate([*sites, empty[0][:0]]), np.concatenate([*totals, empty[1][:0]]), counts)


def element_spectra(crystals: Crystals, grids: Grids) -> dict[int, Tensor]:
    """Mean spectrum of each element on the common grid; 0 holds that over all sites, for elements never seen.

    Beyond the window of the sites it goes on with half the value that the mean total has there.

    Args:
        crystals: With known spectra.
        grids: Their grids.

    Returns:
        (common points,) states/eV by atomic number.
    """
    means = element_means(crystals.atomic_numbers, crystals.sites)
    common = np.zeros((len(means), grids.common.points))
    grids.on_sites(common)[...] = np.stack(list(means.values()))
    outside = grids.common.energies > grids.sites.maximum
    total = np.repeat(np.nanmean(crystals.total, axis=0), grids.per_bin)
    common[:, outside] = 0.5 * total[-int(outside.sum()) :] if outside.any() else 0.0
    return {z: torch.from_numpy(row).float() for z, row in zip(means, common, strict=True)}
