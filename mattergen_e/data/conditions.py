"""Spectra of training crystals as conditions: read from a cache, brought onto the grid of the condition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from mattergen_e.data.cache import load_manifest, open_crystals
from mattergen_e.errors import UserError
from mattergen_e.spectra.curves import NOT_GIVEN
from mattergen_e.spectra.grid import TOTAL_GRID, EnergyGrid

#: Array of the cache that holds a condition, by the condition's name; the names are `upstream.ARRAY_CONDITIONS`.
CACHED = {"dos": "total_dos"}


def read_labels(split_dir: str | Path, name: str) -> NDArray[np.float32]:
    """Read the labels of a condition that is an array.

    Args:
        split_dir: `<cache>/<split>`.
        name: Of the condition: dos.

    Returns:
        (crystals, points) on `TOTAL_GRID`, states/eV per atom, `NOT_GIVEN` in bins that a label does not reach; a row
        of NaN where a crystal has none. Labels on another grid are brought onto this one, their area kept.

    Raises:
        UserError: If the cache has none, or does not tell on which energies they are.
    """
    folder = Path(split_dir)
    values = open_crystals(folder, CACHED[name])
    grid = _grid(folder, CACHED[name], values)
    return values if grid == TOTAL_GRID and not _partial(values).any() else onto(values, grid, TOTAL_GRID)


def onto(spectra: NDArray[np.floating], grid: EnergyGrid, target: EnergyGrid) -> NDArray[np.float32]:
    """Bring spectra from the bins of one grid into those of another.

    Args:
        spectra: (n, points of `grid`) states/eV, NaN where unknown.
        grid: Of the spectra.
        target: Of the result.

    Returns:
        (n, points of `target`) float32, `NOT_GIVEN` in bins that are not wholly covered by known ones; rows that are
        unknown everywhere stay NaN.
    """
    values = np.asarray(spectra, dtype=np.float64)
    known = np.isfinite(values)
    share = grid.rebin(known.astype(np.float64), target)
    result = np.where(share > 1 - 1e-6, grid.rebin(np.where(known, values, 0.0), target), NOT_GIVEN)
    result[~known.any(axis=1)] = np.nan
    return result.astype(np.float32)


def _partial(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which rows are known in a part of the bins only."""
    known = np.isfinite(values)
    return known.any(axis=1) & ~known.all(axis=1)


def _grid(folder: Path, name: str, values: NDArray[np.floating]) -> EnergyGrid:
    """The grid that the manifest tells; without a word of it, the number of points must be the usual one."""
    made = load_manifest(folder).processing.get(name)
    try:
        grid = EnergyGrid(**made["grid"]) if made else TOTAL_GRID
    except (ValidationError, KeyError, TypeError) as error:
        raise UserError(f"The manifest of {folder.parent} tells no grid of {name!r}: build the cache anew.") from error
    if values.ndim != 2 or values.shape[1] != grid.points:
        raise UserError(
            f"{name!r} in {folder} has {values.shape[-1]} values per crystal, but {grid} are expected: build the cache "
            "from labels of 'mattergen-e data label', which tells the grid."
        )
    return grid
