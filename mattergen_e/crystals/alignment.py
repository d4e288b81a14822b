"""Where every site of the input cell ends up in the cell that MatterGen trains on.

MatterGen stores the primitive, Niggli-reduced cell of a crystal and forgets how its sites relate to those of the file.
Values that belong to sites have to make the same journey; this module finds the way by geometry.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

MAX_DISPLACEMENT = 0.6
"""Å. pymatgen joins sites that agree within 0.25 Å along each axis and stores their mean position."""

WHOLE = 1e-5
"""Largest deviation of an entry of a basis change from a whole number that is rounding."""


class AlignmentError(ValueError):
    """The sites of the input cell and of the reduced cell cannot be put together, or their values contradict."""


def reduce_cell(structure: Structure) -> Structure:
    """The primitive, Niggli-reduced cell, by the very calls that MatterGen makes.

    Args:
        structure: Any periodic cell.

    Returns:
        A new structure; the cartesian frame is that of the input.
    """
    return structure.get_primitive_structure().get_reduced_structure()


def same_sites(a: Structure, b: Structure) -> bool:
    """Whether two cells are equal bit by bit: lattice, order of the sites, species and fractional coordinates."""
    return (
        len(a) == len(b)
        and np.array_equal(a.lattice.matrix, b.lattice.matrix)
        and np.array_equal(a.frac_coords, b.frac_coords)
        and all(x.species == y.species for x, y in zip(a, b, strict=True))
    )


def reduce_with_map(structure: Structure) -> tuple[Structure, NDArray[np.int64]]:
    """Reduce a cell as MatterGen does and tell where each site went.

    pymatgen keeps the cartesian frame and the origin (it only shifts sites by lattice vectors, averages the positions
    of sites that coincide, and changes their order), so that every site of the input is matched with the nearest site
    of the same species, distances being taken modulo the reduced lattice.

    Args:
        structure: Any periodic cell with n_sites sites.

    Returns:
        The reduced structure and an integer array (n_sites,): the index in the reduced cell for every input site.

    Raises:
        AlignmentError: If a site has no partner within `MAX_DISPLACEMENT`, or if the sites of the reduced cell do not
            all stand for the same number of input sites.
    """
    reduced = reduce_cell(structure)
    if same_sites(structure, reduced):
        return reduced, np.arange(len(structure), dtype=np.int64)
    return reduced, match_sites(structure, reduced)


def match_sites(structure: Structure, reduced: Structure) -> NDArray[np.int64]:
    """Index of the site of `reduced` that each site of `structure` coincides with, modulo the lattice of `reduced`.

    Args:
        structure: The input cell, n_sites sites.
        reduced: A cell of the same crystal in the same cartesian frame, n_reduced sites.

    Returns:
        Integer array (n_sites,).

    Raises:
        AlignmentError: See `reduce_with_map`.
    """
    n_sites, n_reduced = len(structure), len(reduced)
    matrix = reduced.lattice.matrix
    frac = structure.cart_coords @ np.linalg.inv(matrix)
    delta = frac[:, None, :] - reduced.frac_coords[None, :, :]
    delta -= np.round(delta)
    distance = np.linalg.norm(delta @ matrix, axis=-1)
    codes: dict[object, int] = {}
    kinds = np.array([codes.setdefault(s.species, len(codes)) for s in structure])
    reduced_kinds = np.array([codes.setdefault(s.species, len(codes)) for s in reduced])
    distance[kinds[:, None] != reduced_kinds[None, :]] = np.inf

    site_map = np.argmin(distance, axis=1).astype(np.int64)
    nearest = distance[np.arange(n_sites), site_map]
    if not np.all(nearest <= MAX_DISPLACEMENT):
        site = int(np.argmax(nearest))
        raise AlignmentError(
            f"site {site} ({structure.sites[site].species_string}) has no counterpart in the reduced cell: the nearest "
            f"site of its species is {nearest[site]:.3g} Å away"
        )
    counts = np.bincount(site_map, minlength=n_reduced)
    if np.any(counts * n_reduced != n_sites):
        site = int(np.argmax(counts * n_reduced != n_sites))
        raise AlignmentError(
            f"site {site} of the reduced cell ({reduced.sites[site].species_string}) stands for {counts[site]} of the "
            f"{n_sites} input sites, but {n_sites / n_reduced:g} were expected"
        )
    return site_map


def merge_site_values(
    values: NDArray[np.floating],
    site_map: NDArray[np.integer],
    n_reduced: int,
    tolerance: float,
    by_area: bool = False,
) -> NDArray[np.float64]:
    """Carry the values of the input sites to the sites of the reduced cell.

    Input sites that become one site must agree within `tolerance`; the result is their mean. A value may be NaN
    (unknown) only if every value of that site and of the sites joined with it is NaN; the result is then NaN.

    Args:
        values: (n_sites, dim), in the unit of the quantity.
        site_map: (n_sites,), from `reduce_with_map`.
        n_reduced: Number of sites of the reduced cell.
        tolerance: Largest allowed deviation of a joined value from the mean, in the unit of `values`.
        by_area: The values are spectra: the deviation is the area between a spectrum and the mean of the joined ones,
            as a share of the area under that mean.

    Returns:
        (n_reduced, dim) array.

    Raises:
        AlignmentError: If joined values disagree or are known for a part of the joined sites only. The sentence names
            the site and the spread.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(site_map):
        raise AlignmentError(f"values of shape {values.shape} do not belong to {len(site_map)} sites")
    counts = np.bincount(site_map, minlength=n_reduced)
    known = np.isfinite(values).all(axis=1)
    known_counts = np.bincount(site_map, weights=known, minlength=n_reduced)
    partial = (known_counts > 0) & (known_counts < counts)
    if np.any(partial):
        site = int(np.argmax(partial))
        raise AlignmentError(
            f"only {int(known_counts[site])} of the {counts[site]} input sites that become site {site} of the reduced "
            "cell have a value"
        )
    if len(values) == n_reduced:
        merged = np.empty_like(values)
        merged[site_map] = values
        return merged
    merged = np.zeros((n_reduced, values.shape[1]))
    np.add.at(merged, site_map, values)
    merged /= counts[:, None]
    deviation = np.abs(values - merged[site_map])
    if by_area:
        deviation = deviation.sum(axis=1) / np.maximum(np.abs(merged).sum(axis=1)[site_map], np.finfo(float).tiny)
    else:
        deviation = deviation.max(axis=1)
    deviation[~known] = 0.0
    if np.any(deviation > tolerance):
        worst = int(site_map[int(np.argmax(deviation))])
        group = values[site_map == worst]
        spread = float((group.max(axis=0) - group.min(axis=0)).max())
        found = f"areas deviate by {deviation.max():.1%}" if by_area else f"values spread over {spread:.4g}"
        raise AlignmentError(
            f"the input sites {np.flatnonzero(site_map == worst).tolist()} are one site ({worst}) of the reduced cell "
            f"but their {found}, more than the merge tolerance of {tolerance:g} allows"
        )
    return merged


def basis_change(structure: Structure, reduced: Structure) -> NDArray[np.float64]:
    """The matrix M with A' = M A, for lattices A and A' (rows: vectors) in the same cartesian frame, shape (3, 3).

    Entries that are whole numbers but for rounding are made so.
    """
    change = np.linalg.solve(structure.lattice.matrix.T, reduced.lattice.matrix.T).T
    whole = np.round(change)
    return np.where(np.abs(change - whole) < WHOLE, whole, change)


def turn_components(values: NDArray[np.floating], change: NDArray[np.float64]) -> NDArray[np.float64]:
    """Components of vectors along a, b and c, as components along the vectors of another cell.

    A vector v A = v' A' keeps its direction and length: v' = v M^-1, with M of `basis_change`.

    Args:
        values: (..., dim), dim a multiple of 3: one vector after the other.
        change: M.

    Returns:
        The same shape.
    """
    values = np.asarray(values, dtype=np.float64)
    vectors = values.reshape(*values.shape[:-1], -1, 3)
    return (vectors @ np.linalg.inv(change)).reshape(values.shape)


def carry_grid(values: NDArray[np.floating], change: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values on the points of a grid in the cell, on those in another cell of the same lattice.

    With as many points along each axis, both grids have the same points: new[i] = old[(i M) mod n].

    Args:
        values: (nx, ny, nz, dim), at fractional positions i / n.
        change: M of `basis_change`.

    Returns:
        The same shape.

    Raises:
        AlignmentError: If the cells are not of the same lattice, or the numbers of points differ.
    """
    values = np.asarray(values, dtype=np.float64)
    if np.array_equal(change, np.eye(3)):
        return values
    if not np.array_equal(change, np.round(change)) or abs(abs(np.linalg.det(change)) - 1) > WHOLE:
        raise AlignmentError("the reduced cell is another one than a choice of the vectors of the same lattice")
    n = values.shape[0]
    if values.shape[:3] != (n, n, n):
        raise AlignmentError(
            f"the reduced cell has other vectors, and the grid has {values.shape[:3]} points along a, b and c, not the "
            "same number along each"
        )
    points = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1)  # (n, n, n, 3)
    i, j, k = np.moveaxis((points @ change.astype(np.int64)) % n, -1, 0)
    return values[i, j, k]
