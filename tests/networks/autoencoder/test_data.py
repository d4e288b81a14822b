"""Reading spectra from caches, batches of pairs, and augmentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mattergen_e.errors import UserError
from mattergen_e.networks.autoencoder.data import (
    AugmentationSettings,
    InOrder,
    PairSampler,
    augment,
    make_loader,
    move,
    read_processing,
    read_split,
)
from mattergen_e.spectra.processing import AtomicDosSettings

NUMBERS = np.array([8, 22, 8, 38, 8, 22, 8])


def put(row: int | slice, value: Any) -> Callable[[str, np.ndarray], None]:
    """Changes a row of the training spectra."""

    def change(split: str, spectra: np.ndarray) -> None:
        if split == "train":
            spectra[row] = value

    return change


def put_one(row: int, value: float) -> Callable[[str, np.ndarray], None]:
    """Changes one value of a row of the training spectra."""

    def change(split: str, spectra: np.ndarray) -> None:
        if split == "train":
            spectra[row, 5] = value

    return change


def test_known_spectra(make_cache: Callable[..., Path], processing: AtomicDosSettings) -> None:
    def forget(split: str, spectra: np.ndarray) -> None:
        spectra[4:8] = np.nan

    split = read_split(make_cache(change=forget) / "train")
    assert split.processing == processing
    assert split.rows.tolist() == [0, 1, 2, 3, *range(8, 48)]
    assert split.known.shape == (44, 64) and np.isfinite(split.known).all()
    assert split.known_numbers.tolist() == [8, 22, 8, 38] * 11


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put_one(6, np.nan), "not a finite number at site 6"),
        (put_one(7, np.inf), "not a finite number at site 7"),
        (put_one(5, -0.25), "negative at site 5 (-0.25 states/eV)"),
        (put(9, 0.0), "no states at site 9"),
        (put(slice(None), np.nan), "no known atomic_dos"),
    ],
)
def test_bad_spectra(make_cache: Callable[..., Path], change: Any, sentence: str) -> None:
    cache = make_cache(change=change)
    with pytest.raises(UserError) as caught:
        read_split(cache / "train")
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert len(read_split(cache / "val").rows) == 48


def test_bad_caches(make_cache: Callable[..., Path], processing: AtomicDosSettings) -> None:
    with pytest.raises(UserError, match="is not a split of a cache"):
        read_split(make_cache("a") / "nothing")
    with pytest.raises(UserError, match="does not say how its 'atomic_dos' was made"):
        read_processing(make_cache("b", processing={}))
    described = processing.model_dump(mode="json")
    with pytest.raises(UserError, match="processing of 'atomic_dos': smearing"):
        read_processing(make_cache("c", processing={"atomic_dos": described | {"smearing": -1}}))
    other = described | {"grid": described["grid"] | {"points": 32}}
    with pytest.raises(UserError, match=r"shape \(48, 64\), expected \(sites, 32\)"):
        read_split(make_cache("d", processing={"atomic_dos": other}) / "train")


@pytest.mark.parametrize("same", [0.0, 0.5, 1.0])
def test_pairs_cover_all_sites(same: float) -> None:
    numbers = np.tile(NUMBERS, 200)
    sampler = PairSampler(numbers, 100, same, seed=1)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 14
    sites, partners = np.concatenate(batches, axis=1)
    assert np.array_equal(np.sort(sites), np.arange(1400)) and not np.array_equal(sites, np.arange(1400))
    shares = np.bincount(numbers) / 1400
    expected = same + (1 - same) * float(np.sum(shares**2))
    assert np.mean(numbers[sites] == numbers[partners]) == pytest.approx(expected, abs=1e-12 if same == 1 else 0.05)
    assert len(np.unique(partners)) > 700


def test_order_depends_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int) -> np.ndarray:
        sampler = PairSampler(np.tile(NUMBERS, 5), 10, 0.5, seed)
        sampler.set_epoch(epoch)
        return np.concatenate(list(sampler), axis=1)

    assert np.array_equal(order(1, 3), order(1, 3))
    assert not np.array_equal(order(1, 3), order(1, 4)) and not np.array_equal(order(1, 3), order(2, 3))


def test_loader_reads_whole_batches(make_cache: Callable[..., Path]) -> None:
    split = read_split(make_cache(change=put(slice(0, 4), np.nan)) / "train")
    first, second = zip(*make_loader(split, InOrder(44, 10)), strict=True)
    assert [len(batch) for batch in first] == [10, 10, 10, 10, 4]
    np.testing.assert_array_equal(torch.cat(first).numpy(), split.known)
    np.testing.assert_array_equal(torch.cat(second).numpy(), split.known)


def peak(centres: list[float], width: float = 3.0) -> torch.Tensor:
    return torch.exp(-0.5 * ((torch.arange(200.0) - torch.tensor(centres)[:, None]) / width) ** 2)


def moments(spectra: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Centre and variance in bins."""
    share, bins = (spectra / spectra.sum(1, keepdim=True)).double(), torch.arange(200.0).double()
    centre = (share * bins).sum(1)
    return centre.numpy(), (share * (bins - centre[:, None]) ** 2).sum(1).numpy()


def test_moving_moves_and_smears() -> None:
    shift, width = torch.tensor([[3.0], [-7.25], [0.5], [0.0]]), torch.tensor([[0.0], [2.0], [4.0], [1.5]])
    before = peak([100, 100, 90, 110])
    after = move(before, shift, width, reach=30)
    assert after.min() >= 0
    torch.testing.assert_close(after.sum(1), before.sum(1))
    centre, variance = moments(after)
    assert centre == pytest.approx([103, 92.75, 90.5, 110], abs=0.01)
    assert variance == pytest.approx([9 + 0.25, 9 + 4, 9 + 16, 9 + 2.25], rel=0.02)


def test_ends_of_the_window_go_on() -> None:
    torch.testing.assert_close(
        move(torch.full((1, 50), 2.0), torch.tensor([[4.5]]), torch.tensor([[1.0]]), 12)[0, 0].item(), 2.0
    )


def test_zeros_switch_augmentation_off() -> None:
    settings = AugmentationSettings(mixed=0, moved=0, scale=0)
    spectra = peak([50, 60])
    found = augment(spectra, spectra.flip(0), settings, 0.1, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, spectra, rtol=0, atol=0)


def test_mixtures_lie_between_both() -> None:
    settings = AugmentationSettings(mixed=1, moved=0, scale=0)
    a, b = torch.ones(500, 200), torch.full((500, 200), 3.0)
    found = augment(a, b, settings, 0.1, torch.Generator().manual_seed(0))
    share = (found[:, 0] - 1) / 2
    assert share.min() >= 0 and share.max() <= 1 and share.std().item() == pytest.approx(1 / np.sqrt(12), rel=0.1)
    torch.testing.assert_close(found, (1 + 2 * share)[:, None].expand(-1, 200))


def test_sizes_of_shift_and_scale() -> None:
    settings = AugmentationSettings(mixed=0, moved=1, shift=0.5, smearing=0, scale=0.2)
    spectra = peak([100.0] * 400)
    found = augment(spectra, spectra, settings, 0.1, torch.Generator().manual_seed(0))
    centre, _ = moments(found)
    assert np.abs(centre - 100).max() <= 5.02 and np.std(centre) == pytest.approx(5 / np.sqrt(3), rel=0.1)
    factors = np.log((found.sum(1) / spectra.sum(1)).numpy())
    assert np.std(factors) == pytest.approx(0.2, rel=0.1) and abs(np.mean(factors)) < 0.04


def test_augmentation_repeats_with_its_seed() -> None:
    spectra = peak([100.0] * 8)
    found = [
        augment(spectra, spectra.roll(3, 1), AugmentationSettings(), 0.1, torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
