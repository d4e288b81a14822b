"""The cell and the positions that a constraints file asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.checks import MIN_DISTANCE
from mattergen_e.crystals.reading import read_structures
from mattergen_e.diffusion.settings import LEAST_VOLUME_ON_THE_WAY
from mattergen_e.errors import UserError
from mattergen_e.generation.constraints.schema import CellSource, ConstraintsFile

#: Fractional coordinates that differ by less are the same place, where no cell says how far apart they are.
SAME_PLACE = 1e-3


def read_cell(content: ConstraintsFile, path: Path) -> NDArray[np.float64] | None:
    """Lattice vectors in rows, (3, 3), in Å; None where the file has none.

    Raises:
        UserError: If a file cannot be read, or the numbers are no cell.
    """
    from pymatgen.core import Lattice

    given = content.cell
    if given is None:
        return None
    if isinstance(given, CellSource):
        found = read_structures([path.parent / given.file])
        if len(found) != 1:
            raise UserError(f"{path}, cell: {path.parent / given.file} holds {len(found)} structures: give one.")
        matrix = np.array(found[0].structure.lattice.matrix)
    else:
        numbers = np.array(given, dtype=np.float64)
        if numbers.shape not in ((3, 3), (6,)):
            raise UserError(
                f"{path}, cell: give three lattice vectors of three numbers, or a, b, c, alpha, beta, gamma, or "
                "{file: FILE}."
            )
        if numbers.shape == (6,):
            lengths, angles = numbers[:3], numbers[3:]
            good = (lengths > 0).all() and ((angles > 0) & (angles < 180)).all()
            matrix = np.array(Lattice.from_parameters(*lengths, *angles).matrix) if good else np.zeros((3, 3))
        else:
            matrix = numbers
    volume = abs(np.linalg.det(matrix))
    if not np.isfinite(matrix).all() or volume < LEAST_VOLUME_ON_THE_WAY:
        raise UserError(f"{path}, cell: this is no cell, or one without volume.")
    return matrix


def read_positions(
    content: ConstraintsFile, cell: NDArray[np.float64] | None, path: Path
) -> dict[int, NDArray[np.float64]]:
    """Fractional coordinates (3,) by site.

    Raises:
        UserError: If two sites are at the same place.
    """
    found = {site.site: np.array(site.position) % 1.0 for site in content.sites if site.position is not None}
    _check_distances(found, cell, path)
    return found


def _check_distances(
    positions: Mapping[int, NDArray[np.float64]], cell: NDArray[np.float64] | None, path: Path
) -> None:
    from pymatgen.core import Lattice

    if len(positions) < 2:
        return
    sites, points = list(positions), np.stack(list(positions.values()))
    if cell is None:
        apart = np.abs((points[:, None] - points + 0.5) % 1.0 - 0.5).max(axis=2) / SAME_PLACE
    else:
        apart = Lattice(cell).get_all_distances(points, points) / MIN_DISTANCE
    near = np.argwhere(np.triu(apart < 1.0, k=1))
    if len(near):
        first, second = sites[near[0][0]], sites[near[0][1]]
        raise UserError(f"{path}: sites {first} and {second} have the same position: move one of them.")
