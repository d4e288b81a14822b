"""Files of a predictor: `predictor.pt` with the weights and `predictor.yaml` with all else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mattergen_e.errors import UserError
from mattergen_e.files import replacing
from mattergen_e.networks.autoencoder.model import SHOWN
from mattergen_e.networks.predictor.data import Processing
from mattergen_e.networks.predictor.model import Predictor
from mattergen_e.networks.predictor.network import Network
from mattergen_e.networks.predictor.noise import Noise
from mattergen_e.networks.predictor.settings import TIMES, NetworkSettings
from mattergen_e.networks.scaffold import DAMAGED

WEIGHTS = "predictor.pt"
DESCRIPTION = "predictor.yaml"

_PART = "{} does not exist: the folder holds only a part of a predictor"


class Description(BaseModel):
    """What `predictor.yaml` says.

    Attributes:
        format_version: Of these files.
        fingerprint: Identity of the predictor.
        network: Its shape.
        processing: How the spectra that it was trained on were made.
        variance: Mean square error of log(1 + d) by time.
        noise: Of the crystals that it was trained on; None if they were clean, or if the file is of before.
        record: How it was trained and how good it is.
    """

    model_config = ConfigDict(extra="forbid")

    format_version: Literal[1] = 1
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    network: NetworkSettings
    processing: Processing
    variance: list[float] = Field(min_length=TIMES, max_length=TIMES)
    noise: Noise | None = None
    record: dict[str, Any] = Field(default_factory=dict)


def save(predictor: Predictor, folder: str | Path, overwrite: bool = False) -> Path:
    """Write a predictor.

    Args:
        predictor: The predictor.
        folder: Where to; it is made.
        overwrite: Replace one that is there.

    Returns:
        The folder.

    Raises:
        UserError: If there is one already.
    """
    folder = Path(folder)
    if exists(folder) and not overwrite:
        raise UserError(f"{folder} holds a predictor already: choose another folder or add --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    description = Description(
        fingerprint=predictor.fingerprint,
        network=predictor.settings,
        processing=predictor.processing,
        variance=predictor.variance.tolist(),
        noise=predictor.noise,
        record=predictor.record,
    )
    with replacing(folder / WEIGHTS) as file:
        torch.save({name: value.detach().cpu() for name, value in predictor.network.state_dict().items()}, file)
    left_out = {"noise"} if predictor.noise is None else None
    with replacing(folder / DESCRIPTION) as file:
        content = description.model_dump(mode="json", exclude=left_out)
        file.write(yaml.safe_dump(content, sort_keys=False).encode())
    return folder


def exists(folder: str | Path) -> bool:
    """Whether a folder holds a predictor, or a part of one."""
    return any((Path(folder) / name).exists() for name in (WEIGHTS, DESCRIPTION))


def describe(folder: str | Path) -> Description:
    """Read what a folder says of its predictor, without its weights.

    Raises:
        UserError: If the file is missing or does not follow the schema.
    """
    path = Path(folder) / DESCRIPTION
    try:
        return Description.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: give the folder of a predictor (mattergen-e dos-predictor train)"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path} does not describe a predictor: {place}: {first['msg']}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())})") from error


def require_weights(folder: str | Path) -> None:
    """Stop when a folder has no weights beside its description.

    Raises:
        UserError: If that is so.
    """
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise UserError(_PART.format(path))


def load(folder: str | Path, device: str | torch.device = "cpu") -> Predictor:
    """Read a predictor and check its identity.

    Args:
        folder: With `predictor.pt` and `predictor.yaml`.
        device: Where to put the network.

    Returns:
        The predictor.

    Raises:
        UserError: If a file is missing or damaged, or the fingerprint is not that of what was read.
    """
    description, path = describe(folder), Path(folder) / WEIGHTS
    with torch.random.fork_rng(devices=[]):  # the first weights are random
        network = Network(description.network)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise UserError(_PART.format(path)) from None
    except DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} does not hold the weights of this predictor ({reason}): copy it anew") from error
    predictor = Predictor(network, description.processing, description.variance, description.record, description.noise)
    if predictor.fingerprint != description.fingerprint:
        raise UserError(
            f"{folder} was changed: its files belong to predictor {predictor.fingerprint[:SHOWN]}, but say "
            f"{description.fingerprint[:SHOWN]}; copy both files anew from where it was trained"
        )
    return predictor.to(device)
