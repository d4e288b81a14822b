"""Whether compositions and structures of crystals make chemical and geometric sense (mattergen-e, section 2.2).

Compositions: smact's test as xtalmet calls it for `validity=["smact"]`. A composition is valid if its elements have
oxidation states of the ICSD that add up to zero with every cation less electronegative than every anion (Davies et al.
2019); crystals of one element, and alloys (metals only), are valid without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mattergen_e.crystals.cells import Composition, physical_cell, reduced_counts
from mattergen_e.crystals.checks import MIN_DISTANCE
from mattergen_e.quiet import quiet

if TYPE_CHECKING:
    from pymatgen.core import Structure

Verdict = tuple[bool, str | None]
"""Whether something is valid, and why: always there if not, and if it is valid without having been tested."""

MAX_COMBINATIONS = 100_000
"""smact tries oxidation states one by one; compositions with more combinations are left to `explain`, which gives the
same verdict by sums. A draw of sixteen sites may have ten elements: 10^8 combinations."""

SMACT_ELEMENTS = 103


# -- compositions -----------------------------------------------------------------------------------------------------


def composition_valid(structures: Iterable[Structure | None]) -> list[Verdict]:
    """Verdicts of xtalmet on compositions.

    Args:
        structures: Crystals; None for one that cannot be read, which is not valid.

    Returns:
        A verdict per crystal.
    """
    keys = [_composition(structure) for structure in structures]
    found = {key: _judge(key) for key in dict.fromkeys(key for key in keys if not isinstance(key, str))}
    return [(False, key) if isinstance(key, str) else found[key] for key in keys]


def explain(numbers: tuple[int, ...], counts: tuple[int, ...]) -> Verdict:
    """smact's verdict on a composition with its reason, from sums of oxidation states instead of their combinations.

    The pairs of a cation and an anion are in order if a limit of the electronegativity parts all cations from all
    anions. So for each limit the elements below it are cations and the rest are anions, and the sums of their oxidation
    states that can be reached are few.

    Args:
        numbers: Atomic numbers, each once.
        counts: Atoms of each.

    Returns:
        The verdict.
    """
    from pymatgen.core import Element
    from smact import Element as SmactElement
    from smact import metals

    symbols = [Element.from_Z(z).symbol for z in numbers]
    if len(symbols) == 1:
        return True, "a crystal of one element, which is not tested"
    if all(symbol in metals for symbol in symbols):
        return True, "an alloy, which is not tested"
    states = _states()
    for symbol in symbols:
        if symbol not in states:
            return False, f"no oxidation state of {symbol} is known"
    charges = [[count * state for state in states[symbol]] for symbol, count in zip(symbols, counts, strict=True)]
    if 0 not in _sums(charges):
        return False, "no oxidation states add up to zero"
    known = {symbol: SmactElement(symbol).pauling_eneg for symbol in symbols}
    negativity = [value for value in known.values() if value is not None]
    if len(negativity) < len(symbols):
        missing = next(symbol for symbol, value in known.items() if value is None)
        return False, f"no electronegativity of {missing} is known"
    for limit in sorted(set(negativity)):
        ions = [
            [charge for charge in options if (charge > 0) == (value <= limit)]
            for options, value in zip(charges, negativity, strict=True)
        ]
        if 0 in _sums(ions):
            return True, None
    return False, "oxidation states add up to zero only with a cation at least as electronegative as an anion"


def _composition(structure: Structure | None) -> Composition | str:
    """Atomic numbers and their reduced counts, or why smact cannot test them."""
    key = reduced_counts(structure)
    if not isinstance(key, str) and not 1 <= key[0][0] <= key[0][-1] <= SMACT_ELEMENTS:
        return "smact does not know one of its elements"
    return key


def _judge(key: Composition) -> Verdict:
    from pymatgen.core import Element

    own = explain(*key)
    states = _states()
    if np.prod([float(len(states.get(Element.from_Z(z).symbol, ()))) for z in key[0]]) > MAX_COMBINATIONS:
        return own
    verdict = _xtalmet_verdict(key)
    return own if own[0] == verdict else (verdict, None if verdict else "smact finds no sensible oxidation states")


def _xtalmet_verdict(key: Composition) -> bool:
    from pymatgen.core import Element

    validator, crystal = _validator()
    species = [Element.from_Z(z) for z, count in zip(*key, strict=True) for _ in range(count)]
    scores, _ = validator.validate([crystal(np.eye(3), species, np.zeros((len(species), 3)))], [])
    return bool(scores["smact"][0] == 1.0)


@cache
def _validator() -> tuple[Any, Any]:
    """xtalmet's validator and its class of crystals; the package loads MACE, which talks."""
    with quiet():
        from xtalmet import Crystal, Validator

        return Validator(["smact"]), Crystal


@cache
def _states() -> dict[str, tuple[int, ...]]:
    """Oxidation states by element that smact tests by default."""
    from smact.screening import ICSD24FilterConfig
    from smact.utils.oxidation import ICSD24OxStatesFilter

    chosen = ICSD24FilterConfig()
    table = ICSD24OxStatesFilter().filter(
        consensus=chosen.consensus, include_zero=chosen.include_zero, commonality=chosen.commonality
    )
    rows = zip(table["element"], table["oxidation_state"], strict=True)
    return {str(element): tuple(int(state) for state in str(text).split()) for element, text in rows}


def _sums(options: list[list[int]]) -> set[int]:
    """All sums that one choice from every list can have."""
    sums = {0}
    for values in options:
        sums = {total + value for total in sums for value in values}
    return sums


# -- structures -------------------------------------------------------------------------------------------------------


def structure_valid(structure: Structure | None) -> Verdict:
    """Whether a structure can be one of a crystal: a cell of physical size, and sites that do not overlap.

    The volume per site (1 to 2000 Å^3) and the edges are judged in the reduced cell (`physical_cell`), in which no
    angle is degenerate: a flat cell is a bad choice for a sound lattice, or its sites are too near to their images. The
    least distance, 0.5 Å, is that of Xie et al. (2022) and xtalmet, but holds for the periodic images of a site, too.

    Args:
        structure: The crystal; None for one that cannot be read, which is not valid.

    Returns:
        The verdict.
    """
    cell = physical_cell(structure)
    if isinstance(cell, str):
        return False, cell
    first, second, _, distances = cell.get_neighbor_list(MIN_DISTANCE, exclude_self=True)
    if len(distances) and distances.min() < MIN_DISTANCE:
        pair = int(np.argmin(distances))
        i, j = sorted((int(first[pair]), int(second[pair])))
        between = f"sites {i} and {j} are" if i != j else f"site {i} and its own image are"
        return False, f"{between} {distances[pair]:.3g} Å apart, less than {MIN_DISTANCE:g} Å"
    return True, None
