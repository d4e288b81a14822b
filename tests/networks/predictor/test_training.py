"""Training learns, goes on where it was stopped, and refuses what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mattergen_e.errors import UserError
from mattergen_e.networks.predictor import training
from mattergen_e.networks.predictor.data import Order, read_processing, read_split
from mattergen_e.networks.predictor.folder import DESCRIPTION, WEIGHTS, describe, load, save
from mattergen_e.networks.predictor.network import Network
from mattergen_e.networks.predictor.noise import describe_noise
from mattergen_e.networks.predictor.training import (
    PredictorModule,
    TrainingSettings,
    displaced,
    noised,
    train,
)
from mattergen_e.networks.scaffold import BEST, LAST, RUN
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.spectra.metrics import wasserstein
from mattergen_e.spectra.processing import TotalDosSettings

SETTINGS = TrainingSettings(epochs=3, batch_size=4, warmup=2, width=16, layers=1, dropout=0.2)

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def _small(shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder of a few thousand parameters where none is given."""
    monkeypatch.setattr(training, "EncoderSettings", lambda: shape.encoder)


def quiet_train(cache: Path, out: Path, settings: TrainingSettings = SETTINGS, **options: Any) -> Any:
    return train(cache, out, settings, device="cpu", **options)


def test_learns(make_cache: Make, tmp_path: Path) -> None:
    quiet = {"dropout": 0.0, "jitter": 0.0}
    settings = SETTINGS.model_copy(update={"epochs": 60, "batch_size": 8, "learning_rate": 3e-3, "width": 32, **quiet})
    cache = make_cache()
    trained = quiet_train(cache, tmp_path / "p", settings)
    test = read_split(cache / "test", trained.processing)
    found = trained.predict(test.structures)
    numbers = test.atomic_numbers
    mean = np.stack([test.sites[numbers == z].mean(0) for z in numbers])
    grid = trained.grids.sites
    assert np.mean(wasserstein(found.sites, test.sites, grid)) < 0.7 * np.mean(wasserstein(mean, test.sites, grid))
    assert np.abs(found.total - test.total).mean() < 0.2 * test.total.mean()


def test_record_and_files(make_cache: Make, tmp_path: Path) -> None:
    cache, out = make_cache(), tmp_path / "p"
    trained = quiet_train(cache, out)
    found = load(out)
    assert found.fingerprint == trained.fingerprint and found.record == trained.record
    assert found.record["steps"] == found.record["epoch"] * 2 and found.record["encoder"] is None
    assert found.record["versions"]["torch"] and len(found.record["data"]["manifest_sha256"]) == 64
    assert found.processing == read_processing(cache) and not found.settings.noisy and found.noise is None
    test = read_split(cache / "test", found.processing)
    first, again = (p.predict(test.structures, batch_size=size) for p, size in ((trained, 64), (found, 3)))
    np.testing.assert_allclose(first.sites, again.sites, rtol=1e-3, atol=1e-4)
    # the mean square error of the clean validation crystals is the variance at every time
    expected = np.square(np.log1p(first.total) - np.log1p(test.total)).mean()
    np.testing.assert_allclose(found.variance, expected, rtol=1e-3)


def test_resumed_is_uninterrupted(make_cache: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_cache()
    whole = quiet_train(cache, tmp_path / "whole")

    def stop(self: PredictorModule) -> None:
        if self.current_epoch == 2:
            raise RuntimeError("the machine went down")

    with monkeypatch.context() as patch:
        patch.setattr(PredictorModule, "on_train_epoch_start", stop)
        with pytest.raises(RuntimeError, match="went down"):
            quiet_train(cache, tmp_path / "parts")
    assert not (tmp_path / "parts" / WEIGHTS).exists()
    torch.manual_seed(123)
    parts = quiet_train(cache, tmp_path / "parts", resume=True)
    for name in (LAST, BEST):
        first, second = (
            torch.load(tmp_path / run / RUN / name, weights_only=True)["state_dict"] for run in ("whole", "parts")
        )
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert parts.fingerprint == whole.fingerprint
    other = quiet_train(cache, tmp_path / "other", SETTINGS.model_copy(update={"seed": 1}))
    assert other.fingerprint != whole.fingerprint


def test_noisy(make_cache: Make, make_module: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
               shape: Any) -> None:  # fmt: skip
    from mattergen_e.networks.predictor.encoder import Encoder

    state = {k: v for k, v in Network(shape).state_dict().items() if k.startswith(("gemnet.", "noise_level"))}
    encoder = Encoder(shape.encoder, state, make_module().corruption, {"model": "tiny", "weights_sha256": "0"})
    monkeypatch.setattr(training, "read_encoder", lambda folder: encoder)
    settings = SETTINGS.model_copy(update={"noisy": True, "epochs": 2, "batch_size": 8})
    cache = make_cache()
    trained = quiet_train(cache, tmp_path / "p", settings, encoder="tiny")
    assert trained.settings.noisy and trained.record["encoder"]["model"] == "tiny"
    assert (load(tmp_path / "p").variance > 0).all()
    noise = describe(tmp_path / "p").noise
    assert noise == describe_noise(encoder.corruption) and noise["pos"]["sigma_max"] == 5.0
    assert "add --encoder" in refusal(cache, tmp_path / "q", settings)


def test_displacements_are_in_angstrom(make_cache: Make) -> None:
    cache = make_cache()
    batch = read_split(cache / "train", read_processing(cache))[[0, 3, 5]].structure
    moved = displaced(batch, 0.1)
    steps = (moved["pos"] - batch["pos"])[:, None] @ batch["cell"][batch.get_batch_idx("pos")]
    assert 0.06 < float(steps.std()) < 0.14 and torch.equal(moved["cell"], batch["cell"])


def test_noise_keeps_the_clean_ones(make_cache: Make, make_module: Callable[..., Any]) -> None:
    cache, corruption = make_cache(), make_module().corruption
    batch = read_split(cache / "train", read_processing(cache))[list(range(8))].structure
    torch.manual_seed(0)
    noisy, t = noised(batch, corruption, 0.5)
    clean = t == 0
    sites = clean[batch.get_batch_idx("pos")]
    assert 0 < clean.sum() < 8 and ((t >= 0) & (t <= 1)).all()
    for name, rows in (("pos", sites), ("cell", clean), ("atomic_numbers", sites)):
        assert torch.equal(noisy[name][rows], batch[name][rows])
        assert not torch.equal(noisy[name][~rows], batch[name][~rows])


def test_order_depends_on_seed_and_epoch() -> None:
    order = Order(10, 4, seed=2)
    first = [batch.tolist() for batch in order]
    assert sorted(np.concatenate(first).tolist()) == list(range(10)) and len(order) == 3 == len(first)
    order.set_epoch(1)
    assert [batch.tolist() for batch in order] != first
    assert [batch.tolist() for batch in Order(10, 4, seed=2)] == first
    assert [batch.tolist() for batch in Order(5, 4)] == [[0, 1, 2, 3], [4]]


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        quiet_train(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refused_folders(make_cache: Make, tmp_path: Path) -> None:
    cache, out, settings = make_cache(), tmp_path / "p", SETTINGS.model_copy(update={"epochs": 1})
    assert "no training to resume" in refusal(cache, out, settings, resume=True)
    quiet_train(cache, out, settings)
    assert "holds a training already" in refusal(cache, out, settings)
    other = settings.model_copy(update={"seed": 5})
    assert "was begun with seed 0, not 5" in refusal(cache, out, other, resume=True)
    (out / RUN / LAST).write_bytes(b"nothing")
    assert "is not a checkpoint" in refusal(cache, out, settings, resume=True)


def test_refused_data(make_cache: Make, tmp_path: Path) -> None:
    out = tmp_path / "p"
    assert "does not say how its 'total_dos' was made" in refusal(make_cache("a", total_dos=None), out)
    crooked = TotalDosSettings(grid=EnergyGrid(minimum=-10, maximum=10, points=30))
    assert "total_dos on 30 points" in refusal(make_cache("b", total_dos=crooked), out)
    coarse = TotalDosSettings(grid=EnergyGrid(minimum=-10, maximum=10, points=16))
    assert "total_dos has the shape (8, 32), expected (8, 16)" in refusal(make_cache("c", total_dos=coarse), out)

    def unknown(split: str, sites: np.ndarray, total: np.ndarray) -> None:
        total[:] = np.nan

    assert "has no known total_dos" in refusal(make_cache("d", change=unknown), out)
    assert not out.exists()


def test_unknown_labels_are_left_out(make_cache: Make, tmp_path: Path) -> None:
    def change(split: str, sites: np.ndarray, total: np.ndarray) -> None:
        sites[:5], total[2] = np.nan, np.nan

    trained = quiet_train(make_cache(change=change), tmp_path / "p", SETTINGS.model_copy(update={"epochs": 1}))
    assert np.isfinite(trained.record["metrics"]["val_loss"]) and trained.variance.isfinite().all()
    assert all(p.isfinite().all() for p in trained.network.parameters())


def test_changed_files(make_predictor: Callable[..., Any], tmp_path: Path) -> None:
    save(make_predictor(), tmp_path / "p")
    with pytest.raises(UserError, match="holds a predictor already"):
        save(make_predictor(), tmp_path / "p")
    save(make_predictor(seed=1), tmp_path / "q")
    (tmp_path / "q" / WEIGHTS).replace(tmp_path / "p" / WEIGHTS)
    with pytest.raises(UserError, match="was changed: its files belong to predictor"):
        load(tmp_path / "p")
    torch.save({"a": Path}, tmp_path / "p" / WEIGHTS)
    with pytest.raises(UserError, match="does not hold the weights"):
        load(tmp_path / "p")
    (tmp_path / "p" / WEIGHTS).unlink()
    with pytest.raises(UserError, match="holds only a part"):
        load(tmp_path / "p")
    (tmp_path / "p" / DESCRIPTION).write_text("format_version: 2")
    with pytest.raises(UserError, match="does not describe a predictor: format_version"):
        load(tmp_path / "p")
