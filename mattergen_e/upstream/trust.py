"""What the configuration of a model may name: a model folder is data that somebody else may have written.

Building a model calls whatever its `_target_` entries name, and reading its configuration resolves whatever stands in
`${...}`. Here the classes are listed that a model is made of; everything else is refused before anything is composed,
resolved, imported or built. This holds for our commands and for MatterGen's own: its reader of model folders goes
through Hydra, whose search path plugin asks here first.

    the file           may name
    lightning_module   parts of MatterGen's networks, noise and losses; ours; torch's layers, optimisers and schedules;
                       classes of an installed package that registers a descriptor
    everything else    the above, and what trainings consist of: it is never built when a model is read
    ${...}             other keys of the same file; `${eval:'...'}`, which is arithmetic (see `expressions`)
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

from mattergen_e.errors import UserError
from mattergen_e.limits import load_yaml
from mattergen_e.upstream.commands import exit_on_user_error

#: Descriptors of any installed package are found by this entry point group.
DESCRIPTORS = "mattergen_e.descriptors"
#: Environment variable that switches the check off: "1". Our own commands have the option `--trust` for it.
VARIABLE = "MATTERGEN_E_TRUST"

#: What is no class of the packages below, by its whole name.
NAMED = frozenset(
    {
        "mattergen.common.diffusion.corruption.LatticeVPSDE.from_vpsde_config",
        "mattergen.denoiser.mask_disallowed_elements",
        "mattergen.diffusion.d3pm.d3pm.create_discrete_diffusion_schedule",
    }
)
#: Where MatterGen keeps what models are made of. Only classes that are defined there count.
MATTERGEN = ("adapter", "common.diffusion", "common.gemnet", "common.loss", "common.utils.data_utils", "denoiser")
MATTERGEN += ("diffusion", "property_embeddings")
#: Rooms of this package with classes that models are made of; "conditioning" holds the names of older models.
OURS = ("conditioning", "descriptors", "diffusion")
#: Parts of trainings, by whole name; never built when a model is read.
TRAINING = re.compile(
    r"pytorch_lightning\.Trainer|lightning\.pytorch\.Trainer|wandb\.Settings"
    r"|(pytorch_lightning|lightning\.pytorch)\.(callbacks|loggers|profilers|strategies)(\.ddp)?\.[A-Z]\w*"
    r"|mattergen\.common\.data\.callback\.[A-Z]\w*"
    r"|mattergen\.common\.data\.datamodule\.[A-Z]\w*"
    r"|mattergen\.common\.data\.dataset\.[A-Z]\w*(\.from_cache_path)?"
    r"|mattergen\.common\.data\.transform\.(symmetrize_lattice|set_chemical_system_string)"
    r"|mattergen\.common\.data\.dataset_transform\.filter_sparse_properties"
    r"|mattergen_e\.networks\.logger\.ResumingCSVLogger"
    r"|mattergen_e\.data\.dataset\.JointCrystalDataset\.from_cache_path"
    r"|mattergen_e\.diffusion\.site_dos\.dataset_from_cache"
    r"|mattergen_e\.(networks|training)\.callbacks\.[A-Z]\w*"
    r"|mattergen_e\.training\.trainer\.Trainer"
)
#: Calls what its `path` names, in the settings of datasets.
METHOD = "hydra.utils.get_method"
#: Keys of Hydra that bring in other files and packages when a configuration is composed.
COMPOSING = ("defaults", "hydra")
RESOLVERS = frozenset({"eval", "oc.decode", "oc.dict.keys", "oc.dict.values"})
ENVIRONMENT = frozenset({"PROJECT_ROOT", "OUTPUT_DIR"})
_PACKAGE = re.compile(r"^\s*#\s*@package", re.MULTILINE)
_INTERPOLATION = re.compile(r"\$\{\s*([^\s:}{$]*)\s*(:\s*[A-Za-z_]*|.|$)", re.DOTALL)


def trusted() -> bool:
    """Whether the user has switched the check off."""
    return os.environ.get(VARIABLE) == "1"


def trust() -> None:
    """Switches the check off in this process and in those that it starts."""
    os.environ[VARIABLE] = "1"


def check_folder(folder: str | Path) -> None:
    """Checks the configuration of a model folder before anything reads it with Hydra.

    Args:
        folder: That holds `config.yaml`.

    Raises:
        UserError: If it names what no model needs; the sentence says what, where, and how to go on.
    """
    if trusted():
        return
    found = foreign(read_plain(Path(folder)))
    if found:
        raise UserError(
            f"{Path(folder) / 'config.yaml'} names code that no model of MatterGen or of a registered descriptor needs "
            f"({'; '.join(found[:3])}{'; ...' if len(found) > 3 else ''}): nothing was built. If you know who made the "
            f"model, add --trust to mattergen-e's commands, or set {VARIABLE}=1."
        )


@exit_on_user_error
def check_at_the_door(folder: str | Path) -> None:
    """Checks a folder that Hydra is about to compose a configuration from, if it is that of a trained model.

    Raises:
        UserError: As `check_folder`; inside one of MatterGen's commands it ends the process with one line.
    """
    place = Path(folder)
    if (place / "config.yaml").is_file() and next(place.rglob("*.ckpt"), None) is not None:
        check_folder(place)


def read_plain(folder: Path) -> dict[str, Any]:
    """The configuration of a model folder as it stands in the file, nothing resolved.

    Raises:
        UserError: If there is none, or it is not that of a model.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise UserError(f"{folder} has no config.yaml: give the folder of a trained model.")
    try:
        text = file.read_text()
        config = load_yaml(text)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {' '.join(str(error).split())[:200]}.") from None
    if not isinstance(config, dict) or not isinstance(config.get("lightning_module"), dict):
        raise UserError(f"{file} is not the configuration of a MatterGen model: it has no lightning_module.")
    if _PACKAGE.search(text):
        raise UserError(f"{file} has a line '# @package', with which Hydra moves its keys: remove the line.")
    return config


def foreign(config: dict[str, Any]) -> list[str]:
    """What a configuration names beyond what models are made of, each with its key.

    Args:
        config: Content of `config.yaml`, nothing resolved.
    """
    found = [f"{key}, which brings in other files" for key in COMPOSING if key in config]
    for path, value in _leaves(config):
        where, key = ".".join(path), path[-1] if path else ""
        if key == "_target_" and not (isinstance(value, str) and _allowed(value, path[0] == "lightning_module")):
            found.append(f"{where}: {value}")
        found += [f"{where}: {text}" for text in (*path, str(value)) if _resolves(text)]
    found += [f"{'.'.join(path)}: {node.get('path')}" for path, node in _methods(config)]
    return sorted(set(found))


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All values of nested dictionaries and lists that are neither, each with its keys."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "_target_" and isinstance(item, dict | list):
                yield (*path, key), item
            yield from _leaves(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, str(index)))
    else:
        yield path, value


def _methods(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Nodes that name a function by `path` which is none of MatterGen's transforms."""
    if isinstance(value, dict):
        if value.get("_target_") == METHOD and not TRAINING.fullmatch(str(value.get("path"))):
            yield path, value
        for key, item in value.items():
            yield from _methods(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _methods(item, (*path, str(index)))


def _resolves(text: str) -> bool:
    """Whether `${...}` in a text is more than the name of a key, or arithmetic."""
    for match in _INTERPOLATION.finditer(text):
        name, after = match.groups()
        if after.startswith(":"):
            first = after.removeprefix(":").strip()
            if name not in RESOLVERS and not (name == "oc.env" and first in ENVIRONMENT):
                return True
        elif after != "}":
            return True
    return False


def _allowed(target: str, in_model: bool) -> bool:
    """Whether a `_target_` is one of those that models, or outside of `lightning_module` trainings, consist of."""
    if target in NAMED:
        return True
    if not in_model and (target == METHOD or TRAINING.fullmatch(target)):
        return True
    points = list(entry_points(group=DESCRIPTORS))
    if target in {point.value.replace(":", ".") for point in points}:
        return True
    module, _, name = target.rpartition(".")
    if not all(part.isidentifier() for part in target.split(".")):
        return False
    if module in ("torch.nn", "torch.optim", "torch.optim.lr_scheduler"):
        return _is_part_of_torch(module, name)
    packages = {point.value.split(":")[0].split(".")[0] for point in points} - {"mattergen_e"}
    rooms = {f"mattergen.{part}" for part in MATTERGEN} | {f"mattergen_e.{room}" for room in OURS} | packages
    return any(f"{module}.".startswith(f"{room}.") for room in rooms) and _is_own_class(module, name)


def _is_part_of_torch(module: str, name: str) -> bool:
    import torch

    base = {
        "torch.nn": torch.nn.Module,
        "torch.optim": torch.optim.Optimizer,
        "torch.optim.lr_scheduler": torch.optim.lr_scheduler.LRScheduler,
    }[module]
    found = getattr(importlib.import_module(module), name, None)
    return inspect.isclass(found) and issubclass(found, base)


def _is_own_class(module: str, name: str) -> bool:
    """Whether a module of an installed package defines a class of that name, itself or in the same package."""
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception:  # a module that is not there, or that cannot be imported here
        return False
    return inspect.isclass(found) and found.__module__.split(".")[0] == module.split(".")[0]
