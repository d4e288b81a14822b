"""Values of a reduced cell in the cell that a user gave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from mattergen_e.descriptors.base import Descriptor
from mattergen_e.descriptors.rows import probe_positions


@dataclass(frozen=True, eq=False)
class CellMap:
    """The way back from a reduced cell; both cells are of one crystal in one Cartesian frame.

    Attributes:
        reduced: The primitive, Niggli-reduced cell.
        site_map: Site of `reduced` for each site of `given`, (n_sites,).
        given: The cell of the user.
    """

    reduced: Structure
    site_map: NDArray[np.integer]
    given: Structure

    def values(self, descriptor: Descriptor, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Values of rows of the reduced cell, (n_rows, dim), for the rows of the given one.

        Sites take the value of the site that they are, a crystal keeps its own, and the probes of the given cell take
        what lies at their place, by trilinear interpolation where no probe does. Components along the lattice vectors
        are those along the given cell's.
        """
        moved = self._moved(descriptor, values)
        return self._turned(moved) if descriptor.frame == "crystal" else moved

    def spread(self, descriptor: Descriptor, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """As `values`, of standard deviations; components along lattice vectors are taken for independent."""
        moved = self._moved(descriptor, values)
        return self._turned(moved**2, square=True) ** 0.5 if descriptor.frame == "crystal" else moved

    def _moved(self, descriptor: Descriptor, values: NDArray[np.floating]) -> NDArray[np.floating]:
        if descriptor.place == "site":
            return values[self.site_map]
        if descriptor.place == "crystal":
            return values
        at = probe_positions(descriptor.probes).numpy() @ self._basis  # in the reduced cell
        return interpolated(values.reshape(*descriptor.probes, -1), at)

    @property
    def _basis(self) -> NDArray[np.float64]:
        """Lattice vectors of the given cell in terms of the reduced one's, (3, 3): whole numbers where they are."""
        basis = self.given.lattice.matrix @ np.linalg.inv(self.reduced.lattice.matrix)
        return np.where(np.abs(basis - basis.round()) < 1e-6, basis.round(), basis)

    def _turned(self, values: NDArray[np.floating], square: bool = False) -> NDArray[np.floating]:
        """Components along the vectors of the reduced cell as those along the given cell's, (n_rows, 3 k)."""
        turn = np.linalg.inv(self._basis)
        triples = values.reshape(len(values), -1, 3)
        return (triples @ (turn**2 if square else turn)).reshape(values.shape).astype(values.dtype)


def interpolated(grid: NDArray[np.floating], at: NDArray[np.floating]) -> NDArray[np.floating]:
    """Values of a periodic grid (nx, ny, nz, dim) at fractional positions (n, 3), trilinear: (n, dim)."""
    shape = np.array(grid.shape[:3])
    place = (at % 1.0) * shape
    lower = np.floor(place + 1e-6).astype(int)
    share = np.clip(place - lower, 0.0, 1.0)
    found = np.zeros((len(at), grid.shape[3]))
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, share, 1.0 - share), axis=1)
        i, j, k = ((lower + corner) % shape).T
        found += weight[:, None] * grid[i, j, k]
    return found.astype(grid.dtype)
