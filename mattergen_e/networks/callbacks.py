"""Lightning callbacks of the recipes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from mattergen_e import provenance

#: Key of the record in a checkpoint.
RECORD = "mattergen_e"


class Provenance(pl.Callback):
    """Seeds a training run and writes into every checkpoint what made it.

    The seed is set when the callback is made, which is before MatterGen's commands build the model: they take no seed
    of their own.
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
        self.begin = time.monotonic()

    def seconds(self) -> float:
        """Training time so far, that of resumed runs included."""
        return self.before + time.monotonic() - self.begin

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock, and gives every process of a distributed run its own noise."""
        self.begin = time.monotonic()
        pl.seed_everything(self.seed + trainer.global_rank, verbose=False)

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
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes the time of the run that is resumed."""
        self.before = float(checkpoint.get(RECORD, {}).get("seconds", 0.0))

    def _data(self) -> dict[str, str] | None:
        manifest = Path(self.data) / "manifest.json" if self.data is not None else None
        if manifest is None or not manifest.is_file():
            return None
        return {"cache": Path(str(self.data)).name, "manifest_sha256": provenance.hash_file(manifest)}


def _recipe() -> str | None:
    """Name of the recipe that this process trains with; None outside of MatterGen's commands."""
    from hydra.core.hydra_config import HydraConfig

    return HydraConfig.get().job.config_name if HydraConfig.initialized() else None
