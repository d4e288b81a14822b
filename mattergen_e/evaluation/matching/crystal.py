"""A crystal as the matcher needs it; what is costly is made once, when it is first asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from mattergen.evaluation.utils.structure_matcher import try_make_structure_disordered
from numpy.typing import NDArray
from pymatgen.core import Element

from mattergen_e.evaluation.matching.reduction import reduced

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True)
class Cell:
    """A reduced cell.

    Attributes:
        structure: As pymatgen takes it.
        matrix: (3, 3), rows are lattice vectors in Å.
        positions: (sites, 3), fractional.
        kinds: Elements on each site.
        counts: Number of sites of each kind.
        volume: In Å^3.
    """

    structure: Structure
    matrix: NDArray[np.float64]
    positions: NDArray[np.float64]
    kinds: list[frozenset[str]]
    counts: Counter[frozenset[str]]
    volume: float

    @classmethod
    def of(cls, structure: Structure) -> Cell:
        """Reduces a structure.

        Raises:
            ValueError: If it cannot be reduced.
        """
        cell = reduced(structure)
        kinds = [frozenset(element.symbol for element in site.species) for site in cell]
        return cls(cell, cell.lattice.matrix, cell.frac_coords, kinds, Counter(kinds), cell.volume)


class Crystal:
    """A crystal to be compared with others; its structure must not change afterwards.

    Attributes:
        structure: The structure without oxidation states: itself if it has none, else a copy.
        ordered: Whether there is one whole atom on every site.
        formula: Reduced formula.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure if _bare(structure) else structure.copy().remove_oxidation_states()
        self.ordered: bool = self.structure.is_ordered
        self.formula: str = self.structure.composition.reduced_formula

    @cached_property
    def places(self) -> NDArray[np.float64]:
        """Cartesian positions (sites, 3) in Å."""
        return self.structure.frac_coords @ self.structure.lattice.matrix

    @cached_property
    def chemical_system(self) -> str:
        """Symbols of the elements, sorted, with hyphens between."""
        return "-".join(sorted({element.symbol for element in self.structure.composition.elements}))

    @cached_property
    def cell(self) -> Cell:
        """The reduced cell.

        Raises:
            ValueError: If it cannot be reduced.
        """
        return Cell.of(self.structure)

    @cached_property
    def disordered_cell(self) -> Cell | None:
        """The reduced cell with substitutable elements sharing their sites; None if there are none.

        Raises:
            ValueError: If it cannot be reduced.
            TypeError: If an element has no atomic radius.
        """
        shared, possible = try_make_structure_disordered(self.structure)
        return Cell.of(shared) if possible else None


def _bare(structure: Structure) -> bool:
    """Whether the species are elements without oxidation states; isotopes' names and the like need pymatgen's care."""
    return all(type(species) is Element for site in structure for species in site.species)


def prepare(structures: Sequence[Structure | Crystal]) -> list[Crystal]:
    """Crystals to hand to `unique` and `ReferenceIndex.find`, so that both share what was made of them."""
    return [item if isinstance(item, Crystal) else Crystal(item) for item in structures]
