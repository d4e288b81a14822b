"""Shapes of MatterGen's own objects, as its code and this package call them.

MatterGen's graphs are untyped to a checker: a `ChemGraph` takes any attribute, and the class of a collated batch is
made at run time. These protocols say what may be relied on, for annotations alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Graphs(Protocol):
    """One crystal or several collated: MatterGen's `ChemGraph`, its batch, and its `BatchedData`.

    `pos` (n_sites, 3) fractional, `cell` (n_crystals, 3, 3) Å, `atomic_numbers` (n_sites,), `num_atoms` (n_crystals,),
    and the fields that descriptors add.
    """

    def __getitem__(self, key: str) -> Any:
        """A field, a tensor in all but conditions that are text."""
        ...

    def __contains__(self, key: str) -> bool:
        """Whether there is such a field."""
        ...

    def replace(self, **fields: Any) -> Self:
        """The same graphs with other fields; the index of each field's rows goes along."""
        ...

    def get_batch_idx(self, field_name: str) -> Any:
        """Crystal of each row of a field, a LongTensor (rows,); None where a field has one row per crystal.

        Which of them depends on the field, so it is known where it is called, but not to a checker.
        """
        ...

    def get_batch_size(self) -> int:
        """Number of crystals."""
        ...

    def to(self, device: Any) -> Self:
        """The same graphs elsewhere."""
        ...

    def clone(self) -> Self:
        """A copy with tensors of its own."""
        ...


class Corruption(Protocol):
    """MatterGen's `MultiCorruption`: how fields are noised."""

    @property
    def T(self) -> float:
        """Time of full noise."""
        ...

    @property
    def sdes(self) -> Mapping[str, Any]:
        """Continuous processes by field."""
        ...

    @property
    def discrete_corruptions(self) -> Mapping[str, Any]:
        """Discrete processes by field."""
        ...

    @property
    def corrupted_fields(self) -> Sequence[str]:
        """Names of the fields that are noised."""
        ...

    def sample_marginal(self, batch: Any, t: Tensor) -> Any:
        """Graphs at the times t (n_crystals,), each field noised by its own process."""
        ...


class ScoreModel(Protocol):
    """A denoiser as MatterGen's samplers call it."""

    def __call__(self, x: Any, t: Tensor) -> Any:
        """Scores or logits of noisy graphs at the times t (n_crystals,), as graphs."""
        ...


#: What a torch function takes as a device.
Device = str | torch.device
