"""From a training run to a model folder that can be shared: weights, configuration and a card."""

from __future__ import annotations

import csv
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mattergen_e import provenance, upstream
from mattergen_e.data.cache import list_sites
from mattergen_e.errors import UserError
from mattergen_e.prediction.accuracy import ELEMENT_MEANS, save_means, train_means
from mattergen_e.training.callbacks import RECORD

CARD = "card.yaml"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TrainingRecord(_Model):
    """How a model came about: epochs, steps, hours, seed, versions, hardware, data, and the ends of its loss curves."""

    epochs: int
    steps: int
    hours: float
    seed: int | None
    versions: dict[str, str]
    hardware: dict[str, Any]
    data: dict[str, str] | None
    loss_first: dict[str, float]
    loss_last: dict[str, float]


class Card(_Model):
    """What a model folder says of itself.

    Attributes:
        name: Name of the model.
        description: What it is for, and what it is not for.
        licence: Licence of the weights.
        data: What it was trained on, with sources, licences and split hashes.
        commands: The commands that made it, in order.
        weights_sha256: Hash over the weights.
        parameters: Number of parameters.
        training: Filled from the run.
        metrics: Figures with the command that prints them.
    """

    name: str
    description: str
    licence: str
    data: list[dict[str, Any]]
    commands: list[str]
    weights_sha256: str
    parameters: int
    training: TrainingRecord
    metrics: list[dict[str, Any]]


def read_card(path: str | Path) -> Card:
    """Reads and validates a card.

    Raises:
        UserError: If the file is missing or does not follow the schema.
    """
    try:
        return Card.model_validate(yaml.safe_load(Path(path).read_text()))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (ValidationError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not a model card: {str(error).splitlines()[0]}") from error


def export(
    run: str | Path,
    out: str | Path,
    *,
    notes: dict[str, Any] | None = None,
    cache: str | Path | None = None,
    overwrite: bool = False,
) -> Card:
    """Writes a run's last checkpoint as a model folder without optimiser state and without paths.

    The folder holds `config.yaml` and `checkpoints/last.ckpt`, as MatterGen's commands expect, and `card.yaml`.

    Args:
        run: Run folder of mattergen-train or mattergen-finetune with one of this package's recipes.
        out: Folder to write; must not exist unless `overwrite`.
        notes: The parts of the card that a run cannot know: name, description, licence, data, commands, metrics.
        cache: Cache that the run was trained on; the element means of its training split go into the folder.
        overwrite: Replace an existing folder.

    Returns:
        The card.

    Raises:
        UserError: If the run has no checkpoint or configuration, or `out` exists.
    """
    source, target = Path(run), Path(out)
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists: choose another --out or add --overwrite.")
    checkpoint_path = source / "checkpoints" / "last.ckpt"
    config_path = source / "config.yaml"
    if not config_path.is_file():
        raise UserError(f"{source} holds no config.yaml: give the folder of a training run.")
    checkpoint = upstream.load_checkpoint(checkpoint_path)
    config = _shareable(yaml.safe_load(config_path.read_text()))
    state = {name: tensor.clone() for name, tensor in checkpoint["state_dict"].items()}
    record = checkpoint.get(RECORD, {})
    card = _card(source, target, checkpoint, state, record, notes or {})
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        _write(staging, config, state, checkpoint, record, card)
        if cache is not None:
            names = list(config["lightning_module"].get("descriptors", {}))
            means = {name: train_means(cache, name) for name in names if name in list_sites(Path(cache) / "train")}
            save_means(staging / ELEMENT_MEANS, means)
        if target.exists():
            shutil.rmtree(target)
        staging.chmod(0o755)
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return card


def _shareable(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a run's configuration that builds the model; the rest names folders of a machine."""
    return {
        "lightning_module": config["lightning_module"],
        "data_module": {"properties": config.get("data_module", {}).get("properties", [])},
    }


def _write(folder: Path, config: dict, state: dict, checkpoint: dict, record: dict, card: Card) -> None:
    import torch

    (folder / "checkpoints").mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    kept = {
        "state_dict": state,
        "config": config,
        "epoch": checkpoint["epoch"],
        "global_step": checkpoint["global_step"],
        "pytorch-lightning_version": checkpoint["pytorch-lightning_version"],
        RECORD: record,
    }
    torch.save(kept, folder / "checkpoints" / "last.ckpt")
    (folder / CARD).write_text(yaml.safe_dump(card.model_dump(), sort_keys=False, allow_unicode=True, width=110))


def _card(
    source: Path, target: Path, checkpoint: dict, state: dict, record: dict[str, Any], notes: dict[str, Any]
) -> Card:
    first, last = _loss_ends(source / "metrics.csv")
    written = {"name": target.name, "description": "", "licence": "", "data": [], "commands": [], "metrics": []}
    try:
        return Card(
            **(written | notes),
            weights_sha256=provenance.hash_weights(state),
            parameters=sum(tensor.numel() for tensor in state.values()),
            training=TrainingRecord(
                epochs=int(checkpoint["epoch"]) + 1,
                steps=int(checkpoint["global_step"]),
                hours=round(float(record.get("seconds", 0.0)) / 3600, 2),
                seed=record.get("seed"),
                versions=record.get("versions", {}),
                hardware=record.get("hardware", {}),
                data=record.get("data"),
                loss_first=first,
                loss_last=last,
            ),
        )
    except (ValidationError, TypeError) as error:
        raise UserError(f"the notes for the card are not right: {str(error).splitlines()[0]}") from error


def _loss_ends(path: Path) -> tuple[dict[str, float], dict[str, float]]:
    """First and last epoch's mean of every loss in a CSV logger's file."""
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    if not path.is_file():
        return first, last
    with open(path, newline="") as handle:
        for row in csv.DictReader(handle):
            for name, value in row.items():
                if value and name.endswith(("_val", "_train_epoch")):
                    first.setdefault(name, round(float(value), 4))
                    last[name] = round(float(value), 4)
    return first, last
