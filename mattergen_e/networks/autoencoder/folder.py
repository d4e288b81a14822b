"""Files of an autoencoder: `autoencoder.pt` and `autoencoder.yaml`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from mattergen_e.networks.autoencoder.model import Autoencoder
from mattergen_e.networks.autoencoder.network import Network, NetworkSettings
from mattergen_e.networks.folder import BaseDescription, Folder
from mattergen_e.spectra.processing import AtomicDosSettings


class Description(BaseDescription):
    """What `autoencoder.yaml` says.

    Attributes:
        network: Its shape.
        processing: Grid, smearing and semicore cut of its spectra.
        record: How it was trained and how good it is.
    """

    network: NetworkSettings
    processing: AtomicDosSettings
    record: dict[str, Any] = Field(default_factory=dict)


def _describe(autoencoder: Autoencoder) -> Description:
    return Description(
        fingerprint=autoencoder.fingerprint,
        network=autoencoder.settings,
        processing=autoencoder.processing,
        record=autoencoder.record,
    )


def _build(description: Description) -> tuple[Network, Callable[[], Autoencoder]]:
    network = Network(description.network)
    return network, lambda: Autoencoder(network, description.processing, description.record)


FOLDER = Folder[Description, Autoencoder](
    "autoencoder", "an autoencoder", "mattergen-e autoencoder train", Description, _describe, _build
)
WEIGHTS, DESCRIPTION = FOLDER.weights, FOLDER.description
save, exists, describe, load = FOLDER.save, FOLDER.exists, FOLDER.describe, FOLDER.load
