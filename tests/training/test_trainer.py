"""The trainer of the recipes on a network of one weight: what it refuses, how it goes on, and how it ends."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy
from torch.utils.data import DataLoader

from mattergen_e.errors import UserError
from mattergen_e.networks.callbacks import Provenance
from mattergen_e.networks.logger import ResumingCSVLogger
from mattergen_e.training.trainer import Trainer


class Small(pl.LightningModule):
    """One weight; `before` is called with each batch's number, and noise that was drawn is kept."""

    def __init__(self, before: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.before = before
        self.noise: list[float] = []

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        """A square, and a random number."""
        if self.before is not None:
            self.before(self.global_step)
        self.noise.append(float(torch.rand(())))
        loss = ((self.weight - batch) ** 2).mean()
        self.log("loss_train", loss, on_epoch=True, on_step=False)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain descent."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Small]:
    """Trains in a run folder with callbacks and loggers like those of the recipes; gives the module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MATTERGEN_E_EXISTING", raising=False)

    def run(epochs: int = 2, before: Callable[[int], None] | None = None, existing: str | None = None) -> Small:
        if existing is not None:
            monkeypatch.setenv("MATTERGEN_E_EXISTING", existing)
        last = ModelCheckpoint(
            dirpath="checkpoints", monitor=None, save_top_k=1, save_on_train_epoch_end=True, filename="last",
            enable_version_counter=False,
        )  # fmt: skip
        trainer = Trainer(
            accelerator="cpu", max_epochs=epochs, log_every_n_steps=1,
            logger=ResumingCSVLogger(".", name=None, version=""),
            callbacks=[Provenance(seed=1), last], enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        module = Small(before)
        trainer.fit(module, DataLoader(torch.ones(6, 1), batch_size=2))  # type: ignore[arg-type]
        return module

    return run


def epochs(folder: Path) -> list[int]:
    """Epochs that metrics.csv has a loss of."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file) if row["loss_train"]]


def test_a_training_is_not_replaced_unasked(train: Callable[..., Small], tmp_path: Path) -> None:
    train()
    before = {path.name: path.read_bytes() for path in (tmp_path / "metrics.csv", tmp_path / "checkpoints/last.ckpt")}
    with pytest.raises(UserError, match=r"already holds a training: .*MATTERGEN_E_EXISTING=resume .*overwrite"):
        train()
    assert before == {n: (tmp_path / ("" if n == "metrics.csv" else "checkpoints") / n).read_bytes() for n in before}
    with pytest.raises(UserError, match="MATTERGEN_E_EXISTING is 'keep': use"):
        train(existing="keep")


def test_resumed_training_goes_on_where_it_was(train: Callable[..., Small], tmp_path: Path) -> None:
    first = train(2)
    resumed = train(4, existing="resume")
    assert epochs(tmp_path) == [0, 1, 2, 3]
    assert len(resumed.noise) == len(first.noise) == 6  # two epochs of three batches each
    assert not set(resumed.noise) & set(first.noise), "the noise of the first epochs came again"
    # six steps of w -> w - 0.2 (w - 1) per run, from 0: 1 - 0.8^12 after both
    assert float(resumed.weight) == pytest.approx(1 - 0.8**12, abs=1e-6)


def test_overwritten_training_begins_anew(train: Callable[..., Small], tmp_path: Path) -> None:
    train(3)
    assert float(train(1, existing="overwrite").weight) == pytest.approx(1 - 0.8**3, abs=1e-6)
    assert epochs(tmp_path) == [0]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)], ids=lambda n: str(int(n))
)
def test_a_signal_ends_with_its_code_and_the_training_goes_on(
    train: Callable[..., Small], tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    kept = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}

    def send(step: int) -> None:
        if step == 4:  # in the second epoch
            os.kill(os.getpid(), number)

    try:
        with pytest.raises(SystemExit) as ended:
            train(4, before=send)
    finally:
        for n, handler in kept.items():
            signal.signal(n, handler)
    assert ended.value.code == code
    told = capsys.readouterr().out
    assert "in epoch 1; the same command with MATTERGEN_E_EXISTING=resume goes on" in told
    assert float(train(4, existing="resume").weight) == pytest.approx(1 - 0.8**12, abs=1e-6)
    assert epochs(tmp_path) == [0, 1, 2, 3]


def test_a_hangup_that_is_ignored_stays_ignored(train: Callable[..., Small]) -> None:
    """As `nohup` wants it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        module = train(1, before=lambda step: os.kill(os.getpid(), signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert len(module.noise) == 3


def test_a_batch_that_does_not_fit_is_one_sentence(train: Callable[..., Small]) -> None:
    with pytest.raises(UserError, match=r"a training batch does not fit the memory \(it wanted 4.19e\+06 GiB more\)"):
        train(1, before=lambda step: torch.empty(2**50))  # a petabyte times four


def test_other_settings_of_the_model_are_not_gone_on_with(train: Callable[..., Small], tmp_path: Path) -> None:
    from mattergen.diffusion.run import AddConfigCallback

    from mattergen_e.training.trainer import _check_same

    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    was = {"lightning_module": {"optimizer_partial": {"lr": 1e-4}, "scheduler_partials": [1]}}
    now = {"lightning_module": {"optimizer_partial": {"lr": 1e-3}, "scheduler_partials": [2]}}
    trainer.callbacks.append(AddConfigCallback(now))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"because 'lightning_module.optimizer_partial.lr' was 0.0001 and is now 0.001"):
        _check_same(tmp_path / "last.ckpt", {"config": was}, trainer)
    _check_same(tmp_path / "last.ckpt", {"config": now | {"trainer": {"max_epochs": 9}}}, trainer)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trainer.accelerator=gpu", "trainer.accelerator=gpu, but PyTorch finds no such device here"),
        ("trainer.accelerator=abacus", "trainer: .*abacus"),
        ("trainer.strategy=fast", "trainer: .*fast"),
        ("trainer.precision=7", "trainer: .*7"),
    ],
)
def test_devices_that_are_not_there(compose: Callable[..., Any], override: str, sentence: str) -> None:
    settings = compose("joint", override, "~trainer.callbacks", "~trainer.logger").trainer
    with pytest.raises(Exception, match=sentence) as caught:
        instantiate(settings)
    causes = [caught.value, caught.value.__cause__]
    (told,) = [str(error) for error in causes if isinstance(error, UserError)]
    assert "\n" not in told


@pytest.mark.parametrize(
    ("strategy", "unused"),
    [("auto", True), ("ddp", True), ("ddp_find_unused_parameters_false", False)],
)
def test_two_processes_look_for_parameters_without_gradient(
    compose: Callable[..., Any], strategy: str, unused: bool
) -> None:
    words = ["trainer.accelerator=cpu", "trainer.devices=2", f"trainer.strategy={strategy}"]
    trainer = instantiate(compose("joint", *words, "~trainer.callbacks", "~trainer.logger").trainer)
    assert isinstance(trainer.strategy, DDPStrategy)
    assert trainer.strategy._ddp_kwargs == {"find_unused_parameters": unused}
