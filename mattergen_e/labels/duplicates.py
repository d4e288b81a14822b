"""The same crystal twice, under two ids: a relaxation and the static run after it, or two databases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mattergen_e.crystals.dictionary import read_dictionary
from mattergen_e.labels.folder import LabelStore, Outcome
from mattergen_e.labels.method import of_label

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Tight enough that two polymorphs, or one crystal under pressure, are two crystals.
LENGTH_TOLERANCE = 0.02  # relative
POSITION_TOLERANCE = 0.05  # in units of the length per site
ANGLE_TOLERANCE = 1.0  # degrees


def find_duplicates(store: LabelStore, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Mark every crystal that is the same as an earlier one of the same functional.

    Args:
        store: Of the labels.
        outcomes: In the order of the sources.

    Returns:
        The outcomes, those of duplicates with the reason "duplicate".
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(LENGTH_TOLERANCE, POSITION_TOLERANCE, ANGLE_TOLERANCE, primitive_cell=True, scale=False)
    groups: dict[tuple[str, str], list[tuple[str, Structure]]] = defaultdict(list)
    marked = []
    for outcome in outcomes:
        if outcome.reason is None:
            line = store.read(outcome.id)["label"]
            structure = read_dictionary(line["structure"])
            group = groups[structure.composition.reduced_formula, of_label(line).functional]
            same = next((name for name, other in group if matcher.fit(structure, other)), None)
            if same is None:
                group.append((outcome.id, structure))
            else:
                outcome = replace(outcome, reason="duplicate", sentence=f"it is the same crystal as {same}")
        marked.append(outcome)
    return marked
