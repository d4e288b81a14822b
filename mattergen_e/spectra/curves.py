"""A spectrum that crystals shall have: on any energies when it is given, on the grid of the models afterwards.

A spectrum on the grid is float32 (points,), states/eV per atom. Bins that nothing is asked of hold `NOT_GIVEN`: no
density of states is negative, and MatterGen takes a condition with a NaN for none at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mattergen_e.errors import UserError
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.spectra.processing import FLOOR, NEGATIVE_SHARE, REACH, resample

#: Value of a bin that nothing is asked of.
NOT_GIVEN = -1.0

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """A density of states as it was given.

    Attributes:
        name: What its results go by.
        energies: (n,) ascending, eV relative to the Fermi energy.
        dos: (n,) states/eV per atom; NaN where nothing is asked for.
        smearing: Standard deviation of the Gaussian that it is still to be smeared with, eV.
        known: Energies between which it is known, eV; None: between its first and last energy.
    """

    name: str
    energies: Array
    dos: Array
    smearing: float = 0.0
    known: tuple[float, float] | None = None


def check_curve(curve: Curve, where: str) -> None:
    """Check that a curve is a density of states.

    Args:
        curve: The curve.
        where: The file and the curve, as they begin a sentence.

    Raises:
        UserError: If its energies or values are no such numbers, or it is negative or zero everywhere.
    """
    energies, dos = curve.energies, curve.dos
    if energies.ndim != 1 or dos.shape != energies.shape or len(energies) < 2:
        raise UserError(
            f"{where} has {dos.size} values for {energies.size} energies: give one value per energy, two or more."
        )
    if not np.all(np.abs(energies) < 1e6) or np.any(np.diff(energies) <= 0):
        raise UserError(f"{where} has energies that are not finite and ascending: sort them and drop what is double.")
    if not np.any(np.isfinite(dos)) or np.any(np.abs(dos) > 1e12):  # NaN is no larger than anything
        raise UserError(f"{where} holds infinite values, or none at all: give states/eV, NaN where nothing is asked.")
    lowest, highest = float(np.nanmin(dos)), float(np.nanmax(dos))
    if lowest < -(NEGATIVE_SHARE * max(highest, 0.0) + FLOOR):
        energy = energies[int(np.nanargmin(dos))]
        raise UserError(f"{where} falls to {lowest:.3g} states/eV at {energy:.2f} eV: a density of states is positive.")
    if highest <= 0:
        raise UserError(
            f"{where} is zero everywhere: give a spectrum with states, and a window if only a part of it matters."
        )


def on_grid(curve: Curve, grid: EnergyGrid) -> NDArray[np.float32]:
    """A curve averaged over the bins of a grid, its area kept.

    Between its energies it is read as piecewise linear. A bin is given if its centre is within the known range (and
    half a spacing, or a bin, around it, for a point stands for its surroundings) and next to no unknown point.

    Args:
        curve: Passed `check_curve`.
        grid: Of the result.

    Returns:
        (points,) states/eV per atom, `NOT_GIVEN` where unknown. What is negative becomes zero.
    """
    energies, unknown = curve.energies, np.isnan(curve.dos)
    dos = np.where(unknown, 0.0, curve.dos)
    same = len(energies) == grid.points and np.allclose(energies, grid.energies, rtol=0, atol=0.01 * grid.step)
    if same and curve.smearing == 0:
        values, given = dos, ~unknown
    else:
        reach = REACH * curve.smearing + 2 * grid.step
        padded = np.concatenate([[energies[0] - reach], energies, [energies[-1] + reach]])
        values = resample(padded, np.pad(dos, 1, mode="edge"), grid, curve.smearing)
        low, high = curve.known or (energies[0], energies[-1])
        low -= min(0.5 * (energies[1] - energies[0]), grid.step) + 1e-9
        high += min(0.5 * (energies[-1] - energies[-2]), grid.step) + 1e-9
        given = inside(grid, low, high) & (np.interp(grid.energies, energies, unknown.astype(float)) == 0)
    return np.where(given, np.maximum(values, 0.0), NOT_GIVEN).astype(np.float32)


def inside(grid: EnergyGrid, low: float, high: float) -> NDArray[np.bool_]:
    """Which bins have their centre between two energies (eV), shape (points,)."""
    return (grid.energies >= low) & (grid.energies <= high)


def check_window(window: tuple[float, float], grid: EnergyGrid, where: str) -> None:
    """Check that a window (eV) lies on the grid and holds a bin.

    Raises:
        UserError: If it does not.
    """
    low, high = window
    if not grid.minimum <= low < high <= grid.maximum:
        raise UserError(
            f"{where}: the window [{low:g}, {high:g}] eV is none of the grid: give two ascending energies from "
            f"{grid.minimum:g} to {grid.maximum:g} eV."
        )
    if not inside(grid, low, high).any():
        raise UserError(f"{where}: the window [{low:g}, {high:g}] eV holds no bin: make it wider.")


def whole_spectrum(
    value: Sequence[float] | NDArray[np.floating] | Curve, grid: EnergyGrid, where: str
) -> NDArray[np.float32]:
    """A spectrum on the whole of a grid, (points,) states/eV.

    Args:
        value: A curve, or a number per point of the grid.
        grid: Energies that all have to be given.
        where: Where it stands, as it begins a sentence.

    Raises:
        UserError: If it has another number of points, does not reach over the grid, or has no states on it.
    """
    if not isinstance(value, Curve):
        if len(value) != grid.points:
            raise UserError(f"{where} has {len(value)} numbers: give a spectrum as {{file: FILE}}, or {grid}.")
        value = Curve(where, grid.energies, np.array(value, dtype=np.float64))
    found = on_grid(value, grid)
    if (found < 0).any():
        low, high = value.energies[0], value.energies[-1]
        raise UserError(
            f"{where} is given from {low:.4g} to {high:.4g} eV, but all of {grid} is needed: give zeros where there "
            "are no states."
        )
    if not (found > 0).any():
        raise UserError(f"{where} has no states between {grid.minimum:g} and {grid.maximum:g} eV.")
    return found
