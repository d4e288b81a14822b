"""The parts that a descriptor brings into the denoiser: what goes in, what comes out, and their defaults.

A part is a module that takes tensors of rows and gives tensors of sites, or the reverse:

    embedding(noisy, times, batch)         (n_rows, dim) -> (n_sites, atom_dim), added to the embedding of the atoms
    exchange(block, features, noisy, times, batch)       -> (n_sites, atom_dim), added after interaction block `block`
    head(features, noisy, times, batch)    (n_sites, hidden_dim) -> (n_rows, dim), the velocity

The batch is the noisy one. What is added to the sites must be zero in a fresh model: then a joint model gives the
structure outputs of the model that it is attached to, bit by bit.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch_scatter import scatter

from mattergen_e.crystals.quantity import Place
from mattergen_e.descriptors.rows import crystal_of_rows, probe_positions
from mattergen_e.types import Graphs

#: Width of the hidden layers of the default embedding.
WIDTH = 64
#: Angstrom over which sites and probes of a grid hear of each other: the width of a Gaussian. Chosen.
REACH = 1.0


@dataclass(frozen=True)
class Times:
    """Diffusion times of one pass of the network, and what the parts of one descriptor keep for one another.

    Attributes:
        field: Of each row of the field, (n_rows,); rows may be at different times.
        structure: Of each crystal, (n_crystals,).
        memory: Empty when the pass begins: an exchange may keep the state of its rows here, and the head read it.
    """

    field: torch.Tensor
    structure: torch.Tensor
    memory: dict[str, Any] = dataclasses.field(default_factory=dict)

    def features(self, crystals: torch.Tensor) -> torch.Tensor:
        """Sines and cosines of both times, (n_rows, 32); `crystals` (n_rows,) has the crystal of each row."""
        return torch.cat([time_features(self.field), time_features(self.structure)[crystals]], dim=-1)


#: Numbers per row of `Times.features`.
TIME_FEATURES = 32


def time_features(t: torch.Tensor) -> torch.Tensor:
    """Sines and cosines of times in [0, 1], from half a period to 2**7 half periods, (n,) to (n, 16)."""
    frequencies = math.pi * 2.0 ** torch.arange(TIME_FEATURES // 4, device=t.device)
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def zero_ended_layers(dim_in: int, hidden: int, dim_out: int, layers: int) -> list[nn.Module]:
    """A fully connected network with `layers` hidden layers, whose last layer starts at zero."""
    sizes = [dim_in] + [hidden] * layers
    steps: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        steps += [nn.Linear(a, b), nn.SiLU()]
    last = nn.Linear(hidden, dim_out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return [*steps, last]


def zero_ended_mlp(dim_in: int, hidden: int, dim_out: int, layers: int) -> nn.Sequential:
    """`zero_ended_layers` as a network."""
    return nn.Sequential(*zero_ended_layers(dim_in, hidden, dim_out, layers))


class Neighbourhood:
    """Which rows and sites of a batch hear of each other, and how strongly.

    A row of a site is that site. A row of a crystal hears the mean of the crystal's sites, and they all hear it. Probes
    of a grid and sites hear each other by a Gaussian of their distance, summed over the periodic images and normalised
    over those that are heard.
    """

    def __init__(self, place: Place, probes: tuple[int, int, int], batch: Graphs, reach: float = REACH) -> None:
        self.place = place
        self.sites = batch.get_batch_idx("pos")
        self.num_atoms = batch["num_atoms"]
        if place == "grid":
            counted = torch.arange(len(self.sites), device=self.sites.device)
            self.within = counted - (self.num_atoms.cumsum(0) - self.num_atoms)[self.sites]
            logits = periodic_logits(batch["pos"], batch["cell"][self.sites], probes, reach)
            self.logits = self._padded(logits, -torch.inf)  # (n_crystals, most, n_probes)

    def _padded(self, sites: torch.Tensor, fill: float) -> torch.Tensor:
        """Values of sites, (n_sites, width), by crystal, (n_crystals, most, width)."""
        most = int(self.num_atoms.max())
        dense = sites.new_full((len(self.num_atoms), most, sites.shape[1]), fill)
        return dense.index_put((self.sites, self.within), sites)

    def to_sites(self, rows: torch.Tensor) -> torch.Tensor:
        """Features of rows, (n_rows, width), as the sites hear them, (n_sites, width)."""
        if self.place == "site":
            return rows
        if self.place == "crystal":
            return rows[self.sites]
        heard = self._padded(self.logits[self.sites, self.within].softmax(dim=1), 0.0)
        grids = rows.reshape(len(self.num_atoms), heard.shape[2], -1)
        return torch.bmm(heard, grids)[self.sites, self.within]

    def to_rows(self, sites: torch.Tensor) -> torch.Tensor:
        """Features of sites, (n_sites, width), as the rows hear them, (n_rows, width)."""
        if self.place == "site":
            return sites
        if self.place == "crystal":
            return scatter(sites, self.sites, dim=0, dim_size=len(self.num_atoms), reduce="mean")
        return torch.bmm(self.logits.softmax(dim=1).mT, self._padded(sites, 0.0)).flatten(0, 1)


def periodic_logits(
    positions: torch.Tensor, cells: torch.Tensor, probes: tuple[int, int, int], reach: float
) -> torch.Tensor:
    """Logarithm of the Gaussian of the distance between sites and probes, summed over periodic images.

    The nearest 27 images of the shortest difference along each axis are taken.

    Args:
        positions: Fractional, (n_sites, 3).
        cells: Of the crystal of each site, (n_sites, 3, 3), angstrom.
        probes: Along a, b and c.
        reach: Width of the Gaussian, angstrom.

    Returns:
        (n_sites, n_probes).
    """
    at = probe_positions(probes, positions.device).to(positions.dtype)
    apart = positions[:, None] - at  # (n_sites, n_probes, 3)
    apart = apart - apart.round()
    metric = cells @ cells.mT
    steps = torch.arange(-1, 2, device=positions.device).to(positions.dtype)
    images = torch.cartesian_prod(steps, steps, steps)  # (27, 3)
    along = apart @ metric
    square = (
        (along * apart).sum(dim=-1, keepdim=True)
        + 2 * along @ images.T
        + ((images @ metric) * images).sum(dim=-1)[:, None]
    )  # (n_sites, n_probes, 27)
    return torch.logsumexp(-square / (2 * reach**2), dim=-1)


class RowEmbedding(nn.Sequential):
    """The default embedding: a small network on each row and its times, heard by the sites."""

    def __init__(self, place: Place, probes: tuple[int, int, int], dim: int, atom_dim: int) -> None:
        super().__init__(*zero_ended_layers(dim + TIME_FEATURES, WIDTH, atom_dim, 2))
        self.place: Place = place
        self.probes = probes

    def forward(self, noisy: torch.Tensor, times: Times, batch: Graphs) -> torch.Tensor:  # type: ignore[override]
        """What is added to the embedding of the atoms, (n_sites, atom_dim)."""
        rows = crystal_of_rows(self.place, self.probes, batch)
        added = super().forward(torch.cat([noisy, times.features(rows)], dim=-1))
        return Neighbourhood(self.place, self.probes, batch).to_sites(added)


class RowHead(nn.Sequential):
    """The default head: a small network on what each row hears of the sites, the row itself and its times."""

    def __init__(self, place: Place, probes: tuple[int, int, int], dim: int, hidden_dim: int) -> None:
        super().__init__(*zero_ended_layers(hidden_dim + dim + TIME_FEATURES, hidden_dim, dim, 2))
        self.place: Place = place
        self.probes = probes

    def forward(  # type: ignore[override]
        self, features: torch.Tensor, noisy: torch.Tensor, times: Times, batch: Graphs
    ) -> torch.Tensor:
        """The velocity of each row, (n_rows, dim)."""
        rows = crystal_of_rows(self.place, self.probes, batch)
        heard = Neighbourhood(self.place, self.probes, batch).to_rows(features)
        return super().forward(torch.cat([heard, noisy, times.features(rows)], dim=-1))
