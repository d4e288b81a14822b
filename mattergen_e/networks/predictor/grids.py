"""Two energy grids and the one that holds both: spectra of sites, and of the crystal per atom."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from mattergen_e.errors import UserError
from mattergen_e.spectra.grid import ATOMIC_GRID, TOTAL_GRID, EnergyGrid

#: How far edges may lie apart that count as the same, in bins.
TOLERANCE = 1e-6


class Grids(BaseModel):
    """The grids of the labels, and the common grid that the network works on.

    The common grid covers both windows with the bins of the sites' grid; a bin of the total's grid must be made of
    whole such bins.

    Attributes:
        sites: Grid of the spectra of sites.
        total: Grid of the spectrum of the crystal per atom.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    sites: EnergyGrid = ATOMIC_GRID
    total: EnergyGrid = TOTAL_GRID

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        step = self.sites.step
        for name, bins in (
            ("the width of a bin", self.total.step / step),
            ("the lower end", (self.total.minimum - self.sites.minimum) / step),
        ):
            if abs(bins - round(bins)) > TOLERANCE or (name == "the width of a bin" and round(bins) < 1):
                raise UserError(
                    f"total_dos on {self.total} does not fit atomic_dos on {self.sites}: {name} is {bins:.4g} bins of "
                    "the sites' grid, not a whole number; label anew with grids whose bins line up"
                )
        return self

    @cached_property
    def per_bin(self) -> int:
        """Bins of the common grid in one bin of the total's grid."""
        return round(self.total.step / self.sites.step)

    @cached_property
    def common(self) -> EnergyGrid:
        """The grid that covers both windows."""
        low = min(self.sites.minimum, self.total.minimum)
        high = max(self.sites.maximum, self.total.maximum)
        return EnergyGrid(minimum=low, maximum=high, points=round((high - low) / self.sites.step))

    def on_sites(self, values: Any) -> Any:
        """The part of (..., common points) that lies on the grid of the sites, (..., points)."""
        start = round((self.sites.minimum - self.common.minimum) / self.sites.step)
        return values[..., start : start + self.sites.points]

    def on_total(self, values: Any) -> Any:
        """Mean of (..., common points) over the bins of the total's grid, (..., points)."""
        start = round((self.total.minimum - self.common.minimum) / self.sites.step)
        inside = values[..., start : start + self.total.points * self.per_bin]
        return inside.reshape(*inside.shape[:-1], self.total.points, self.per_bin).mean(-1)
