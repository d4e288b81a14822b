"""Caches of real crystals with made-up spectra: a peak per site, whose place tells the element and its neighbours."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.data.cache import Manifest, write_split
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.spectra.processing import AtomicDosSettings, TotalDosSettings

SITES = AtomicDosSettings(grid=EnergyGrid(minimum=-15, maximum=5, points=64), smearing=0.5)
TOTAL = TotalDosSettings(grid=EnergyGrid(minimum=-10, maximum=10, points=32), smearing=0.5)


@pytest.fixture(autouse=True)
def _calm() -> Any:
    import torch

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="session")
def shape() -> Any:
    """Shape of a network of a few thousand parameters on the grids of the made-up spectra."""
    from mattergen_e.networks.predictor.grids import Grids
    from mattergen_e.networks.predictor.settings import EncoderSettings, NetworkSettings

    encoder = EncoderSettings(
        hidden_dim=16, emb_size_edge=16, emb_size_trip=8, emb_size_rbf=8, emb_size_cbf=8, emb_size_bil_trip=8,
        num_spherical=3, num_radial=6, num_blocks=1, cutoff=5.0, max_neighbors=12,
    )  # fmt: skip
    grids = Grids(sites=SITES.grid, total=TOTAL.grid)
    return NetworkSettings(encoder=encoder, grids=grids, width=16, layers=1, element=4, nodes=5)


@pytest.fixture(scope="session")
def make_predictor(shape: Any) -> Callable[..., Any]:
    """Makes an untrained predictor whose spectra depend on the structure; keywords change the network."""
    import torch

    from mattergen_e.networks.predictor.data import Processing
    from mattergen_e.networks.predictor.model import Predictor
    from mattergen_e.networks.predictor.network import Network
    from mattergen_e.networks.predictor.settings import TIMES

    def make(seed: int = 0, **changes: Any) -> Predictor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = Network(shape.model_copy(update=changes))
            for layer in (network.change, network.weights):
                torch.nn.init.normal_(layer.weight, std=0.3)
        variance = np.linspace(0.1, 1.0, TIMES).tolist()
        return Predictor(network, Processing(atomic_dos=SITES, total_dos=TOTAL), variance, {"made": "by hand"})

    return make


def spectra_of(numbers: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sites, 64) and (crystals, 32) float32, states/eV and per atom: peaks that all but the narrowest grid resolve."""
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    partner = np.repeat(np.add.reduceat(numbers, starts) / counts, counts)
    centres, heights = -9.0 + partner / 5, 0.5 + numbers / 20

    def peaks(grid: EnergyGrid) -> np.ndarray:
        return heights[:, None] * np.exp(-0.5 * (grid.energies - centres[:, None]) ** 2)

    total = 1.2 * np.add.reduceat(peaks(TOTAL.grid), starts) / counts[:, None]
    return peaks(SITES.grid).astype(np.float32), total.astype(np.float32)


@pytest.fixture
def make_cache(solids: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """Writes a cache of the eight solids with the splits train, val and test.

    `change` gets the split's name, its sites' and its crystals' spectra and may alter them in place.
    """

    def make(name: str = "cache", change: Callable[..., None] | None = None, **processing: Any) -> Path:
        folder, splits = tmp_path / name, {}
        numbers = np.concatenate([s.atomic_numbers for s in solids.values()]).astype(np.int64)
        counts = np.array([len(s) for s in solids.values()])
        for split in ("train", "val", "test"):
            sites, total = spectra_of(numbers, counts)
            if change is not None:
                change(split, sites, total)
            core = {
                "pos": np.concatenate([s.frac_coords % 1.0 for s in solids.values()]),
                "cell": np.stack([s.lattice.matrix for s in solids.values()]),
                "atomic_numbers": numbers,
                "num_atoms": counts,
                "structure_id": np.array([f"{split}-{formula}" for formula in solids]),
            }
            splits[split] = write_split(folder / split, core, {"atomic_dos": sites}, {"total_dos": total}, {})
        made = {"atomic_dos": SITES, "total_dos": TOTAL} | processing
        manifest = Manifest(
            mattergen_e_version="0", packages={}, created=datetime.now(UTC), settings={}, sources=[], splits=splits,
            site_values={}, processing={k: v.model_dump(mode="json") for k, v in made.items() if v is not None},
            properties={}, dropped_by_reason={}, dropped=[],
        )  # fmt: skip
        (folder / "manifest.json").write_text(manifest.model_dump_json())
        return folder

    return make
