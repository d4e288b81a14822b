"""Neighbours of sites, by whole shells.

MatterGen's graph takes the nearest few neighbours of a site. In a symmetric crystal many are equally far, and which of
them count is then up to rounding and to the order of the sites: sites that are equivalent get different spectra. Here a
shell counts as a whole, and an edge counts for both of its ends or for none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from mattergen.common.utils.data_utils import (
    frac_to_cart_coords_with_lattice,
    get_pbc_distances,
    radius_graph_pbc,
)
from torch import Tensor

from mattergen_e.networks.predictor.settings import EncoderSettings

#: Neighbours that lie so much further than the last one that counts belong to its shell, Å; chosen.
SHELL = 0.1
#: Neighbours that are looked at, in multiples of those that count, and at least; bounds the memory in cells that noise
#: made dense.
LOOKED_AT, AT_LEAST = 4, 48


@dataclass(frozen=True)
class Edges:
    """Neighbours of the sites of a batch.

    Attributes:
        index: (2, edges) sites of each edge.
        images: (edges, 3) cell that one of them lies in.
        counts: (crystals,) edges of each crystal.
    """

    index: Tensor
    images: Tensor
    counts: Tensor

    def to(self, device: Any, **options: Any) -> Edges:
        """Moves it."""
        return Edges(*(x.to(device, **options) for x in (self.index, self.images, self.counts)))


@torch.no_grad()
def neighbours(structure: Any, settings: EncoderSettings) -> Edges:
    """Neighbours in a batch.

    Args:
        structure: MatterGen's batch.
        settings: `cutoff` (Å), and `max_neighbors`, after which the last shell of a site ends.

    Returns:
        Every edge in both directions.
    """
    cell, n_sites = structure["cell"], structure["num_atoms"]
    coordinates = frac_to_cart_coords_with_lattice(structure["pos"], n_sites, lattice=cell)
    index, images, counts = radius_graph_pbc(
        cart_coords=coordinates,
        lattice=cell,
        num_atoms=n_sites,
        radius=settings.cutoff,
        max_num_neighbors_threshold=max(LOOKED_AT * settings.max_neighbors, AT_LEAST),
        max_cell_images_per_dim=settings.max_cell_images_per_dim,
    )
    found: Any = get_pbc_distances(coordinates, index, cell, images, n_sites, counts, coord_is_cart=True)
    distances = found["distances"]
    reach = _reach(index[1], distances, len(coordinates), settings.max_neighbors) + SHELL
    kept = distances <= torch.maximum(reach[index[0]], reach[index[1]])
    crystals = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    return Edges(index[:, kept], images[kept], torch.bincount(crystals[kept], minlength=len(counts)))


def _reach(sites: Tensor, distances: Tensor, n_sites: int, count: int) -> Tensor:
    """(n_sites,) distance of each site's neighbour number `count`, of the last one where there are fewer."""
    by_distance = torch.argsort(distances, stable=True)
    order = by_distance[torch.argsort(sites[by_distance], stable=True)]
    sizes = torch.bincount(sites, minlength=n_sites)
    last = (sizes.clamp(max=count) - 1 + torch.cumsum(sizes, 0) - sizes).clamp(min=0)
    reach = distances.new_zeros(n_sites)
    known = sizes > 0
    reach[known] = distances[order[last[known]]]
    return reach
