"""A random number per site: the control experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from mattergen_e.descriptors.base import Descriptor


@dataclass(frozen=True, kw_only=True)
class Dummy(Descriptor):
    """A standard normal number per site that means nothing (Okuda, Takahara, Mizoguchi, section 2.2).

    A gain that a joint model with this descriptor shows does not come from electrons. The numbers are drawn anew each
    time a crystal is seen, which is the distribution that a fixed random assignment to infinitely many sites has.
    """

    name: str = "dummy"

    from_cache: ClassVar[bool] = False

    def training_values(self, batch: Any) -> torch.Tensor:
        """Standard normal numbers, shape (n_sites, dim)."""
        return torch.randn(batch["pos"].shape[0], self.dim, device=batch["pos"].device)
