"""The autoencoder as everything else uses it: with the grid and the processing of its spectra, and an identity.

Decoding with another autoencoder gives a plausible but meaningless spectrum, and nothing in the numbers shows it. So
every autoencoder has a fingerprint, which goes along with the latents it made and is compared before they are used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mattergen_e.data.cache import require_processing
from mattergen_e.errors import UserError
from mattergen_e.networks.autoencoder.network import Network, NetworkSettings
from mattergen_e.provenance import hash_weights
from mattergen_e.spectra.grid import EnergyGrid, require_same
from mattergen_e.spectra.processing import AtomicDosSettings

if TYPE_CHECKING:
    from mattergen_e.data.cache import Manifest

Array = NDArray[np.float32]

#: Name of the spectra of sites in a cache and in its manifest.
SPECTRA = "atomic_dos"


class Autoencoder:
    """A trained network with what its spectra are; it never changes.

    Attributes:
        network: The layers, without gradients, in evaluation mode. Use them directly where gradients with respect to
            latents are needed; nothing is checked then.
        processing: Grid, smearing and semicore cut of the spectra.
        record: How it was trained and how good it is; no part of its identity.
    """

    def __init__(self, network: Network, processing: AtomicDosSettings, record: dict[str, Any] | None = None) -> None:
        """Takes a network.

        Args:
            network: The layers; they are frozen.
            processing: How the spectra it was trained on were made.
            record: Anything that JSON can hold.

        Raises:
            UserError: If the network and the grid have different numbers of points.
        """
        if network.settings.points != processing.grid.points:
            raise UserError(
                f"the network takes {network.settings.points} points, but the grid has {processing.grid}: make the "
                "network with the points of the grid"
            )
        self.network = network.eval().requires_grad_(False)
        self.processing = processing
        self.record = record or {}

    @property
    def settings(self) -> NetworkSettings:
        """Shape of the network."""
        return self.network.settings

    @property
    def grid(self) -> EnergyGrid:
        """Grid of the spectra."""
        return self.processing.grid

    @property
    def latents(self) -> int:
        """Numbers per site."""
        return self.settings.latents

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def to(self, device: str | torch.device) -> Autoencoder:
        """Moves the network, and returns the autoencoder itself."""
        self.network.to(device)
        return self

    @cached_property
    def fingerprint(self) -> str:
        """Identity: SHA-256 over weights, architecture, grid and processing, as hexadecimal digits."""
        return fingerprint(self.network, self.processing)

    def encode(self, spectra: ArrayLike, grid: EnergyGrid | None = None, batch_size: int = 1024) -> Array:
        """Compress spectra.

        Args:
            spectra: (n, points) states/eV, made with the processing of this autoencoder.
            grid: Grid of the spectra where it is known; it must be this autoencoder's.
            batch_size: Spectra per network call.

        Returns:
            (n, latents) float32, strictly between -1 and 1.

        Raises:
            UserError: If the grid or the number of points is another, a value is not finite or negative, or a spectrum
                has no states.
        """
        if grid is not None:
            require_same(self.grid, grid, "the spectrum to encode")
        values = check_spectra(_to_numpy(spectra), self.grid)
        return self._run(self.network.encoder, values, self.latents, batch_size)

    def decode(self, latents: ArrayLike, batch_size: int = 1024) -> Array:
        """Make spectra of latents.

        Args:
            latents: (n, latents), from -1 to 1, made by this autoencoder or by a model that was trained on such.
            batch_size: Latents per network call.

        Returns:
            (n, points) float32, states/eV, never negative.

        Raises:
            UserError: If the shape is another, or a latent is not finite or out of range.
        """
        values = np.asarray(_to_numpy(latents), dtype=np.float32)
        if values.ndim != 2 or values.shape[1] != self.latents:
            raise UserError(
                f"the latents have the shape {values.shape}, but this autoencoder has {self.latents} latents per site: "
                "decode with the autoencoder that made them"
            )
        outside = ~(np.abs(values) <= 1.0)
        if outside.any():
            site, index = np.argwhere(outside)[0]
            raise UserError(
                f"latent {index} of site {site} is {values[site, index]:g}, but latents lie between -1 and 1: decode "
                "what this autoencoder or a model trained on it made"
            )
        return self._run(lambda x: torch.expm1(self.network.decoder(x)), values, self.grid.points, batch_size)

    def reconstruct(self, spectra: ArrayLike) -> Array:
        """Encode and decode spectra (n, points): what is left of them, states/eV."""
        return self.decode(self.encode(spectra))

    def require_cache(self, manifest: Manifest) -> None:
        """Check that the spectra of a cache were made as those of this autoencoder.

        Raises:
            UserError: If the cache does not say, or its grid, smearing or semicore cut is another.
        """
        require_processing(manifest, SPECTRA, self.processing)

    @torch.inference_mode()
    def _run(
        self, function: Callable[[torch.Tensor], torch.Tensor], values: NDArray[Any], width: int, batch_size: int
    ) -> Array:
        found = np.empty((len(values), width), dtype=np.float32)
        for start in range(0, len(values), batch_size):
            part = torch.from_numpy(np.array(values[start : start + batch_size], dtype=np.float32))
            found[start : start + batch_size] = function(part.to(self.device)).cpu().numpy()
        return found


def fingerprint(network: Network, processing: AtomicDosSettings) -> str:
    """SHA-256 over weights, architecture, grid and processing, as hexadecimal digits."""
    parts = {
        "weights": hash_weights(network.state_dict()),
        "network": network.settings.model_dump(mode="json"),
        "processing": processing.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def check_spectra(
    spectra: NDArray[Any], grid: EnergyGrid, where: str = "the spectra", sites: NDArray[np.int64] | None = None
) -> NDArray[Any]:
    """Check that spectra can be encoded.

    Args:
        spectra: (n, points) states/eV.
        grid: Their grid.
        where: What they are, as it begins a sentence.
        sites: (n,) numbers by which sites are named; by default they are counted from 0.

    Returns:
        The spectra.

    Raises:
        UserError: If the shape is wrong, a value is not finite or negative, or a spectrum has no states.
    """
    if spectra.ndim != 2 or spectra.shape[1] != grid.points:
        raise UserError(
            f"{where} have the shape {spectra.shape}, expected (sites, {grid.points}) on {grid}: resample them onto "
            "that grid"
        )
    names = np.arange(len(spectra)) if sites is None else sites
    finite = np.isfinite(spectra).all(axis=1)
    if not finite.all():
        site = names[np.argmin(finite)]
        raise UserError(f"{where} have a value that is not a finite number at site {site}: leave that site out")
    low = spectra.min(axis=1, initial=0.0)
    if (low < 0).any():
        site = names[np.argmin(low)]
        raise UserError(f"{where} are negative at site {site} ({low.min():.3g} states/eV): set negative values to zero")
    full = spectra.max(axis=1, initial=0.0) > 0
    if not full.all():
        site = names[np.argmin(full)]
        raise UserError(f"{where} have no states at site {site}: leave that site out, an empty spectrum has no shape")
    return spectra


def _to_numpy(values: Any) -> NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
