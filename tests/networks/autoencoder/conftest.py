"""A small grid, a small network and caches of made-up spectra: sums of Gaussian peaks whose place tells the element."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.data.cache import Manifest, write_split
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.spectra.processing import AtomicDosSettings

PROCESSING = AtomicDosSettings(grid=EnergyGrid(minimum=-15, maximum=5, points=64), smearing=0.5)
#: Shape of a network that is trained in seconds.
TINY = {"points": 64, "latents": 6, "channels": (8, 8, 8), "kernel": 3, "groups": 2, "reduced": 4, "pooled": 8}


def spectra_of(numbers: np.ndarray, seed: int = 0) -> np.ndarray:
    """(sites, 64) float32: two peaks each, states/eV."""
    rng, energies = np.random.default_rng(seed), PROCESSING.grid.energies
    centres = np.stack([-9.0 + numbers / 4, numbers / 12], axis=1) + rng.normal(scale=0.3, size=(len(numbers), 2))
    heights = rng.uniform(0.5, 3.0, size=(len(numbers), 2))
    peaks = heights[..., None] * np.exp(-0.5 * (energies - centres[..., None]) ** 2)
    return peaks.sum(axis=1).astype(np.float32)


@pytest.fixture
def processing() -> AtomicDosSettings:
    """How the made-up spectra are said to be made: a grid of 64 points."""
    return PROCESSING


@pytest.fixture
def make_autoencoder() -> Callable[..., Any]:
    """Makes an untrained autoencoder; keywords change the network."""
    import torch

    from mattergen_e.networks.autoencoder.model import Autoencoder
    from mattergen_e.networks.autoencoder.network import Network, NetworkSettings

    def make(processing: AtomicDosSettings = PROCESSING, seed: int = 0, **changes: Any) -> Autoencoder:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Autoencoder(Network(NetworkSettings(**(TINY | changes))), processing, {"made": "by hand"})

    return make


@pytest.fixture
def make_cache(tmp_path: Path) -> Callable[..., Path]:
    """Writes a cache of four-site crystals with the splits train, val and test.

    `change` gets the spectra of a split by its name and may alter them in place.
    """

    def make(
        name: str = "cache",
        crystals: int = 12,
        change: Callable[[str, np.ndarray], None] | None = None,
        processing: dict[str, Any] | None = None,
    ) -> Path:
        folder, splits = tmp_path / name, {}
        for seed, split in enumerate(("train", "val", "test")):
            numbers = np.tile([8, 22, 8, 38], crystals)
            spectra = spectra_of(numbers, seed)
            if change is not None:
                change(split, spectra)
            core = {
                "pos": np.zeros((4 * crystals, 3)),
                "cell": np.tile(4 * np.eye(3), (crystals, 1, 1)),
                "atomic_numbers": numbers.astype(np.int64),
                "num_atoms": np.full(crystals, 4),
                "structure_id": np.array([f"{split}-{i}" for i in range(crystals)]),
            }
            splits[split] = write_split(folder / split, core, {"atomic_dos": spectra}, {}, {})
        manifest = Manifest(
            mattergen_e_version="0",
            packages={},
            created=datetime.now(UTC),
            settings={},
            sources=[],
            splits=splits,
            site_values={},
            processing={"atomic_dos": PROCESSING.model_dump(mode="json")} if processing is None else processing,
            properties={},
            dropped_by_reason={},
            dropped=[],
        )
        (folder / "manifest.json").write_text(manifest.model_dump_json())
        return folder

    return make
