"""The door to MatterGen: everything that reaches into it from outside stands here, and for its generator in
`mattergen_e.upstream.generator`. No other file patches anything.

Checked on MatterGen 1.0.3 (PyPI wheel and git checkout) with torch 2.15, pytorch-lightning 2.6 and hydra 1.3.8.
`prepare()` is called by the Hydra search path plugin as soon as one of MatterGen's applications looks for a
configuration, which each of its commands does before it builds or loads anything.

| item | reason |
| --- | --- |
| `_repair_scale_factors` | the PyPI wheel lacks `common/gemnet/gemnet-dT.json`, without which `GemNetT()` raises |
| `_allow_harmless_classes` | torch loads with `weights_only=True`; older checkpoints hold configuration containers |
| `_say_hub_errors_in_one_sentence` | without a network, a published checkpoint ends in a page of traceback |
| `watch_for_early_errors` | the same for `mattergen-generate --pretrained-name`, which asks the hub before all else |
| `register_property` | a condition must be in upstream's list before a dataset or an embedding is built |
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mattergen_e.errors import UserError

CHECKED_VERSION = "1.0.3"
DATA = Path(__file__).parent / "data"

#: What is said when compositions are given to a model, or to sampling settings, that generate the elements.
COMPOSITIONS = (
    "target_compositions needs a model trained for crystal structure prediction, without diffusion of atom types, and "
    "MatterGen's --sampling_config_name=csp."
)

#: What the user typed that leads to a configuration, by the function of MatterGen that composes it.
OPTIONS = {
    ("mattergen.common.utils.data_classes", "config"): "--model_path or --config_overrides",
    ("mattergen.generator", "_load_sampling_config"): "--sampling_config_name or --sampling_config_overrides",
}

F = TypeVar("F", bound=Callable[..., Any])


def prepare() -> None:
    """Makes MatterGen complete and its checkpoints safe to load; does nothing the second time."""
    _repair_scale_factors()
    _allow_harmless_classes()
    _say_hub_errors_in_one_sentence()


def exit_on_user_error(function: F) -> F:
    """Inside one of MatterGen's commands, a `UserError` becomes one line on stderr and exit code 2.

    Elsewhere (Python callers, our own command) the exception goes on as it is.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            if not _is_mattergen_command():
                raise
            print(f"mattergen-e: {error}", file=sys.stderr)
            raise SystemExit(2) from None

    return wrapped  # type: ignore[return-value]


def _is_mattergen_command() -> bool:
    """Whether this process is mattergen-train, -finetune or -generate (or their modules run with -m)."""
    name = Path(sys.argv[0]).stem if sys.argv else ""
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if name == "mattergen-e":  # our own command reports errors itself
        return False
    return name.startswith("mattergen-") or (main is not None and main.name.startswith("mattergen.scripts."))


# -- missing package data ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PackageData:
    """One piece of MatterGen's package data: what it is, where MatterGen looks, and what takes its place."""

    name: str
    path: Path
    carried: Path

    @property
    def present(self) -> bool:
        """Whether MatterGen has its own."""
        return self.path.exists()


def package_data() -> list[PackageData]:
    """What MatterGen needs besides code, in the order of its commands."""
    spec = importlib.util.find_spec("mattergen")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("MatterGen is not installed: run `pip install --no-deps mattergen==1.0.3`.")
    root = Path(next(iter(spec.submodule_search_locations)))
    return [
        PackageData("recipes (conf)", root / "conf", DATA / "conf"),
        PackageData("sampling settings (sampling_conf)", root.parent / "sampling_conf", DATA / "sampling_conf"),
        PackageData(
            "GemNet scale factors",
            root / "common/gemnet/gemnet-dT.json",
            DATA / "package/common/gemnet/gemnet-dT.json",
        ),
    ]


def _repair_scale_factors() -> None:
    import mattergen.common.gemnet.gemnet as gemnet

    # read as f"{MODELS_PROJECT_ROOT}/common/gemnet/gemnet-dT.json", and this module uses the root for nothing else
    if not (Path(gemnet.MODELS_PROJECT_ROOT) / "common/gemnet/gemnet-dT.json").exists():
        gemnet.MODELS_PROJECT_ROOT = DATA / "package"


# -- checkpoints ------------------------------------------------------------------------------------------------------


def _allow_harmless_classes() -> None:
    """Containers of plain data only: none of them runs code when it is rebuilt."""
    import collections
    import pathlib
    import typing

    import numpy as np
    import omegaconf.base
    import omegaconf.nodes
    import torch
    from numpy.core.multiarray import scalar  # type: ignore[attr-defined]
    from omegaconf import DictConfig, ListConfig

    nodes = omegaconf.nodes
    torch.serialization.add_safe_globals(
        [
            DictConfig,
            ListConfig,
            omegaconf.base.ContainerMetadata,
            omegaconf.base.Metadata,
            nodes.AnyNode,
            nodes.StringNode,
            nodes.IntegerNode,
            nodes.FloatNode,
            nodes.BooleanNode,
            nodes.InterpolationResultNode,
            collections.defaultdict,
            collections.OrderedDict,
            pathlib.PosixPath,
            typing.Any,
            dict,
            list,
            int,
            float,
            str,
            bool,
            tuple,
            scalar,
            np.dtype,
            *(type(np.dtype(code)) for code in ("f4", "f8", "i4", "i8", "?")),
        ]
    )


def load_checkpoint(path: str | Path, mapped: bool = False) -> dict[str, Any]:
    """A checkpoint's content on the CPU, loaded with `weights_only=True`; `mapped` leaves weights on the disk.

    Raises:
        UserError: If the file is missing, damaged, or holds more than weights and plain data.
    """
    import pickle

    import torch

    _allow_harmless_classes()
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give the folder that holds config.yaml and checkpoints/.") from None
    except pickle.UnpicklingError as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"{path} is not a safe checkpoint ({first}): it holds objects other than weights and plain data, or is "
            "damaged; take one from a source that you trust and save it with weights and plain data only."
        ) from None
    except (RuntimeError, EOFError, OSError, LookupError, ValueError) as error:  # of a file that is no checkpoint
        raise UserError(f"{path} cannot be read as a checkpoint ({error}): is it complete?") from None


def _say_hub_errors_in_one_sentence() -> None:
    import mattergen.common.utils.data_classes as data_classes

    info: Any = data_classes.MatterGenCheckpointInfo
    original = info.from_hf_hub.__func__
    if getattr(original, "_mattergen_e", False):
        return

    @functools.wraps(original)
    @exit_on_user_error
    def from_hf_hub(cls: type, model_name: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(cls, model_name, *args, **kwargs)
        except Exception as error:
            if not _is_hub_error(error):
                raise
            raise UserError(_hub_sentence(error, f"'{model_name}' ")) from error

    from_hf_hub._mattergen_e = True  # type: ignore[attr-defined]
    info.from_hf_hub = classmethod(from_hf_hub)


def _is_hub_error(error: BaseException) -> bool:
    # requests, httpx and huggingface_hub each have their own families
    module = type(error).__module__.split(".")[0]
    return isinstance(error, OSError) or module in ("huggingface_hub", "requests", "httpx", "urllib3")


def _hub_sentence(error: BaseException, name: str = "") -> str:
    return (
        f"the published checkpoint {name}is not on this machine and cannot be fetched from the Hugging Face hub "
        f"({type(error).__name__}): connect to the network once, or name a folder with --model_path "
        "(mattergen-generate) or adapter.model_path (mattergen-finetune)."
    )


def watch_for_early_errors() -> None:
    """Makes `mattergen-generate` end with one sentence when it cannot reach the hub or take what was typed.

    It asks the hub, and compares the model with --target_compositions, before the search path plugin can act. PyTorch
    calls the entry points of the group `torch.backends` when it is imported, and MatterGen's commands import it first
    of all. Any other process is left as it is.
    """
    if not _is_mattergen_command():
        return
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        functions = {(f.f_globals.get("__name__"), f.f_code.co_name) for f, _ in traceback.walk_tb(trace)}
        typed = next((words for place, words in OPTIONS.items() if place in functions), None)
        if _is_hub_error(error) and any(name == "from_hf_hub" for _, name in functions):
            sentence = _hub_sentence(error)
        elif "crystal structure prediction" in str(error) and ("mattergen.generator", "__post_init__") in functions:
            sentence = COMPOSITIONS
        elif typed and type(error).__module__.startswith(("hydra", "omegaconf")):
            sentence = f"{typed}: {' '.join(str(error).splitlines()[:2])}"
        else:
            before(kind, error, trace)
            return
        print(f"mattergen-e: {sentence}", file=sys.stderr)
        raise SystemExit(2)

    sys.excepthook = hook


# -- conditions -------------------------------------------------------------------------------------------------------

#: This package's own conditions, which are arrays: one row per crystal, read from a cache or from the user's files.
ARRAY_CONDITIONS = frozenset({"dos"})


def check_known(conditions: list[str], trained: list[str] | None) -> None:
    """Checks that a model was trained with the conditions that a user asks for.

    Args:
        conditions: Their names.
        trained: Names of those of the model; None if unknown: then nothing is checked.

    Raises:
        UserError: If one is missing.
    """
    for name in conditions if trained is not None else ():
        if name not in (trained or []):
            known = ", ".join(trained or []) or "no property"
            raise UserError(
                f"--properties_to_condition_on names '{name}', but this model was trained to be conditioned on {known}."
            )


def known_properties() -> list[str]:
    """Names of the per-crystal properties that MatterGen can be conditioned on."""
    from mattergen.common.utils.globals import PROPERTY_SOURCE_IDS

    return list(PROPERTY_SOURCE_IDS)


def register_property(name: str) -> None:
    """Adds a per-crystal condition to MatterGen's list, which is shared by reference.

    Never for a generated field: whatever the list names is taken for a condition.
    """
    from mattergen.common.utils.globals import PROPERTY_SOURCE_IDS

    if name not in PROPERTY_SOURCE_IDS:
        PROPERTY_SOURCE_IDS.append(name)
