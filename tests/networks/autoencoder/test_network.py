"""The layers are those of appendix A.1, and latents and spectra stay in their ranges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from mattergen_e.networks.autoencoder.network import Network, NetworkSettings


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network(NetworkSettings()).eval()


@pytest.fixture(scope="module")
def spectra() -> torch.Tensor:
    return torch.rand(4, 512, generator=torch.Generator().manual_seed(1)) * torch.tensor([[1e-6], [1.0], [10.0], [1e6]])


def test_encoder_is_that_of_the_appendix(network: Network, spectra: torch.Tensor) -> None:
    blocks: list[Any] = list(network.encoder.blocks)
    assert [[type(layer) for layer in block] for block in blocks] == [[nn.Conv1d, nn.GroupNorm, nn.LeakyReLU]] * 9
    features, lengths = torch.log1p(spectra).unsqueeze(1), []
    for block in blocks:
        features = block(features)
        lengths.append(features.shape[-1])
    assert lengths == [256, *[128] * 8]
    reduced = network.encoder.reduce(features)
    assert network.encoder.reduce.kernel_size == (1,) and reduced.shape[1] < features.shape[1]
    projected = network.encoder.project(network.encoder.pool(reduced).flatten(1))
    normalised = (projected - projected.mean(1, keepdim=True)) / torch.sqrt(
        projected.var(1, keepdim=True, correction=0) + 1e-5
    )
    expected = torch.tanh(network.encoder.scale * normalised)  # a fresh layer normalisation has weights 1 and 0
    torch.testing.assert_close(network.encoder(spectra), expected, rtol=1e-4, atol=1e-5)


def test_decoder_mirrors_it(network: Network) -> None:
    layers = [
        next(m for m in block.modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d))
        for block in network.decoder.blocks
    ]
    assert [type(layer) for layer in layers] == [nn.Conv1d] * 7 + [nn.ConvTranspose1d] * 2
    encoder: list[Any] = list(network.encoder.blocks)
    forward = [(block[0].in_channels, block[0].out_channels) for block in encoder]
    assert [(layer.out_channels, layer.in_channels) for layer in layers] == forward[::-1]
    latents = torch.rand(3, 30) * 2 - 1
    shapes = []
    features = network.decoder.unreduce(network.decoder.expand(latents).unflatten(1, network.decoder.shape))
    for block in network.decoder.blocks:
        shapes.append(features.shape[-1])
        features = block(features)
    assert shapes == [128] * 8 + [256] and features.shape == (3, 1, 512)
    raw = features.squeeze(1)
    torch.testing.assert_close(network.decoder(latents), torch.log(1 + torch.exp(raw)), rtol=1e-5, atol=1e-6)


def test_ranges(network: Network, spectra: torch.Tensor) -> None:
    latents = network.encoder(spectra)
    assert latents.shape == (4, 30) and latents.abs().max() < 1
    assert network.decoder(torch.sign(torch.randn(50, 30))).min() >= 0


def test_latents_stay_inside_where_tanh_rounds_to_one(spectra: torch.Tensor) -> None:
    network = Network(NetworkSettings(initial_scale=50.0))
    latents = network.encoder(spectra).detach()
    assert torch.tanh(torch.tensor(50.0)) == 1
    assert latents.abs().max() < 1 and latents.abs().max() > 0.999999


@pytest.mark.parametrize("scale", [0.05, 0.5, 3.0])
def test_initial_scale(scale: float) -> None:
    assert float(Network(NetworkSettings(initial_scale=scale)).encoder.scale.detach()) == pytest.approx(scale, rel=1e-5)


def test_everything_learns(network: Network, spectra: torch.Tensor) -> None:
    torch.expm1(network(spectra[:3])).square().sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert all(g is not None and g.abs().max() > 0 for g in gradients.values())
    network.zero_grad()


def test_one_spectrum_does_not_touch_another(network: Network, spectra: torch.Tensor) -> None:
    together = network(spectra).detach().numpy()
    alone = np.concatenate([network(spectra[i : i + 1]).detach().numpy() for i in range(4)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": (8, 8)},
        {"channels": (8, 8, 12)},
        {"points": 510},
        {"pooled": 129},
        {"kernel": 4},
        {"latent": 30},
    ],
)
def test_impossible_shapes_are_refused(changes: dict) -> None:
    with pytest.raises(ValidationError):
        NetworkSettings(**changes)
