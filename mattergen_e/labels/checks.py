"""Checks of Bader charges: what a careful person would look at before a label is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mattergen_e.crystals.checks import EntryError
from mattergen_e.crystals.chemistry import check_charge_bounds, sign_of_charges
from mattergen_e.crystals.findings import Finding, LabelError
from mattergen_e.labels.settings import BaderSettings

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Electrons per site that basins away from the atoms may hold together, e: ripples of the plane waves in voids. Seen:
#: 0.005 in CaO, 0.009 in RbHgF3, 0.010 in NaSbF6; maxima at the bonds of silicon hold 4.
NEGLIGIBLE = 0.02
#: A site that keeps a smaller share of its valence electrons has no maximum of its own in a density without cores. Na
#: and Mg keep 17 % in NaMgF3; without cores they seem to keep at most 0.7 %. The limit is ours.
KEPT = 0.05


def check_charges(
    structure: Structure,
    electrons: ArrayLike,
    valence: ArrayLike,
    settings: BaderSettings,
    *,
    total: float | None = None,
    basins: tuple[ArrayLike, ArrayLike] | None = None,
) -> tuple[NDArray[np.float64], list[Finding]]:
    """Net charges of a partition, once they have passed every check.

    What is left of the integration error, below the tolerances, stays where it is: nothing is shifted or spread.

    Args:
        structure: The crystal.
        electrons: (n_sites,) electrons of each site's basins.
        valence: (n_sites,) electrons that the neutral atom contributes: those of the pseudopotential where a valence
            density was integrated, Z where all electrons were.
        settings: Tolerances.
        total: Integral of the density over the cell, e; what the partition left out (vacuum) shows against it.
        basins: (n_basins,) electrons of the basins and (n_basins,) distances of their maxima from the nearest site, Å.

    Returns:
        (n_sites,) net charges in e, positive where electrons are lost, and warnings.

    Raises:
        LabelError: With reason maximum_off_atom, electrons_missing, not_neutral, bad_charge, sites_differ or
            bad_structure.
    """
    electrons, valence = np.asarray(electrons, dtype=np.float64), np.asarray(valence, dtype=np.float64)
    if not electrons.shape == valence.shape == (len(structure),):
        raise ValueError(f"{electrons.shape} electrons and {valence.shape} valences for {len(structure)} sites")
    if basins is not None:
        check_maxima(*basins, len(structure), settings)
    _check_sum(electrons, valence, total, settings)
    check_bounds(structure, valence - electrons)
    return check_equivalent(structure, valence - electrons, settings)


def check_bounds(structure: Structure, charges: NDArray[np.float64]) -> None:
    """Check that every site has a charge that its element can have.

    Args:
        structure: The crystal.
        charges: (n_sites,) e.

    Raises:
        LabelError: With reason bad_charge.
    """
    try:
        check_charge_bounds("the charge", np.array(structure.atomic_numbers), charges)
    except EntryError as error:
        raise LabelError("bad_charge", error.sentence) from None


def check_signs(structure: Structure, charges: NDArray[np.float64]) -> list[Finding]:
    """A warning where charges oppose electronegativity, as they do with flipped signs; the arguments are as above."""
    if sign_of_charges(np.array(structure.atomic_numbers), charges) >= 0:
        return []
    return [Finding("bader", "signs_opposed", "the charges oppose electronegativity: are their signs flipped?")]


def check_kept(structure: Structure, charges: ArrayLike, valence: ArrayLike) -> None:
    """Check charges that come from a density without cores: every site must keep some of its electrons.

    A cation without semicore electrons has no maximum of its own in the valence density, and its neighbours take all:
    Mg in NaMgF3 gets +2.00 e instead of +1.66 e, while every sum is right and equivalent sites agree.

    Args:
        structure: The crystal.
        charges: (n_sites,) net charges, e.
        valence: (n_sites,) electrons that the neutral atoms contribute.

    Raises:
        LabelError: With reason maximum_off_atom.
    """
    valence = np.asarray(valence, dtype=np.float64)
    kept = (valence - np.asarray(charges, dtype=np.float64)) / valence
    site = int(np.argmin(kept))
    if kept[site] < KEPT:
        raise LabelError(
            "maximum_off_atom",
            f"site {site} ({structure.sites[site].specie.symbol}) keeps {kept[site]:.1%} of its valence electrons: the "
            "density has no maximum there, and its neighbours take them; give AECCAR0 and AECCAR2 (VASP: LAECHG = "
            ".TRUE.)",
        )


def check_maxima(electrons: ArrayLike, distances: ArrayLike, n_sites: int, settings: BaderSettings) -> None:
    """Check that the basins belong to atoms.

    Args:
        electrons: (n_basins,) e.
        distances: (n_basins,) distance of each maximum from the nearest site, Å.
        n_sites: Sites of the cell.
        settings: With the largest distance.

    Raises:
        LabelError: With reason maximum_off_atom, if basins whose maxima are farther away hold more than `NEGLIGIBLE`.
    """
    electrons, distances = np.asarray(electrons, dtype=np.float64), np.asarray(distances, dtype=np.float64)
    far = ~(distances <= settings.maximum_distance)
    held = float(np.abs(electrons[far]).sum())
    if far.any() and not held <= NEGLIGIBLE * n_sites:
        raise LabelError(
            "maximum_off_atom",
            f"{int(far.sum())} of {len(far)} basins, with {held:.2f} electrons, have their maximum up to "
            f"{distances.max():.2f} Å from the nearest site (allowed: {settings.maximum_distance:g} Å): the density "
            "has maxima at bonds or in voids; give AECCAR0 and AECCAR2 (VASP: LAECHG = .TRUE.) if they are not there",
        )


def _check_sum(
    electrons: NDArray[np.float64], valence: NDArray[np.float64], total: float | None, settings: BaderSettings
) -> None:
    held, expected, n_sites = float(electrons.sum()), float(valence.sum()), len(valence)
    integral = held if total is None else float(total)
    if not np.isfinite(electrons).all() or not np.isfinite(valence).all():
        raise LabelError("electrons_missing", "the electrons of the sites are not all finite numbers")
    if not abs(integral - expected) <= settings.electron_tolerance * n_sites:
        raise LabelError(
            "electrons_missing",
            f"the density integrates to {integral:.3f} electrons, the atoms have {expected:g}: the file is damaged, or "
            "is not the valence density of these potentials",
        )
    if not abs(held - integral) <= settings.neutrality_tolerance:
        raise LabelError(
            "electrons_missing", f"the basins hold {held:.3f} of {integral:.3f} electrons: the rest is in vacuum"
        )
    if not abs(expected - held) <= settings.neutrality_tolerance:
        raise LabelError(
            "not_neutral",
            f"the charges add up to {expected - held:+.3f} e, more than {settings.neutrality_tolerance:g} e from zero",
        )


def equivalent_sites(structure: Structure, symprec: float) -> NDArray[np.int64]:
    """(n_sites,) index of the first site that is symmetry-equivalent to each, by spglib; moments are ignored.

    Raises:
        LabelError: With reason bad_structure, if spglib finds no symmetry, not even the identity.
    """
    import spglib

    numbers = [site.specie.Z for site in structure]
    cell: Any = (structure.lattice.matrix, structure.frac_coords, numbers)
    try:
        dataset = spglib.get_symmetry_dataset(cell, symprec=symprec)
    except Exception as error:  # spglib's own errors differ between its versions
        raise LabelError("bad_structure", f"spglib finds no symmetry ({error})") from None
    if dataset is None:
        raise LabelError("bad_structure", "spglib finds no symmetry: are two sites at the same place?")
    return np.asarray(dataset.equivalent_atoms, dtype=np.int64)


def check_equivalent(
    structure: Structure, charges: ArrayLike, settings: BaderSettings
) -> tuple[NDArray[np.float64], list[Finding]]:
    """Check that symmetry-equivalent sites have equal charges, or average them where the settings say so.

    Args:
        structure: The crystal.
        charges: (n_sites,) e.
        settings: Tolerance, symprec, and whether to average.

    Returns:
        (n_sites,) charges in e, and a warning where they were averaged. The mean keeps their sum.

    Raises:
        LabelError: With reason sites_differ or bad_structure.
    """
    charges = np.asarray(charges, dtype=np.float64)
    orbits = equivalent_sites(structure, settings.symprec)
    low, high = np.full(len(charges), np.inf), np.full(len(charges), -np.inf)
    np.minimum.at(low, orbits, charges)
    np.maximum.at(high, orbits, charges)
    spread = high - low
    site = int(np.argmax(spread))
    if spread[site] <= settings.equivalent_tolerance:
        return charges, []
    sentence = (
        f"the {int((orbits == site).sum())} sites equivalent to site {site} ({structure.sites[site].specie.symbol}) "
        f"have charges from {low[site]:+.3f} to {high[site]:+.3f} e, more than {settings.equivalent_tolerance:g} e "
        "apart"
    )
    if not settings.average_equivalent:
        raise LabelError("sites_differ", sentence)
    counts = np.bincount(orbits, minlength=len(charges))
    sums = np.bincount(orbits, weights=charges, minlength=len(charges))
    return sums[orbits] / counts[orbits], [Finding("bader", "sites_differ", f"{sentence}; averaged, as asked for")]
