"""Crystals of the elements, which every phase diagram ends at and many a set of training crystals lacks.

The crystals are those of ASE's collection `dcdft` (Lejaeghere et al., Crit. Rev. Solid State Mater. Sci. 39, 1 (2014)):
ground states as PBE relaxes them, from H to Rn. Sulphur is the one with a stand-in there, so its rings of eight (Rettig
and Trotter, Acta Cryst. C 43, 2260 (1987)) take its place; elements that the collection lacks have ASE's lattice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mattergen_e.energies.calculators import energies
from mattergen_e.energies.relaxation import RelaxError, relax

if TYPE_CHECKING:
    from pymatgen.core import Structure

SOURCE = "ase.collections.dcdft; S: Fddd rings of eight; others: ase.build.bulk"

_SULPHUR_CELL = (10.4646, 12.8660, 24.4860, 90.0, 90.0, 90.0)
_SULPHUR_SITES = (
    (0.14415, 0.04732, 0.04860),
    (0.29277, 0.22690, 0.25406),
    (0.21598, 0.28022, 0.32618),
    (0.21405, 0.15761, 0.37947),
)


def element_crystals(symbols: Iterable[str]) -> dict[str, Structure]:
    """Crystals of the elements.

    Args:
        symbols: Of the elements.

    Returns:
        Primitive cells by symbol; elements for which ASE has no crystal are left out.
    """
    from pymatgen.io.ase import AseAtomsAdaptor

    made = {symbol: _atoms(symbol) for symbol in sorted(set(symbols))}
    return {
        symbol: AseAtomsAdaptor.get_structure(atoms).get_primitive_structure()
        for symbol, atoms in made.items()
        if atoms is not None
    }


def _atoms(symbol: str) -> Any:
    from ase.build import bulk
    from ase.collections import dcdft
    from ase.spacegroup import crystal

    if symbol == "S":
        return crystal(["S"] * 4, _SULPHUR_SITES, spacegroup=70, setting=2, cellpar=_SULPHUR_CELL)
    if symbol in dcdft.names:
        atoms = dcdft[symbol]
        atoms.set_initial_magnetic_moments(None)
        return atoms
    try:
        return bulk(symbol)
    except (ValueError, RuntimeError, KeyError):  # the ways in which ASE says that it has none
        return None


def element_energies(calculator: Any, symbols: Iterable[str]) -> dict[str, float]:
    """Energies of the elements' crystals.

    Those that PBE relaxed are computed as they are, like the crystals of a reference; ASE's lattices, which are
    experimental ones, are relaxed with the calculator first.

    Args:
        calculator: ASE calculator.
        symbols: Of the elements.

    Returns:
        eV/atom by symbol, as far as there is a crystal and the calculator has an energy for it.
    """
    from ase.collections import dcdft

    crystals = element_crystals(symbols)
    for symbol in set(crystals) - set(dcdft.names):
        try:
            crystals[symbol] = relax(crystals[symbol], calculator=calculator).structure
        except RelaxError:
            del crystals[symbol]
    found = energies(calculator, list(crystals.values()))
    return {symbol: float(energy) for symbol, energy in zip(crystals, found, strict=True) if energy == energy}
