"""A user's own property as a condition: MatterGen's embedding under a name that MatterGen does not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mattergen.property_embeddings import BaseUnconditionalEmbeddingModule, PropertyEmbedding

from mattergen_e.crystals.checks import EntryError
from mattergen_e.crystals.own_properties import MAX_CATEGORIES, MAX_NUMBERS, Kind, category, check_name
from mattergen_e.errors import UserError
from mattergen_e.upstream import exit_on_user_error, register_property


class OwnPropertyEmbedding(PropertyEmbedding):
    """Makes its name known to MatterGen when it is built, so that a model's configuration says all that is needed."""

    @exit_on_user_error
    def __init__(
        self,
        name: str,
        conditional_embedding_module: torch.nn.Module,
        unconditional_embedding_module: BaseUnconditionalEmbeddingModule,
        scaler: torch.nn.Module,
        kind: Kind = "number",
    ) -> None:
        """Makes the embedding of a property.

        Args:
            name: Of the property.
            conditional_embedding_module: Embeds its values, (n_crystals, hidden_dim).
            unconditional_embedding_module: What stands in their place where nothing is asked.
            scaler: Brings numbers to a mean of 0 and a deviation of 1.
            kind: What the property is.

        Raises:
            UserError: If the name means something else already.
        """
        check_name(name, "the condition of this model")
        register_property(name)  # before `PropertyEmbedding`, which asks for it
        super().__init__(name, conditional_embedding_module, unconditional_embedding_module, scaler)
        self.kind = kind


class CategoryEmbedding(torch.nn.Module):
    """A vector for each word of a category, learned."""

    @exit_on_user_error
    def __init__(self, hidden_dim: int, categories: Sequence[str]) -> None:
        """Makes the vectors.

        Args:
            hidden_dim: Length of a vector, the width of the denoiser.
            categories: The words; their order is that of the weights.

        Raises:
            UserError: If there are none, too many, or the same twice.
        """
        super().__init__()
        self.categories = [str(word) for word in categories]
        if not 0 < len(self.categories) <= MAX_CATEGORIES or len(set(self.categories)) < len(self.categories):
            raise UserError(f"a category needs 1 to {MAX_CATEGORIES} different words, not {self.categories[:10]}.")
        self.embedding = torch.nn.Embedding(len(self.categories), hidden_dim)

    def forward(self, values: Any) -> torch.Tensor:
        """Embeds words.

        Args:
            values: A word per crystal, "" where it is not known, which gives zeros; or numbers, of categories that are
                numbers.

        Returns:
            (n_crystals, hidden_dim).

        Raises:
            UserError: If a word is none of the categories.
        """
        given = values.tolist() if isinstance(values, torch.Tensor) else values
        places = [-1 if value == "" else place_of(value, self.categories) for value in given]
        at = torch.tensor(places, dtype=torch.long, device=self.embedding.weight.device)
        return torch.where((at >= 0)[:, None], self.embedding(at.clamp(min=0)), 0.0)


def place_of(value: Any, categories: Sequence[str], name: str = "the category") -> int:
    """Place of a value among the words of a category.

    Raises:
        UserError: If it is none of them.
    """
    try:
        word = category(name, value)
    except EntryError:
        word = str(value)
    if word not in categories:
        raise UserError(f"{name} is {value!r}, but this model has learned {listed(categories)}: give one of these.")
    return list(categories).index(word)


def listed(categories: Sequence[str]) -> str:
    """The words of a category for a sentence, the first twenty."""
    return ", ".join(map(repr, categories[:20])) + (f" and {len(categories) - 20} more" if len(categories) > 20 else "")


class ListEmbedding(torch.nn.Module):
    """Two layers that embed a list of numbers."""

    @exit_on_user_error
    def __init__(self, hidden_dim: int, length: int) -> None:
        """Makes the layers.

        Args:
            hidden_dim: Width of the embedding, that of the denoiser.
            length: Numbers of a list.

        Raises:
            UserError: If the length makes no sense.
        """
        super().__init__()
        if not 0 < length <= MAX_NUMBERS:
            raise UserError(f"a condition is a list of {length} numbers: at most {MAX_NUMBERS} can be learned.")
        self.length = length
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(length, hidden_dim), torch.nn.GELU(), torch.nn.Linear(hidden_dim, hidden_dim)
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Embeds scaled lists.

        Args:
            values: (n_crystals, length), NaN where they are not known, which counts as the mean.

        Returns:
            (n_crystals, hidden_dim).
        """
        return self.layers(torch.nan_to_num(values.reshape(-1, self.length)))  # a NaN would spoil the gradient
