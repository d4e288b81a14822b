"""Bader charge of each site."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch_scatter import scatter

from mattergen_e.crystals.quantity import Quantity
from mattergen_e.descriptors.base import Descriptor, per_step_fraction
from mattergen_e.descriptors.measure import Measure
from mattergen_e.labels.quantities import BADER_CHARGE
from mattergen_e.spectra.grid import EnergyGrid

#: Charges (e) of all sites of a crystal that are given may sum to this.
NEUTRALITY = 0.01


@dataclass(frozen=True, kw_only=True)
class BaderCharge(Descriptor):
    """Net Bader charge in e, positive where electrons are lost; a crystal's charges sum to zero.

    The variable is scaled but not shifted, so that neutrality in scaled units is neutrality in e. During sampling the
    crystal's mean charge is subtracted progressively after each reverse update (Okuda, Takahara, Mizoguchi, eq. 6); the
    paper does not print the schedule, see `per_step_fraction` for ours. At the last step the sum is zero.

    Attributes:
        neutrality_power: Exponent of the schedule of eq. 6; larger means later.
        reference_steps: Number of reverse steps for which the schedule is stated.
    """

    name: str = "bader_charge"
    unit: str = "e"
    scale: float = 1.0
    neutrality_power: float = 4.0
    reference_steps: int = 1000

    def quantity(self) -> Quantity:
        """That of labels."""
        return replace(BADER_CHARGE, name=self.name)

    def measure(self, grid: EnergyGrid | None = None) -> Measure:
        """The mean absolute error of the sites' charges."""
        return replace(
            super().measure(grid),
            key="charge",
            column="charge_mae",
            title="Charges",
            axis="charge (e)",
            noun="charges",
        )

    def after_step(self, x: torch.Tensor, *, s: float, ds: float, batch_idx: torch.Tensor) -> torch.Tensor:
        """Subtracts a growing part of each crystal's mean charge from its sites (eq. 6)."""
        fraction = per_step_fraction(s, ds, self.neutrality_power, self.reference_steps)
        # a size from the host, of at least n_crystals: asking for the largest index would make a GPU wait
        mean = scatter(x, batch_idx, dim=0, dim_size=len(x), reduce="mean")
        return x - fraction * mean[batch_idx]

    def after_step_free(
        self, x: torch.Tensor, free: torch.Tensor, *, s: float, ds: float, batch_idx: torch.Tensor
    ) -> torch.Tensor:
        """The free sites of a crystal share the excess of all its sites (eq. 6)."""
        fraction = per_step_fraction(s, ds, self.neutrality_power, self.reference_steps)
        excess = scatter(x, batch_idx, dim=0, dim_size=len(x), reduce="sum")
        movable = scatter(free.to(x)[:, None], batch_idx, dim=0, dim_size=len(x), reduce="sum").clamp(min=1)
        return x - fraction * (excess / movable)[batch_idx] * free[:, None]

    def impossible(self, values: NDArray[np.floating]) -> str | None:
        """Charges of a whole crystal that are not neutral."""
        total = float(values.sum())
        if abs(total) <= NEUTRALITY:
            return None
        return (
            f"the {self.name} values of all {len(values)} sites sum to {total:+.3g} e, but a crystal is neutral: "
            "change them, or leave a site free to make up for it"
        )
