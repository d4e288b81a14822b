"""Density of states out of a parsed vasprun.xml.

VASP writes the DOS and its integral. With a Gaussian or Methfessel-Paxton smearing the DOS is the number of states
between two energies, over the step; a level whose smearing fits between two energies is left out. With the tetrahedron
method it is the value at the energy, and bands that are narrower than the step fall through: 1.8 of K3Sb's 32 electrons
are lost. So the spectra here are made of the differences of the integral, which hold every state; what part of them
belongs to which site says `mattergen_e.labels.vasp.shares`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.findings import Finding, LabelError
from mattergen_e.labels.vasp.bands import n_electrons
from mattergen_e.labels.vasp.shares import site_counts
from mattergen_e.spectra.raw import RawDos

if TYPE_CHECKING:
    from mattergen_e.labels.vasp.parser import Parser

Array = NDArray[np.float64]

#: Largest difference between the integrated DOS at the Fermi energy and the electrons, as a share of the electrons.
ELECTRON_SHARE = 0.05
#: The sites' part of the electrons: PAW spheres hold 0.7 of MgO's and K3Sb's and 0.18 of fcc magnesium's; LORBIT = 10
#: may count some twice.
SITE_SHARE = (0.05, 1.3)
#: VASP prints energies with four decimals.
ROUNDING = 3e-4


def raw_dos(vasprun: Parser, efermi: float) -> RawDos:
    """The total DOS of a calculation, spins summed, with its integral conserved.

    Args:
        vasprun: Parsed with its DOS and eigenvalues.
        efermi: From `bands.fermi_energy`, eV.

    Returns:
        The DOS, without sites; those are added by `with_sites`, which may fail on its own.

    Raises:
        LabelError: With reason bad_dos.
    """
    if _on_lines(vasprun):
        raise LabelError("bad_dos", "the k-points lie on lines, so the DOS is none of the crystal: use a mesh")
    energies, _, integral = _columns(vasprun)
    step = float(energies[1] - energies[0])
    _check_electrons(vasprun, energies, integral, efermi)
    return RawDos(energies - efermi, _at_points(np.diff(integral), step), None, _complete_to(vasprun, efermi))


def with_sites(raw: RawDos, vasprun: Parser, efermi: float) -> tuple[RawDos, list[Finding]]:
    """The DOS with its projections onto sites, orbitals and spins summed.

    Args:
        raw: From `raw_dos`.
        vasprun: Parsed with its DOS and eigenvalues.
        efermi: From `bands.fermi_energy`, eV.

    Returns:
        The DOS, whose `sites` stay None without projections (LORBIT), and warnings.

    Raises:
        LabelError: With reason bad_dos, if the projections are garbled or hold too much or too little; the total DOS is
            sound even then.
    """
    energies, total, integral = _columns(vasprun)
    found = site_counts(vasprun, energies, total, np.diff(integral), efermi)
    if found is None:
        return raw, []
    counts, findings = found
    result = replace(raw, sites=_at_points(counts, float(energies[1] - energies[0])))
    _check_sites(result)
    return result, findings


def _columns(vasprun: Parser) -> tuple[Array, Array, Array]:
    """(n,) evenly spaced energies in eV, (n,) DOS in states/eV and (n,) its integral, spins summed."""
    energies = np.asarray(vasprun.tdos.energies, dtype=np.float64)
    total, integral = (_sum_spins(found.densities) for found in (vasprun.tdos, vasprun.idos))
    if len(energies) < 3 or not energies.shape == total.shape == integral.shape:
        raise LabelError("bad_dos", f"the DOS has {len(energies)} energies, {len(total)} values")
    if not all(np.isfinite(array).all() for array in (energies, total, integral)):
        raise LabelError("bad_dos", "the DOS holds values that are no finite numbers")
    even = np.linspace(energies[0], energies[-1], len(energies))
    if not even[1] > even[0] or np.abs(even - energies).max() > ROUNDING:
        raise LabelError("bad_dos", "the energies of the DOS are not evenly spaced and ascending")
    return even, total, integral


def _on_lines(vasprun: Parser) -> bool:
    return "line" in str(getattr(getattr(vasprun, "kpoints", None), "style", "")).lower()


def _sum_spins(densities: dict) -> Array:
    return np.sum([np.asarray(values, dtype=np.float64) for values in densities.values()], axis=0)


def _at_points(counts: Array, step: float) -> Array:
    """(..., n - 1) states between neighbouring energies to (..., n) states/eV of the same trapezoidal integral."""
    density = counts / step
    ends = density[..., :1], density[..., -1:]
    return np.concatenate([ends[0], 0.5 * (density[..., :-1] + density[..., 1:]), ends[1]], axis=-1)


def _check_electrons(vasprun: Parser, energies: Array, integral: Array, efermi: float) -> None:
    """Check that the states up to the Fermi energy hold the electrons whose bands lie in the window."""
    electrons = n_electrons(vasprun)
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


def _complete_to(vasprun: Parser, efermi: float) -> float | None:
    """Lowest value of the highest band, eV relative to the Fermi energy."""
    if not vasprun.eigenvalues:
        return None
    used = np.asarray(vasprun.actual_kpoints_weights) > 0
    return min(float(values[used, :, 0].max(axis=1).min()) for values in vasprun.eigenvalues.values()) - efermi
