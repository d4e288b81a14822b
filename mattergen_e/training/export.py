"""From a training run to a model folder that can be shared: weights, configuration and a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mattergen_e import provenance, upstream
from mattergen_e.data.cache import list_sites
from mattergen_e.descriptors.autoencoder_slot import ENTRY
from mattergen_e.errors import UserError
from mattergen_e.files import appearing
from mattergen_e.journal import claim
from mattergen_e.networks.callbacks import RECORD
from mattergen_e.prediction.accuracy import ELEMENT_MEANS, save_means, train_means
from mattergen_e.training.card import CARD, Card, read_card
from mattergen_e.training.stages import find_stages, training_record
from mattergen_e.upstream.trust import check_folder, read_plain


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
        overwrite: Replace a model folder.

    Returns:
        The card.

    Raises:
        UserError: If the run has no checkpoint or configuration, or `out` exists, is no model folder, or holds the run.
    """
    source, target = Path(run), Path(out)
    _check_target(source, target, overwrite)
    checkpoint_path = source / "checkpoints" / "last.ckpt"
    check_folder(source)
    whole = read_plain(source)
    checkpoint = upstream.load_checkpoint(checkpoint_path)
    config = _shareable(whole)
    state = {name: tensor.clone() for name, tensor in checkpoint["state_dict"].items()}
    card = _card(source, target, whole, checkpoint, state, notes or {})
    with claim(target):
        _check_target(source, target, overwrite)  # as a killed process left it, or another one
        with appearing(target) as folder:
            _write(folder, config, state, checkpoint, card)
            if cache is not None:
                descriptors = config["lightning_module"].get("descriptors", {})
                names = [name for name, settings in descriptors.items() if "autoencoder" not in settings]  # no spectra
                means = {name: train_means(cache, name) for name in names if name in list_sites(Path(cache) / "train")}
                save_means(folder / ELEMENT_MEANS, means)
            _check_target(source, target, overwrite)
    return card


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    """Lets only a model folder be replaced, and never the run."""
    if source.resolve().is_relative_to(target.resolve()):
        raise UserError(f"{target} is or holds the run {source}: choose another --out.")
    if not target.exists():
        return
    if not overwrite:
        raise UserError(f"{target} exists: choose another --out or add --overwrite.")
    try:
        read_card(target / CARD)
    except (UserError, OSError) as error:
        reason = str(error).rstrip(".") if isinstance(error, UserError) else f"{target} cannot be read"
        raise UserError(f"{reason}, so --overwrite does not replace {target}: choose another --out.") from None


def _shareable(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a run's configuration that builds the model; the rest names folders of a machine.

    An autoencoder lies in the weights; the folder that it came from is needed in training only.
    """
    lightning = dict(config["lightning_module"])
    if "descriptors" in lightning:
        lightning["descriptors"] = {
            name: settings | {"autoencoder": None} if "autoencoder" in settings else settings
            for name, settings in lightning["descriptors"].items()
        }
    return {
        "lightning_module": lightning,
        "data_module": {"properties": config.get("data_module", {}).get("properties", [])},
    }


def _write(folder: Path, config: dict, state: dict, checkpoint: dict, card: Card) -> None:
    import torch

    (folder / "checkpoints").mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    kept = {
        "state_dict": state,
        "config": config,
        "epoch": checkpoint["epoch"],
        "global_step": checkpoint["global_step"],
        "pytorch-lightning_version": checkpoint["pytorch-lightning_version"],
        RECORD: checkpoint.get(RECORD, {}),
    }
    torch.save(kept, folder / "checkpoints" / "last.ckpt")
    (folder / CARD).write_text(
        yaml.safe_dump(card.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
    )


def _card(source: Path, target: Path, config: dict, checkpoint: dict, state: dict, notes: dict[str, Any]) -> Card:
    training, stages = training_record(source, checkpoint), find_stages(source, config, checkpoint)
    written = {"name": target.name, "description": "", "licence": "", "data": [], "commands": [], "metrics": []}
    try:
        return Card(
            **(written | notes),
            weights_sha256=provenance.hash_weights(state),
            parameters=sum(t.numel() for name, t in state.items() if not name.endswith(f".{ENTRY}")),
            training=training,
            stages=stages,
        )
    except (ValidationError, TypeError) as error:
        raise UserError(f"the notes for the card are not right: {str(error).splitlines()[0]}") from error
