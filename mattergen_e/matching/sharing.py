"""Elements that may share their sites by MatterGen's rule, asked for once per pair of elements."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

from mattergen.evaluation.utils.structure_matcher import (
    do_elements_substitute,
    get_cliques_out_of_list_of_pairs,
    make_structure_disordered,
)

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from mattergen_e.matching.cell import Kind

_substitutable = lru_cache(maxsize=8192)(do_elements_substitute)


def groups(elements: Sequence[Any]) -> list[list[Any]]:
    """Elements that may take each other's places, as MatterGen's `check_is_disordered` groups them.

    Args:
        elements: pymatgen's, in the order of the composition.

    Raises:
        TypeError: If an element has no atomic radius.
    """
    pairs = [[one, two] for one, two in combinations(elements, 2) if _substitutable(one, two)]
    return get_cliques_out_of_list_of_pairs(pairs) if pairs else []


def kinds_of(found: Sequence[Sequence[Any]]) -> dict[str, Kind]:
    """By symbol, the elements on the sites of an element that shares them."""
    return {element.symbol: frozenset(one.symbol for one in group) for group in found for element in group}


def share(structure: Structure, found: list[list[Any]]) -> Structure:
    """A copy in which the elements of each group share all of their sites, by MatterGen's own function."""
    return make_structure_disordered(structure, found)
