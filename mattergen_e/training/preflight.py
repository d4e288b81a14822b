"""What is held against a recipe before its training begins: places, kinds of values, what the pretrained model has."""

from __future__ import annotations

import re
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from mattergen_e.errors import UserError
from mattergen_e.training.trainer import existing_training
from mattergen_e.upstream import exit_on_user_error
from mattergen_e.upstream.trust import check_folder, read_plain

#: Least values of settings of recipes.
LEAST = {
    "trainer.max_epochs": -1,
    "trainer.accumulate_grad_batches": 1,
    "trainer.num_nodes": 1,
    "data_module.batch_size.train": 1,
    "data_module.batch_size.val": 1,
    "data_module.num_workers.train": 0,
    "data_module.num_workers.val": 0,
}
RATE = "lightning_module.optimizer_partial.lr"
START = ("property_embeddings", "property_embeddings_adapt")


class Preflight(Callback):
    """Checks a recipe when one of MatterGen's commands has composed it, before its run folder is touched."""

    @exit_on_user_error
    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Checks the recipe, and makes places relative to where the command was typed absolute.

        Raises:
            UserError: If the training cannot begin.
        """
        check_recipe(config, Path.cwd())


def check_recipe(config: DictConfig, here: Path) -> None:
    """Refuses what a training would fail on later.

    Args:
        config: The composed recipe, with Hydra's own part; places in it are made absolute.
        here: Folder that they are relative to.

    Raises:
        UserError: If it cannot be trained.
    """
    check_values(config)
    _check_data(config, here)
    for name in OmegaConf.select(config, "lightning_module.descriptors") or {}:
        _make_absolute(config, f"lightning_module.descriptors.{name}.autoencoder", here)
    if "adapter" in config:
        check_start(config, here)
        run = OmegaConf.select(config, "hydra.run.dir")
        if run is not None:
            existing_training(here / str(run))


# -- values -----------------------------------------------------------------------------------------------------------


def check_values(config: DictConfig) -> None:
    """Refuses numbers that are none, or too small.

    Raises:
        UserError: If a value is of the wrong kind.
    """
    rate = OmegaConf.select(config, RATE, throw_on_missing=False)
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0):
        raise UserError(f"{RATE} is {rate!r}: give a number above 0, such as 1e-4.")
    for key, least in LEAST.items():
        value = OmegaConf.select(config, key, throw_on_missing=False)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and (not whole or value < least or (value == 0 and key == "trainer.max_epochs")):
            raise UserError(f"{key} is {value!r}: give a whole number, at least {max(least, 0)}.")
    for word in OmegaConf.select(config, "hydra.overrides.task") or ():
        _check_override(config, str(word))


def _check_override(config: DictConfig, word: str) -> None:
    """Refuses a text or a switch where the recipe has a number."""
    key, _, _ = word.partition("=")
    if key in LEAST or key == RATE or not re.fullmatch(r"[\w.]+", key):
        return
    value = OmegaConf.select(config, key, throw_on_missing=False)
    if not isinstance(value, str | bool):
        return
    before = _without(config, word, key)
    number = isinstance(before, int | float) and not isinstance(before, bool)
    if number or (isinstance(before, bool) and isinstance(value, str)):
        kind = "a number" if number else "true or false"
        raise UserError(f"{key} is {value!r}, but it is {before} in the recipe: give {kind}.")


def _without(config: DictConfig, word: str, key: str) -> Any:
    """What the recipe has under a key without an override; None if that cannot be told."""
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra

    name = OmegaConf.select(config, "hydra.job.config_name")
    if not GlobalHydra().is_initialized() or name is None:
        return None
    words = [str(other) for other in config.hydra.overrides.task if str(other) != word]
    return OmegaConf.select(compose(name, overrides=words), key, throw_on_missing=False)


# -- places -----------------------------------------------------------------------------------------------------------


def _check_data(config: DictConfig, here: Path) -> None:
    """Refuses a cache that is not there."""
    key = "data_module.root_dir"
    if "data_module" not in config or "root_dir" not in list(config.data_module):  # one that is missing is in the list
        return
    if OmegaConf.is_missing(config.data_module, "root_dir") or config.data_module.root_dir is None:
        raise UserError(f"{key} is not given: add {key}=FOLDER, a cache that `mattergen-e data build` wrote.")
    _make_absolute(config, key, here)
    for split in ("train", "val"):
        path = OmegaConf.select(config, f"data_module.{split}_dataset.cache_path", throw_on_missing=False)
        if path is None or Path(path).is_dir():
            continue
        root = Path(str(config.data_module.root_dir))
        problem = f"holds no {Path(path).name}/" if root.is_dir() else "does not exist"
        raise UserError(f"{key}={root} {problem}: give the folder that `mattergen-e data build` wrote.")


def _make_absolute(config: DictConfig, key: str, here: Path) -> None:
    """Makes a place absolute: a training works in its run folder, not where its command was typed."""
    value = OmegaConf.select(config, key, throw_on_missing=False)
    if isinstance(value, str) and not Path(value).is_absolute():
        with open_dict(config):
            OmegaConf.update(config, key, str(here / value))


# -- the pretrained model ---------------------------------------------------------------------------------------------


def check_start(config: DictConfig, here: Path) -> None:
    """Refuses a pretrained model that cannot be adapted so, and says what of it is left behind.

    Raises:
        UserError: If it is not there, or has what is to be added.
    """
    start, name = _start(config, here)
    if start is None:
        return
    asked = [str(key) for key in OmegaConf.select(config, "adapter.adapter.property_embeddings_adapt") or {}]
    lightning = start["lightning_module"]
    model = (lightning.get("diffusion_module") or {}).get("model") or {}
    base, adapted = (list(model.get(part) or {}) for part in START)
    if both := [key for key in asked if key in base]:
        raise UserError(
            f"{name} knows '{both[0]}' from its start, and no property can be adapted a second time: leave it out of "
            "adapter_property, it stays in the model."
        )
    dropped = [key for key in adapted if key not in asked]
    if dropped:
        _say(
            f"{name} was adapted to {', '.join(dropped)} before, which this training drops: "
            f"adapter_property=[{','.join([*dropped, *asked])}] keeps it, with its weights."
        )
    descriptors = OmegaConf.select(config, "lightning_module.descriptors") or {}
    lost = [key for key in lightning.get("descriptors") or {} if key not in descriptors]
    if lost:
        _say(f"{name} generates {', '.join(lost)}, which this training drops: add it to descriptors=[...] to keep it.")


def _start(config: DictConfig, here: Path) -> tuple[dict[str, Any] | None, str]:
    """Configuration of the pretrained model, where it is on this machine, and what it is called."""
    from mattergen.common.utils.data_classes import PRETRAINED_MODEL_NAME

    path = OmegaConf.select(config, "adapter.model_path")
    if path is not None:
        return _of_folder(here / str(path), OmegaConf.select(config, "adapter.load_epoch")), f"{path}"
    name, published = OmegaConf.select(config, "adapter.pretrained_name"), typing.get_args(PRETRAINED_MODEL_NAME)
    if name not in published:
        raise UserError(f"adapter.pretrained_name={name} is no published model: there are {', '.join(published)}.")
    return _published(str(name)), str(name)


def _of_folder(folder: Path, epoch: Any) -> dict[str, Any]:
    """The configuration of a model folder that has a checkpoint."""
    if not folder.is_dir():
        raise UserError(f"adapter.model_path={folder} does not exist: give the folder of a trained model.")
    if not (folder / "config.yaml").is_file():
        raise UserError(f"adapter.model_path={folder} holds no config.yaml: give the folder of a trained model.")
    found = sorted(path.stem for path in folder.rglob("*.ckpt"))
    if not found or (epoch in (None, "last") and "last" not in found):
        raise UserError(f"adapter.model_path={folder} holds no checkpoint last.ckpt: did its training end?")
    if epoch != "last" and not any(path.startswith("epoch=") for path in found):
        raise UserError(f"adapter.load_epoch={epoch}, but {folder} has {', '.join(found)}: leave load_epoch out.")
    check_folder(folder)
    return read_plain(folder)


def _published(name: str) -> dict[str, Any] | None:
    """The configuration of a published model that was fetched before."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache("microsoft/mattergen", f"checkpoints/{name}/config.yaml")
    if not isinstance(path, str):
        return None
    found = yaml.safe_load(Path(path).read_text())
    return found if isinstance(found, Mapping) and isinstance(found.get("lightning_module"), dict) else None  # type: ignore[return-value]


def _say(sentence: str) -> None:
    print(f"mattergen-e: {sentence}", file=sys.stderr)
