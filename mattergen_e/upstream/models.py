"""Loading a trained model from its folder."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from mattergen_e.errors import UserError
from mattergen_e.upstream import load_checkpoint, prepare
from mattergen_e.upstream.trust import check_folder


def load_model(path: str | Path, *, epoch: int | str = "last", device: str | None = None) -> Any:
    """Builds the model that a folder describes and loads its weights.

    Args:
        path: Folder with `config.yaml` and `checkpoints/`, as MatterGen's commands write and read it.
        epoch: 'last', 'best' or an epoch's number.
        device: Where to put it; by default the GPU if there is one.

    Returns:
        MatterGen's Lightning module, in evaluation mode; a joint model has `descriptors`.

    Raises:
        UserError: If the folder does not hold a model, names code that no model needs, or is damaged, or this
            installation cannot build it.
    """
    folder = Path(path).resolve()
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} holds no config.yaml: give the folder of a trained model with --model_path.")
    check_folder(folder)
    if not any(folder.rglob("*.ckpt")):
        raise UserError(f"{folder} holds no checkpoint (*.ckpt): did its training end?")
    with contextlib.redirect_stdout(io.StringIO()):  # MatterGen prints its root folder on import
        from mattergen.common.utils.data_classes import MatterGenCheckpointInfo
        from mattergen.common.utils.eval_utils import load_model_diffusion
        from mattergen.common.utils.globals import get_device
    prepare()
    info = MatterGenCheckpointInfo(str(folder), load_epoch=epoch)  # type: ignore[arg-type]
    try:
        load_checkpoint(info.checkpoint_path)
        model = load_model_diffusion(info)
    except (AssertionError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"the checkpoint in {folder} does not fit its config.yaml: {first}") from error
    except Exception as error:
        if not type(error).__module__.startswith(("hydra", "omegaconf")):
            raise
        raise UserError(
            f"{folder}/config.yaml cannot be built by this installation ({str(error).splitlines()[0]}): "
            "`mattergen-e doctor --model_path` tells what is missing."
        ) from error
    return model.to(device or get_device()).eval()
