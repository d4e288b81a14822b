"""Lightning callbacks of the recipes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from mattergen_e import provenance
from mattergen_e.networks.logger import ResumingCSVLogger

#: Key of the record in a checkpoint.
RECORD = "mattergen_e"


class Provenance(pl.Callback):
    """Seeds a training run and writes into every checkpoint what made it.

    The seed is set when the callback is made, which is before MatterGen's commands build the model: they take no seed
    of their own. The random numbers of a step depend on the seed, the epoch and the number of the batch, so that a
    resumed run draws those that the uninterrupted one would have drawn.
    """

    def __init__(self, seed: int = 0, data: str | None = None) -> None:
        """Seeds Python, NumPy and torch.

        Args:
            seed: The seed.
            data: Folder of the cache that is trained on; its manifest's hash goes into the record.
        """
        super().__init__()
        self.seed = pl.seed_everything(seed, verbose=False)
        self.data = data
        self.before = 0.0
        self.epoch, self.step = 0, 0
        self.seeded = False
        self.begin = time.monotonic()

    def seconds(self) -> float:
        """Training time so far, that of resumed runs included."""
        return self.before + time.monotonic() - self.begin

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock, and lets a resumed run go on with the curves of the run before."""
        self.begin = time.monotonic()
        self._seed_epoch(self.epoch, trainer)
        self.seeded = True
        if self.step and trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, ResumingCSVLogger):
                    logger.experiment.goes_on(self.step)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seeds the order of the data; for the first epoch that was done before its loader was made."""
        if not self.seeded or trainer.current_epoch != self.epoch:
            self._seed_epoch(trainer.current_epoch, trainer)
        self.seeded = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seeds the noise of a step; every process of a distributed run has its own."""
        state = np.random.SeedSequence([self.seed, trainer.global_rank, trainer.current_epoch, batch_idx])
        torch.manual_seed(int(state.generate_state(1, np.uint64)[0]) >> 1)

    def _seed_epoch(self, epoch: int, trainer: pl.Trainer) -> None:
        if epoch == 0:
            pl.seed_everything(self.seed + trainer.global_rank, verbose=False)
        else:
            state = np.random.SeedSequence([self.seed, trainer.global_rank, epoch])
            pl.seed_everything(int(state.generate_state(1)[0]), verbose=False)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the record: recipe, seed, versions, hardware, data, time and the last metrics."""
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if not k.endswith("_step")}
        checkpoint[RECORD] = {
            "recipe": _recipe(),
            "seed": self.seed,
            "versions": provenance.versions(),
            "hardware": provenance.hardware(),
            "data": self._data(),
            "seconds": self.seconds(),
            "metrics": metrics,
            "ranges": _ranges(getattr(trainer, "datamodule", None)),
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes the time of the run that is resumed, and where it stands."""
        self.before = float(checkpoint.get(RECORD, {}).get("seconds", 0.0))
        self.step = int(checkpoint["global_step"])
        self.epoch = int(checkpoint["epoch"]) + 1

    def _data(self) -> dict[str, str] | None:
        manifest = Path(self.data) / "manifest.json" if self.data is not None else None
        if manifest is None or not manifest.is_file():
            return None
        return {"cache": Path(str(self.data)).name, "manifest_sha256": provenance.hash_file(manifest)}


def _ranges(datamodule: Any) -> dict[str, list[float]]:
    """Smallest and largest number of sites and value of each property of the training crystals."""
    data = getattr(datamodule, "train_dataset", None)
    words = getattr(data, "categories", None) or {}  # their arrays are places of words
    properties = {k: v for k, v in (getattr(data, "properties", None) or {}).items() if k not in words}
    arrays = {"num_atoms": getattr(data, "num_atoms", None), **properties}
    found = {}
    for name, values in arrays.items():
        numbers = np.asarray([] if values is None else values)
        if numbers.ndim == 1 and np.issubdtype(numbers.dtype, np.number):
            finite = numbers[np.isfinite(numbers)]
            if len(finite):
                found[name] = [float(finite.min()), float(finite.max())]
    return found


def _recipe() -> str | None:
    """Name of the recipe that this process trains with; None outside of MatterGen's commands."""
    from hydra.core.hydra_config import HydraConfig

    return HydraConfig.get().job.config_name if HydraConfig.initialized() else None
