"""Whether a DOS of the Materials Project holds the electrons of its crystal.

It comes without its integral and without the number of electrons. That number follows from the potentials: those of the
task where they were fetched, else those that the Materials Project's settings name (pymatgen's `MPRelaxSet` for PBE,
`MPScanRelaxSet` for r2SCAN).
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from mattergen_e.crystals.findings import Finding, LabelError
from mattergen_e.labels.vasp.valence import by_element, potentials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pymatgen.core import Structure

    from mattergen_e.spectra.raw import RawDos

#: Share of the electrons by which the integral may differ. The tetrahedron method loses 5.6 % of K3Sb's, all of them
#: in semicore bands that are narrower than the step; what is sampled too coarsely to be of use is off by more.
TOLD, REFUSED = 0.02, 0.1
#: Choices of potentials that are tried, at most.
MOST = 1e5


def check_electrons(dos: RawDos, structure: Structure, potcars: Sequence[str] = ()) -> list[Finding]:
    """Compare the integral of a DOS up to the Fermi energy with the electrons that the potentials treat.

    Args:
        dos: Spins summed, of the cell.
        structure: The cell.
        potcars: Names of the potentials, where they are known, e.g. Na_pv.

    Returns:
        A warning where they differ by more than `TOLD` from these and from those of any choice of VASP's potentials, or
        the potentials are not known.

    Raises:
        LabelError: With reason bad_dos, if they differ by more than `REFUSED`.
    """
    held = _below_fermi_energy(dos)
    names = {name.split("_")[0]: name for name in potcars}
    expected = {n for chosen in (names, *_settings()) for n in _electrons(structure, _valences(chosen))}
    if not expected:
        sentence = f"the DOS holds {held:.1f} electrons; how many the potentials treat is not known"
        return [Finding("total_dos", "electrons_unknown", sentence)]
    nearest = min(expected, key=lambda n: abs(n - held))
    difference = abs(held - nearest) / nearest
    sentence = f"the DOS holds {held:.1f} electrons up to the Fermi energy, the potentials {nearest:g}"
    if any(abs(n - held) <= TOLD * n for n in (nearest, *_electrons(structure, by_element()))):
        return []
    if difference > REFUSED:
        raise LabelError("bad_dos", f"{sentence}: it is sampled too coarsely, or the Fermi energy is wrong")
    return [Finding("total_dos", "electrons_differ", sentence)]


def _below_fermi_energy(dos: RawDos) -> float:
    """Integral of the piecewise linear DOS up to zero."""
    energies, total = np.asarray(dos.energies, dtype=np.float64), np.asarray(dos.total, dtype=np.float64)
    below = energies < 0
    edge = min(0.0, float(energies[-1]))
    points = np.append(energies[below], edge)
    values = np.append(total[below], np.interp(edge, energies, total))
    return float((0.5 * (values[1:] + values[:-1]) * np.diff(points)).sum())


@cache
def _settings() -> tuple[dict[str, str], ...]:
    """Names of the potentials by element, of each kind of calculation of the Materials Project."""
    from pymatgen.io.vasp.sets import MPRelaxSet, MPScanRelaxSet

    return tuple(dict(kind.CONFIG["POTCAR"]) for kind in (MPRelaxSet, MPScanRelaxSet))


def _valences(names: Mapping[str, str]) -> dict[str, frozenset[float]]:
    return {symbol: potentials().get(name, frozenset()) for symbol, name in names.items()}


def _electrons(structure: Structure, valences: Mapping[str, frozenset[float] | set[float]]) -> set[float]:
    """Numbers of electrons of the cell that choices of valences give; none if an element has none."""
    amounts = {str(e.symbol): n for e, n in structure.composition.element_composition.items()}
    choices = [sorted(valences.get(symbol, ())) for symbol in amounts]
    if np.prod([float(len(choice)) for choice in choices]) > MOST:
        return set()
    return {float(np.dot(chosen, list(amounts.values()))) for chosen in product(*choices)}
