"""Crystals of a cache with their spectra and neighbours, in memory, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from mattergen.common.data.collate import collate
from mattergen.common.data.transform import symmetrize_lattice
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mattergen_e.data.cache import load_manifest, open_crystals, open_sites
from mattergen_e.data.dataset import JointCrystalDataset
from mattergen_e.errors import UserError, first_problem
from mattergen_e.networks.predictor.grids import Grids
from mattergen_e.networks.predictor.neighbours import Edges, neighbours
from mattergen_e.networks.predictor.settings import EncoderSettings
from mattergen_e.spectra.processing import AtomicDosSettings, TotalDosSettings

#: Names in a cache.
SITES, TOTAL = "atomic_dos", "total_dos"
#: Crystals whose neighbours are found at a time; bounds the memory.
CHUNK = 64

M = TypeVar("M", bound=BaseModel)


class Processing(BaseModel):
    """How the labels were made.

    Attributes:
        atomic_dos: Spectra of the sites.
        total_dos: Spectra of the crystals.
    """

    atomic_dos: AtomicDosSettings = AtomicDosSettings()
    total_dos: TotalDosSettings = TotalDosSettings()

    @property
    def grids(self) -> Grids:
        """Their grids, joined.

        Raises:
            UserError: If they do not line up.
        """
        return Grids(sites=self.atomic_dos.grid, total=self.total_dos.grid)


@dataclass(frozen=True)
class Batch:
    """Some crystals.

    Attributes:
        structure: MatterGen's batch.
        edges: Neighbours.
        sites: (n_sites, points) states/eV, NaN where unknown.
        total: (n_crystals, points) states/eV per atom, NaN where unknown.
    """

    structure: Any
    edges: Edges | None
    sites: Tensor
    total: Tensor

    def to(self, device: Any, **options: Any) -> Batch:
        """Moves it."""
        return Batch(
            self.structure.to(device),
            None if self.edges is None else self.edges.to(device, **options),
            self.sites.to(device, **options),
            self.total.to(device, **options),
        )


@dataclass(frozen=True)
class Crystals(Dataset):
    """Crystals with their spectra; indexing with several indices gives a batch.

    Attributes:
        ids: Name of each.
        structures: MatterGen's graph of each, with symmetric cell.
        edges: Neighbours of each; empty where they are found on the way.
        sites: (n_sites, points) states/eV of all sites, mapped from disk.
        total: (n_crystals, points) states/eV per atom, mapped from disk.
        bounds: (n_crystals + 1,) first site of each.
    """

    ids: list[str]
    structures: list[Any]
    edges: list[Edges]
    sites: NDArray[np.float32]
    total: NDArray[np.float32]
    bounds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, indices: Sequence[int] | NDArray[np.int64]) -> Batch:
        rows = np.concatenate([np.arange(self.bounds[i], self.bounds[i + 1]) for i in indices])
        return Batch(
            collate([self.structures[i] for i in indices]),
            join([self.edges[i] for i in indices], [len(self.structures[i]["pos"]) for i in indices])
            if self.edges
            else None,
            torch.from_numpy(np.array(self.sites[rows])),
            torch.from_numpy(np.array(self.total[np.asarray(indices)])),
        )

    @property
    def atomic_numbers(self) -> NDArray[np.int64]:
        """(n_sites,) of all sites."""
        return np.concatenate([s["atomic_numbers"].numpy() for s in self.structures])

    def with_neighbours(self, settings: EncoderSettings) -> Crystals:
        """The same crystals with their neighbours found once."""
        return replace(self, edges=find_edges(self.structures, settings))


def read_processing(cache: str | Path) -> Processing:
    """How the spectra of a cache were made.

    Raises:
        UserError: If the cache does not say so.
    """
    manifest = load_manifest(cache)

    def read(name: str, kind: type[M]) -> M:
        found = manifest.processing.get(name)
        if found is None:
            raise UserError(f"{cache} does not say how its {name!r} was made: build it from labels with a DOS")
        try:
            return kind.model_validate(found)
        except ValidationError as error:
            problem = first_problem(error)
            raise UserError(f"{cache}: processing of {name!r}: {problem}; build the cache anew") from error

    return Processing(atomic_dos=read(SITES, AtomicDosSettings), total_dos=read(TOTAL, TotalDosSettings))


def read_split(split_dir: str | Path, processing: Processing) -> Crystals:
    """The crystals of a split with their spectra.

    Args:
        split_dir: `<cache>/<split>`.
        processing: How the spectra were made.

    Raises:
        UserError: If the split or its spectra are missing or damaged, on another grid, or all unknown.
    """
    dataset = JointCrystalDataset.from_cache_path(str(split_dir), transforms=[symmetrize_lattice])
    sites, total = open_sites(split_dir, SITES), open_crystals(split_dir, TOTAL)
    grids = processing.grids
    for name, values, rows, points in (
        (SITES, sites, len(dataset.pos), grids.sites.points),
        (TOTAL, total, len(dataset), grids.total.points),
    ):
        if values.shape != (rows, points):
            raise UserError(
                f"{split_dir}: {name} has the shape {values.shape}, expected {(rows, points)}: build the cache anew"
            )
        if np.isnan(values).all():
            raise UserError(f"{split_dir} has no known {name}: label calculations that have a density of states")
    bounds = np.concatenate([[0], np.cumsum(dataset.num_atoms)])
    ids = [str(name) for name in dataset.structure_id]
    return Crystals(ids, [dataset[i] for i in range(len(dataset))], [], sites, total, bounds)


def find_edges(structures: Sequence[Any], settings: EncoderSettings) -> list[Edges]:
    """Neighbours of every structure, to be joined again for batches."""
    found = []
    for start in range(0, len(structures), CHUNK):
        chunk = structures[start : start + CHUNK]
        edges = neighbours(collate(list(chunk)), settings)
        sizes, first = edges.counts.tolist(), 0
        parts = zip(edges.index.split(sizes, dim=1), edges.images.split(sizes), edges.counts.split(1), strict=True)
        for (index, images, count), structure in zip(parts, chunk, strict=True):
            found.append(Edges(index - first, images, count))
            first += len(structure["pos"])
    return found


def join(edges: Sequence[Edges], n_sites: Sequence[int]) -> Edges:
    """Neighbours of a batch from those of its crystals, which have so many sites."""
    starts = np.cumsum([0, *n_sites[:-1]]).tolist()
    return Edges(
        torch.cat([e.index + start for e, start in zip(edges, starts, strict=True)], dim=1),
        torch.cat([e.images for e in edges]),
        torch.cat([e.counts for e in edges]),
    )


class Order(Sampler):
    """Indices of batches: in order, or with a seed in an order that depends on the seed and the epoch only."""

    def __init__(self, count: int, batch_size: int, seed: int | None = None) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        order = np.arange(self.count)
        if self.seed is not None:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(order)
        for start in range(0, self.count, self.batch_size):
            yield order[start : start + self.batch_size]


def make_loader(crystals: Crystals, order: Order, workers: int = 0) -> DataLoader[Any]:
    """Loader of batches."""
    return DataLoader(crystals, batch_size=None, sampler=order, num_workers=workers)
