"""Values of a user's own properties: held against what the model's configuration tells of them, before its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import OmegaConf

from mattergen_e.diffusion.own_properties import CategoryEmbedding, ListEmbedding, OwnPropertyEmbedding, place_of
from mattergen_e.errors import UserError
from mattergen_e.generation.outline import PARTS
from mattergen_e.generation.properties import OPTION, NumberList, Word

CATEGORY = f"{CategoryEmbedding.__module__}.{CategoryEmbedding.__qualname__}"
LIST = f"{ListEmbedding.__module__}.{ListEmbedding.__qualname__}"


def read_own_conditions(properties: Any, config: Any) -> Any:
    """Reads the values of a model's own properties.

    Args:
        properties: Values by name, as typed: a value, or a list of several, which crystals are given in turn. Anything
            but a dictionary is given back as it is.
        config: The model's configuration.

    Returns:
        The same, with categories as `Word` and lists as `NumberList`.

    Raises:
        UserError: If a value is not what the property is.
    """
    if not isinstance(properties, Mapping):
        return properties
    nodes = own_nodes(config)
    return {name: _read(name, value, nodes[name]) if name in nodes else value for name, value in properties.items()}


def own_nodes(config: Any) -> dict[str, Any]:
    """The parts of a model's configuration about properties that MatterGen has no name for, by name."""
    model = OmegaConf.select(config, "lightning_module.diffusion_module.model")
    if model is None:
        return {}
    own = f"{OwnPropertyEmbedding.__module__}.{OwnPropertyEmbedding.__qualname__}"
    nodes = {str(name): node for part in PARTS for name, node in (model.get(part) or {}).items()}
    return {name: node for name, node in nodes.items() if node.get("_target_") == own}


def as_field(value: Any) -> Any:
    """A value of a condition as a field of a crystal's graph: a list as one row, (1, length)."""
    return torch.tensor([value], dtype=torch.float) if isinstance(value, NumberList) else value


def _read(name: str, value: Any, node: Any) -> Any:
    """The value of one property, or a list of several."""
    listed = isinstance(value, list | tuple) and len(value) > 0
    if str(node.conditional_embedding_module.get("_target_")) == LIST:
        several = listed and all(isinstance(item, list | tuple) for item in value)
    else:
        several = listed
    return [_read_one(name, item, node) for item in value] if several else _read_one(name, value, node)


def _read_one(name: str, value: Any, node: Any) -> Any:
    """One value of one property."""
    embedding = node.conditional_embedding_module
    target, where = str(embedding.get("_target_")), f"{OPTION}: '{name}'"
    if target == CATEGORY:
        words = [str(word) for word in embedding.categories]
        return Word(words[place_of(value, words, where)])
    if target == LIST:
        numbers = [_number(item) for item in value] if isinstance(value, list | tuple) else []
        if len(numbers) != embedding.length or not all(map(math.isfinite, numbers)):
            raise UserError(f"{where} is {value!r}: give a list of {embedding.length} numbers.")
        return NumberList(numbers)
    number = _number(value)
    if not math.isfinite(number):
        raise UserError(f"{where} is {value!r}: give a number.")
    return number


def _number(value: Any) -> float:
    """A number, also one that is written as a text; NaN for anything else."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan
