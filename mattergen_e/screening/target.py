"""The spectrum that crystals are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.errors import UserError
from mattergen_e.screening.settings import ScreenSettings
from mattergen_e.spectra.comparison import cosine
from mattergen_e.spectra.curves import Curve, check_curve, check_window, inside, on_grid
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.spectra.metrics import wasserstein
from mattergen_e.targets.files import Predict, read_curves

Values = NDArray[np.float64]
SHOWN = 8


@dataclass(frozen=True, eq=False)
class Target:
    """A spectrum on the grid of those of the crystals.

    Attributes:
        name: Of the curve.
        values: (points,) states/eV, per atom or of a site; zero where nothing is asked.
        mask: (points,) the bins that are compared.
        grid: Of both.
    """

    name: str
    values: Values
    mask: NDArray[np.bool_]
    grid: EnergyGrid

    def distances(self, spectra: NDArray[Any]) -> dict[str, Values]:
        """How far spectra are from the target, in the bins that are compared.

        Args:
            spectra: (n, points) states/eV.

        Returns:
            (n,) "cosine", 1 - the cosine of the angle, and "wasserstein", eV between the spectra normalised to unit
            area in these bins; NaN for a spectrum without states there.
        """
        shown = np.where(self.mask, np.asarray(spectra, dtype=np.float64), 0.0)
        return {
            "cosine": 1.0 - cosine(shown, np.broadcast_to(self.values, shown.shape), self.mask),
            "wasserstein": wasserstein(shown, self.values, self.grid),
        }

    def about(self) -> dict[str, Any]:
        """What is written down."""
        compared = self.grid.energies[self.mask]
        return {
            "curve": self.name,
            "grid": self.grid.model_dump(mode="json"),
            "bins_compared": len(compared),
            "from_energy": round(float(compared[0] - self.grid.step / 2), 6),
            "to_energy": round(float(compared[-1] + self.grid.step / 2), 6),
        }


def read_target(settings: ScreenSettings, grid: EnergyGrid, predict: Predict | None = None) -> Target:
    """Read the target.

    Args:
        settings: Name the file, the curve and the window.
        grid: Of the spectra of the crystals.
        predict: What supplies the spectra of a structure file.

    Raises:
        UserError: If the file cannot be read, holds several curves and none is named, or leaves nothing to compare.
    """
    if settings.window is not None:
        check_window(settings.window, grid, "--window")
    if settings.site is not None:
        predict = None
    curve = _chosen(read_curves(settings.target, predict), settings)
    where = f"{settings.target}, curve '{curve.name}'"
    check_curve(curve, where)
    values = on_grid(curve, grid).astype(np.float64)
    mask = values >= 0
    if settings.window is not None:
        mask &= inside(grid, *settings.window)
    low, high = settings.window or (grid.minimum, grid.maximum)
    if not mask.any():
        raise UserError(
            f"{where} is given from {curve.energies[0]:.4g} to {curve.energies[-1]:.4g} eV, which leaves nothing to "
            f"compare between {low:g} and {high:g} eV: energies are relative to the Fermi energy."
        )
    values = np.where(mask, values, 0.0)
    if not (values > 0).any():
        raise UserError(f"{where} has no states between {low:g} and {high:g} eV: choose a wider --window.")
    return Target(curve.name, values, mask, grid)


def _chosen(curves: Sequence[Curve], settings: ScreenSettings) -> Curve:
    names = [curve.name for curve in curves]
    listed = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    if settings.curve is None:
        if len(curves) > 1:
            raise UserError(f"{settings.target} holds {len(curves)} curves: name one by --curve ({listed}).")
        return curves[0]
    if settings.curve not in names:
        raise UserError(f"{settings.target} has no curve {settings.curve!r}: give one of {listed} as --curve.")
    return curves[names.index(settings.curve)]
