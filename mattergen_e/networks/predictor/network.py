"""The layers: MatterGen's GemNet as encoder, and a head for every site.

The head starts from a spectrum of the site's element and changes it by what the encoder says of the site and of the
crystal. Projections onto sites do not add up to the total (states between the atoms belong to none), so each site also
has a smooth weight over the energy, with which its spectrum enters the total.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from mattergen.common.gemnet.gemnet import GemNetT
from mattergen.common.gemnet.layers.embedding_block import AtomEmbedding
from mattergen.common.utils.globals import MAX_ATOMIC_NUM
from mattergen.diffusion.model_utils import NoiseLevelEncoding
from torch import Tensor, nn
from torch.nn import functional as F

from mattergen_e import upstream
from mattergen_e.networks.predictor.neighbours import Edges, neighbours
from mattergen_e.networks.predictor.settings import EncoderSettings, NetworkSettings

#: Number that stands for an element that is not known (yet): MatterGen's mask.
MASKED = MAX_ATOMIC_NUM + 1


@dataclass(frozen=True)
class Spectra:
    """What the network says of a batch, as log(1 + states/eV).

    Attributes:
        sites: (n_sites, points) on the grid of the sites.
        total: (n_crystals, points) per atom, on the grid of the total.
    """

    sites: Tensor
    total: Tensor


class RelaxedAtomEmbedding(AtomEmbedding):
    """MatterGen's embedding of atomic numbers, which also takes a distribution over them."""

    def forward(self, Z: Tensor) -> Tensor:
        """Embeds atomic numbers (n_sites,), or shares of elements (n_sites, elements) that have a gradient."""
        return Z @ self.embeddings.weight if Z.is_floating_point() else super().forward(Z)


class _NoOutput(nn.Module):
    """In the place of GemNet's energy and force outputs, which are not asked for."""

    def forward(self, h: Tensor, m: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        return h.new_zeros(len(h), 1), m.new_zeros(len(m), 1)


class _NoLattice(nn.Module):
    """In the place of GemNet's lattice outputs."""

    def forward(self, *, lattice: Tensor, **_: Any) -> Tensor:
        return torch.zeros_like(lattice)


def make_gemnet(settings: EncoderSettings) -> GemNetT:
    """MatterGen's GemNet without its output layers; the names of the weights are MatterGen's."""
    upstream.prepare()
    shape = settings.model_dump(exclude={"hidden_dim"})
    embedding = RelaxedAtomEmbedding(settings.hidden_dim, with_mask_type=True)
    gemnet = GemNetT(
        num_targets=1,
        latent_dim=settings.hidden_dim,
        atom_embedding=embedding,
        emb_size_atom=settings.hidden_dim,
        otf_graph=False,
        **shape,
    )
    blocks = settings.num_blocks + 1
    gemnet.out_blocks = nn.ModuleList(_NoOutput() for _ in range(blocks))
    gemnet.lattice_out_blocks = nn.ModuleList(_NoLattice() for _ in range(blocks))
    for name in ("mlp_rbf_out", "mlp_rbf_lattice"):
        setattr(gemnet, name, nn.Identity())
    return gemnet


class ResidualLayer(nn.Module):
    """x + MLP(LayerNorm(x))."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, width) to (n, width)."""
        return x + self.layers(x)


class Network(nn.Module):
    """Encoder and head."""

    #: Sharpness of the softplus that keeps spectra positive; chosen: it falls below 1e-3 at -1.4.
    SHARPNESS = 4.0
    #: Least log(1 + states/eV) that spectra start from; chosen: below, hardly any gradient would pass the softplus.
    LEAST_START = 0.03

    def __init__(self, settings: NetworkSettings) -> None:
        """Makes the layers with random weights from torch's global generator."""
        super().__init__()
        self.settings, self.grids = settings, settings.grids
        hidden, points = settings.encoder.hidden_dim, self.grids.common.points
        self.gemnet = make_gemnet(settings.encoder)
        self.noise_level_encoding = NoiseLevelEncoding(hidden)
        self.elements = nn.Embedding(MASKED, settings.element)
        self.prior = nn.Embedding(MASKED, points)
        nn.init.zeros_(self.prior.weight)
        self.head = nn.Sequential(
            nn.Linear(2 * hidden + settings.element, settings.width),
            nn.SiLU(),
            *(ResidualLayer(settings.width, settings.dropout) for _ in range(settings.layers)),
            nn.LayerNorm(settings.width),
        )
        self.change = nn.Linear(settings.width, points)
        self.weights = nn.Linear(settings.width, settings.nodes)
        for layer in (self.change, self.weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, structure: Any, t: Tensor, edges: Edges | None = None, shares: Tensor | None = None) -> Spectra:
        """Predicts spectra.

        Args:
            structure: MatterGen's batch with `pos`, `cell`, `atomic_numbers` and `num_atoms`.
            t: (n_crystals,) time of the structure, 0 where it is clean.
            edges: Neighbours, where they are known; else they are found.
            shares: (n_sites, elements) shares of elements in the place of the atomic numbers, the mask last.

        Returns:
            Spectra, differentiable with respect to positions, cell and shares.
        """
        crystals = structure.get_batch_idx("pos")
        types = structure["atomic_numbers"] if shares is None else shares
        edges = neighbours(structure, self.settings.encoder) if edges is None else edges
        encoded = self.gemnet(
            z=self.noise_level_encoding(t).to(t.device),
            frac_coords=structure["pos"],
            atom_types=types,
            num_atoms=structure["num_atoms"],
            batch=crystals,
            lattice=structure["cell"],
            edge_index=edges.index,
            to_jimages=edges.images,
            num_bonds=edges.counts,
        ).node_embeddings
        mean = per_crystal_mean(encoded, crystals, len(t))
        features = self.head(torch.cat([encoded, mean[crystals], _embed(self.elements, types)], dim=-1))
        return self._spectra(features, _embed(self.prior, types), crystals, len(t))

    def _spectra(self, features: Tensor, prior: Tensor, crystals: Tensor, n_crystals: int) -> Spectra:
        logs = F.softplus(prior + self.change(features), beta=self.SHARPNESS)
        nodes = self.weights(features).unsqueeze(1)
        weights = F.interpolate(nodes, size=logs.shape[-1], mode="linear", align_corners=True).squeeze(1)
        shares = torch.expm1(logs) * torch.exp(weights.clamp(max=5.0))
        total = self.grids.on_total(per_crystal_mean(shares, crystals, n_crystals))
        return Spectra(self.grids.on_sites(logs), torch.log1p(total))

    @torch.no_grad()
    def start_from(self, elements: dict[int, Tensor]) -> None:
        """Sets the spectra that the head starts from.

        Args:
            elements: (common points,) states/eV by atomic number; 0 stands for all others.
        """
        for z in range(1, MASKED + 1):
            logs = torch.log1p(elements.get(z, elements[0])).clamp_min(self.LEAST_START)
            self.prior.weight[z - 1] = logs + torch.log(-torch.expm1(-self.SHARPNESS * logs)) / self.SHARPNESS


def per_crystal_mean(values: Tensor, crystals: Tensor, n_crystals: int) -> Tensor:
    """Mean over the sites of each crystal: (n_sites, ...) to (n_crystals, ...)."""
    total = values.new_zeros(n_crystals, *values.shape[1:]).index_add_(0, crystals, values)
    counts = torch.bincount(crystals, minlength=n_crystals).clamp(min=1)
    return total / counts.reshape(-1, *[1] * (values.dim() - 1))


def _embed(embedding: nn.Embedding, types: Tensor) -> Tensor:
    return types @ embedding.weight if types.is_floating_point() else embedding(types - 1)
