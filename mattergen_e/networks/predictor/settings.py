"""Shape of the network."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from mattergen_e.networks.predictor.grids import Grids

#: Parts of [0, 1] that the variance is known for.
TIMES = 10


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EncoderSettings(_Settings):
    """Shape of MatterGen's GemNet; the names are its own. The defaults are those of the small base model."""

    hidden_dim: int = Field(default=128, ge=1)
    emb_size_edge: int = Field(default=64, ge=1)
    emb_size_trip: int = Field(default=16, ge=1)
    emb_size_rbf: int = Field(default=16, ge=1)
    emb_size_cbf: int = Field(default=16, ge=1)
    emb_size_bil_trip: int = Field(default=16, ge=1)
    num_spherical: int = Field(default=5, ge=1)
    num_radial: int = Field(default=16, ge=1)
    num_blocks: int = Field(default=2, ge=1)
    num_before_skip: int = Field(default=1, ge=0)
    num_after_skip: int = Field(default=2, ge=0)
    num_concat: int = Field(default=1, ge=0)
    num_atom: int = Field(default=3, ge=0)
    cutoff: float = Field(default=7.0, gt=0)
    max_neighbors: int = Field(default=16, ge=1)
    max_cell_images_per_dim: int = Field(default=2, ge=1)


class NetworkSettings(_Settings):
    """Shape of the network. What belongs to the head is chosen.

    Attributes:
        encoder: Shape of the encoder.
        grids: Grids of the spectra.
        width: Width of the head.
        layers: Residual layers of the head.
        element: Size of the head's embedding of the element.
        nodes: Energies at which the weight of a site is given; linear between them.
        dropout: Share of the head's features that are dropped in training.
        noisy: Whether it was trained on noised structures, and so may be asked at any time.
    """

    encoder: EncoderSettings = EncoderSettings()
    grids: Grids = Grids()
    width: int = Field(default=256, ge=1)
    layers: int = Field(default=2, ge=0)
    element: int = Field(default=64, ge=1)
    nodes: int = Field(default=26, ge=2)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    noisy: bool = False
