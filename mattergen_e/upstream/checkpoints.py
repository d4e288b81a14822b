"""Checkpoints as data: weights and plain values, nothing that runs code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mattergen_e.errors import UserError


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

    Raises:
        UserError: If the file is missing, damaged, or holds more than weights and plain data.
    """
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
