"""The words of MatterGen's commands that take flags: unknown ones and wrong kinds are refused before all else."""

from __future__ import annotations

import functools
import inspect
import math
import re
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any

from mattergen_e.errors import UserError
from mattergen_e.upstream.commands import exit_on_user_error, is_mattergen_command
from mattergen_e.upstream.sentences import alike

#: What else says what a flag would, which people expect.
INSTEAD = {
    "seed": "the seed is set by MATTERGEN_E_SEED=1 before the command",
    "num_atoms": "numbers of sites are --sampling_config_overrides=\"['condition_loader_partial.num_atoms=[4,8]']\"",
    "load_epoch": "the epoch is --checkpoint_epoch",
    "guidance_factor": "the factor is --diffusion_guidance_factor",
}
LISTS = ("config_overrides", "sampling_config_overrides")
COUNTS = ("batch_size", "num_batches")
SWITCHES = ("record_trajectories", "strict_checkpoint_loading")


def watch_words() -> None:
    """Puts checks before the functions that `fire` calls in MatterGen's commands; does nothing the second time."""
    fire: Any = sys.modules.get("fire")
    if fire is None or getattr(fire.Fire, "_mattergen_e", False):
        return
    original = fire.Fire

    @functools.wraps(original)
    @exit_on_user_error
    def checked_fire(component: Any = None, command: Any = None, *args: Any, **kwargs: Any) -> Any:
        if is_mattergen_command() and inspect.isfunction(component) and command is None:
            check_flags(sys.argv[1:], component)
            if component.__module__ == "mattergen.scripts.generate" or "sampling_config_overrides" in _names(component):
                component = checked(component)
        return original(component, command, *args, **kwargs)

    checked_fire._mattergen_e = True  # type: ignore[attr-defined]
    fire.Fire = checked_fire


def check_flags(words: Sequence[str], function: Callable[..., Any]) -> None:
    """Refuses flags that a command does not have, which `fire` would do after the whole run.

    Args:
        words: Of the command line, without the command.
        function: What the command calls.

    Raises:
        UserError: If there is one.
    """
    names = _names(function)
    for word in words:
        if word == "--":  # fire's own flags follow
            return
        if not re.match(r"--|-[A-Za-z]", word):
            continue
        name = word.lstrip("-").partition("=")[0].replace("-", "_")
        short = len(name) == 1 and any(known.startswith(name) for known in names)
        if short or name in names or name.removeprefix("no") in names or name in ("help", "h"):
            continue
        hint = f" {INSTEAD[name]};" if name in INSTEAD else ""
        raise UserError(f"{word} is no option of this command:{hint} {alike(name, names)}")


def typed(option: str) -> bool:
    """Whether an option of the running command of MatterGen stands on its command line, and not as false."""
    if not is_mattergen_command():
        return False
    for word in sys.argv[1:]:
        name, _, value = word.partition("=")
        if name.lstrip("-").replace("-", "_") == option and word.startswith("--"):
            return value.lower() not in ("false", "0", "none")
    return False


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`mattergen-generate`'s function with its arguments checked and brought into the form that it takes."""

    @functools.wraps(function)
    @exit_on_user_error
    def call(*args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(function).bind_partial(*args, **kwargs)
        for name, value in given.arguments.items():
            given.arguments[name] = read_argument(name, value)
        check_model(given.arguments)
        return function(*given.args, **given.kwargs)

    return call


def check_model(arguments: dict[str, Any]) -> None:
    """Refuses a command that names no model, or two, or one that was never published.

    Raises:
        UserError: If it does.
    """
    from mattergen.common.utils.data_classes import PRETRAINED_MODEL_NAME

    name, path = arguments.get("pretrained_name"), arguments.get("model_path")
    published = typing.get_args(PRETRAINED_MODEL_NAME)
    if (name is None) == (path is None):
        problem = "no model is named" if name is None else "two models are named"
        raise UserError(f"{problem}: give either --model_path=FOLDER or --pretrained_name={published[0]}.")
    if name is not None and published and name not in published:
        raise UserError(f"--pretrained_name={name} is no published model: {alike(str(name), published)}")


def read_argument(name: str, value: Any) -> Any:
    """An argument of `mattergen-generate` in the form that it takes.

    Raises:
        UserError: If it is of the wrong kind.
    """
    if value is None:
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if name in COUNTS and not (number and value == int(value) and value >= 1):
        raise UserError(f"--{name} is {value!r}: give a whole number, at least 1.")
    if name in LISTS:
        return _read_list(name, value)
    if name in SWITCHES and not isinstance(value, bool):
        raise UserError(f"--{name} is {value!r}: give True or False.")
    if name == "diffusion_guidance_factor" and not number:
        raise UserError(f"--{name} is {value!r}: give a number.")
    if name == "checkpoint_epoch" and value not in ("last", "best") and not (number and value == int(value)):
        raise UserError(f"--{name} is {value!r}: give 'last', 'best' or the number of an epoch.")
    if name == "target_compositions":
        _check_compositions(value)
    if name in COUNTS:
        return int(value)
    return str(value) if name in ("output_path", "model_path", "sampling_config_name") else value


def _read_list(name: str, value: Any) -> list[str]:
    """Overrides; one without brackets is a list of one."""
    words = [value] if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else [None]
    if not all(isinstance(word, str) and re.match(r"[^\[].*=|~", word) for word in words):
        raise UserError(f"--{name} is {value!r}: write it with both quotes, --{name}=\"['KEY=VALUE', 'KEY=VALUE']\".")
    return [str(word) for word in words]


def _check_compositions(value: Any) -> None:
    wanted = value if isinstance(value, list | tuple) else [None]
    for composition in wanted:
        whole = isinstance(composition, dict) and all(
            isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in composition.values()
        )
        if not whole or not composition:
            raise UserError(
                f"--target_compositions is {value!r}: give a list of dictionaries of elements and numbers of sites, "
                "\"[{'Na': 1, 'Cl': 1}]\"."
            )


def _names(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)
