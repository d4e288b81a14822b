"""Files of a predictor: `predictor.pt` and `predictor.yaml`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from mattergen_e.networks.folder import BaseDescription, Folder
from mattergen_e.networks.predictor.data import Processing
from mattergen_e.networks.predictor.model import Predictor
from mattergen_e.networks.predictor.network import Network
from mattergen_e.networks.predictor.noise import Noise
from mattergen_e.networks.predictor.settings import TIMES, NetworkSettings


class Description(BaseDescription):
    """What `predictor.yaml` says.

    Attributes:
        network: Its shape.
        processing: How the spectra that it was trained on were made.
        variance: Mean square error of log(1 + d) by time.
        noise: Of the crystals that it was trained on; None if they were clean, or if the file is of before.
        record: How it was trained and how good it is.
    """

    network: NetworkSettings
    processing: Processing
    variance: list[float] = Field(min_length=TIMES, max_length=TIMES)
    noise: Noise | None = None
    record: dict[str, Any] = Field(default_factory=dict)


def _describe(predictor: Predictor) -> Description:
    return Description(
        fingerprint=predictor.fingerprint,
        network=predictor.settings,
        processing=predictor.processing,
        variance=predictor.variance.tolist(),
        noise=predictor.noise,
        record=predictor.record,
    )


def _build(description: Description) -> tuple[Network, Callable[[], Predictor]]:
    network = Network(description.network)
    return network, lambda: Predictor(
        network, description.processing, description.variance, description.record, description.noise
    )


FOLDER = Folder[Description, Predictor](
    "predictor", "a predictor", "mattergen-e dos-predictor train", Description, _describe, _build, optional=("noise",)
)
WEIGHTS, DESCRIPTION = FOLDER.weights, FOLDER.description
save, exists, describe, load = FOLDER.save, FOLDER.exists, FOLDER.describe, FOLDER.load
require_weights = FOLDER.require_weights
