"""The convex hull of a reference set: how far a crystal lies above it.

A crystal of energy e lies e - h(x) above the hull, where h(x) is the lowest energy per atom of any mixture of
reference crystals that has its composition x; negative below the hull. Paper 1, section 4.3, calls a crystal stable up
to 0.1 eV/atom.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from pymatgen.core import Composition

#: Phase diagrams of more elements grow beyond all bounds: their hulls are found by linear programming instead.
MOST_ELEMENTS = 5


class HullError(ValueError):
    """A crystal that has no place on the hull.

    Attributes:
        reason: no_energy or missing_element.
        sentence: What is wrong, for people.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence


class Hull:
    """Hull of any chemical system of a reference set; phase diagrams are made when they are asked for.

    Only the lowest energy of each formula counts, so that a hull of a million crystals is a few arrays.
    """

    def __init__(
        self,
        formulas: ArrayLike,
        chemical_systems: ArrayLike,
        energies: ArrayLike,
        *,
        elements: Mapping[str, float] | None = None,
        kept: int = 256,
    ) -> None:
        """Sorts the reference.

        Args:
            formulas: (n,) reduced formulas.
            chemical_systems: (n,) sorted symbols joined by "-".
            energies: (n,) in eV/atom; crystals without a finite one are passed over.
            elements: Further energies of elements in eV/atom, by symbol; the lower one counts.
            kept: Most phase diagrams kept in memory at once.
        """
        names, systems, values = _lowest(np.asarray(formulas), np.asarray(chemical_systems), np.asarray(energies))
        self._systems = _slices(systems)
        self._names, self._values, self._kept = names, values, kept
        self._elements = dict(elements or {})
        for symbol in {s for s in self._systems if "-" not in s}:
            lowest = float(values[self._systems[symbol]].min())
            self._elements[symbol] = min(lowest, self._elements.get(symbol, np.inf))
        self._diagrams: OrderedDict[tuple[str, ...], Any] = OrderedDict()

    @property
    def elements(self) -> dict[str, float]:
        """Lowest energy of each element that has one, in eV/atom."""
        return dict(self._elements)

    def missing(self, composition: Composition | str) -> list[str]:
        """Symbols of a composition's elements that have no energy, sorted."""
        return [symbol for symbol in _symbols(_composition(composition)) if symbol not in self._elements]

    def energy_above_hull(self, composition: Composition | str, energy_per_atom: float) -> float:
        """Distance of a crystal from the hull.

        Args:
            composition: Of the crystal.
            energy_per_atom: In eV/atom, from what the energies of the reference come from.

        Returns:
            eV/atom; negative if it lies below the hull of the reference.

        Raises:
            HullError: If the energy is not finite, or an element has no energy in the reference.
        """
        given = self._checked(composition, energy_per_atom)
        return float(energy_per_atom) - self.hull_energy(given)

    def formation_energy(self, composition: Composition | str, energy_per_atom: float) -> float:
        """Energy relative to the elements, each in its lowest crystal of the reference.

        Args:
            composition: Of the crystal.
            energy_per_atom: In eV/atom.

        Returns:
            eV/atom.

        Raises:
            HullError: If the energy is not finite, or an element has no energy in the reference.
        """
        given = self._checked(composition, energy_per_atom)
        shares = ((symbol, given.get_atomic_fraction(symbol)) for symbol in _symbols(given))
        return float(energy_per_atom) - sum(share * self._elements[symbol] for symbol, share in shares)

    def hull_energy(self, composition: Composition | str) -> float:
        """Lowest energy of any mixture of reference crystals of this composition, in eV/atom.

        Raises:
            HullError: If an element has no energy in the reference.
        """
        given = self._checked(composition, 0.0)
        symbols = _symbols(given)
        if len(symbols) == 1:
            return self._elements[symbols[0]]
        if len(symbols) > MOST_ELEMENTS:
            return self._by_linear_programming(given)
        return float(self._diagram(symbols).get_hull_energy_per_atom(given))

    def _checked(self, composition: Composition | str, energy: float) -> Composition:
        given = _composition(composition)
        if not np.isfinite(energy):
            raise HullError("no_energy", f"the energy of {given.reduced_formula} is no finite number")
        missing = self.missing(given)
        if missing:
            raise HullError("missing_element", f"the reference has no energy of the element {', '.join(missing)}")
        return given

    def _entries(self, symbols: Sequence[str]) -> Iterable[tuple[str, float]]:
        """Formula and energy of all crystals of these elements and of any of them."""
        wanted = set(symbols)
        if 2 ** len(symbols) < len(self._systems):
            subsets = (c for size in range(2, len(symbols) + 1) for c in combinations(symbols, size))
            found = [name for name in map("-".join, subsets) if name in self._systems]
        else:
            found = [name for name in self._systems if "-" in name and wanted.issuperset(name.split("-"))]
        yield from ((symbol, self._elements[symbol]) for symbol in symbols)
        for name in found:
            part = self._systems[name]
            yield from zip(self._names[part].tolist(), self._values[part].tolist(), strict=True)

    def _diagram(self, symbols: tuple[str, ...]) -> Any:
        from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

        if symbols in self._diagrams:
            self._diagrams.move_to_end(symbols)
            return self._diagrams[symbols]
        given = ((_composition(formula), energy) for formula, energy in self._entries(symbols))
        diagram = PhaseDiagram([PDEntry(c, energy * c.num_atoms) for c, energy in given])
        self._diagrams[symbols] = diagram
        if len(self._diagrams) > self._kept:
            self._diagrams.popitem(last=False)
        return diagram

    def _by_linear_programming(self, given: Composition) -> float:
        """The same number without the diagram: shares of entries that add up to the composition at least energy."""
        from scipy.optimize import linprog

        symbols = _symbols(given)
        entries = [(_composition(formula), energy) for formula, energy in self._entries(symbols)]
        content = np.array([[c.get_atomic_fraction(s) for c, _ in entries] for s in symbols])
        target = np.array([given.get_atomic_fraction(s) for s in symbols])
        found: Any = linprog([energy for _, energy in entries], A_eq=content, b_eq=target, method="highs")
        if not found.success:
            raise HullError("no_energy", f"the hull at {given.reduced_formula} could not be found ({found.message})")
        return float(found.fun)


def _lowest(
    formulas: NDArray[Any], systems: NDArray[Any], energies: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """The lowest entry of each formula, sorted by chemical system."""
    known = np.flatnonzero(np.isfinite(energies))
    known = known[np.lexsort((energies[known], formulas[known]))]
    names = formulas[known]
    first = np.ones(len(known), dtype=bool)
    first[1:] = names[1:] != names[:-1]
    kept = known[first]
    kept = kept[np.argsort(systems[kept], kind="stable")]
    return formulas[kept], systems[kept], energies[kept].astype(np.float64)


def _slices(systems: NDArray[Any]) -> dict[str, slice]:
    names, starts = np.unique(systems, return_index=True)
    ends = np.append(starts[1:], len(systems))[: len(starts)]
    return {str(name): slice(int(a), int(b)) for name, a, b in zip(names, starts, ends, strict=True)}


def _composition(given: Composition | str) -> Composition:
    from pymatgen.core import Composition

    return given.element_composition if isinstance(given, Composition) else Composition(given)


def _symbols(composition: Composition) -> tuple[str, ...]:
    return tuple(sorted(element.symbol for element in composition.elements))
