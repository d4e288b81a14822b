"""What an autoencoder refuses, its identity, and the latents of a cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mattergen_e.data.cache import load_manifest
from mattergen_e.errors import UserError
from mattergen_e.networks.autoencoder.data import encode_cache, read_split
from mattergen_e.networks.autoencoder.model import Autoencoder
from mattergen_e.spectra.grid import ATOMIC_GRID, EnergyGrid
from mattergen_e.spectra.processing import AtomicDosSettings

Make = Callable[..., Autoencoder]


@pytest.fixture
def spectra() -> np.ndarray:
    return np.random.default_rng(0).exponential(size=(7, 64)).astype(np.float32)


def refusal(function: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value) and ". " not in str(caught.value)
    return str(caught.value)


def test_round_trip_shapes(make_autoencoder: Make, spectra: np.ndarray) -> None:
    autoencoder = make_autoencoder()
    latents = autoencoder.encode(spectra, autoencoder.grid, batch_size=3)
    assert latents.shape == (7, 6) and latents.dtype == np.float32 and np.abs(latents).max() < 1
    decoded = autoencoder.decode(latents, batch_size=2)
    assert decoded.shape == (7, 64) and decoded.dtype == np.float32 and decoded.min() >= 0
    np.testing.assert_array_equal(decoded, autoencoder.decode(torch.from_numpy(latents), batch_size=2))
    network = torch.expm1(autoencoder.network(torch.from_numpy(spectra))).numpy()
    np.testing.assert_allclose(autoencoder.reconstruct(spectra), network, rtol=1e-5, atol=1e-6)


def test_no_sites(make_autoencoder: Make) -> None:
    autoencoder = make_autoencoder()
    assert autoencoder.encode(np.empty((0, 64))).shape == (0, 6)
    assert autoencoder.decode(np.empty((0, 6))).shape == (0, 64)


def test_extreme_latents_are_in_range(make_autoencoder: Make) -> None:
    decoded = make_autoencoder().decode(np.sign(np.random.default_rng(0).normal(size=(20, 6))))
    assert np.isfinite(decoded).all() and decoded.min() >= 0


def test_refused_spectra(make_autoencoder: Make, spectra: np.ndarray) -> None:
    autoencoder = make_autoencoder()
    assert "shape (7, 63)" in refusal(autoencoder.encode, spectra[:, :63])
    assert "shape (64,)" in refusal(autoencoder.encode, spectra[0])
    other = EnergyGrid(minimum=-10, maximum=10, points=64)
    assert "64 points from -10 to 10 eV" in refusal(autoencoder.encode, spectra, other)
    for value, words in ((np.nan, "not a finite number at site 3"), (-1.0, "negative at site 3 (-1 states/eV)")):
        wrong = spectra.copy()
        wrong[3, 10] = value
        assert words in refusal(autoencoder.encode, wrong)
    spectra[5] = 0
    assert "no states at site 5" in refusal(autoencoder.encode, spectra)


@pytest.mark.parametrize("value", [1.001, -1.2, np.nan, np.inf])
def test_refused_latents(make_autoencoder: Make, value: float) -> None:
    latents = np.zeros((4, 6))
    latents[2, 1] = value
    assert f"latent 1 of site 2 is {value:g}" in refusal(make_autoencoder().decode, latents)


def test_refused_number_of_latents(make_autoencoder: Make) -> None:
    assert "6 latents per site" in refusal(make_autoencoder().decode, np.zeros((4, 5)))


def test_network_and_grid_must_fit(make_autoencoder: Make, processing: AtomicDosSettings) -> None:
    wrong = processing.model_copy(update={"grid": ATOMIC_GRID})
    assert "takes 64 points, but the grid has 512 points" in refusal(make_autoencoder, wrong)


def test_fingerprint_is_the_identity(make_autoencoder: Make, processing: AtomicDosSettings) -> None:
    first = make_autoencoder().fingerprint
    assert first == make_autoencoder().fingerprint and len(first) == 64
    grid = EnergyGrid(minimum=-14, maximum=5, points=64)
    others = [
        make_autoencoder(seed=1),
        make_autoencoder(slope=0.2),  # the same weights, another network
        make_autoencoder(processing.model_copy(update={"smearing": 0.4})),
        make_autoencoder(processing.model_copy(update={"semicore_threshold": -9.0})),
        make_autoencoder(processing.model_copy(update={"grid": grid})),
    ]
    assert len({first, *(other.fingerprint for other in others)}) == 6


def test_frozen(make_autoencoder: Make) -> None:
    network = make_autoencoder().network
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_latents_of_a_cache(make_autoencoder: Make, make_cache: Callable[..., Path]) -> None:
    def forget(split: str, spectra: np.ndarray) -> None:
        spectra[8:12] = np.nan

    autoencoder, cache = make_autoencoder(), make_cache(change=forget)
    latents = encode_cache(autoencoder, cache / "val")
    assert latents.shape == (48, 6)
    assert np.flatnonzero(np.isnan(latents).any(1)).tolist() == [8, 9, 10, 11]
    split = read_split(cache / "val")
    np.testing.assert_allclose(latents[split.rows], autoencoder.encode(split.known), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("change", [{"smearing": 0.3}, {"semicore_threshold": -8.0}, {"grid": None}])
def test_cache_of_another_processing(
    make_autoencoder: Make, make_cache: Callable[..., Path], processing: AtomicDosSettings, change: dict
) -> None:
    if "grid" in change:
        change = {"grid": EnergyGrid(minimum=-10, maximum=10, points=64)}
    autoencoder, cache = make_autoencoder(processing.model_copy(update=change)), make_cache()
    with pytest.raises(UserError, match=next(iter(change))):
        encode_cache(autoencoder, cache / "train")
    with pytest.raises(UserError, match=next(iter(change))):
        autoencoder.require_cache(load_manifest(cache))


def test_cache_with_an_empty_spectrum(make_autoencoder: Make, make_cache: Callable[..., Path]) -> None:
    def empty(split: str, spectra: np.ndarray) -> None:
        spectra[13] = 0

    assert "no states at site 13" in refusal(encode_cache, make_autoencoder(), make_cache(change=empty) / "test")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same(make_autoencoder: Make, spectra: np.ndarray) -> None:
    expected = make_autoencoder().encode(spectra)
    on_gpu = make_autoencoder().to("cuda")
    np.testing.assert_allclose(on_gpu.encode(spectra), expected, atol=1e-3)
    assert on_gpu.fingerprint == make_autoencoder().fingerprint
