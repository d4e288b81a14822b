"""Spectra of sites from a cache, in batches, and their augmentation.

The paper names no augmentation. Spectra are few where one makes the calculations oneself, so they are varied in ways
that leave them spectra: moved a little in energy, smeared a little more, mixed, scaled. All is ours; zeros turn it off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

from mattergen_e.data.cache import load_array, load_manifest, open_sites
from mattergen_e.errors import UserError, first_problem
from mattergen_e.networks.autoencoder.model import SPECTRA, Autoencoder, check_spectra
from mattergen_e.spectra.processing import AtomicDosSettings

#: Sites that are checked at a time; bounds the memory.
CHUNK = 65536
#: A kernel reaches so many standard deviations.
REACH = 4.0
#: Least standard deviation of the kernel that moves spectra, in bins: below, moving by parts of a bin would ripple.
LEAST_WIDTH = 0.5


class AugmentationSettings(BaseModel):
    """How training spectra are varied. All chosen.

    Attributes:
        mixed: Share of spectra that become a mixture with another.
        same_element: Share of the partners in mixtures that are sites of the same element.
        moved: Share of spectra that are moved and smeared.
        shift: Largest move, eV.
        smearing: Largest standard deviation of the extra Gaussian, eV.
        scale: Standard deviation of the logarithm of the factor that every spectrum is multiplied by.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mixed: float = Field(default=0.1, ge=0, le=1)
    same_element: float = Field(default=0.5, ge=0, le=1)
    moved: float = Field(default=0.3, ge=0, le=1)
    shift: float = Field(default=0.2, ge=0, allow_inf_nan=False)
    smearing: float = Field(default=0.02, ge=0, allow_inf_nan=False)
    scale: float = Field(default=0.05, ge=0, allow_inf_nan=False)


@dataclass(frozen=True)
class SiteSpectra:
    """Spectra of the sites of a split.

    Attributes:
        processing: How they were made.
        values: (sites, points) float32, states/eV, mapped from disk; NaN where unknown.
        atomic_numbers: (sites,).
        rows: (known,) ascending indices of the sites whose spectrum is known.
    """

    processing: AtomicDosSettings
    values: NDArray[np.float32]
    atomic_numbers: NDArray[np.int64]
    rows: NDArray[np.int64]

    @property
    def known(self) -> NDArray[np.float32]:
        """(known, points) spectra, in memory."""
        return np.array(self.values[self.rows])

    @property
    def known_numbers(self) -> NDArray[np.int64]:
        """(known,) atomic numbers of their sites."""
        return np.array(self.atomic_numbers[self.rows])


def read_processing(cache: str | Path) -> AtomicDosSettings:
    """How the spectra of a cache, or of one of its splits, were made.

    Raises:
        UserError: If the cache does not say so.
    """
    found = load_manifest(cache).processing.get(SPECTRA)
    if found is None:
        raise UserError(f"{cache} does not say how its {SPECTRA!r} was made: build it from labels of 'data label'")
    try:
        return AtomicDosSettings.model_validate(found)
    except ValidationError as error:
        problem = first_problem(error)
        raise UserError(f"{cache}: processing of {SPECTRA!r}: {problem}; build the cache anew") from error


def read_split(split_dir: str | Path) -> SiteSpectra:
    """Open the spectra of a split and check them.

    Args:
        split_dir: `<cache>/<split>`.

    Returns:
        The spectra; those of whole sites may be unknown.

    Raises:
        UserError: If they are missing, on another grid than the manifest says, incomplete, negative or empty, or none
            is known.
    """
    folder = Path(split_dir)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a split of a cache: give <cache>/train, <cache>/val or <cache>/test")
    processing = read_processing(folder)
    values, numbers = open_sites(folder, SPECTRA), load_array(folder / "atomic_numbers.npy")
    if len(values) != len(numbers):
        raise UserError(f"{folder} has {len(values)} spectra for {len(numbers)} sites: build the cache anew")
    rows = []
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        known = start + np.flatnonzero(~np.isnan(part).all(axis=1))
        check_spectra(values[known], processing.grid, f"the {SPECTRA} of {folder}", known)
        rows.append(known)
    split = SiteSpectra(processing, values, numbers, np.concatenate(rows) if rows else np.empty(0, dtype=np.int64))
    if len(split.rows) == 0:
        raise UserError(f"{folder} has no known {SPECTRA}: label calculations that have a projected DOS")
    return split


def encode_cache(autoencoder: Autoencoder, split_dir: str | Path) -> NDArray[np.float32]:
    """Latents of all sites of a split of a cache.

    Args:
        autoencoder: The autoencoder.
        split_dir: `<cache>/<split>`.

    Returns:
        (sites, latents) float32 in the order of `pos.npy`; NaN where the spectrum is unknown.

    Raises:
        UserError: If the spectra are missing, were made in another way, or cannot be encoded.
    """
    autoencoder.require_cache(load_manifest(split_dir))
    split = read_split(split_dir)
    latents = np.full((len(split.values), autoencoder.latents), np.nan, dtype=np.float32)
    for rows in np.array_split(split.rows, max(1, -(-len(split.rows) // 65536))):
        latents[rows] = autoencoder.encode(split.values[rows], split.processing.grid)
    return latents


class SpectraPairs(Dataset):
    """Batches of spectra with a partner each, taken at pairs of indices among the known spectra."""

    def __init__(self, split: SiteSpectra) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split.rows)

    def __getitem__(self, pairs: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Two (batch, points) tensors in states/eV for indices (2, batch)."""
        first, second = (torch.from_numpy(np.array(self.split.values[self.split.rows[i]])) for i in pairs)
        return first, second


class PairSampler(Sampler):
    """Every site once per epoch in random order, each with a random partner of the same element or of any.

    The order depends on the seed and the epoch only, so that a resumed run sees what an uninterrupted one does.
    """

    def __init__(self, atomic_numbers: NDArray[np.int64], batch_size: int, same_element: float, seed: int) -> None:
        self.batch_size, self.same_element, self.seed = batch_size, same_element, seed
        self.epoch = 0
        self.order = np.argsort(atomic_numbers, kind="stable")
        _, self.element, self.sizes = np.unique(atomic_numbers, return_inverse=True, return_counts=True)
        self.starts = np.cumsum(self.sizes) - self.sizes

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Indices (2, batch): sites, and their partners."""
        rng, n = np.random.default_rng([self.seed, self.epoch]), len(self.order)
        sites, element = rng.permutation(n), self.element
        within = (rng.random(n) * self.sizes[element]).astype(np.int64)
        same = self.order[self.starts[element] + within]
        partners = np.where(rng.random(n) < self.same_element, same, rng.integers(n, size=n))
        for start in range(0, n, self.batch_size):
            chosen = sites[start : start + self.batch_size]
            yield np.stack([chosen, partners[chosen]])


class InOrder(Sampler):
    """All spectra in order, each its own partner."""

    def __init__(self, count: int, batch_size: int) -> None:
        self.count, self.batch_size = count, batch_size

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Indices (2, batch)."""
        for start in range(0, self.count, self.batch_size):
            chosen = np.arange(start, min(start + self.batch_size, self.count))
            yield np.stack([chosen, chosen])


def make_loader(split: SiteSpectra, sampler: Sampler, workers: int = 0) -> DataLoader[Any]:
    """Loader of pairs of (batch, points) tensors: a batch is one read of the mapped array."""
    return DataLoader(SpectraPairs(split), batch_size=None, sampler=sampler, num_workers=workers)


def augment(
    spectra: Tensor, partners: Tensor, settings: AugmentationSettings, step: float, generator: torch.Generator
) -> Tensor:
    """Vary spectra: mix, move and smear, scale.

    Args:
        spectra: (n, points) states/eV.
        partners: (n, points) spectra to mix them with.
        settings: How much.
        step: Width of a bin, eV.
        generator: Where the random numbers come from, on the device of the spectra.

    Returns:
        (n, points) states/eV, not negative.
    """

    def uniform() -> Tensor:
        return torch.rand((len(spectra), 1), generator=generator, device=spectra.device)

    share = uniform() * (uniform() < settings.mixed)
    values = torch.lerp(spectra, partners, share)
    shift, width = (2 * uniform() - 1) * settings.shift, uniform() * settings.smearing
    chosen = uniform() < settings.moved
    if settings.moved > 0 and (settings.shift > 0 or settings.smearing > 0):
        reach = int(np.ceil((settings.shift + REACH * settings.smearing) / step + REACH * LEAST_WIDTH))
        values = torch.where(chosen, move(values, shift / step, width / step, reach), values)
    factor = torch.randn((len(spectra), 1), generator=generator, device=spectra.device)
    return values * torch.exp(settings.scale * factor)


def move(spectra: Tensor, shift: Tensor, width: Tensor, reach: int) -> Tensor:
    """Convolve each spectrum with a Gaussian of its own, off the centre.

    Args:
        spectra: (n, points); beyond the window they go on with the value at its end.
        shift: (n, 1) moves to higher energies, in bins.
        width: (n, 1) standard deviations in bins; smaller ones are taken as half a bin.
        reach: Half the length of the kernels in bins.

    Returns:
        (n, points).
    """
    offsets = torch.arange(-reach, reach + 1, device=spectra.device, dtype=spectra.dtype)
    kernel = torch.exp(-0.5 * ((offsets - shift) / width.clamp_min(LEAST_WIDTH)) ** 2)
    kernel = kernel / kernel.sum(-1, keepdim=True)
    padded = F.pad(spectra.unsqueeze(0), (reach, reach), mode="replicate")
    return F.conv1d(padded, kernel.flip(1).unsqueeze(1), groups=len(spectra)).squeeze(0)
