"""Which crystals are in a reference set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from mattergen_e.matching.crystal import Crystal, prepare
from mattergen_e.matching.grouping import OnUndecided, distribute, key, matches, positions_by
from mattergen_e.matching.stored import StoredCrystal

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Generated crystals of one group that are handed to a worker together.
CHUNK = 16

_SYMBOL = re.compile(r"[A-Z][a-z]?")
_Task = tuple[list[int], list[Crystal], list[int], list[Crystal], bool]
_Result = list[tuple[int, list[int], str | None]]


class References(Protocol):
    """What the index needs of a reference set; `ordered = False` says that there are disordered crystals in it.

    What spares time is asked for if it is there, as in `evaluation.reference.Reference`: `members(formulas)`, where the
    crystals of each formula are, and `sites(i)` and `reduced(i)`, a crystal and its reduced cell as arrays.
    """

    @property
    def ids(self) -> Any: ...

    @property
    def formulas(self) -> Any: ...

    def structure(self, index: int, /) -> Structure: ...


class ReferenceIndex:
    """A reference set, by formula.

    Only structures whose group occurs among the crystals that are looked for are built, and only those of the groups at
    hand are in memory.

    Attributes:
        reference: The set: `ids`, `formulas` (reduced, as pymatgen writes them) and `structure(i)`.
    """

    def __init__(self, reference: References) -> None:
        self.reference = reference

    @cached_property
    def _by_formula(self) -> dict[str, list[int]]:
        return positions_by(str(formula) for formula in self.reference.formulas)

    def find(
        self,
        structures: Sequence[Structure | Crystal],
        jobs: int | None = None,
        backend: str = "loky",
        first_only: bool = True,
        undecided: OnUndecided | None = None,
    ) -> list[list[str]]:
        """The reference crystals that each crystal matches, as MatterGen's `matches_in_reference`.

        Args:
            structures: The crystals; one without a match is novel.
            jobs: Workers; None takes one per core. The result does not depend on it. Few comparisons are made without
                workers, which take longer to start.
            backend: loky, threading, dask[:ADDRESS] or ray[:ADDRESS].
            first_only: Whether to stop at the first match, which is enough for the verdict.
            undecided: Called for each crystal that is counted as novel although a comparison could not be made.

        Returns:
            Ids of the matches, in the order of the reference.

        Raises:
            UserError: If the backend cannot be used.
        """
        crystals = prepare(structures)
        ordered = all(crystal.ordered for crystal in crystals) and getattr(self.reference, "ordered", True)
        groups = positions_by(key(crystal, ordered) for crystal in crystals)
        known = self._by_chemical_system() if not ordered else self._members(list(groups))
        shared = sorted(((group, known[name]) for name, group in groups.items() if name in known), key=_cost)[::-1]
        found: list[list[str]] = [[] for _ in crystals]
        reasons = {}
        for result in distribute(
            _search,
            self._tasks(crystals, shared, first_only),
            total=sum(-(-len(group) // CHUNK) for group, _ in shared),
            pairs=sum(map(_cost, shared)),
            jobs=jobs,
            backend=backend,
            title="Looking for crystals in the reference",
        ):
            for position, members, reason in result:
                found[position] = [str(self.reference.ids[member]) for member in members]
                if reason is not None:
                    reasons[position] = reason
        if undecided is not None:
            for position in sorted(reasons):
                undecided(position, reasons[position])
        return found

    def _tasks(
        self, crystals: list[Crystal], shared: list[tuple[list[int], list[int]]], first_only: bool
    ) -> Iterator[_Task]:
        for group, members in shared:
            references = [self._crystal(member) for member in members]
            for start in range(0, len(group), CHUNK):
                chunk = group[start : start + CHUNK]
                yield chunk, [crystals[position] for position in chunk], members, references, first_only

    def _members(self, formulas: list[str]) -> dict[str, list[int]]:
        find = getattr(self.reference, "members", None)
        return self._by_formula if find is None else find(formulas)

    def _crystal(self, member: int) -> Crystal:
        find = getattr(self.reference, "reduced", None)
        reduced = None if find is None else find(member)
        if reduced is None:
            return Crystal(self.reference.structure(member))
        reference: Any = self.reference
        return StoredCrystal(reference.sites(member), reduced, str(reference.formulas[member]))

    def _by_chemical_system(self) -> dict[str, list[int]]:
        systems: dict[str, list[int]] = {}
        for formula, members in self._by_formula.items():
            systems.setdefault("-".join(sorted(set(_SYMBOL.findall(formula)))), []).extend(members)
        return {system: sorted(members) for system, members in systems.items()}


def _cost(pair: tuple[list[int], list[int]]) -> int:
    """Comparisons of a group, at most."""
    return len(pair[0]) * len(pair[1])


def _search(task: _Task) -> _Result:
    """Position, matching members of the reference, and reason of each crystal."""
    positions, crystals, members, references, first_only = task
    found: _Result = []
    for position, crystal in zip(positions, crystals, strict=True):
        equals, reason = matches(crystal, references, first_only)
        found.append((position, [members[i] for i in equals], reason))
    return found
