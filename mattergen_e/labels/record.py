"""What a calculation gives, and what becomes of it: the two records that every source and every writer share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.findings import Finding
from mattergen_e.spectra.raw import RawDos

if TYPE_CHECKING:
    from pymatgen.core import Structure


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
