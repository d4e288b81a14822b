"""Groups of crystals that may match, and their distribution over workers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from mattergen_e.matching.crystal import Crystal
from mattergen_e.matching.verdict import same
from mattergen_e.parallel import in_parallel
from mattergen_e.progress import bar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")

#: Told of a crystal whose verdict rests on comparisons that could not be made: its position and why.
OnUndecided = Callable[[int, str], None]

#: With fewer comparisons than this, local workers are not started: that takes longer than the work itself.
WORTH_WORKERS = 5000


def key(crystal: Crystal, ordered: bool) -> str:
    """What MatterGen groups by: the reduced formula, or the chemical system where any crystal is disordered."""
    return crystal.formula if ordered else crystal.chemical_system


def positions_by(keys: Iterable[K]) -> dict[K, list[int]]:
    """Positions of each key, in the order of their first occurrence."""
    found: dict[K, list[int]] = defaultdict(list)
    for position, name in enumerate(keys):
        found[name].append(position)
    return dict(found)


def matches(first: Crystal, others: Sequence[Crystal], first_only: bool) -> tuple[list[int], str | None]:
    """Which of the others a crystal matches, in their order.

    Never raises: where MatterGen's evaluator would stop with an error, the two are taken for different.

    Returns:
        Positions of the matches, and why the last comparison that failed did so, if none matches.
    """
    found, reason = [], None
    for position, other in enumerate(others):
        try:
            alike = same(first, other)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            continue
        if alike:
            found.append(position)
            if first_only:
                break
    return found, None if found else reason


def distribute(
    work: Callable[[T], R], tasks: Iterable[T], *, total: int, pairs: int, jobs: int | None, backend: str, title: str
) -> Iterator[R]:
    """Results of the tasks in no fixed order; `pairs` is the number of comparisons in all of them, at most."""
    few = pairs < WORTH_WORKERS and backend == "loky"
    with bar(title, total) as advance:
        for result in in_parallel(work, tasks, 1 if few else jobs, backend):
            advance()
            yield result
