"""The trainer of the recipes: Lightning's, which never replaces a training unasked and ends as its user expects."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.trainer.states import TrainerStatus
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from mattergen_e.errors import UserError
from mattergen_e.journal import difference
from mattergen_e.upstream import Terminated, exit_on_user_error, is_out_of_memory, load_checkpoint, memory_wanted

#: What to do with a training that the run folder holds: refuse (the default), resume or overwrite.
EXISTING = "MATTERGEN_E_EXISTING"
CHECKPOINTS, LAST, METRICS = "checkpoints", "last.ckpt", "metrics.csv"


class Trainer(pl.Trainer):
    """Lightning's trainer.

    - A run folder that holds a training is refused, resumed or cleared, as `MATTERGEN_E_EXISTING` says.
    - Several devices are trained on although some parameters of GemNet never get a gradient.
    - SIGTERM and SIGHUP end it after the batch at hand, with 128 and the number of the signal; Ctrl-C with 130.
    - What the user can mend is one sentence.
    """

    @exit_on_user_error
    def __init__(self, **settings: Any) -> None:
        """Makes a trainer; arguments are Lightning's.

        Raises:
            UserError: If this machine lacks what they ask for, or they contradict each other.
        """
        try:
            super().__init__(**settings)
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise UserError(_refused(settings, error)) from error
        if isinstance(self.strategy, DDPStrategy):
            # GemNet's energy output takes no part in the loss
            self.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)

    @exit_on_user_error
    def fit(self, model: Any, *args: Any, ckpt_path: Any = None, **kwargs: Any) -> None:
        """Trains; arguments are Lightning's.

        Raises:
            UserError: If the run folder holds a training that was not to be gone on with, or a batch does not fit.
        """
        folder = Path(self.default_root_dir)
        if ckpt_path is None:
            ckpt_path = existing_training(folder, clear=self.is_global_zero)
        if ckpt_path is not None:
            before = load_checkpoint(ckpt_path, mapped=True)
            _check_same(Path(ckpt_path), before, self)
            del before
        hung_up: list[int] = []
        try:
            with self._hang_up(hung_up):
                super().fit(model, *args, ckpt_path=ckpt_path, **kwargs)
        except SIGTERMException:
            pass
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(self._too_large(error)) from error
        except SystemExit as error:  # Lightning's, after Ctrl-C
            if self.state.status != TrainerStatus.INTERRUPTED or isinstance(error, Terminated):
                raise
            self._say_how_to_go_on("Ctrl-C")
            raise Terminated(signal.SIGINT) from None
        if self.received_sigterm:
            number = hung_up[0] if hung_up else signal.SIGTERM
            self._say_how_to_go_on(signal.Signals(number).name)
            raise Terminated(number)

    @contextmanager
    def _hang_up(self, received: list[int]) -> Iterator[None]:
        """Makes SIGHUP end the training as SIGTERM does, unless it is ignored."""
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
            yield
            return

        def note(number: int, frame: Any) -> None:
            received.append(number)
            self._signal_connector.received_sigterm = True

        signal.signal(signal.SIGHUP, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def _say_how_to_go_on(self, what: str) -> None:
        if self.is_global_zero:
            there = (Path(self.default_root_dir) / CHECKPOINTS / LAST).is_file()
            how = (
                f"the same command with {EXISTING}=resume goes on after the last whole one"
                if there
                else "there is no checkpoint yet"
            )
            print(f"mattergen-e: ended by {what} in epoch {self.current_epoch}; {how}.", flush=True)

    def _too_large(self, error: BaseException) -> str:
        size = getattr(getattr(self, "datamodule", None), "batch_size", None)
        size = getattr(size, "train", None)
        wanted = memory_wanted(error)
        if not isinstance(size, int) or size < 2:
            return f"a training batch does not fit the memory{wanted}: take a smaller batch, or another device."
        halves = max(int(self.accumulate_grad_batches), 1) * 2
        return (
            f"a training batch of {size} crystals does not fit the memory{wanted}: "
            f"data_module.batch_size.train={size // 2} trainer.accumulate_grad_batches={halves} takes the same steps "
            "with half of it at a time."
        )


def existing_training(folder: Path, clear: bool = False) -> Path | None:
    """The checkpoint that a training in a folder goes on from; None where it begins.

    Args:
        folder: The run folder.
        clear: Whether to remove a training that is to be overwritten.

    Raises:
        UserError: If there is a training that nobody said what to do with.
    """
    found = sorted((folder / CHECKPOINTS).glob("*.ckpt"))
    wanted = os.environ.get(EXISTING) or "refuse"
    if wanted not in ("refuse", "resume", "overwrite"):
        raise UserError(f"{EXISTING} is '{wanted}': use 'refuse', 'resume' or 'overwrite'.")
    if not found:
        return None
    if wanted == "resume":
        last = folder / CHECKPOINTS / LAST
        return last if last in found else max(found, key=lambda path: path.stat().st_mtime)
    if wanted == "refuse":
        raise UserError(
            f"{folder.resolve()} already holds a training: give another OUTPUT_DIR, or set {EXISTING}=resume to go on "
            f"with it or {EXISTING}=overwrite to replace it."
        )
    if clear:
        for path in (*found, folder / METRICS):
            path.unlink(missing_ok=True)
    return None


def _check_same(path: Path, checkpoint: dict[str, Any], trainer: pl.Trainer) -> None:
    """Refuses to go on with a model, data or an optimiser of other settings."""
    configs = [c._config_dict for c in getattr(trainer, "callbacks", []) if hasattr(c, "_config_dict")]
    before = checkpoint.get("config")
    if not configs or not isinstance(before, dict):
        return
    for part in ("lightning_module", "adapter"):
        was, now = (dict(config.get(part) or {}) for config in (before, configs[0]))
        for settings in (was, now):
            settings.pop("scheduler_partials", None)  # of a longer training
        differing = None if not was else difference(was, now, part)
        if differing is not None:
            raise UserError(
                f"{path.resolve()} cannot be gone on with because {differing}: give the former, or another OUTPUT_DIR."
            )


def _refused(settings: dict[str, Any], error: BaseException) -> str:
    """What is said of a trainer that cannot be made."""
    import torch

    told = " ".join(str(error).split())
    accelerator = settings.get("accelerator")
    if accelerator in ("gpu", "cuda", "mps") and not (
        torch.cuda.is_available() or (accelerator != "cuda" and torch.backends.mps.is_available())
    ):
        return f"trainer.accelerator={accelerator}, but PyTorch finds no such device here: leave it out, or give cpu."
    with suppress(TypeError):
        told = told if len(told) < 300 else told[:297] + "..."
    return f"trainer: {told.rstrip('.')}."
