"""Fermi energy and band gap out of the eigenvalues and occupations of a parsed vasprun.xml.

Where every band is filled at all k-points or empty at all of them, the crystal is an insulator and the gap lies
between the two, wherever VASP put its Fermi energy: with the tetrahedron method or a narrow smearing that can be some
meV inside a band. Everywhere else the Fermi energy decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mattergen_e.crystals.findings import LabelError

if TYPE_CHECKING:
    from pymatgen.io.vasp.outputs import Vasprun

#: Occupations that differ from 0 or 1 by more are those of a metal, or of a smearing as wide as the gap.
WHOLE = 0.02
#: Electrons by which sums over bands may differ from NELECT.
ELECTRONS = 0.01


@dataclass(frozen=True)
class Edges:
    """Edges of the gap of an insulator.

    Attributes:
        valence: Highest energy of the filled bands, eV; -inf without any.
        conduction: Lowest energy of the empty bands, eV; +inf if none was calculated.
    """

    valence: float
    conduction: float


def edges(vasprun: Vasprun) -> Edges | None:
    """Edges of the gap by occupations; None in a metal, and where occupations do not decide.

    Bands are counted at k-points with a weight. Those without (of band structures with hybrids) have occupations that
    hang on the Fermi energy, so there the same number of lowest bands counts as filled.
    """
    if not vasprun.eigenvalues:
        return None
    used = np.asarray(vasprun.actual_kpoints_weights, dtype=np.float64) > 0
    highest, lowest, electrons = -np.inf, np.inf, 0.0
    for values in vasprun.eigenvalues.values():
        order = np.argsort(values[:, :, 0], axis=1, kind="stable")
        levels, filling = (np.take_along_axis(values[:, :, i], order, axis=1) for i in (0, 1))
        filling, whole = filling[used], np.round(filling[used])
        counts = whole.sum(axis=1).astype(int)
        ordered = bool((np.diff(whole, axis=1) <= 0).all())
        if not ordered or np.ptp(counts) > 0 or np.abs(filling - whole).max() > WHOLE:
            return None
        n = int(counts[0])
        highest = max(highest, float(levels[:, n - 1].max())) if n > 0 else highest
        lowest = min(lowest, float(levels[:, n].min())) if n < levels.shape[1] else lowest
        electrons += 2 / len(vasprun.eigenvalues) * n
    if abs(electrons - n_electrons(vasprun)) > ELECTRONS or not highest < lowest:
        return None
    return Edges(highest, lowest)


def fermi_energy(vasprun: Vasprun) -> float:
    """Fermi energy in eV; in an insulator never inside a band.

    VASP's value, unless it lies outside the gap of an insulator: then the middle of the gap.

    Raises:
        LabelError: With reason no_fermi_energy, or bad_dos if bands of a metal far below it are empty or far above it
            are filled.
    """
    efermi = getattr(vasprun, "efermi", None)
    if efermi is None or not np.isfinite(efermi):
        raise LabelError("no_fermi_energy", "vasprun.xml gives no Fermi energy")
    if not vasprun.eigenvalues:
        return float(efermi)
    gap = edges(vasprun)
    if gap is not None and np.isfinite([gap.valence, gap.conduction]).all():
        inside = gap.valence < efermi < gap.conduction
        return float(efermi) if inside else 0.5 * (gap.valence + gap.conduction)
    result = float(vasprun.calculate_efermi())
    result = result if np.isfinite(result) else float(efermi)
    _check_filling(vasprun, result)
    return result


def band_gap(vasprun: Vasprun) -> float:
    """Band gap in eV from the eigenvalues on the k-points of the calculation; zero in a metal.

    By occupations where they decide (`edges`), else by pymatgen's `BandStructure.get_band_gap`: bands that cross the
    Fermi energy make a metal. It does not depend on the smearing, as the gap in the DOS does (MgO with 0.1 eV: 4.66 eV
    here, 4.20 eV in the DOS) and the one by occupations above 1e-8 (Si with 0.1 eV: 0.51 eV here, 0.006 eV there).

    Raises:
        LabelError: With reason bad_dos, if there are no eigenvalues or the bands below the Fermi energy do not hold the
            electrons; no_fermi_energy; window, if no empty band was calculated.
    """
    from pymatgen.core import Lattice
    from pymatgen.electronic_structure.bandstructure import BandStructure

    if not vasprun.eigenvalues:
        raise LabelError("bad_dos", "vasprun.xml holds no eigenvalues")
    found = edges(vasprun)
    if found is not None and np.isfinite(found.conduction) and np.isfinite(found.valence):
        return found.conduction - found.valence
    efermi = fermi_energy(vasprun)
    if all(float(values[:, :, 0].max()) < efermi for values in vasprun.eigenvalues.values()):
        raise LabelError("window", "no empty band was calculated, so the band gap is not known (VASP: raise NBANDS)")
    bands = {spin: np.ascontiguousarray(values[:, :, 0].T) for spin, values in vasprun.eigenvalues.items()}
    reciprocal = Lattice(vasprun.final_structure.lattice.reciprocal_lattice.matrix)
    structure = BandStructure(np.asarray(vasprun.actual_kpoints), bands, reciprocal, efermi)
    gap = float(structure.get_band_gap()["energy"])
    if gap > 0:
        filled = 2 / len(bands) * sum(int((values[:, 0] < efermi).sum()) for values in bands.values())
        if abs(filled - n_electrons(vasprun)) > ELECTRONS:
            sentence = f"{filled:g} electrons fill the bands below the Fermi energy, there are {n_electrons(vasprun):g}"
            raise LabelError("bad_dos", sentence)
    return gap


def n_electrons(vasprun: Vasprun) -> float:
    """NELECT."""
    return float(vasprun.parameters["NELECT"])


def damage(vasprun: Vasprun) -> str | None:
    """What is wrong with the lists of k-points and eigenvalues, in one clause; None if they fit each other."""
    points = np.asarray(vasprun.actual_kpoints, dtype=np.float64)
    weights = np.asarray(vasprun.actual_kpoints_weights, dtype=np.float64)
    if points.shape != (len(weights), 3) or not np.isfinite(points).all():
        return f"{len(points)} k-points have {len(weights)} weights"
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.sum() > 0):
        return "the weights of the k-points are no numbers of at least zero"
    eigenvalues = list((vasprun.eigenvalues or {}).values())
    if len({values.shape for values in eigenvalues}) > 1 or len(eigenvalues) not in (0, _n_spins(vasprun)):
        return "the eigenvalues are not the same number for each spin"
    for values in eigenvalues:
        if values.ndim != 3 or values.shape[0] != len(weights) or values.shape[1] == 0 or values.shape[2] != 2:
            return f"the eigenvalues have the shape {values.shape} on {len(weights)} k-points"
        if not np.isfinite(values).all():
            return "the eigenvalues are not finite"
    return None


def _n_spins(vasprun: Vasprun) -> int:
    return 2 if vasprun.parameters.get("ISPIN", 1) == 2 else 1


def _check_filling(vasprun: Vasprun, efermi: float) -> None:
    """Check that bands are filled below the Fermi energy and empty above, beyond an energy that the method explains."""
    reach = 0.3 if vasprun.parameters.get("ISMEAR", 0) >= -1 else 1.0
    for values in (vasprun.eigenvalues or {}).values():
        above, filling = values[:, :, 0] - efermi, values[:, :, 1]
        wrong = ((above > reach) & (filling > 0.5)) | ((above < -reach) & (filling < 0.5))
        if wrong.any():
            state = "filled" if above[wrong][0] > 0 else "empty"
            sentence = f"a band {above[wrong][0]:+.2f} eV from the Fermi energy is {state}: the Fermi energy is wrong"
            raise LabelError("bad_dos", sentence)
