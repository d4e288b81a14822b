"""Files of an autoencoder: `autoencoder.pt` with the weights and `autoencoder.yaml` with all else.

A folder may hold other files too: the autoencoder of a joint model lies in the folder of that model.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mattergen_e.errors import UserError
from mattergen_e.networks.autoencoder.model import SHOWN, Autoencoder
from mattergen_e.networks.autoencoder.network import Network, NetworkSettings
from mattergen_e.networks.scaffold import DAMAGED
from mattergen_e.spectra.processing import AtomicDosSettings

WEIGHTS = "autoencoder.pt"
DESCRIPTION = "autoencoder.yaml"


class Description(BaseModel):
    """What `autoencoder.yaml` says.

    Attributes:
        format_version: Of these files.
        fingerprint: Identity of the autoencoder.
        network: Its shape.
        processing: Grid, smearing and semicore cut of its spectra.
        record: How it was trained and how good it is.
    """

    model_config = ConfigDict(extra="forbid")

    format_version: Literal[1] = 1
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    network: NetworkSettings
    processing: AtomicDosSettings
    record: dict[str, Any] = Field(default_factory=dict)


def save(autoencoder: Autoencoder, folder: str | Path, overwrite: bool = False) -> Path:
    """Write an autoencoder.

    Args:
        autoencoder: The autoencoder.
        folder: Where to; it is made.
        overwrite: Replace one that is there.

    Returns:
        The folder.

    Raises:
        UserError: If there is one already.
    """
    folder = Path(folder)
    if exists(folder) and not overwrite:
        raise UserError(f"{folder} holds an autoencoder already: choose another folder or add --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    description = Description(
        fingerprint=autoencoder.fingerprint,
        network=autoencoder.settings,
        processing=autoencoder.processing,
        record=autoencoder.record,
    )
    state = {name: value.detach().cpu() for name, value in autoencoder.network.state_dict().items()}
    weights, text = (folder / f".{name}.{os.getpid()}" for name in (WEIGHTS, DESCRIPTION))
    torch.save(state, weights)
    text.write_text(yaml.safe_dump(description.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    weights.replace(folder / WEIGHTS)
    text.replace(folder / DESCRIPTION)
    return folder


def exists(folder: str | Path) -> bool:
    """Whether a folder holds an autoencoder, or a part of one."""
    return any((Path(folder) / name).exists() for name in (WEIGHTS, DESCRIPTION))


def describe(folder: str | Path) -> Description:
    """Read what a folder says of its autoencoder, without its weights.

    Raises:
        UserError: If the file is missing or does not follow the schema.
    """
    path = Path(folder) / DESCRIPTION
    try:
        return Description.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: give the folder of an autoencoder (mattergen-e autoencoder train)"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path} does not describe an autoencoder: {place}: {first['msg']}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())})") from error


def load(folder: str | Path, device: str | torch.device = "cpu") -> Autoencoder:
    """Read an autoencoder and check its identity.

    Args:
        folder: With `autoencoder.pt` and `autoencoder.yaml`.
        device: Where to put the network.

    Returns:
        The autoencoder.

    Raises:
        UserError: If a file is missing or damaged, or the fingerprint is not that of the weights, the architecture, the
            grid and the processing that were read.
    """
    description, path = describe(folder), Path(folder) / WEIGHTS
    with torch.random.fork_rng(devices=[]):  # the first weights are random
        network = Network(description.network)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: the folder holds only a part of an autoencoder") from None
    except DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} does not hold the weights of this autoencoder ({reason}): copy it anew") from error
    autoencoder = Autoencoder(network, description.processing, description.record)
    if autoencoder.fingerprint != description.fingerprint:
        raise UserError(
            f"{folder} was changed: its files belong to autoencoder {autoencoder.fingerprint[:SHOWN]}, but say "
            f"{description.fingerprint[:SHOWN]}; copy both files anew from where it was trained"
        )
    return autoencoder.to(device)
