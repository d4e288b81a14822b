"""Numbers read off a spectrum ("Density of States-Intermediated Crystal Generation", appendix B).

All take spectra on a grid on which the Fermi energy lies at the edge between two bins. The paper's spectra are per atom
(`mattergen_e.spectra.processing.total_dos`), and so is then what comes out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mattergen_e.errors import UserError
from mattergen_e.spectra.grid import EnergyGrid

Values = NDArray[np.float64]


def band_gap(dos: ArrayLike, grid: EnergyGrid, sharpness: float = 10.0) -> Values:
    """Band gap by the paper's algorithm 1.

    From the Fermi energy outwards, each bin counts with the share max(0, 1 - sharpness * c), where c is the sum of the
    values of the bins up to and with it: the values as they are, in states/eV, not times the step, as printed. A gap is
    thus a whole number of bins plus shares of the first bins that hold states, and its ends lie where c reaches
    1/sharpness. It depends on the width of the bins and on the smearing, whose tails reach into the gap.

    Args:
        dos: (..., points) states/eV per atom; negative values count as zero.
        grid: Grid of the spectra, with the Fermi energy at an edge.
        sharpness: 1/(states/eV); the paper's k = K = 10.

    Returns:
        (...) eV.

    Raises:
        UserError: When the Fermi energy is at no edge of the grid, or the spectra have another number of points.
    """
    values, middle = _split(dos, grid)
    values = np.maximum(values, 0.0)
    bins = np.zeros(values.shape[:-1])
    for side in (np.flip(values[..., :middle], axis=-1), values[..., middle:]):
        bins = bins + np.maximum(1.0 - sharpness * np.cumsum(side, axis=-1), 0.0).sum(axis=-1)
    return bins * grid.step


def dos_at_fermi(dos: ArrayLike, grid: EnergyGrid) -> Values:
    """DOS at the Fermi energy: interpolated between the centres of the two bins next to it, hence their mean.

    Args:
        dos: (..., points) states/eV.
        grid: Grid of the spectra, with the Fermi energy at an edge.

    Returns:
        (...) in the unit of the spectra, states/eV (per atom).

    Raises:
        UserError: When the Fermi energy is at no edge of the grid, or the spectra have another number of points.
    """
    values, middle = _split(dos, grid)
    return values[..., middle - 1 : middle + 1].mean(axis=-1)


def states_below_fermi(dos: ArrayLike, grid: EnergyGrid) -> Values:
    """N(E_F), the states from the lower end of the window to the Fermi energy: the paper's equation 5 on a grid.

    Equation 6 prints the sum of the bins without their width, yet the unit "states" and targets such as 2.0 states per
    atom, which is of the size of the integral. So this is the integral; divided by `grid.step` it is the printed sum.

    Args:
        dos: (..., points) states/eV.
        grid: Grid of the spectra, with the Fermi energy at an edge.

    Returns:
        (...) states (per atom).

    Raises:
        UserError: When the Fermi energy is at no edge of the grid, or the spectra have another number of points.
    """
    values, middle = _split(dos, grid)
    return values[..., :middle].sum(axis=-1) * grid.step


def _split(dos: ArrayLike, grid: EnergyGrid) -> tuple[Values, int]:
    """The spectra as numbers, and how many bins lie below the Fermi energy."""
    values = np.asarray(dos, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] != grid.points:
        raise UserError(
            f"the spectra have the shape {values.shape}, but their grid has {grid}: give the grid they are on"
        )
    position = -grid.minimum / grid.step
    middle = round(position)
    if not 0 < middle < grid.points or abs(position - middle) > 1e-6:
        raise UserError(
            f"the Fermi energy (0 eV) is not at an edge between two bins of the grid ({grid}): choose a window whose "
            "ends are whole numbers of bins away from it"
        )
    return values, middle
