"""The card of a model folder: what it says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mattergen_e.errors import UserError
from mattergen_e.limits import read_yaml

CARD = "card.yaml"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TrainingRecord(_Model):
    """How a model came about: epochs, steps, hours, seed, versions, hardware, data, and the ends of its loss curves.

    `ranges`: smallest and largest number of sites, and value of each property, of the training crystals.
    """

    epochs: int
    steps: int
    hours: float
    seed: int | None
    versions: dict[str, str]
    hardware: dict[str, Any]
    data: dict[str, str] | None
    loss_first: dict[str, float]
    loss_last: dict[str, float]
    ranges: dict[str, tuple[float, float]] = Field(default_factory=dict)


class Stage(_Model):
    """One of the training runs that led to a model, up to the checkpoint that the next one starts from.

    Attributes:
        run: Name of the run folder, or of the model folder that was made of it.
        command: 'mattergen-train' or 'mattergen-finetune'; None for a model folder, which does not tell.
        recipe: Name of the recipe; None for runs that did not record it.
        starts_from: Name of the run, model folder or published model whose weights it began with; None from scratch.
        descriptors: Names of the generated descriptors.
        conditions: Names of the properties that the model can be conditioned on.
        epochs: Number of epochs.
        steps: Number of optimiser steps.
        hours: Time of training.
        loss_first: First epoch's mean of every training and validation loss.
        loss_last: Last epoch's.
    """

    run: str
    command: str | None
    recipe: str | None
    starts_from: str | None
    descriptors: list[str]
    conditions: list[str]
    epochs: int
    steps: int
    hours: float
    loss_first: dict[str, float]
    loss_last: dict[str, float]


class Card(_Model):
    """What a model folder says of itself.

    Attributes:
        name: Name of the model.
        description: What it is for, and what it is not for.
        licence: Licence of the weights.
        data: What it was trained on, with sources, licences and split hashes.
        commands: The commands that made it, in order.
        weights_sha256: Hash over the weights.
        parameters: Number of parameters.
        training: Filled from the run; of several stages, the last.
        stages: All stages of the training in their order, as far back as their folders were there; empty in cards of
            version 0.1.
        metrics: Figures with the command that prints them.
    """

    name: str
    description: str
    licence: str
    data: list[dict[str, Any]]
    commands: list[str]
    weights_sha256: str
    parameters: int
    training: TrainingRecord
    stages: list[Stage] = Field(default_factory=list)
    metrics: list[dict[str, Any]]


def read_card(path: str | Path) -> Card:
    """Reads and validates a card.

    Raises:
        UserError: If the file is missing or does not follow the schema.
    """
    try:
        return Card.model_validate(read_yaml(path))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (ValidationError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not a model card: {str(error).splitlines()[0]}") from error
