"""All ways to lay one lattice onto another within tolerances, as pymatgen's `Lattice.find_all_mappings` lists them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mattergen_e.evaluation.matching.limits import check_elements

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


def mappings(
    moving: NDArray[np.float64], target: NDArray[np.float64], size: int, tolerances: Tolerances
) -> NDArray[np.int64]:
    """Integer matrices that take a lattice to cells like another lattice's.

    A superset of what `find_all_mappings` yields with a determinant of +-`size`: the same conditions on lengths and
    angles, wider by the slacks.

    Args:
        moving: (3, 3), rows are lattice vectors in Å.
        target: (3, 3), the cell to be met.
        size: Cells of `moving` in the mapped cell.
        tolerances: Of lengths and angles.

    Returns:
        (mappings, 3, 3): the mapped cell is mapping @ moving.

    Raises:
        TooLarge: If there are too many lattice vectors to try.
    """
    lengths, cosines = cell_parameters(target)
    longest = (1 + tolerances.length) * (1 + LENGTH_SLACK)
    points = _points(moving, lengths.max() * longest)
    vectors = points @ moving
    norms = np.sqrt((vectors**2).sum(axis=1))
    norms[norms == 0] = np.inf
    units = vectors / norms[:, None]
    a, b, c = (np.flatnonzero((norms < length * longest) & (norms > length / longest)) for length in lengths)
    check_elements(max(len(a) * len(b), len(a) * len(c), len(b) * len(c)))
    low, high = _cosine_limits(cosines, tolerances.angle + ANGLE_SLACK)
    alpha, beta, gamma = (
        (product >= low[k]) & (product <= high[k])
        for k, product in enumerate((units[b] @ units[c].T, units[a] @ units[c].T, units[a] @ units[b].T))
    )
    first, second = np.nonzero(gamma)
    check_elements(len(first) * len(c))
    pair, third = np.nonzero(beta[first] & alpha[second])
    triples = np.stack([a[first[pair]], b[second[pair]], c[third]], axis=1)
    found = points[triples]
    return found[np.abs(_determinants(found)) == size]


def cell_parameters(matrices: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lengths in Å and cosines of alpha, beta, gamma, each (..., 3), of cells (..., 3, 3)."""
    lengths = np.sqrt((matrices**2).sum(axis=-1))
    units = matrices / lengths[..., None]
    cosines = np.stack([(units[..., i, :] * units[..., j, :]).sum(axis=-1) for i, j in ((1, 2), (0, 2), (0, 1))], -1)
    return lengths, np.clip(cosines, -1, 1)


@dataclass(frozen=True)
class AverageCells:
    """Average cells of a target and of cells mapped onto it, in which pymatgen measures distances.

    Attributes:
        matrix: (k, 3, 3), rows are lattice vectors in Å.
        radius: (k,), `stol` times the cube root of the volume per site, in Å.
        box: (k, 3), half the box of `is_coord_subset_pbc` in fractional coordinates, widened by `BOX_SLACK`.
        strain: (k,), how much lengths and angles of the mapped cell differ from the target's, in any unit.
        tight: (k,), whether the mapped cell is within pymatgen's tolerances by more than the slacks.
        flat: (k,), whether the cell is so flat that only pymatgen's own arithmetic tells.
    """

    matrix: NDArray[np.float64]
    radius: NDArray[np.float64]
    box: NDArray[np.float64]
    strain: NDArray[np.float64]
    tight: NDArray[np.bool_]
    flat: NDArray[np.bool_]

    @classmethod
    def of(
        cls, mapped: NDArray[np.float64], target: NDArray[np.float64], n_sites: int, tolerances: Tolerances
    ) -> AverageCells:
        """Averages lengths and angles of `mapped` (k, 3, 3) and `target` (3, 3), with `n_sites` in each cell."""
        (lengths, cosines), (other_lengths, other_cosines) = cell_parameters(mapped), cell_parameters(target)
        angles, other_angles = np.arccos(cosines), np.arccos(other_cosines)
        ratio = np.abs(np.log(lengths / other_lengths)).max(axis=1)
        turn = np.degrees(np.abs(angles - other_angles)).max(axis=1)
        tight = (ratio < np.log1p(tolerances.length) - LENGTH_SLACK) & (turn < tolerances.angle - ANGLE_SLACK)
        lengths, angles = (lengths + other_lengths) / 2, (angles + other_angles) / 2
        x, y, z = np.cos(angles).T
        squared = 1 + 2 * x * y * z - x**2 - y**2 - z**2
        flat = squared < _FLAT
        height = np.sqrt(np.where(flat, 1.0, squared))
        radius = tolerances.site * (lengths.prod(axis=1) * height / n_sites) ** (1 / 3)
        box = 2 * radius[:, None] * np.sin(angles) / (lengths * height[:, None])
        sine = np.sin(angles[:, 2])
        zero = np.zeros_like(x)
        units = np.array([[zero + 1, zero, zero], [z, sine, zero], [y, (x - y * z) / sine, height / sine]])
        matrix = units.transpose(2, 0, 1) * lengths[:, :, None]
        return cls(matrix, radius, box * (1 + BOX_SLACK) + BOX_SLACK, ratio + turn / 25, tight, flat)

    def take(self, index: NDArray[np.int64]) -> AverageCells:
        """The cells of the given positions."""
        return AverageCells(*(getattr(self, item.name)[index] for item in fields(self)))


def _cosine_limits(cosines: NDArray[np.float64], width: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and greatest cosine of angles within `width` degrees; beyond 0 and 180 degrees nothing is excluded."""
    angles = np.degrees(np.arccos(cosines))
    low, high = angles + width, angles - width
    return (
        np.where(low >= 180, -2.0, np.cos(np.radians(low))),
        np.where(high <= 0, 2.0, np.cos(np.radians(high))),
    )


def _points(matrix: NDArray[np.float64], radius: float) -> NDArray[np.int64]:
    """Integer combinations (n, 3) of lattice vectors, all that lie within a sphere around the origin among them."""
    extent = np.floor(radius * np.linalg.norm(np.linalg.inv(matrix), axis=0) + LENGTH_SLACK)
    check_elements(float(np.prod(2 * extent + 1)))
    return _grid(*(int(n) for n in extent))


@lru_cache(maxsize=256)
def _grid(*extent: int) -> NDArray[np.int64]:
    axes = [np.arange(-n, n + 1) for n in extent]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def _determinants(matrices: NDArray[np.int64]) -> NDArray[np.int64]:
    a, b, c = matrices[:, 0], matrices[:, 1], matrices[:, 2]
    return (a * np.cross(b, c)).sum(axis=1)
