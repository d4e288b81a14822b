"""What the trainings of the small models beside MatterGen share: one folder, two checkpoints, resuming.

<out>/run/last.ckpt  the last epoch, to go on from
<out>/run/best.ckpt  the epoch that was best on the validation split

Whatever ends a training, the same command with --resume goes on from the last epoch; before the first one has ended,
there is nothing to lose, and the same command begins anew, with or without it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytorch_lightning as pl
import torch
from pydantic import BaseModel, ConfigDict, Field
from pytorch_lightning.plugins.io import TorchCheckpointIO

from mattergen_e.errors import UserError
from mattergen_e.files import TEMPORARY_PREFIX, discard, replacing
from mattergen_e.journal import hold
from mattergen_e.networks.callbacks import RECORD, Provenance
from mattergen_e.networks.folder import DAMAGED

if TYPE_CHECKING:
    from pytorch_lightning.utilities.types import OptimizerLRScheduler

RUN, LAST, BEST = "run", "last.ckpt", "best.ckpt"
METRICS = "metrics"


class TrainingSettings(BaseModel):
    """Settings that every training has. The papers give none of the numbers; all are chosen.

    Attributes:
        epochs: Times that everything is seen.
        batch_size: Of a step.
        learning_rate: Largest one; it rises over the warm-up and then falls to zero as a cosine.
        warmup: Steps of the linear rise.
        weight_decay: Of AdamW.
        clip: Largest norm of the gradient.
        seed: Of weights, order and random numbers.
        precision: "bf16-mixed" is faster on processors and GPUs that have such arithmetic.
        workers: Processes that make batches; 0 makes them in the process itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warmup: int = Field(ge=0)
    weight_decay: float = Field(ge=0)
    clip: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    workers: int = Field(default=0, ge=0)


class NetworkModule(pl.LightningModule, ABC):
    """A network with its loss and optimiser, whose checkpoints say how it was made.

    Attributes:
        kind: Of its training.
    """

    kind: Training

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Settings and all else that a resumed training must have in common, by part, as plain values."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the description."""
        checkpoint[self.kind.key] = self.description()


@dataclass(frozen=True)
class Training:
    """How the training of one kind of network is kept.

    Attributes:
        key: Of the description in a checkpoint.
        whose: Training it is, in sentences.
        monitor: What the best epoch has least of.
        parts: Of the description, in the order in which a resumed training compares them.
    """

    key: str
    whose: str
    monitor: str
    parts: tuple[str, ...]

    def fit(
        self,
        make: Callable[[], NetworkModule],
        settings: TrainingSettings,
        loaders: tuple[Any, Any],
        out: Path,
        data: str | Path,
        resume: bool,
        device: str,
        progress: bool,
    ) -> Path:
        """Trains, and gives the checkpoint of the best epoch.

        Args:
            make: Makes the network; called when the seed is set, from which its first weights come.
            settings: Of the training.
            loaders: Of the training and of the validation split.
            out: Folder of the training.
            data: Cache that it learns from, to be written down.
            resume: Go on from the last epoch.
            device: auto, cpu or cuda.
            progress: Whether to show a progress bar.

        Raises:
            UserError: If the training to resume was begun in another way.
        """
        provenance = Provenance(seed=settings.seed, data=str(data))
        module, last = make(), out / RUN / LAST if resume else None
        if last is not None:
            self.check_resumed(last, module.description())
        trainer = make_trainer(out / RUN, settings, self.monitor, provenance, device, progress)
        trainer.fit(module, *loaders, ckpt_path=last, weights_only=True)
        return out / RUN / BEST

    def check_resumed(self, path: Path, now: Mapping[str, Any]) -> None:
        """Stops when a training was begun in another way, naming the first thing that differs.

        Args:
            path: Checkpoint to go on from.
            now: Description of what is wanted.

        Raises:
            UserError: If they differ, or the checkpoint is none of this training.
        """
        before = self.read_checkpoint(path)[self.key]
        for part in self.parts:
            for key, value in now[part].items():
                if before[part].get(key) != value:
                    raise UserError(
                        f"{path} was begun with {key} {before[part].get(key)}, not {value}: resume with the same {part}"
                    )

    def read(self, path: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, Any]]:
        """What a training wrote of an epoch: its description, the weights of the module, and what made it.

        Args:
            path: Checkpoint of the training.

        Raises:
            UserError: If the file is missing, damaged or something else.
        """
        checkpoint = self.read_checkpoint(Path(path))
        record = {"epoch": int(checkpoint["epoch"]) + 1, "steps": int(checkpoint["global_step"]), **checkpoint[RECORD]}
        return checkpoint[self.key], checkpoint["state_dict"], record

    def read_checkpoint(self, path: Path) -> dict[str, Any]:
        """Loads a checkpoint without running code.

        Raises:
            UserError: If it is missing, damaged or something else.
        """
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise UserError(f"{path} does not exist: the training has not finished an epoch") from None
        except DAMAGED as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{path} is not a checkpoint ({reason}): train anew") from error
        if not isinstance(checkpoint, dict) or self.key not in checkpoint:
            raise UserError(f"{path} is not a checkpoint of {self.whose} training")
        return checkpoint


class WholeCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint beside its place first: Lightning's own way leaves a torn one after a kill.

    That holds where its temporary folder is on another file system.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes a checkpoint."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as file:
            torch.save(checkpoint, file)


def make_trainer(
    run: Path, settings: TrainingSettings, monitor: str, provenance: pl.Callback, device: str, progress: bool
) -> pl.Trainer:
    """A trainer that keeps the last epoch and the best one by the metric `monitor`."""
    from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
    from pytorch_lightning.loggers import CSVLogger

    last = ModelCheckpoint(run, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    best = ModelCheckpoint(run, "best", monitor=monitor, enable_version_counter=False)
    bars = [RichProgressBar(console_kwargs={"stderr": True})] if progress else []
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(device, device),
        devices=1,
        precision=settings.precision,
        max_epochs=settings.epochs,
        gradient_clip_val=settings.clip,
        num_sanity_val_steps=0,
        log_every_n_steps=50,
        plugins=[WholeCheckpoints()],
        logger=CSVLogger(run, name=METRICS),
        callbacks=[provenance, best, last, *bars],
        enable_progress_bar=progress,
        enable_model_summary=False,
    )


@contextmanager
def training_folder(out: Path, finished: bool, resume: bool, overwrite: bool) -> Iterator[bool]:
    """Holds the folder of a training, and makes way for it.

    Args:
        out: The folder.
        finished: Whether it holds a model already.
        resume: Go on with a training.
        overwrite: Replace one.

    Yields:
        Whether there is an epoch to go on from; a training that was killed in its first begins anew.

    Raises:
        UserError: If another process trains in it, there is nothing to resume, or a training that may not be replaced.
    """
    _check_folder(out, finished, resume, overwrite)  # before anything is written
    with hold(out, RUN):
        _check_folder(out, finished, resume, overwrite)
        goes_on = resume and (out / RUN / LAST).is_file()
        if not goes_on and (out / RUN).exists():
            discard(out / RUN)
        yield goes_on


def _check_folder(out: Path, finished: bool, resume: bool, overwrite: bool) -> None:
    run, last = out / RUN, out / RUN / LAST
    if resume and not last.is_file() and (finished or not run.is_dir()):
        raise UserError(f"{last} does not exist: there is no training to resume in that folder")
    if not resume and not overwrite and (finished or last.exists()):
        raise UserError(f"{out} holds a training already: add --resume to go on, --overwrite, or choose another folder")
    if not (resume and last.is_file()):
        _check_ours(run)


def _check_ours(run: Path) -> None:
    """Lets only what a training wrote be removed."""
    if run.is_symlink() or (run.exists() and not run.is_dir()):
        raise UserError(f"{run} is not a folder that a training made: choose another folder")
    names = (path.name for path in run.iterdir()) if run.exists() else ()
    foreign = [name for name in names if name not in (LAST, BEST, METRICS) and not name.startswith(TEMPORARY_PREFIX)]
    if foreign:
        raise UserError(f"{run} holds {min(foreign)}, which no training wrote: move it away, or choose another folder")


def of_network(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a module's `network` alone, by their names in it."""
    prefix = "network."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def warm_up_and_cosine(
    module: pl.LightningModule, optimiser: torch.optim.Optimizer, warmup: int
) -> OptimizerLRScheduler:
    """A learning rate that rises linearly over the warm-up and falls to zero as a cosine over the whole training."""
    total = int(module.trainer.estimated_stepping_batches)

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / (warmup + 1)) * 0.5 * (1 + math.cos(math.pi * min(step / total, 1.0)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
