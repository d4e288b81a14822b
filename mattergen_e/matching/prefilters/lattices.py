"""All ways to lay one lattice onto another within tolerances, as pymatgen's `Lattice.find_all_mappings` lists them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mattergen_e.matching.limits import check_elements

#: How much wider than pymatgen's the tolerances are: far beyond rounding, far below what costs time.
LENGTH_SLACK = 1e-6
BOX_SLACK = 1e-6  # in fractional coordinates, and as a share
ANGLE_SLACK = 1e-3  # degrees; rounding makes 1e-6 of it where an angle is near 0 or 180

_FLAT = 1e-9


@dataclass(frozen=True)
class Tolerances:
    """Tolerances of a StructureMatcher.

    Attributes:
        length: Relative, `ltol`.
        angle: In degrees, `angle_tol`.
        site: Share of the cube root of the volume per site, `stol`.
    """

    length: float
    angle: float
    site: float


class Target:
    """A cell onto which others are laid.

    Attributes:
        matrix: (3, 3), rows are lattice vectors in Å.
        lengths: (3,), in Å.
        cosines: (3,), of alpha, beta, gamma.
        angles: (3,), in radians.
    """

    def __init__(self, matrix: NDArray[np.float64]) -> None:
        self.matrix = matrix
        self.lengths = np.sqrt((matrix**2).sum(axis=1))
        metric = matrix @ matrix.T
        a, b, c = self.lengths
        cosines = np.array([metric[1, 2] / (b * c), metric[0, 2] / (a * c), metric[0, 1] / (a * b)])
        self.cosines = np.clip(cosines, -1, 1)
        self.angles = np.arccos(self.cosines)
        self._limits: dict[float, tuple[list[float], list[float]]] = {}

    def cosine_limits(self, width: float) -> tuple[list[float], list[float]]:
        """Least and greatest cosine of angles within `width` degrees; beyond 0 and 180 nothing is excluded."""
        if width not in self._limits:
            low, high = np.degrees(self.angles) + width, np.degrees(self.angles) - width
            least = np.where(low >= 180, -2.0, np.cos(np.radians(low)))
            greatest = np.where(high <= 0, 2.0, np.cos(np.radians(high)))
            self._limits[width] = least.tolist(), greatest.tolist()
        return self._limits[width]


@dataclass(frozen=True)
class Mappings:
    """Ways to lay a lattice onto a target.

    Attributes:
        matrices: (k, 3, 3), integer: the mapped cell is matrix @ lattice.
        lengths: (k, 3), of the mapped cells' vectors in Å.
        angles: (k, 3), of the mapped cells, in radians.
        strain: (k,), how much lengths and angles differ from the target's, in any unit.
        tight: (k,), whether they are within pymatgen's tolerances by more than the slacks.
    """

    matrices: NDArray[np.int64]
    lengths: NDArray[np.float64]
    angles: NDArray[np.float64]
    strain: NDArray[np.float64]
    tight: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.matrices)

    def take(self, index: NDArray[np.int64]) -> Mappings:
        """The mappings of the given positions."""
        return Mappings(
            self.matrices[index], self.lengths[index], self.angles[index], self.strain[index], self.tight[index]
        )


def mappings(
    moving: NDArray[np.float64], spacing: NDArray[np.float64], target: Target, size: int, tolerances: Tolerances
) -> Mappings:
    """Integer matrices that take a lattice to cells like a target.

    A superset of what `find_all_mappings` yields with a determinant of +-`size`: the same conditions on lengths and
    angles, wider by the slacks. The mapped cells do not depend on the basis that the lattice is given in.

    Args:
        moving: (3, 3), rows are lattice vectors in Å.
        spacing: (3,), its distances of lattice planes in Å.
        target: The cell to be met.
        size: Cells of `moving` in the mapped cell.
        tolerances: Of lengths and angles.

    Raises:
        TooLarge: If there are too many lattice vectors to try.
    """
    lengths = target.lengths
    longest = (1 + tolerances.length) * (1 + LENGTH_SLACK)
    points = _points(spacing, lengths.max() * longest)
    vectors = points @ moving
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    norms[len(norms) // 2] = np.inf  # zero
    units = vectors / norms[:, None]
    shortest, furthest = lengths / longest, lengths * longest
    a, b, c = (((norms < furthest[k]) & (norms > shortest[k])).nonzero()[0] for k in range(3))
    check_elements(max(len(a) * len(b), len(a) * len(c), len(b) * len(c)))
    low, high = target.cosine_limits(tolerances.angle + ANGLE_SLACK)
    one, two, three = units[a], units[b], units[c]
    cosines = two @ three.T, one @ three.T, one @ two.T
    alpha, beta, gamma = ((product >= low[k]) & (product <= high[k]) for k, product in enumerate(cosines))
    first, second = gamma.nonzero()
    check_elements(len(first) * len(c))
    pair, third = (beta[first] & alpha[second]).nonzero()
    i, j, k = first[pair], second[pair], third
    chosen = np.array([a[i], b[j], c[k]]).T
    matrices = points[chosen]
    mapped = norms[chosen]
    angles = np.arccos(
        np.minimum(np.maximum(np.array([cosines[0][j, k], cosines[1][i, k], cosines[2][i, j]]).T, -1), 1)
    )
    ratio = np.abs(np.log(mapped / lengths)).max(axis=1)
    turn = np.abs(angles - target.angles).max(axis=1) * (180 / np.pi)
    tight = (ratio < np.log1p(tolerances.length) - LENGTH_SLACK) & (turn < tolerances.angle - ANGLE_SLACK)
    found = Mappings(matrices, mapped, angles, ratio + turn / 25, tight)
    return found.take((np.abs(_determinants(matrices)) == size).nonzero()[0])


@dataclass(frozen=True)
class AverageCells:
    """Average cells of a target and of cells mapped onto it, in which pymatgen measures distances.

    Attributes:
        matrix: (k, 3, 3), rows are lattice vectors in Å.
        radius: (k,), `stol` times the cube root of the volume per site, in Å.
        box: (k, 3), half the box of `is_coord_subset_pbc` in fractional coordinates, widened by `BOX_SLACK`.
        tight: (k,), whether the mapped cell is within pymatgen's tolerances by more than the slacks.
        flat: (k,), whether the cell is so flat that only pymatgen's own arithmetic tells.
    """

    matrix: NDArray[np.float64]
    radius: NDArray[np.float64]
    box: NDArray[np.float64]
    tight: NDArray[np.bool_]
    flat: NDArray[np.bool_]

    @classmethod
    def of(cls, mapped: Mappings, target: Target, n_sites: int, tolerances: Tolerances) -> AverageCells:
        """Averages lengths and angles of mapped cells and a target, with `n_sites` in each cell."""
        lengths, angles = (mapped.lengths + target.lengths) / 2, (mapped.angles + target.angles) / 2
        cosines, sines = np.cos(angles), np.sin(angles)
        x, y, z = cosines.T
        squared = 1 + 2 * x * y * z - x * x - y * y - z * z
        flat = squared < _FLAT
        height = np.sqrt(np.where(flat, 1.0, squared))
        radius = tolerances.site * np.cbrt(lengths[:, 0] * lengths[:, 1] * lengths[:, 2] * height / n_sites)
        box = 2 * radius[:, None] * sines / (lengths * height[:, None])
        matrix = np.zeros((len(x), 3, 3))
        matrix[:, 0, 0] = 1
        matrix[:, 1, 0], matrix[:, 1, 1] = z, sines[:, 2]
        matrix[:, 2, 0], matrix[:, 2, 1], matrix[:, 2, 2] = y, (x - y * z) / sines[:, 2], height / sines[:, 2]
        matrix *= lengths[:, :, None]
        return cls(matrix, radius, box * (1 + BOX_SLACK) + BOX_SLACK, mapped.tight, flat)

    def take(self, index: NDArray[np.int64]) -> AverageCells:
        """The cells of the given positions."""
        return AverageCells(
            self.matrix[index], self.radius[index], self.box[index], self.tight[index], self.flat[index]
        )


def cosets(matrices: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """The points of a lattice in supercells, one for each cell, in fractional coordinates of these.

    The integer points below the diagonal (a, e, g) of the Hermite normal form of a matrix M: a is the greatest common
    divisor of the first column, a e that of the minors of the first two, and a e g = |det M|.

    Args:
        matrices: (k, 3, 3), integer, with determinants of +-`size`.
        size: Cells in the supercells.

    Returns:
        (k, size, 3), not all from 0 to 1.
    """
    x, y = matrices[:, :, 0], matrices[:, :, 1]
    minors = x * np.roll(y, 1, axis=1) - np.roll(x, 1, axis=1) * y
    first, both = np.gcd.reduce(x, axis=1)[:, None], np.gcd.reduce(minors, axis=1)[:, None]
    last, second = size // both, both // first
    steps = np.arange(size)
    points = np.stack([steps // (last * second), steps // last % second, steps % last], axis=-1)
    return points @ np.linalg.inv(matrices)


def _points(spacing: NDArray[np.float64], radius: float) -> NDArray[np.int64]:
    """Integer combinations (n, 3) of lattice vectors, all that lie within a sphere around the origin among them."""
    extent = [float(n) // 1 for n in radius / spacing + LENGTH_SLACK]
    check_elements((2 * extent[0] + 1) * (2 * extent[1] + 1) * (2 * extent[2] + 1))
    return grid(*map(int, extent))


@lru_cache(maxsize=256)
def grid(*extent: int) -> NDArray[np.int64]:
    """Integer points (n, 3) between minus and plus the extents."""
    axes = [np.arange(-n, n + 1) for n in extent]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def _determinants(matrices: NDArray[np.int64]) -> NDArray[np.int64]:
    (u, x, r), (v, y, s), (w, z, t) = matrices.T
    return u * (y * t - z * s) + v * (z * r - x * t) + w * (x * s - y * r)
