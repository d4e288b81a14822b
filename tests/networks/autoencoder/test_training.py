"""Training learns, goes on where it was stopped, and refuses what does not fit."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kills import killed

from mattergen_e.errors import UserError
from mattergen_e.networks.autoencoder import training
from mattergen_e.networks.autoencoder.data import AugmentationSettings, read_split
from mattergen_e.networks.autoencoder.folder import WEIGHTS, load
from mattergen_e.networks.autoencoder.network import NetworkSettings
from mattergen_e.networks.autoencoder.training import AutoencoderModule, TrainingSettings, train
from mattergen_e.networks.scaffold import BEST, LAST, RUN, training_folder
from mattergen_e.spectra.metrics import wasserstein
from tests.support.caches import rehash

NETWORK = NetworkSettings(latents=6, channels=(8, 8, 8), kernel=3, groups=2, reduced=4, pooled=8)
SETTINGS = TrainingSettings(epochs=4, batch_size=16, warmup=2, network=NETWORK)

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def _calm() -> Any:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def quiet_train(cache: Path, out: Path, settings: TrainingSettings = SETTINGS, **options: Any) -> Any:
    return train(cache, out, settings, device="cpu", **options)


def test_learns(make_cache: Make, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(
        update={"epochs": 60, "learning_rate": 1e-2, "augmentation": AugmentationSettings(mixed=0, moved=0, scale=0)}
    )
    cache = make_cache(crystals=24)
    trained = quiet_train(cache, tmp_path / "ae", settings)
    test = read_split(cache / "test").known
    mean = read_split(cache / "train").known.mean(0)
    found = np.median(wasserstein(trained.reconstruct(test), test, trained.grid))
    assert found < 0.35 * np.median(wasserstein(mean, test, trained.grid))
    assert trained.settings.points == 64


def test_record_and_files(make_cache: Make, tmp_path: Path) -> None:
    cache, out = make_cache(), tmp_path / "ae"
    trained = quiet_train(cache, out)
    found = load(out)
    assert found.fingerprint == trained.fingerprint
    record = found.record
    assert 1 <= record["epoch"] <= 4 and record["steps"] == record["epoch"] * 3
    assert record["settings"]["epochs"] == 4 and record["seed"] == 0
    assert record["versions"]["torch"] and len(record["data"]["manifest_sha256"]) == 64
    assert record["metrics"]["val_wasserstein"] > 0 and record["seconds"] > 0
    val = read_split(cache / "val").known
    expected = np.median(wasserstein(found.reconstruct(val), val, found.grid))
    assert record["metrics"]["val_wasserstein"] == pytest.approx(expected, rel=1e-3)
    assert torch.load(out / RUN / LAST, weights_only=True)["epoch"] == 3
    curves = (out / RUN / "metrics" / "version_0" / "metrics.csv").read_text().splitlines()
    assert {"train_loss", "val_loss", "val_wasserstein", "val_gradient"} <= set(curves[0].split(","))


def stop_at(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    def stop(self: AutoencoderModule) -> None:
        if self.current_epoch == epoch:
            raise RuntimeError("the machine went down")

    monkeypatch.setattr(AutoencoderModule, "on_train_epoch_start", stop)


def test_resumed_is_uninterrupted(make_cache: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_cache()
    whole = quiet_train(cache, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
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


def test_seeds(make_cache: Make, tmp_path: Path) -> None:
    cache = make_cache()
    settings = SETTINGS.model_copy(update={"epochs": 1})
    prints = [
        quiet_train(cache, tmp_path / name, settings.model_copy(update={"seed": seed})).fingerprint
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert prints[0] == prints[1] != prints[2]


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        quiet_train(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refused_folders(make_cache: Make, tmp_path: Path) -> None:
    cache, out, settings = make_cache(), tmp_path / "ae", SETTINGS.model_copy(update={"epochs": 1})
    assert "no training to resume" in refusal(cache, out, settings, resume=True)
    first = quiet_train(cache, out, settings)
    assert "holds a training already" in refusal(cache, out, settings)
    other = settings.model_copy(update={"seed": 5})
    assert "was begun with seed 0, not 5" in refusal(cache, out, other, resume=True)
    assert quiet_train(cache, out, other, overwrite=True).fingerprint != first.fingerprint
    assert load(out).record["seed"] == 5
    (out / RUN / LAST).write_bytes(b"nothing")
    assert "is not a checkpoint" in refusal(cache, out, other, resume=True)


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_killed_in_its_first_epoch_it_begins_anew(make_cache: Make, tmp_path: Path, options: dict[str, bool]) -> None:
    cache, out, settings = make_cache(), tmp_path / "ae", SETTINGS.model_copy(update={"epochs": 1})
    assert killed(lambda: quiet_train(cache, out, settings), 0, tmp_path, "last.ckpt")
    assert (out / RUN).is_dir() and not (out / RUN / LAST).exists()
    again = quiet_train(cache, out, settings, **options)
    assert again.fingerprint == quiet_train(cache, tmp_path / "whole", settings).fingerprint
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_killed_later_it_goes_on(make_cache: Make, tmp_path: Path) -> None:
    cache, out, settings = make_cache(), tmp_path / "ae", SETTINGS.model_copy(update={"epochs": 2})
    assert killed(lambda: quiet_train(cache, out, settings), 1, tmp_path, "last.ckpt")
    assert torch.load(out / RUN / LAST, weights_only=True)["epoch"] == 0
    assert "add --resume to go on" in refusal(cache, out, settings)
    again = quiet_train(cache, out, settings, resume=True)
    assert again.fingerprint == quiet_train(cache, tmp_path / "whole", settings).fingerprint
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_two_trainings_do_not_share_a_folder(make_cache: Make, tmp_path: Path) -> None:
    cache, out, settings = make_cache(), tmp_path / "ae", SETTINGS.model_copy(update={"epochs": 1})
    with training_folder(out, False, False, False):
        for options in ({}, {"overwrite": True}):
            assert "in use by another run" in refusal(cache, out, settings, **options)
    assert not out.exists()
    quiet_train(cache, out, settings)
    before = sorted(path.name for path in out.rglob("*"))
    with training_folder(out, True, True, False) as goes_on:
        assert goes_on
        for options in ({"resume": True}, {"overwrite": True}):
            assert "in use by another run" in refusal(cache, out, settings, **options)
    assert sorted(path.name for path in out.rglob("*")) == before


def test_a_folder_of_others_is_not_removed(make_cache: Make, tmp_path: Path) -> None:
    cache, mine = make_cache(), tmp_path / "mine"
    mine.mkdir()
    (mine / "data.csv").write_text("mine")
    for kind, words in (
        ("folder", "holds data.csv, which no training wrote"),
        ("link", "not a folder that a"),
    ):
        out = tmp_path / kind
        out.mkdir()
        (out / RUN).symlink_to(mine) if kind == "link" else shutil.copytree(mine, out / RUN)
        for options in ({}, {"overwrite": True}):
            assert words in refusal(cache, out, **options)
        assert (out / RUN / "data.csv").read_text() == "mine"


def test_resume_with_other_data(make_cache: Make, tmp_path: Path, processing: Any) -> None:
    out, settings = tmp_path / "ae", SETTINGS.model_copy(update={"epochs": 1})
    quiet_train(make_cache("a"), out, settings)
    smoother = processing.model_copy(update={"smearing": 0.7}).model_dump(mode="json")
    cache = make_cache("b", processing={"atomic_dos": smoother})
    assert "was begun with smearing 0.5, not 0.7" in refusal(cache, out, settings, resume=True)


def test_refused_data(make_cache: Make, tmp_path: Path, processing: Any) -> None:
    def spoil(split: str, spectra: np.ndarray) -> None:
        if split == "val":
            spectra[3, 7] = np.nan

    assert "not a finite number at site 3" in refusal(make_cache(change=spoil), tmp_path / "ae")
    assert not (tmp_path / "ae").exists()
    odd = processing.model_dump(mode="json")
    odd["grid"]["points"] = 62

    def cut(cache: Path) -> Path:
        for file in cache.glob("*/sites/atomic_dos.npy"):
            np.save(file, np.load(file)[:, :62])
        return rehash(cache)

    cache = cut(make_cache("odd", processing={"atomic_dos": odd}))
    assert "does not fit 62 points" in refusal(cache, tmp_path / "ae")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda(make_cache: Make, tmp_path: Path) -> None:
    trained = train(make_cache(), tmp_path / "ae", SETTINGS, device="cuda")
    assert trained.record["hardware"]["gpu"] and load(tmp_path / "ae").fingerprint == trained.fingerprint


def test_learning_rate_rises_and_falls(make_cache: Make, tmp_path: Path) -> None:
    seen: list[float] = []

    class Watched(AutoencoderModule):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            optimiser: Any = self.optimizers()
            seen.append(optimiser.param_groups[0]["lr"])
            return super().training_step(batch, batch_idx)

    settings = SETTINGS.model_copy(update={"epochs": 10, "warmup": 5})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "AutoencoderModule", Watched)
        quiet_train(make_cache(), tmp_path / "ae", settings)
    rates = np.array(seen) / settings.learning_rate
    assert len(rates) == 30
    expected = [min(1, (k + 1) / 6) * 0.5 * (1 + np.cos(np.pi * k / 30)) for k in range(30)]
    assert rates == pytest.approx(expected)
