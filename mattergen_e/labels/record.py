"""What a calculation gives, and what becomes of it: the two records that every source and every writer share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pymatgen.core import Structure

REASONS = {
    "missing_file": "a file that is needed is not there",
    "unreadable_file": "a file cannot be opened or unpacked",
    "damaged_file": "a file is cut off, empty, or not what its name says",
    "other_structure": "two files of one calculation hold different crystals, or another order of the sites",
    "not_collinear": "the calculation is non-collinear",
    "not_converged": "the electronic steps did not converge",
    "no_valence": "the number of valence electrons is not known",
    "not_neutral": "the charges do not add up to zero",
    "electrons_missing": "the integrated density does not hold all electrons",
    "sites_differ": "symmetry-equivalent sites have different charges",
    "maximum_off_atom": "a basin of the density has its maximum away from every atom",
    "no_projections": "the DOS is not projected onto sites",
    "no_fermi_energy": "the Fermi energy is not given",
    "window": "the energies of the DOS do not cover the grid",
    "negative_dos": "the DOS is negative",
    "bad_dos": "the DOS is not made of finite numbers on ascending energies",
    "bad_structure": "the structure cannot be used",
    "duplicate": "an earlier calculation has the same id",
    "failed": "the calculation ended with an error",
    "no_labels": "nothing is left that a model could learn",
}


class LabelError(ValueError):
    """One calculation, or one part of it, that cannot be used.

    Attributes:
        reason: One of the keys of `REASONS`.
        sentence: What is wrong, where, and what to do: one clause without a closing period.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        if reason not in REASONS:
            raise ValueError(f"unknown reason {reason!r}")
        self.reason = reason
        self.sentence = sentence


@dataclass(frozen=True)
class Finding:
    """Something about one calculation that a person should know.

    Attributes:
        part: What it is about: "bader", "atomic_dos", "total_dos", "band_gap" or "calculation".
        reason: One of the keys of `REASONS`, or another short code for a mere warning.
        sentence: One clause.
        refused: Whether the part was left out because of it.
    """

    part: str
    reason: str
    sentence: str
    refused: bool = False


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


@dataclass
class Calculation:
    """What one finished calculation gives.

    Attributes:
        id: Material id; a source without ids makes one from the place of the calculation.
        origin: Where it came from, as a person would name it (folder or file).
        structure: The cell of the calculation, its sites in the code's order.
        dos: Density of states, where there is one.
        bader_charge: (n_sites,) net charges in e that passed the checks, where there are any.
        properties: Numbers of the crystal by MatterGen's name, e.g. dft_band_gap in eV.
        split: train, val, test or None.
        findings: Warnings, and parts that were refused.
        record: What made it: code, version, functional, settings that matter; plain JSON values.
        inputs: SHA-256 by name of the files read.
    """

    id: str
    origin: str
    structure: Structure
    dos: RawDos | None = None
    bader_charge: NDArray[np.float64] | None = None
    properties: dict[str, float] = field(default_factory=dict)
    split: str | None = None
    findings: list[Finding] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)


@dataclass
class Label:
    """What a model learns from one calculation.

    Attributes:
        site_values: (n_sites, dim) by name: bader_charge, atomic_dos.
        crystal_values: (dim,) by name: total_dos.
        The others are those of `Calculation`.
    """

    id: str
    origin: str
    structure: Structure
    site_values: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    crystal_values: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    properties: dict[str, float] = field(default_factory=dict)
    split: str | None = None
    findings: list[Finding] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
