"""Energy grids: every spectrum that a model learns lives on one, and two may be mixed only on the same grid."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mattergen_e.errors import UserError


class EnergyGrid(BaseModel):
    """A window of energy cut into equal bins.

    A value on the grid is the mean of the spectrum over its bin, so that `values.sum(-1) * grid.step` is the number of
    states in the window.

    Attributes:
        minimum: Lower end of the window, eV relative to the Fermi energy.
        maximum: Upper end of the window, eV relative to the Fermi energy.
        points: Number of bins.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    minimum: float = Field(allow_inf_nan=False)
    maximum: float = Field(allow_inf_nan=False)
    points: int = Field(ge=2)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.minimum >= self.maximum:
            raise ValueError("the minimum of an energy grid must lie below its maximum")
        return self

    @property
    def step(self) -> float:
        """Width of a bin in eV."""
        return (self.maximum - self.minimum) / self.points

    @property
    def edges(self) -> NDArray[np.float64]:
        """(points + 1,) edges of the bins in eV, ascending."""
        return np.linspace(self.minimum, self.maximum, self.points + 1)

    @property
    def energies(self) -> NDArray[np.float64]:
        """(points,) centres of the bins in eV, ascending."""
        return self.minimum + (np.arange(self.points) + 0.5) * self.step

    def rebin(self, spectra: ArrayLike, target: EnergyGrid) -> NDArray[np.float64]:
        """Bring spectra from the bins of this grid into those of another, the number of states kept.

        Args:
            spectra: (..., points), constant within each bin and zero outside of the window.
            target: The other grid.

        Returns:
            (..., target.points): the mean over each bin of `target`.
        """
        values = np.asarray(spectra, dtype=np.float64)
        states = np.zeros((*values.shape[:-1], self.points + 1))
        np.cumsum(values * self.step, axis=-1, out=states[..., 1:])
        place = np.clip((target.edges - self.minimum) / self.step, 0.0, self.points)
        left = np.minimum(place.astype(np.int64), self.points - 1)
        below = states[..., left] + (place - left) * (states[..., left + 1] - states[..., left])
        return np.diff(below, axis=-1) / target.step

    def __str__(self) -> str:
        return f"{self.points} points from {self.minimum:g} to {self.maximum:g} eV"


#: Spectra of sites (Okuda et al., section 4.1).
ATOMIC_GRID = EnergyGrid(minimum=-15.0, maximum=5.0, points=512)
#: Spectrum of the crystal per atom ("Density of States-Intermediated Crystal Generation", section 3 and appendix A).
TOTAL_GRID = EnergyGrid(minimum=-10.0, maximum=10.0, points=256)


def require_same(grid: EnergyGrid, other: EnergyGrid, what: str) -> None:
    """Stop when two spectra live on different grids.

    Args:
        grid: The grid that is asked for.
        other: The grid of the spectra at hand.
        what: What has the other grid, as it begins a sentence, e.g. "atomic_dos of cache X".

    Raises:
        UserError: When they differ.
    """
    if grid != other:
        raise UserError(f"{what} is on {other}, but {grid} are needed: make it again with that grid")
