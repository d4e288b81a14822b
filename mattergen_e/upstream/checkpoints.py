"""Checkpoints as data: weights and plain values, nothing that runs code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mattergen_e import provenance
from mattergen_e.errors import UserError
from mattergen_e.limits import read_yaml

#: Of a model folder; see `mattergen_e.training.card`.
CARD = "card.yaml"


def allow_harmless_classes() -> None:
    """Lets torch load containers of plain data: none of them runs code when it is rebuilt."""
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

    Configuration containers become dictionaries and lists, in which nothing is resolved.

    Raises:
        UserError: If the file is missing, damaged, holds more than weights and plain data, or weights that are not
            finite, or not those that the card of its folder tells of.
    """
    content = _plain(_load(path, mapped))
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no checkpoint but a {type(content).__name__}.")
    _verify(Path(path), content)
    return content


def _load(path: str | Path, mapped: bool) -> Any:
    import pickle

    import torch

    allow_harmless_classes()
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


def _plain(value: Any) -> Any:
    """Containers of OmegaConf as dictionaries and lists: what stands in `${...}` stays a text."""
    from omegaconf import DictConfig, ListConfig, OmegaConf

    if isinstance(value, DictConfig | ListConfig):
        return OmegaConf.to_container(value, resolve=False)
    if type(value) is dict:
        return {key: _plain(item) for key, item in value.items()}
    return value


#: Files that were verified in this process, by path, size and time of the last change.
_VERIFIED: set[tuple[Path, int, int]] = set()


def _verify(path: Path, content: dict[str, Any]) -> None:
    """Compares a checkpoint's bytes with its checksums, and its weights with the card of its folder; once a process."""
    status = path.stat()
    key = (path.absolute(), status.st_size, status.st_mtime_ns)
    if key in _VERIFIED:
        return
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            try:
                damaged = archive.testzip()
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
                damaged = str(error)
        if damaged is not None:
            raise UserError(f"{path} is damaged ({damaged}): copy it anew from where it was trained.")
    state = content.get("state_dict")
    if isinstance(state, dict):
        require_finite(state, path)
        expected = _told_by_card(path)
        if expected is not None and provenance.hash_weights(state) != expected:
            raise UserError(
                f"{path} does not hold the weights that {CARD} of its folder tells of (weights_sha256 "
                f"{expected[:12]}...): copy the whole folder anew, or make it with `mattergen-e export`."
            )
    _VERIFIED.add(key)


def require_finite(state: Mapping[str, Any], path: str | Path) -> None:
    """Checks that weights are numbers.

    Args:
        state: Tensors by name.
        path: Where they are from.

    Raises:
        UserError: If one is NaN or infinite; names it.
    """
    for name, value in state.items():
        if getattr(value, "is_floating_point", bool)() and not bool(value.isfinite().all()):
            raise UserError(
                f"{path} holds weights that are NaN or infinite ({name}): its training failed; take an earlier "
                "checkpoint, or train with a smaller learning rate."
            )


def _told_by_card(path: Path) -> str | None:
    """The hash of the weights in the card of a model folder; None if this is none, or its card does not tell."""
    card = path.parent.parent / CARD
    if path.name != "last.ckpt" or not card.is_file():
        return None
    try:
        told = read_yaml(card).get("weights_sha256")
    except (OSError, UnicodeDecodeError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"{card} cannot be read: {' '.join(str(error).split())[:200]}.") from None
    return told if isinstance(told, str) and told else None
