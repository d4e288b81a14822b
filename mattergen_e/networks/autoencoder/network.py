"""Layers of the autoencoder (Okuda et al., appendix A.1).

The text gives the order of the layers, 512 points, 128 points after two blocks, nine blocks and 30 latents. It does not
give the numbers of channels, kernel sizes, groups, slopes and the pooled length; those are chosen here and marked.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

#: Largest absolute value of a latent: the number before 1 in single precision, where tanh itself rounds to 1.
LIMIT = 1.0 - 2.0**-24


class NetworkSettings(BaseModel):
    """Shape of the network. Decoder layers mirror those of the encoder.

    Attributes:
        points: Points of a spectrum.
        latents: Numbers that a spectrum is compressed to.
        channels: Output channels of the blocks of the encoder. Nine blocks in the paper; their channels are chosen.
        downsampled: The first so many blocks halve the length.
        kernel: Odd width of the convolutions, in points of their input. Chosen.
        groups: Groups of the group normalisation; divides all channels. Chosen.
        slope: Slope of the leaky rectifier below zero. Chosen.
        reduced: Channels after the 1x1 convolution. Chosen.
        pooled: Length after the adaptive average pooling. Chosen.
        decoder_normalisation: Whether blocks of the decoder have group normalisation too. The text names only
            convolution and rectifier there. Chosen.
        initial_scale: Scale of the normalised latents in tanh at the start of training. Chosen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: int = Field(default=512, ge=2)
    latents: int = Field(default=30, ge=2)
    channels: tuple[int, ...] = (16, 32, 32, 48, 48, 48, 64, 64, 64)
    downsampled: int = Field(default=2, ge=0)
    kernel: int = Field(default=5, ge=1)
    groups: int = Field(default=8, ge=1)
    slope: float = Field(default=0.1, ge=0, lt=1)
    reduced: int = Field(default=8, ge=1)
    pooled: int = Field(default=64, ge=1)
    decoder_normalisation: bool = True
    initial_scale: float = Field(default=0.5, gt=0)

    @property
    def length(self) -> int:
        """Points of the feature map after the downsampling blocks."""
        return self.points // 2**self.downsampled

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.channels) <= self.downsampled:
            raise ValueError("there must be more blocks (channels) than downsampled ones")
        if any(c < 1 or c % self.groups for c in self.channels):
            raise ValueError("groups must divide every number of channels")
        if self.points % 2**self.downsampled or self.pooled > self.length:
            raise ValueError("the points must be divisible by two for each downsampled block, and pooled fit in")
        if self.kernel % 2 == 0:
            raise ValueError("the kernel must be odd")
        return self


class Encoder(nn.Module):
    """Spectra to latents: log1p, blocks, 1x1 reduction, pooling, projection, layer normalisation, scale, tanh."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        s = settings
        blocks = []
        for i, (before, after) in enumerate(zip((1, *s.channels), s.channels, strict=False)):
            convolution = nn.Conv1d(before, after, s.kernel, 2 if i < s.downsampled else 1, s.kernel // 2)
            blocks.append(_block(convolution, after, s, normalise=True))
        self.blocks = nn.Sequential(*blocks)
        self.reduce = nn.Conv1d(s.channels[-1], s.reduced, 1)
        self.pool = nn.AdaptiveAvgPool1d(s.pooled)
        self.project = nn.Linear(s.reduced * s.pooled, s.latents)
        self.normalise = nn.LayerNorm(s.latents)
        self.raw_scale = nn.Parameter(torch.tensor(s.initial_scale).expm1().log())

    @property
    def scale(self) -> Tensor:
        """Factor of the normalised latents in tanh, positive through softplus."""
        return F.softplus(self.raw_scale)

    def forward(self, spectra: Tensor) -> Tensor:
        """Latents of spectra.

        Args:
            spectra: (n, points) states/eV, not negative.

        Returns:
            (n, latents), strictly between -1 and 1.
        """
        features = self.blocks(torch.log1p(spectra).unsqueeze(1))  # (n, channels, length)
        pooled = self.pool(self.reduce(features))  # (n, reduced, pooled)
        latents = self.normalise(self.project(pooled.flatten(1)).float())
        return torch.tanh(self.scale * latents).clamp(-LIMIT, LIMIT)


class Decoder(nn.Module):
    """Latents to spectra: linear expansion, blocks, one transposed convolution per halving, softplus, expm1."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        s = settings
        self.shape = (s.reduced, s.length)
        self.expand = nn.Linear(s.latents, s.reduced * s.length)
        self.unreduce = nn.Conv1d(s.reduced, s.channels[-1], 1)
        mirrored = (*s.channels[::-1], 1)
        fixed = len(s.channels) - s.downsampled
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(mirrored)):
            if i < fixed:
                layer: nn.Module = nn.Conv1d(before, after, s.kernel, padding=s.kernel // 2)
            else:
                layer = nn.ConvTranspose1d(before, after, s.kernel, 2, s.kernel // 2, output_padding=1)
            last = i == len(s.channels) - 1
            layers.append(layer if last else _block(layer, after, s, normalise=s.decoder_normalisation))
        self.blocks = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """log1p of the spectra of latents.

        Args:
            latents: (n, latents).

        Returns:
            (n, points), positive; its expm1 is in states/eV.
        """
        features = self.expand(latents).unflatten(1, self.shape)
        return F.softplus(self.blocks(self.unreduce(features)).squeeze(1).float())


class Network(nn.Module):
    """Encoder and decoder."""

    def __init__(self, settings: NetworkSettings) -> None:
        """Makes the layers with random weights from torch's global generator."""
        super().__init__()
        self.settings = settings
        self.encoder = Encoder(settings)
        self.decoder = Decoder(settings)

    def forward(self, spectra: Tensor) -> Tensor:
        """log1p of the reconstruction of spectra (n, points) in states/eV."""
        return self.decoder(self.encoder(spectra))


def _block(convolution: nn.Module, channels: int, settings: NetworkSettings, *, normalise: bool) -> nn.Sequential:
    """Convolution, group normalisation and leaky rectifier."""
    layers = [convolution, nn.LeakyReLU(settings.slope)]
    if normalise:
        layers.insert(1, nn.GroupNorm(settings.groups, channels))
    return nn.Sequential(*layers)
