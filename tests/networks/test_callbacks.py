"""A resumed run of mattergen-train's recipes goes on as the uninterrupted one: its noise, its data and its curves."""

from __future__ import annotations

import csv
import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from mattergen_e.networks.callbacks import Provenance

EPOCHS, BATCHES = 6, 3


class Toy(pl.LightningModule):
    """Notes the data and the noise of each step, as a diffusion model draws it: from torch's global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, list[float], float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        noise = torch.rand(1)
        self.seen.append((self.current_epoch, batch[0].tolist(), noise.item()))
        self.log("loss_train", noise.mean(), on_step=True, on_epoch=True)
        return (self.weight - noise).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("loss_val", torch.rand(1).mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(
    folder: Path, compose: Any, *, epochs: int = EPOCHS, resume: str | None = None, stop: int | None = None
) -> Toy:
    """Trains with the logger and the checkpoints of the recipes; `stop` ends the process in that epoch, unforeseen."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    recipe = compose("bader_joint").trainer
    logger = instantiate({**recipe.logger, "save_dir": str(folder)})
    last = ModelCheckpoint(folder / "checkpoints", "last", save_on_train_epoch_end=True, enable_version_counter=False)
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=epochs, logger=logger, accelerator="cpu", log_every_n_steps=1,
        callbacks=[Provenance(seed=5), LearningRateMonitor("epoch"), last],
        num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    toy = Toy()
    if stop is not None:
        toy.on_train_batch_end = partial(_end, toy, stop)
    data = DataLoader(TensorDataset(torch.arange(2.0 * BATCHES)), batch_size=2, shuffle=True)
    held = DataLoader(TensorDataset(torch.arange(2.0)))
    path = None if resume is None else folder / "checkpoints" / resume
    try:
        trainer.fit(toy, data, held, ckpt_path=path, weights_only=True)
    except Killed:
        for handler in trainer.loggers:
            handler.save()
    return toy


class Killed(BaseException):
    pass


def _end(toy: Toy, epoch: int, outputs: Any, batch: Any, batch_idx: int) -> None:
    if (toy.current_epoch, batch_idx) == (epoch, 1):
        raise Killed


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, compose: Any) -> tuple[Path, Toy]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder, compose)


def test_resumed_steps_are_those_of_an_uninterrupted_run(whole: tuple[Path, Toy], tmp_path: Path, compose: Any) -> None:
    seen = whole[1].seen
    assert len({noise for _, _, noise in seen}) == EPOCHS * BATCHES
    first = train(tmp_path, compose, stop=2).seen
    assert first == seen[: len(first)] and first[-1][0] == 2
    torch.manual_seed(123)
    second = train(tmp_path, compose, resume="last.ckpt", stop=4).seen
    assert second[0][0] == 2
    third = train(tmp_path, compose, resume="last.ckpt").seen
    assert first[: 2 * BATCHES] + second[: 2 * BATCHES] + third == seen


def test_curves_of_all_epochs_are_kept(whole: tuple[Path, Toy], tmp_path: Path, compose: Any) -> None:
    train(tmp_path, compose, stop=3)
    assert max(int(row.get("epoch", 0)) for row in rows(tmp_path)) == 3
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("0.1,3")  # torn
    train(tmp_path, compose, resume="last.ckpt")
    assert rows(tmp_path) == rows(whole[0])


def test_a_run_that_begins_anew_has_curves_of_its_own(tmp_path: Path, compose: Any) -> None:
    train(tmp_path, compose, epochs=3)
    train(tmp_path, compose, epochs=1)
    assert {row.get("epoch", "0") for row in rows(tmp_path)} == {"0"}
