"""Cells so absurd that a comparison would not end, or not fit into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pymatgen.core import Lattice

#: Largest cube of the longest vector of a reduced cell over the volume.
MAX_SLENDERNESS = 1e5
#: The same of a cell as it comes, which may be any basis of a decent lattice, as far as rounding allows to reduce it.
MAX_SKEWNESS = 1e12
#: The same of a cell that is decent as it comes.
MAX_COMPACTNESS = 6
#: Most copies of a cell among which pymatgen looks for the vectors of the reduced one.
MAX_COPIES = 5e7
#: Largest array of intermediate results, in elements.
MAX_ELEMENTS = 20_000_000
#: Most lattice mappings of one pair that pymatgen is asked about.
MAX_MAPPINGS = 20_000


class TooLarge(ValueError):
    """A comparison that is not made; the message says why."""


def check_size(lattice: Lattice) -> None:
    """Check that a lattice can be reduced.

    Raises:
        TooLarge: If it has no finite numbers, no volume, or is far too slender or skewed.
    """
    if not np.isfinite(lattice.matrix).all():
        raise TooLarge("the cell is not made of finite numbers")
    _check_slenderness(lattice.matrix, MAX_SKEWNESS, "the cell")
    longest = _check_slenderness(lattice.lll_matrix, MAX_SLENDERNESS, "the reduced cell")
    copies = np.prod(2 * np.ceil(longest * np.linalg.norm(np.linalg.inv(lattice.matrix), axis=0)) + 1)
    if not copies <= MAX_COPIES:
        raise TooLarge("the cell is so skewed that it takes too long to reduce it")


def is_compact(matrix: NDArray[np.float64]) -> bool:
    """Whether a cell (3, 3) certainly passes `check_size`, and serves as it is where any basis of its lattice does.

    With a longest vector L, a volume V and L^3 <= 6 V: no lattice vector but zero is shorter than V / L^2, the least
    distance of lattice planes. The product of the vectors of an LLL-reduced cell is at most 2^1.5 V, so that its
    longest vector is below 2^1.5 L^4 / V; the cube of that is below 23 (L^3 / V)^4 V < 3e4 V, and there are fewer
    than (2^2.5 (L^3 / V)^2 + 3)^3 < 1e7 copies.
    """
    with np.errstate(all="ignore"):
        longest = np.sqrt((matrix**2).sum(axis=1).max())
        return bool(0 < longest**3 <= MAX_COMPACTNESS * abs(np.linalg.det(matrix)))


def _check_slenderness(matrix: NDArray[np.float64], limit: float, name: str) -> float:
    """Length of the longest vector in Å."""
    with np.errstate(all="ignore"):
        volume = abs(float(np.linalg.det(matrix)))
        longest = float(np.linalg.norm(matrix, axis=1).max())
        if not longest**3 <= limit * volume:
            raise TooLarge(f"{name} has an edge of {longest:.4g} Å but a volume of only {volume:.4g} Å^3")
    return longest


def check_elements(count: float) -> None:
    """Check the size of an array before it is made.

    Raises:
        TooLarge: If it is beyond `MAX_ELEMENTS`.
    """
    if count > MAX_ELEMENTS:
        raise TooLarge("the two cells can be laid onto each other in too many ways to try")
