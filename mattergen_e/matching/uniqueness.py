"""Which crystals of a set are the first of their kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mattergen_e.matching.crystal import Crystal, prepare
from mattergen_e.matching.grouping import OnUndecided, distribute, key, matches, positions_by

if TYPE_CHECKING:
    from pymatgen.core import Structure

_Task = tuple[list[int], list[Crystal]]
_Result = list[tuple[int, int, str | None]]


def unique(
    structures: Sequence[Structure | Crystal],
    jobs: int | None = None,
    backend: str = "loky",
    undecided: OnUndecided | None = None,
) -> list[int]:
    """The crystal that stands for each crystal, by MatterGen's greedy rule (its `is_unique`; paper 1, section 4.3).

    A crystal is compared with the earlier ones that stand for themselves, and stands for itself if it matches none.

    Args:
        structures: The crystals, in the order that decides which one of several alike is the first.
        jobs: Workers; None takes one per core. The result does not depend on it. Few comparisons are made without
            workers, which take longer to start.
        backend: loky, threading, dask[:ADDRESS] or ray[:ADDRESS].
        undecided: Called for each crystal that is counted as unique although a comparison could not be made.

    Returns:
        For each crystal the position of the one that stands for it: its own if it is unique.

    Raises:
        UserError: If the backend cannot be used.
    """
    crystals = prepare(structures)
    ordered = all(crystal.ordered for crystal in crystals)
    groups = positions_by(key(crystal, ordered) for crystal in crystals)
    shared = sorted((group for group in groups.values() if len(group) > 1), key=len, reverse=True)
    tasks = ((group, [crystals[position] for position in group]) for group in shared)
    pairs = sum(len(group) * (len(group) - 1) // 2 for group in shared)
    representatives, reasons = list(range(len(crystals))), {}
    for result in distribute(
        _first_of_each,
        tasks,
        total=len(shared),
        pairs=pairs,
        jobs=jobs,
        backend=backend,
        title="Finding unique crystals",
    ):
        for position, representative, reason in result:
            representatives[position] = representative
            if reason is not None:
                reasons[position] = reason
    if undecided is not None:
        for position in sorted(reasons):
            undecided(position, reasons[position])
    return representatives


def _first_of_each(task: _Task) -> _Result:
    """Position, representative and reason of each crystal of a group."""
    group, crystals = task
    found: _Result = []
    first: list[int] = []
    for i, crystal in enumerate(crystals):
        equals, reason = matches(crystal, [crystals[j] for j in first], first_only=True)
        if not equals:
            first.append(i)
        found.append((group[i], group[first[equals[0]] if equals else i], reason))
    return found
