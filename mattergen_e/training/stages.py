"""The training runs that led to a model, found by walking back from the last one to the first."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from mattergen_e import upstream
from mattergen_e.errors import UserError
from mattergen_e.networks.callbacks import RECORD
from mattergen_e.training.card import CARD, Stage, TrainingRecord, read_card
from mattergen_e.upstream.trust import read_plain


def training_record(run: Path, checkpoint: dict[str, Any]) -> TrainingRecord:
    """How a run came to a checkpoint.

    Args:
        run: Run folder; its `metrics.csv` brings the losses.
        checkpoint: Content of the checkpoint.
    """
    record = checkpoint.get(RECORD, {})
    epoch = int(checkpoint["epoch"])
    first, last = loss_ends(run / "metrics.csv", epoch)
    return TrainingRecord(
        epochs=epoch + 1,
        steps=int(checkpoint["global_step"]),
        hours=round(float(record.get("seconds", 0.0)) / 3600, 2),
        seed=record.get("seed"),
        versions=record.get("versions", {}),
        hardware=record.get("hardware", {}),
        data=record.get("data"),
        loss_first=first,
        loss_last=last,
        ranges=record.get("ranges", {}),
    )


def find_stages(run: str | Path, config: dict[str, Any], checkpoint: dict[str, Any]) -> list[Stage]:
    """All stages of a training, the first one first.

    A run of mattergen-finetune names the folder that it starts from: another run, or a model folder, whose card tells
    its own stages. The walk ends where such a folder is gone or holds no readable run.

    Args:
        run: Folder of the last run, or a model folder.
        config: Its configuration.
        checkpoint: Content of its checkpoint.
    """
    folder = Path(run).resolve()
    if (folder / CARD).is_file():
        return _stages_of_card(folder)
    stages = [_describe(folder, config, checkpoint)]
    seen = {folder}
    while (path := _adapter(config).get("model_path")) is not None:
        folder = (folder / str(path)).resolve()
        if folder in seen:
            break
        seen.add(folder)
        try:
            if (folder / CARD).is_file():
                return [*_stages_of_card(folder), *stages]
            found = _read_run(folder, _adapter(config).get("load_epoch", "last"))
        except UserError:
            break
        config, checkpoint = found
        stages.insert(0, _describe(folder, config, checkpoint))
    return stages


def loss_ends(path: Path, epoch: int | None = None) -> tuple[dict[str, float], dict[str, float]]:
    """First and last epoch's mean of every loss in a CSV logger's file.

    Args:
        path: The file; two empty dictionaries if there is none.
        epoch: Last epoch to read, counted from 0; None for all.
    """
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    if not path.is_file():
        return first, last
    with open(path, newline="") as handle:
        for row in csv.DictReader(handle):
            if epoch is not None and row.get("epoch") and int(row["epoch"]) > epoch:
                continue
            for name, value in row.items():
                if value and name.endswith(("_val", "_train_epoch")):
                    first.setdefault(name, round(float(value), 4))
                    last[name] = round(float(value), 4)
    return first, last


def _adapter(config: dict[str, Any]) -> dict[str, Any]:
    """Where a fine-tuning starts from; empty for mattergen-train."""
    return config.get("adapter") or {}


def _describe(folder: Path, config: dict[str, Any], checkpoint: dict[str, Any]) -> Stage:
    adapter = _adapter(config)
    path = adapter.get("model_path")
    start = Path(str(path)).name if path is not None else adapter.get("pretrained_name")
    return _stage(
        folder.name,
        config,
        training_record(folder, checkpoint),
        command="mattergen-finetune" if adapter else "mattergen-train",
        recipe=checkpoint.get(RECORD, {}).get("recipe"),
        starts_from=start,
    )


def _stage(name: str, config: dict[str, Any], record: TrainingRecord, **start: str | None) -> Stage:
    """A stage from a model's configuration and the record of its training."""
    lightning = config["lightning_module"]
    denoiser = (lightning.get("diffusion_module") or {}).get("model") or {}
    conditions = [
        name for key in ("property_embeddings", "property_embeddings_adapt") for name in denoiser.get(key) or {}
    ]
    return Stage(
        run=name,
        command=start.get("command"),
        recipe=start.get("recipe"),
        starts_from=start.get("starts_from"),
        descriptors=list(lightning.get("descriptors") or {}),
        conditions=conditions,
        **record.model_dump(include={"epochs", "steps", "hours", "loss_first", "loss_last"}),
    )


def _stages_of_card(folder: Path) -> list[Stage]:
    """The stages that a model folder tells; one, of its last training, for a card without."""
    card = read_card(folder / CARD)
    return card.stages or [_stage(card.name, read_plain(folder), card.training)]


def _read_run(folder: Path, epoch: int | str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and checkpoint of a run, the checkpoint chosen as mattergen-finetune does."""
    from mattergen.common.utils.data_classes import MatterGenCheckpointInfo

    config = read_plain(folder)
    try:
        path = MatterGenCheckpointInfo(str(folder), load_epoch=epoch).checkpoint_path  # type: ignore[arg-type]
    except (AssertionError, ValueError, IndexError) as error:
        raise UserError(f"{folder} holds no checkpoint '{epoch}': {error}") from None
    checkpoint = upstream.load_checkpoint(path)
    if "epoch" not in checkpoint or "global_step" not in checkpoint:
        raise UserError(f"{path} does not tell how long it was trained.")
    return config, checkpoint
