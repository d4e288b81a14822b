"""Density of states, Fermi energy and band gap out of a parsed vasprun.xml.

VASP writes the DOS and its integral. With a Gaussian or Methfessel-Paxton smearing the DOS is the number of states
between two energies, over the step. With the tetrahedron method it is the value at the energy, and bands that are
narrower than the step fall through: 1.8 of K3Sb's 32 electrons are lost. So the spectra here are made of the
differences of the integral, which hold every state; the share of a site in them is its share in the DOS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.findings import LabelError
from mattergen_e.spectra.raw import RawDos

if TYPE_CHECKING:
    from pymatgen.io.vasp.outputs import Vasprun

Array = NDArray[np.float64]

#: Largest difference between the integrated DOS at the Fermi energy and the electrons, as a share of the electrons.
ELECTRON_SHARE = 0.05
#: The sites' part of the electrons: PAW spheres hold 0.7 of MgO's and K3Sb's; LORBIT = 10 may count some twice.
SITE_SHARE = (0.2, 1.3)
#: A band that fell through takes the shares of a DOS at most so many steps away; else it is on no site.
NEAR_STEPS = 3
#: VASP prints energies with four decimals.
ROUNDING = 3e-4

_TETRAHEDRON = (-4, -5, -14, -15)


def fermi_energy(vasprun: Vasprun) -> float:
    """Fermi energy in eV; in an insulator never inside a band.

    VASP's value, unless it lies in a band by less than 1 meV beyond an edge of the gap: then the middle of the gap
    (pymatgen's `calculate_efermi`). In an insulator VASP's value can be anywhere in the gap.

    Raises:
        LabelError: With reason no_fermi_energy, or bad_dos if bands far below it are empty or far above it are filled.
    """
    efermi = getattr(vasprun, "efermi", None)
    if efermi is None or not np.isfinite(efermi):
        raise LabelError("no_fermi_energy", "vasprun.xml gives no Fermi energy")
    if not vasprun.eigenvalues:
        return float(efermi)
    result = float(vasprun.calculate_efermi())
    result = result if np.isfinite(result) else float(efermi)
    _check_filling(vasprun, result)
    return result


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


def raw_dos(vasprun: Vasprun, efermi: float) -> RawDos:
    """The DOS of a calculation, spins and orbitals summed, with its integral conserved.

    Args:
        vasprun: Parsed with its DOS and eigenvalues.
        efermi: From `fermi_energy`, eV.

    Returns:
        The DOS; its `sites` are None without projections (LORBIT).

    Raises:
        LabelError: With reason bad_dos.
    """
    if _on_lines(vasprun):
        raise LabelError("bad_dos", "the k-points lie on lines, so the DOS is none of the crystal: use a mesh")
    energies = np.asarray(vasprun.tdos.energies, dtype=np.float64)
    total = _sum_spins(vasprun.tdos.densities)
    integral = _sum_spins(vasprun.idos.densities)
    if len(energies) < 3 or not energies.shape == total.shape == integral.shape:
        raise LabelError("bad_dos", f"the DOS has {len(energies)} energies, {len(total)} values")
    if not all(np.isfinite(array).all() for array in (energies, total, integral)):
        raise LabelError("bad_dos", "the DOS holds values that are no finite numbers")
    even = np.linspace(energies[0], energies[-1], len(energies))
    step = float(even[1] - even[0])
    if not step > 0 or np.abs(even - energies).max() > ROUNDING:
        raise LabelError("bad_dos", "the energies of the DOS are not evenly spaced and ascending")
    _check_electrons(vasprun, even, integral, efermi)
    counts = np.diff(integral)
    sites = _site_counts(vasprun, total, counts, step)
    result = RawDos(even - efermi, _at_points(counts, step), None if sites is None else _at_points(sites, step))
    if result.sites is not None:
        _check_sites(result)
    return RawDos(result.energies, result.total, result.sites, _complete_to(vasprun, efermi))


def band_gap(vasprun: Vasprun, efermi: float) -> float:
    """Band gap in eV from the eigenvalues on the k-points of the calculation; zero in a metal.

    pymatgen's `BandStructure.get_band_gap`: bands that cross the Fermi energy make a metal. It does not depend on the
    smearing, as the gap in the DOS does (MgO with 0.1 eV: 4.66 eV here, 4.20 eV in the DOS) and the one by occupations
    (Si with 0.1 eV: 0.51 eV here, 0.006 eV by occupations above 1e-8).

    Raises:
        LabelError: With reason bad_dos, if the bands below the Fermi energy do not hold the electrons; window, if no
            empty band was calculated.
    """
    from pymatgen.core import Lattice
    from pymatgen.electronic_structure.bandstructure import BandStructure

    if not vasprun.eigenvalues:
        raise LabelError("bad_dos", "vasprun.xml holds no eigenvalues")
    if all(float(values[:, :, 0].max()) < efermi for values in vasprun.eigenvalues.values()):
        raise LabelError("window", "no empty band was calculated, so the band gap is not known (VASP: raise NBANDS)")
    bands = {spin: np.ascontiguousarray(values[:, :, 0].T) for spin, values in vasprun.eigenvalues.items()}
    reciprocal = Lattice(vasprun.final_structure.lattice.reciprocal_lattice.matrix)
    structure = BandStructure(np.asarray(vasprun.actual_kpoints), bands, reciprocal, efermi)
    gap = float(structure.get_band_gap()["energy"])
    if gap > 0:
        filled = 2 / len(bands) * sum(int((values[:, 0] < efermi).sum()) for values in bands.values())
        if abs(filled - _electrons(vasprun)) > 0.01:
            sentence = f"{filled:g} electrons fill the bands below the Fermi energy, there are {_electrons(vasprun):g}"
            raise LabelError("bad_dos", sentence)
    return gap


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


def _on_lines(vasprun: Vasprun) -> bool:
    return "line" in str(getattr(getattr(vasprun, "kpoints", None), "style", "")).lower()


def _electrons(vasprun: Vasprun) -> float:
    return float(vasprun.parameters["NELECT"])


def _sum_spins(densities: dict) -> Array:
    return np.sum([np.asarray(values, dtype=np.float64) for values in densities.values()], axis=0)


def _at_points(counts: Array, step: float) -> Array:
    """(..., n - 1) states between neighbouring energies to (..., n) states/eV of the same trapezoidal integral."""
    density = counts / step
    ends = density[..., :1], density[..., -1:]
    return np.concatenate([ends[0], 0.5 * (density[..., :-1] + density[..., 1:]), ends[1]], axis=-1)


def _site_counts(vasprun: Vasprun, total: Array, counts: Array, step: float) -> Array | None:
    """(n_sites, n - 1) states of each site between neighbouring energies; None without projections."""
    if not vasprun.pdos:
        return None
    n_sites = len(vasprun.final_structure)
    try:
        sites = np.array([np.sum([_sum_spins(spins) for spins in site.values()], axis=0) for site in vasprun.pdos])
    except ValueError:
        sites = np.empty(0)
    if sites.shape != (n_sites, len(total)) or not np.isfinite(sites).all():
        raise LabelError("bad_dos", f"the projections are not {len(total)} finite numbers on each of {n_sites} sites")
    if vasprun.parameters.get("ISMEAR", 0) not in _TETRAHEDRON:
        return sites[:, 1:] * step
    known = np.flatnonzero(total[1:] > 0)
    if not len(known):
        raise LabelError("bad_dos", "the DOS is zero")
    shares = np.clip(sites[:, 1:][:, known] / total[1:][known], 0.0, 2.0)
    points = np.arange(len(counts))
    right = np.clip(np.searchsorted(known, points), 0, len(known) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(known[left] - points) < np.abs(known[right] - points), left, right)
    near = np.abs(known[nearest] - points) <= NEAR_STEPS
    return shares[:, nearest] * np.where(near, counts, 0.0)


def _check_electrons(vasprun: Vasprun, energies: Array, integral: Array, efermi: float) -> None:
    """Check that the states up to the Fermi energy hold the electrons whose bands lie in the window."""
    electrons = _electrons(vasprun)
    if not energies[0] < efermi < energies[-1]:
        raise LabelError("bad_dos", f"the Fermi energy {efermi:.3f} eV is outside the energies of the DOS")
    below = float(np.interp(efermi, energies, integral) - integral[0])
    expected = electrons
    if vasprun.eigenvalues:
        weights = np.asarray(vasprun.actual_kpoints_weights, dtype=np.float64)
        held, inside = 0.0, 0.0
        for values in vasprun.eigenvalues.values():
            filling = 2 / len(vasprun.eigenvalues) * weights[:, None] / weights.sum() * values[:, :, 1]
            held += float(filling.sum())
            inside += float(filling[values[:, :, 0] > energies[0]].sum())
        if not abs(held - electrons) <= 0.01 * electrons:
            raise LabelError("bad_dos", f"the bands hold {held:.3f} electrons, there are {electrons:g}")
        expected = inside
    if not abs(below - expected) <= ELECTRON_SHARE * electrons:
        raise LabelError(
            "bad_dos",
            f"the DOS holds {below:.3f} electrons up to the Fermi energy, the bands there {expected:.3f}: the DOS or "
            "the Fermi energy is wrong",
        )


def _check_sites(dos: RawDos) -> None:
    assert dos.sites is not None
    occupied = dos.energies <= 0
    electrons = float(dos.total[occupied].sum())
    share = float(dos.sites[:, occupied].sum()) / electrons if electrons > 0 else 0.0
    if not SITE_SHARE[0] <= share <= SITE_SHARE[1]:
        raise LabelError("bad_dos", f"the sites hold {share:.2f} of the electrons of the total DOS")


def _complete_to(vasprun: Vasprun, efermi: float) -> float | None:
    """Lowest value of the highest band, eV relative to the Fermi energy."""
    if not vasprun.eigenvalues:
        return None
    used = np.asarray(vasprun.actual_kpoints_weights) > 0
    return min(float(values[used, :, 0].max(axis=1).min()) for values in vasprun.eigenvalues.values()) - efermi
