"""One sentence in place of what Hydra prints: which key is wrong, and what is there."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any


def configuration_sentence(error: BaseException, trace: TracebackType | None) -> str | None:
    """What is said of an error of Hydra or OmegaConf.

    Args:
        error: Any error.
        trace: Its traceback, in whose frames the configuration and the files are found that the words are held against.

    Returns:
        The sentence, without what was typed; None for an error of another kind.
    """
    if not of_hydra(error):
        return None
    text, kind = str(error), type(error).__name__
    missing = re.search(r"Missing mandatory value: (\S+)", text)
    if missing:
        return f"{missing[1]} is not given: add {missing[1]}=... to the command."
    if kind == "MissingConfigException" and getattr(error, "missing_cfg_file", None):
        return _missing_file(str(vars(error)["missing_cfg_file"]), text, trace)
    if kind == "OverrideParseException":
        told = next((line for line in text.splitlines()[1:] if line), "").partition(" expecting")[0]
        return (
            f"'{getattr(error, 'override', '')}' cannot be read ({told}): write KEY=VALUE, with quotes around it all."
        )
    wrong = re.search(r"^Could not (?:override|delete from config\.) '([^']+)'", text)
    if wrong:
        return _unknown_key(wrong[1], trace)
    taken = re.search(r"An item is already at '([^']+)'", text)
    if taken:
        return f"{taken[1]} is in the recipe already: write it without '+'."
    return _instantiation(text) or " ".join(" ".join(text.splitlines()[:2]).split())


def of_hydra(error: BaseException) -> bool:
    """Whether an error is of Hydra or OmegaConf."""
    return type(error).__module__.startswith(("hydra", "omegaconf"))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, the last one first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def alike(name: str, known: Iterable[str]) -> str:
    """A list of what there is, and what was perhaps meant."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    listed = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
    return f"there are {listed or 'none'}" + (f"; did you mean {close[0]}?" if close else ".")


def _missing_file(name: str, text: str, trace: TracebackType | None) -> str:
    """A recipe or a choice of a group that is not there."""
    group, _, choice = name.rpartition("/")
    repo = _local(trace, "repo")
    try:
        found = [] if repo is None else repo.get_group_options(group)
        known = sorted(name for name in found if not name.startswith("_"))
    except Exception:  # of a repository of another version of Hydra: then the list is left out
        known = []
    if not known:
        return " ".join(" ".join(text.split("\n\n")[0].split()).split())
    return f"{group or '--config-name'}={choice}: there is no such file; {alike(choice, known)}"


def _unknown_key(key: str, trace: TracebackType | None) -> str:
    """A key that the recipe does not have."""
    config, parts = _local(trace, "cfg"), key.split(".")
    if not type(config).__module__.startswith("omegaconf"):
        return f"{key} is no setting of this recipe."
    place, node = "", config
    for part in parts:
        if not hasattr(node, "keys"):
            return f"{key} is no setting of this recipe: {place} is one value, or a list."
        inner = _get(node, part)
        if inner is None:
            known = [name for name in map(str, node) if not name.startswith("_") and name != "hydra"]
            where = f"'{part}' in {place}" if place else f"'{part}'"
            known += [] if place else [name for name in _groups(trace) if name not in known]
            return f"{key} is no setting of this recipe: there is no {where}; {alike(part, known)}"
        node, place = inner, f"{place}.{part}" if place else part
    return f"{key} is no setting of this recipe."


def _groups(trace: TracebackType | None) -> list[str]:
    """Names of the groups that a recipe may choose from."""
    from hydra.core.object_type import ObjectType

    repo = _local(trace, "caching_repo")
    return [] if repo is None else sorted(repo.get_group_options("", results_filter=ObjectType.GROUP))


def _instantiation(text: str) -> str | None:
    """What Hydra says of an object that could not be made: the key, and the error within."""
    found = re.match(r"Error (?:in call to|locating|instantiating)[^\n]*", text)
    key = re.search(r"^full_key: (\S+)", text, re.MULTILINE)
    if not found:
        return None
    inner = re.search(r"(\w+)\((['\"])(.*)\2,?\)", text, re.DOTALL)
    told = inner[3].split("\\n")[0] if inner else " ".join(text.split("full_key")[0].split())
    return f"{key[1] + ': ' if key else ''}{told}"


def _get(node: Any, part: str) -> Any:
    """The value under a key; None if there is none, or it is itself missing."""
    try:
        return node.get(part) if hasattr(node, "keys") else None
    except Exception:  # an interpolation that leads nowhere
        return None


def _local(trace: TracebackType | None, name: str) -> Any:
    """A local variable of the innermost frame that has it."""
    found = [frame.f_locals[name] for frame, _ in traceback.walk_tb(trace) if name in frame.f_locals]
    return found[-1] if found else None
