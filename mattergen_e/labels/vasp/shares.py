"""Which states of the integrated DOS belong to which site.

VASP's DOS of a site misses what its total DOS misses: levels whose smearing fits between two energies, and bands that
the tetrahedron method steps over. Where the total DOS agrees with the difference of the integrated DOS, the DOS of the
sites is right too and is taken as it is. Elsewhere the states of the integrated DOS are shared out: by the projections
of the bands there (`<projected>` in vasprun.xml), which miss nothing; without them, in the ratio of the DOS of the
sites at the nearest energy that has one.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.findings import Finding, LabelError

if TYPE_CHECKING:
    from mattergen_e.labels.vasp.parser import Parser

Array = NDArray[np.float64]

#: States by which two columns of four decimals may differ, and the share of the larger one.
ROUNDING, AGREE = 3e-4, 0.02
#: Energies as they are printed, eV.
DECIMALS = 1e-4
#: A band that fell through takes the ratios of a DOS at most so many steps away; else it is on no site.
NEAR_STEPS = 3
#: Share of the states up to `UPPER` that may be on no site, or be taken from the neighbourhood.
LOST = 0.02
#: Where the largest grid of the labels ends, eV above the Fermi energy.
UPPER = 10.0
#: A Gaussian is taken as zero beyond this many widths.
REACH = 6.0
TETRAHEDRON = (-4, -5, -14, -15)


def site_counts(
    vasprun: Parser, energies: Array, total: Array, counts: Array, efermi: float
) -> tuple[Array, list[Finding]] | None:
    """States of each site between neighbouring energies.

    Args:
        vasprun: Parsed with its DOS and eigenvalues.
        energies: (n,) evenly spaced, eV.
        total: (n,) DOS, states/eV, spins summed.
        counts: (n - 1,) differences of the integrated DOS, states.
        efermi: Fermi energy, eV.

    Returns:
        (n_sites, n - 1) states, and a warning where many were given to sites in the ratio of a neighbouring energy;
        None without projections.

    Raises:
        LabelError: With reason bad_dos, if the projections are garbled, or too many states are on no site.
    """
    sites = _columns(vasprun, len(energies))
    if sites is None:
        return None
    step = float(energies[1] - energies[0])
    tetrahedron = vasprun.parameters.get("ISMEAR", 0) in TETRAHEDRON
    told = total[1:] * step
    ratios, near = _ratios(sites[:, 1:], total[1:])
    if tetrahedron:
        result, missed = ratios * np.where(near, counts, 0.0), (told <= ROUNDING) & (counts > ROUNDING)
    else:
        result, missed = sites[:, 1:] * step, np.abs(told - counts) > ROUNDING + AGREE * np.abs(counts)
    wanted = energies[1:] <= efermi + UPPER
    allowed = LOST * float(np.abs(counts[wanted]).sum())
    if float(np.abs(counts - told)[missed & wanted].sum()) > allowed:
        levels = _levels(vasprun, len(sites))
        if levels is not None:
            width = step if tetrahedron else max(float(vasprun.parameters.get("SIGMA", 0.0)), 2 * DECIMALS)
            by_bands, found = _by_bands(*levels, energies, np.flatnonzero(missed), width)
            result[:, found] = by_bands * counts[found]
            missed[found] = False
    result[:, missed] = (ratios * np.where(near, counts, 0.0))[:, missed]
    lost = float(np.abs(counts)[missed & wanted & ~near].sum())
    borrowed = float(np.abs(counts)[missed & wanted & (told <= ROUNDING)].sum())
    if lost > allowed:
        raise LabelError(
            "bad_dos",
            f"{lost:.1f} of the {allowed / LOST:.1f} states up to {UPPER:g} eV are in the DOS of no site: levels are "
            f"narrower than its step of {step:.3f} eV, and vasprun.xml has no projections of the bands; calculate with "
            "a larger SIGMA or NEDOS",
        )
    if borrowed <= allowed:
        return result, []
    sentence = (
        f"{borrowed:.1f} of the {allowed / LOST:.1f} states up to {UPPER:g} eV fall between two energies of the DOS; "
        "the sites get them in the ratio of the nearest energy"
    )
    return result, [Finding("atomic_dos", "between_energies", sentence)]


def _columns(vasprun: Parser, n_points: int) -> Array | None:
    """(n_sites, n) DOS of the sites in states/eV, orbitals and spins summed."""
    if not vasprun.pdos:
        return None
    n_sites = len(vasprun.final_structure)
    try:
        spins = [[np.sum(list(orbital.values()), axis=0) for orbital in site.values()] for site in vasprun.pdos]
        sites = np.array([np.sum(orbitals, axis=0) for orbitals in spins], dtype=np.float64)
    except ValueError:
        sites = np.empty(0)
    if sites.shape != (n_sites, n_points) or not np.isfinite(sites).all():
        raise LabelError("bad_dos", f"the projections are not {n_points} finite numbers on each of {n_sites} sites")
    return sites


def _ratios(sites: Array, total: Array) -> tuple[Array, NDArray[np.bool_]]:
    """(n_sites, n) parts of the DOS at the nearest energy that has one, and (n,) whether it is near."""
    known = np.flatnonzero(total > 0)
    if not len(known):
        return np.zeros_like(sites), np.zeros(len(total), dtype=bool)
    shares = np.clip(sites[:, known] / total[known], 0.0, 2.0)
    points = np.arange(len(total))
    right = np.clip(np.searchsorted(known, points), 0, len(known) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(known[left] - points) < np.abs(known[right] - points), left, right)
    return shares[:, nearest], np.abs(known[nearest] - points) <= NEAR_STEPS


def _levels(vasprun: Parser, n_sites: int) -> tuple[Array, Array, Array] | None:
    """All levels, ascending: (n,) energies in eV, (n,) states, (n_sites, n) part of each site; None if not told."""
    from mattergen_e.labels.vasp.parser import Parser

    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            run = Parser(vasprun.filename, parse_potcar_file=False, parse_dos=False, parse_projected_eigen=True)
    except Exception:  # pymatgen raises whatever the first missing entry leads to
        return None
    eigenvalues, projections = run.eigenvalues or {}, run.projected_eigenvalues or {}
    weights = np.asarray(run.actual_kpoints_weights, dtype=np.float64)
    energies, states, parts = [], [], []
    for spin, values in eigenvalues.items():
        projected = np.asarray(projections.get(spin, ()), dtype=np.float64)
        if projected.ndim != 4 or projected.shape[:3] != (*values.shape[:2], n_sites) or np.isnan(projected).any():
            return None
        energies.append(values[:, :, 0].ravel())
        states.append(np.repeat(2 / len(eigenvalues) * weights / weights.sum(), values.shape[1]))
        parts.append(projected.sum(axis=3).reshape(-1, n_sites).T)
    if not energies:
        return None
    found, order = np.concatenate(energies), np.argsort(np.concatenate(energies), kind="stable")
    return found[order], np.concatenate(states)[order], np.concatenate(parts, axis=1)[:, order]


def _by_bands(
    levels: Array, states: Array, parts: Array, energies: Array, intervals: NDArray[np.intp], width: float
) -> tuple[Array, NDArray[np.intp]]:
    """(n_sites, n) parts of the sites in what levels, smeared by a width, put into intervals; and (n,) those intervals.

    Intervals without levels are left out.
    """
    from scipy.special import erf

    found, result = [], []
    for i in intervals.tolist():
        low, high = energies[i], energies[i + 1]
        first, last = np.searchsorted(levels, [low - REACH * width, high + REACH * width])
        near = levels[first:last]
        weights = states[first:last] * (erf((high - near) / width) - erf((low - near) / width))
        if weights.sum() > 0:
            found.append(i)
            result.append(parts[:, first:last] @ weights / weights.sum())
    n_sites = len(parts)
    return np.array(result).reshape(-1, n_sites).T, np.array(found, dtype=np.intp)
