"""A primitive cell with its sites, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import gcd
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mattergen_e.matching.prefilters.lattices import Target

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: The elements that share a site.
Kind = frozenset[str]


class Cell:
    """A cell and its sites; nothing in it changes.

    Attributes:
        matrix: (3, 3), rows are lattice vectors in Å.
        positions: (sites, 3), fractional.
        labels: (sites,), the kind of each site as a position in `kinds`.
        kinds: The kinds that occur.
    """

    def __init__(
        self,
        matrix: NDArray[np.float64],
        positions: NDArray[np.float64],
        kinds: Sequence[Kind],
        structure: Structure | None = None,
    ) -> None:
        """Takes the kind of each site; and the structure that pymatgen is to be given, unless it follows from these."""
        found: dict[Kind, int] = {}
        self.matrix = matrix
        self.positions = positions
        self.labels = np.array([found.setdefault(kind, len(found)) for kind in kinds])
        self.kinds = tuple(found)
        self._structure = structure

    @classmethod
    def of(cls, structure: Structure) -> Cell:
        """The cell of a structure as it is."""
        kinds = [frozenset(element.symbol for element in site.species) for site in structure]
        return cls(structure.lattice.matrix, structure.frac_coords, kinds, structure)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def structure(self) -> Structure:
        """As pymatgen takes it."""
        if self._structure is None:
            from pymatgen.core import Lattice, Structure

            symbols = [symbol for (symbol,) in self.kinds]
            self._structure = Structure(Lattice(self.matrix), [symbols[i] for i in self.labels], self.positions)
        return self._structure

    @cached_property
    def volume(self) -> float:
        """In Å^3."""
        return abs(float(np.linalg.det(self.matrix)))

    @cached_property
    def spacing(self) -> NDArray[np.float64]:
        """(3,), distances of lattice planes in Å: no lattice vector that leaves such a plane is shorter."""
        return 1 / np.sqrt((np.linalg.inv(self.matrix) ** 2).sum(axis=0))

    @cached_property
    def target(self) -> Target:
        """What is needed of the cell where others are laid onto it."""
        return Target(self.matrix)

    @cached_property
    def divisor(self) -> int:
        """The greatest common divisor of the numbers of sites of each kind: the most often that a cell is repeated."""
        return gcd(*np.bincount(self.labels).tolist())


def forbidden(larger: Cell, smaller: Cell) -> NDArray[np.bool_]:
    """Where a site of the smaller (rows) cannot be one of the larger cell.

    Sites can be the same if the elements of one are among those of the other, as pymatgen's
    `OrderDisorderElementComparator` has it; where every site has one element, that is `SpeciesComparator`'s rule.
    """
    table = np.array([[not (one <= two or two <= one) for one in larger.kinds] for two in smaller.kinds])
    return table[smaller.labels[:, None], larger.labels]
