"""A density of states as a calculation gives it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RawDos:
    """Density of states as a calculation gives it, spins summed.

    Attributes:
        energies: (n,) ascending, eV relative to the Fermi energy.
        total: (n,) states/eV of the cell.
        sites: (n_sites, n) states/eV of each site, orbitals summed; None without projections.
        complete_to: Energy above which bands are missing (the lowest value that the highest calculated band takes), eV
            relative to the Fermi energy; None where unknown.
    """

    energies: NDArray[np.float64]
    total: NDArray[np.float64]
    sites: NDArray[np.float64] | None = None
    complete_to: float | None = None
