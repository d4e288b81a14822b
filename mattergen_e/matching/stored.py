"""A reference crystal out of arrays, with the reduced cell that its reference keeps."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element

from mattergen_e.matching.cell import Cell, Kind
from mattergen_e.matching.crystal import Crystal

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Lattice vectors (3, 3) in Å, fractional positions (sites, 3), and atomic numbers (sites,).
Sites = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]

_KINDS: dict[int, Kind] = {element.Z: frozenset([element.symbol]) for element in map(Element.from_Z, range(1, 119))}


class StoredCrystal(Crystal):
    """An ordered crystal without oxidation states; pymatgen's structure of it is made only if it is asked for."""

    def __init__(self, sites: Sites, reduced: Sites, formula: str) -> None:
        """Takes the crystal, what `Crystal.cell` would make of it, and its reduced formula."""
        self.ordered = True
        self.formula = formula
        self.matrix, self.positions, self._numbers = sites
        self.cell = Cell(reduced[0], reduced[1], [_KINDS[number] for number in reduced[2].tolist()])

    @property
    def structure(self) -> Structure:
        """The crystal for pymatgen."""
        from pymatgen.core import Lattice, Structure

        return Structure(Lattice(self.matrix), self._numbers.tolist(), self.positions)

    @property
    def size(self) -> int:
        """Sites of the reduced cell."""
        return len(self.cell)

    @cached_property
    def primitive(self) -> Cell:
        """The reduced cell."""
        return self.cell
