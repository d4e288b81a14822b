"""From a calculation to a label: spectra on the grids of the settings, charges as they passed their checks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.findings import Finding, LabelError, nothing_left
from mattergen_e.labels.record import Calculation, Label
from mattergen_e.labels.settings import LabelSettings
from mattergen_e.spectra import processing
from mattergen_e.spectra.raw import RawDos

Spectra = tuple[NDArray[np.float64], list[Finding]]


def make_label(calculation: Calculation, settings: LabelSettings) -> Label:
    """What a model can learn from one calculation.

    A part that cannot be used is left out and named in the findings.

    Args:
        calculation: From a source.
        settings: Grids and processing.

    Returns:
        The label, with `bader_charge` (n_sites, 1) in e, `atomic_dos` (n_sites, points) in states/eV and `total_dos`
        (points,) in states/eV per atom, as far as they are known.

    Raises:
        LabelError: With reason no_labels, if nothing is left, not even a property of the crystal.
    """
    label = Label(
        calculation.id,
        calculation.origin,
        calculation.structure,
        properties=dict(calculation.properties),
        split=calculation.split,
        findings=list(calculation.findings),
        record=dict(calculation.record),
        inputs=dict(calculation.inputs),
    )
    n_sites = len(calculation.structure)
    if calculation.bader_charge is not None:
        label.site_values["bader_charge"] = np.asarray(calculation.bader_charge, dtype=np.float64).reshape(n_sites, 1)
    dos = calculation.dos
    if dos is not None:
        total = _part("total_dos", label, lambda: processing.total_dos(dos, n_sites, settings.total_dos))
        if total is not None:
            label.crystal_values["total_dos"] = total
        sites = _part("atomic_dos", label, lambda: _atomic(dos, n_sites, settings))
        if sites is not None:
            label.site_values["atomic_dos"] = sites
    if not label.site_values and not label.crystal_values and not label.properties:
        raise LabelError("no_labels", nothing_left(label.findings, "it holds neither charges nor a DOS nor a property"))
    return label


def _part(name: str, label: Label, make: Callable[[], Spectra]) -> NDArray[np.float64] | None:
    try:
        values, findings = make()
    except LabelError as error:
        if not any(f.part == name and f.refused for f in label.findings):  # the source may have said why already
            label.findings.append(Finding(name, error.reason, error.sentence, refused=True))
        return None
    label.findings.extend(findings)
    return values


def _atomic(dos: RawDos, n_sites: int, settings: LabelSettings) -> Spectra:
    if dos.sites is None:
        raise LabelError("no_projections", "the DOS is not projected onto sites (VASP: set LORBIT = 11)")
    if len(dos.sites) != n_sites:
        raise LabelError("other_structure", f"the DOS is projected onto {len(dos.sites)} sites, not onto {n_sites}")
    return processing.atomic_dos(dos, settings.atomic_dos)
