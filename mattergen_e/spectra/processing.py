"""From the density of states of a calculation to the spectra that a model learns.

A raw spectrum is read as piecewise linear between its energies and zero outside of them. Resampling takes its exact
integral over every bin of the grid, after an exact convolution with a Gaussian, so that no state is lost and a coarse
raw mesh causes no ripples. Order of the steps: smear, average over bins, set what is negative to zero, cut semicore
states (sites), divide by the number of atoms (crystal).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from mattergen_e.crystals.findings import Finding, LabelError
from mattergen_e.spectra.grid import ATOMIC_GRID, TOTAL_GRID, EnergyGrid

if TYPE_CHECKING:
    from mattergen_e.spectra.raw import RawDos

Spectra = NDArray[np.float64]

#: A Gaussian is taken as zero beyond this many standard deviations (1e-19 of it lies there).
REACH = 9.0
#: Bins whose part of the linear operator is made at a time; bounds the memory.
BLOCK = 32
#: Segments of the raw mesh below this many standard deviations count as short.
SHORT = 0.02
#: Largest negative value, as a share of the largest value of the same spectrum. Methfessel-Paxton smearing of an
#: isolated level has lobes of 5.5 % (order 1) and 9.1 % (order 2); more is no smearing.
NEGATIVE_SHARE = 0.1
#: A spectrum that starts within the window counts as complete when it starts at less than this share of its maximum.
END_SHARE = 1e-3
#: Values that never matter, states/eV.
FLOOR = 1e-3
#: Clipped states below this number are not worth a word.
WORTH_SAYING = 1e-3


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TotalDosSettings(_Settings):
    """How the spectrum of a crystal, per atom, is made ("Density of States-Intermediated Crystal Generation").

    Attributes:
        grid: Energy grid; section 3 and appendix A.
        smearing: Standard deviation of the Gaussian, eV, on top of any smearing of the calculation; 0 adds none. Ours:
            the paper names none.
    """

    grid: EnergyGrid = TOTAL_GRID
    smearing: float = Field(default=0.1, ge=0, allow_inf_nan=False)


class AtomicDosSettings(_Settings):
    """How the spectra of sites are made (Okuda et al., section 4.1, which leaves the last three numbers open).

    Attributes:
        grid: Energy grid.
        smearing: Standard deviation of the Gaussian, eV, on top of any smearing of the calculation; 0 adds none.
        semicore_threshold: Semicore states are looked for below this energy, eV relative to the Fermi energy.
        semicore_zero: A smeared spectrum of a site counts as zero up to this value, states/eV.
    """

    grid: EnergyGrid = ATOMIC_GRID
    smearing: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    semicore_threshold: float = Field(default=-10.0, le=0, allow_inf_nan=False)
    semicore_zero: float = Field(default=1e-3, ge=0, allow_inf_nan=False)


def resample(energies: Spectra, spectra: Spectra, grid: EnergyGrid, smearing: float) -> Spectra:
    """Smear spectra with a Gaussian and average them over the bins of a grid, without losing a state.

    The raw spectra are piecewise linear between their energies and zero outside. Both steps are exact (closed form with
    the error function) and linear: one operator is made and applied to all spectra.

    Args:
        energies: (n,) strictly ascending, eV relative to the Fermi energy, n at least 2.
        spectra: (..., n) states/eV.
        grid: Grid of the result.
        smearing: Standard deviation of the Gaussian in eV; 0 smears nothing.

    Returns:
        (..., points) states/eV. Times the step and summed, it is the number of states in the window.
    """
    energies = np.asarray(energies, dtype=np.float64)
    spectra = np.asarray(spectra, dtype=np.float64)
    values = np.zeros((*spectra.shape[:-1], grid.points))
    all_edges = grid.edges
    for start in range(0, grid.points, BLOCK):
        edges = all_edges[start : start + BLOCK + 1]
        # What lies further away than the Gaussian reaches adds the same to the cumulative at every edge.
        first = max(int(np.searchsorted(energies, edges[0] - REACH * smearing, side="right")) - 1, 0)
        last = int(np.searchsorted(energies, edges[-1] + REACH * smearing, side="left")) + 1
        near = energies[first:last]
        if len(near) > 1:
            cumulative = _cumulative_operator(near, edges, smearing)
            values[..., start : start + BLOCK] = spectra[..., first:last] @ np.diff(cumulative, axis=1)
    return values / grid.step


def _cumulative_operator(energies: Spectra, edges: Spectra, smearing: float) -> Spectra:
    """(n, edges): states below each edge that a unit value at each raw energy stands for.

    A piecewise linear function is a sum of ramps, (e - e_j)_+, and of steps at its two ends; convolved with a Gaussian
    and integrated they become the second and the first antiderivative of the normal distribution. Where a segment is
    short, or the Gaussian far, the second's difference would drown in rounding: there the first's mean over the segment
    is taken by the trapezoidal rule with its correction of second order.
    """
    distance = edges[None, :] - energies[:, None]
    below, step, ramp = _antiderivatives(distance, smearing)
    width = np.diff(energies)[:, None]
    far = (np.abs(distance) >= REACH * smearing) & (distance != 0)
    smooth = far[:-1] & far[1:] & (distance[:-1] * distance[1:] > 0) | (width < SHORT * smearing)
    trapezoidal = 0.5 * (step[:-1] + step[1:]) - width / 12 * (below[:-1] - below[1:])
    mean = np.where(smooth, trapezoidal, (ramp[:-1] - ramp[1:]) / width)
    operator = np.zeros_like(ramp)
    operator[0] = step[0]
    operator[-1] = -step[-1]
    operator[:-1] -= mean
    operator[1:] += mean
    return operator


def _antiderivatives(distance: Spectra, smearing: float) -> tuple[Spectra, Spectra, Spectra]:
    """The cumulative normal distribution of a standard deviation, its first (eV) and second antiderivative (eV^2)."""
    from scipy.special import ndtr

    below = (distance > 0).astype(np.float64)
    first, second = below * distance, 0.5 * below * (distance**2 + smearing**2)
    near = np.abs(distance) < REACH * smearing
    if np.any(near):
        u = distance[near] / smearing
        below[near], density = ndtr(u), np.exp(-0.5 * u**2) / np.sqrt(2 * np.pi)
        first[near] = smearing * (u * below[near] + density)
        second[near] = 0.5 * smearing**2 * ((u**2 + 1) * below[near] + u * density)
    return below, first, second


def cut_semicore(spectra: Spectra, grid: EnergyGrid, threshold: float, zero: float) -> Spectra:
    """Set semicore states to zero, site by site (Okuda et al., section 4.1).

    From the Fermi energy downwards, at the first energy below the threshold at which a spectrum is zero, everything at
    lower energies becomes zero. Zeros above the threshold (gaps between valence bands) do not count; a band that
    crosses the threshold is kept whole.

    Args:
        spectra: (..., points) states/eV, smeared: the tails of the Gaussian belong to the band.
        grid: Grid of the spectra.
        threshold: eV relative to the Fermi energy.
        zero: Up to this value a spectrum counts as zero, states/eV.

    Returns:
        (..., points) states/eV, a copy.
    """
    empty = (spectra <= zero) & (grid.energies < threshold)
    cut = np.flip(np.maximum.accumulate(np.flip(empty, axis=-1), axis=-1), axis=-1)
    return np.where(cut, 0.0, spectra)


def atomic_dos(raw: RawDos, settings: AtomicDosSettings) -> tuple[Spectra, list[Finding]]:
    """Make the spectra of the sites.

    They are smeared first and cut afterwards: a cut of the raw spectrum would leave half a smeared band edge, and raw
    spectra are rarely zero to the last digit.

    Args:
        raw: Density of states of the calculation, projected onto sites.
        settings: Grid, smearing and semicore cut.

    Returns:
        (n_sites, points) states/eV, and warnings (part "atomic_dos"): "negative_dos" where negative values were set to
        zero, "incomplete" where bands are missing within the window.

    Raises:
        LabelError: With reason no_projections, bad_dos, negative_dos or window.
    """
    if raw.sites is None:
        raise LabelError(
            "no_projections", "the DOS is not projected onto sites: run the calculation again with projections (LORBIT)"
        )
    sites = np.asarray(raw.sites, dtype=np.float64)
    if sites.ndim != 2 or len(sites) == 0:
        raise LabelError("bad_dos", f"the projected DOS has the shape {sites.shape}, expected sites and energies")
    names = [f"the DOS of site {i}" for i in range(len(sites))]
    values, findings = _on_grid(raw, sites, names, settings.grid, settings.smearing, "atomic_dos")
    return cut_semicore(values, settings.grid, settings.semicore_threshold, settings.semicore_zero), findings


def total_dos(raw: RawDos, n_sites: int, settings: TotalDosSettings) -> tuple[Spectra, list[Finding]]:
    """Make the spectrum of a crystal, per atom.

    Args:
        raw: Density of states of the calculation.
        n_sites: Number of sites of the cell of the calculation.
        settings: Grid and smearing.

    Returns:
        (points,) states/eV per atom, and warnings (part "total_dos") as those of `atomic_dos`.

    Raises:
        LabelError: With reason bad_dos, negative_dos or window.
    """
    total = np.asarray(raw.total, dtype=np.float64)
    if total.ndim != 1:
        raise LabelError("bad_dos", f"the total DOS has the shape {total.shape}, expected one value per energy")
    values, findings = _on_grid(raw, total[None], ["the total DOS"], settings.grid, settings.smearing, "total_dos")
    return values[0] / n_sites, findings


def _on_grid(
    raw: RawDos, spectra: Spectra, names: list[str], grid: EnergyGrid, smearing: float, part: str
) -> tuple[Spectra, list[Finding]]:
    """Check the spectra (rows, n) and resample them, with what a person should know."""
    energies = np.asarray(raw.energies, dtype=np.float64)
    _check_numbers(energies, spectra, names)
    _check_negative(energies, spectra, names)
    _check_window(energies, spectra, names, grid)
    energies, spectra = _pad(energies, spectra, grid, smearing)
    values = resample(energies, spectra, grid, smearing)
    findings = []
    added = -np.minimum(values, 0.0).sum(axis=-1) * grid.step
    worst = int(np.argmax(added))
    if added[worst] > WORTH_SAYING:
        sentence = f"negative values were set to zero, which adds {added[worst]:.3g} states to {names[worst]}"
        findings.append(Finding(part, "negative_dos", sentence))
    if raw.complete_to is not None and not raw.complete_to >= grid.maximum:
        sentence = (
            f"bands are missing above {raw.complete_to:.2f} eV, so the DOS is too small from there to {grid.maximum:g} "
            "eV: calculate with more bands (NBANDS)"
        )
        findings.append(Finding(part, "incomplete", sentence))
    return np.maximum(values, 0.0), findings


def _check_numbers(energies: Spectra, spectra: Spectra, names: list[str]) -> None:
    """Check that the mesh ascends and that all numbers are finite and of a size that arithmetic bears."""
    if energies.ndim != 1 or len(energies) < 2:
        raise LabelError("bad_dos", f"the DOS has {energies.size} energies, at least 2 are needed")
    if spectra.shape[1] != len(energies):
        raise LabelError("bad_dos", f"{names[0]} has {spectra.shape[1]} values for {len(energies)} energies")
    if not np.all(np.abs(energies) < 1e6):
        raise LabelError("bad_dos", "the energies of the DOS are not finite numbers")
    falling = np.diff(energies) <= 0
    if np.any(falling):
        i = int(np.argmax(falling))
        raise LabelError(
            "bad_dos",
            f"the energies of the DOS do not ascend ({energies[i]:.6g} eV is followed by {energies[i + 1]:.6g} eV)",
        )
    bad = ~np.all(np.abs(spectra) < 1e12, axis=1)
    if np.any(bad):
        raise LabelError("bad_dos", f"{names[int(np.argmax(bad))]} is not made of finite numbers")


def _check_negative(energies: Spectra, spectra: Spectra, names: list[str]) -> None:
    """Refuse negative values that are more than the lobes of a smearing function."""
    lowest, highest = spectra.min(axis=1), spectra.max(axis=1)
    bad = lowest < -(NEGATIVE_SHARE * np.maximum(highest, 0.0) + FLOOR)
    if np.any(bad):
        i = int(np.argmax(bad))
        energy = energies[int(np.argmin(spectra[i]))]
        raise LabelError(
            "negative_dos",
            f"{names[i]} falls to {lowest[i]:.3g} states/eV at {energy:.2f} eV, with a maximum of {highest[i]:.3g} "
            "states/eV: calculate the DOS again with another smearing (ISMEAR)",
        )


def _check_window(energies: Spectra, spectra: Spectra, names: list[str], grid: EnergyGrid) -> None:
    """Check that the energies cover the window; below the lowest energy a spectrum that starts at zero stays zero."""
    if energies[-1] < grid.maximum - grid.step:
        raise LabelError(
            "window",
            f"the DOS ends at {energies[-1]:.2f} eV, before the {grid.maximum:g} eV of the grid: calculate it to "
            "higher energies (EMAX, NBANDS)",
        )
    if energies[0] <= grid.minimum + grid.step:
        return
    bad = np.abs(spectra[:, 0]) > np.maximum(END_SHARE * spectra.max(axis=1), FLOOR)
    if np.any(bad):
        i = int(np.argmax(bad))
        raise LabelError(
            "window",
            f"the DOS starts at {energies[0]:.2f} eV, above the {grid.minimum:g} eV of the grid, and {names[i]} is "
            f"{spectra[i, 0]:.3g} states/eV there: calculate it from lower energies (EMIN)",
        )


def _pad(energies: Spectra, spectra: Spectra, grid: EnergyGrid, smearing: float) -> tuple[Spectra, Spectra]:
    """Go on with the value at an end that is the end of the window, or the Gaussian would smear it into nothing."""
    length = REACH * smearing + grid.step
    below = int(energies[0] <= grid.minimum + grid.step)
    padded = np.concatenate([[energies[0] - length][:below], energies, [energies[-1] + length]])
    return padded, np.pad(spectra, ((0, 0), (below, 1)), mode="edge")
