"""A crystal as the matcher needs it; what is costly is made once, when it is first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element

from mattergen_e.matching.cell import Cell
from mattergen_e.matching.limits import check_size, is_compact
from mattergen_e.matching.reduction import is_primitive_in_any_basis, primitive
from mattergen_e.matching.sharing import groups, kinds_of, share

if TYPE_CHECKING:
    from pymatgen.core import Structure


class Crystal:
    """A crystal to be compared with others; its structure must not change afterwards.

    Attributes:
        ordered: Whether there is one whole atom on every site.
        formula: Reduced formula.
    """

    ordered: bool
    formula: str

    def __init__(self, structure: Structure) -> None:
        self._structure = structure if _bare(structure) else structure.copy().remove_oxidation_states()
        self.ordered = self._structure.is_ordered
        self.formula = self._structure.composition.reduced_formula

    @property
    def structure(self) -> Structure:
        """The structure without oxidation states: itself if it has none, else a copy."""
        return self._structure

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """Lattice vectors (3, 3) in Å."""
        return self.structure.lattice.matrix

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """Fractional positions (sites, 3)."""
        return self.structure.frac_coords

    @cached_property
    def places(self) -> NDArray[np.float64]:
        """Cartesian positions (sites, 3) in Å."""
        return self.positions @ self.matrix

    @cached_property
    def chemical_system(self) -> str:
        """Symbols of the elements, sorted, with hyphens between."""
        return "-".join(sorted({element.symbol for element in self.structure.composition.elements}))

    @property
    def size(self) -> int:
        """Sites of the reduced cell.

        Raises:
            ValueError: If it cannot be reduced.
        """
        return len(self.cell if self.primitive is None else self.primitive)

    @cached_property
    def cell(self) -> Cell:
        """The reduced cell.

        Raises:
            ValueError: If it cannot be reduced.
        """
        return Cell.of(primitive(self._niggli))

    @cached_property
    def primitive(self) -> Cell | None:
        """A cell of the lattice and the sites of `cell` in another basis, if that can be told without a reduction.

        Raises:
            TooLarge: If the cell is absurd.
        """
        return self._loose if is_primitive_in_any_basis(self._loose) else None

    @cached_property
    def shares(self) -> bool:
        """Whether some elements can take each other's places.

        Raises:
            TypeError: If an element has no atomic radius.
        """
        return bool(self._groups)

    @cached_property
    def shared_cell(self) -> Cell:
        """The reduced cell with substitutable elements sharing their sites.

        Raises:
            ValueError: If it cannot be reduced.
        """
        return Cell.of(primitive(share(self._niggli, self._groups)))

    @cached_property
    def shared_primitive(self) -> Cell | None:
        """As `primitive`, with substitutable elements sharing their sites."""
        kinds = kinds_of(self._groups)
        loose = self._loose
        shared = [kinds.get(next(iter(kind)), kind) for kind in loose.kinds]
        cell = Cell(loose.matrix, loose.positions, [shared[label] for label in loose.labels.tolist()])
        return cell if is_primitive_in_any_basis(cell) else None

    @cached_property
    def _groups(self) -> list[list[Any]]:
        return groups(list(self.structure.composition))

    @cached_property
    def _niggli(self) -> Structure:
        check_size(self.structure.lattice)
        return self.structure.get_reduced_structure()

    @cached_property
    def _loose(self) -> Cell:
        """The cell in a decent basis, not reduced."""
        cell = Cell.of(self.structure)
        if is_compact(self.matrix):
            return cell
        lattice = self.structure.lattice
        check_size(lattice)
        kinds = [cell.kinds[label] for label in cell.labels.tolist()]
        return Cell(lattice.lll_matrix, lattice.get_lll_frac_coords(cell.positions), kinds)


def _bare(structure: Structure) -> bool:
    """Whether the species are elements without oxidation states; isotopes' names and the like need pymatgen's care."""
    return all(type(species) is Element for site in structure for species in site.species)


def prepare(structures: Sequence[Structure | Crystal]) -> list[Crystal]:
    """Crystals to hand to `unique` and `ReferenceIndex.find`, so that both share what was made of them."""
    return [item if isinstance(item, Crystal) else Crystal(item) for item in structures]
