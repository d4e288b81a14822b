"""From checked entries to the arrays of the splits.

`prepare` does the work for one entry and runs in worker processes; `Collector` sees the outcomes in the order of the
input, so that the cache does not depend on the number of processes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.alignment import (
    AlignmentError,
    basis_change,
    carry_grid,
    merge_site_values,
    reduce_with_map,
    turn_components,
)
from mattergen_e.crystals.checks import (
    CheckOptions,
    EntryError,
    check_crystal_value,
    check_input,
    check_neutral,
    check_reduced,
    check_site_values,
)
from mattergen_e.crystals.chemistry import check_charge_bounds, sign_of_charges
from mattergen_e.crystals.fields import COMPUTED, SPLITS
from mattergen_e.crystals.quantity import Quantity
from mattergen_e.data import cache
from mattergen_e.data.sources import Entry, ReadOptions
from mattergen_e.errors import UserError
from mattergen_e.labels.method import Method, selects


@dataclass
class Prepared:
    """One crystal in the reduced cell: what the cache stores of it.

    Attributes:
        pos: (n, 3) fractional positions.
        cell: (3, 3) lattice vectors in Å.
        numbers: (n,) atomic numbers.
        site_values: Known values (n, dim) by name.
        crystal_values: Known values (dim,) of the crystal, or (nx, ny, nz, dim) on a grid in its cell, by name.
        properties: Properties of the crystal by name.
        method: Functional of its values.
        signs: Whether its charges follow (+1) or oppose (-1) electronegativity; 0 where neither can be said.
    """

    id: str
    origin: str
    split: str | None
    pos: NDArray[np.float64]
    cell: NDArray[np.float64]
    numbers: NDArray[np.int64]
    site_values: dict[str, NDArray[np.float64]]
    crystal_values: dict[str, NDArray[np.float64]]
    properties: dict[str, float | str | list[float]]
    method: Method = field(default_factory=Method)
    signs: int = 0


@dataclass
class Dropped:
    """One entry that cannot be used."""

    id: str | None
    origin: str
    reason: str
    sentence: str


def prepare(
    entry: Entry, options: CheckOptions, quantity: Callable[[str], Quantity], computed: Sequence[str] = ()
) -> Prepared:
    """Check an entry and carry it over to the reduced cell.

    Args:
        entry: From a source.
        options: Limits of the checks.
        quantity: What is known of a value, by its name.
        computed: Properties that the reduced cell tells where the entry does not.

    Returns:
        What the cache stores.

    Raises:
        EntryError: If the entry cannot be used.
    """
    structure, n_sites = entry.structure, len(entry.structure)
    check_input(structure, options)
    kinds = {name: quantity(name) for name in (*entry.site_values, *entry.crystal_values)}
    on_sites = {k: v for k, v in entry.site_values.items() if check_site_values(kinds[k], v, n_sites)}
    numbers = np.array(structure.atomic_numbers)
    charges = {k: v[:, 0] for k, v in on_sites.items() if kinds[k].charge_slack is not None}
    for name, values in charges.items():
        check_charge_bounds(name, numbers, values, kinds[name].charge_slack or 0.0)
    of_crystal = {k: v for k, v in entry.crystal_values.items() if check_crystal_value(kinds[k], v)}
    try:
        reduced, site_map = reduce_with_map(structure)
        check_reduced(reduced, options)
        change = basis_change(structure, reduced)
        merged = {}
        for name, values in on_sites.items():
            kind = kinds[name]
            usual = options.spectrum_tolerance if kind.spectrum else options.merge_tolerance
            tolerance = usual if kind.merge_tolerance is None else kind.merge_tolerance
            turned = _turned(kind, values, change)
            merged[name] = merge_site_values(turned, site_map, len(reduced), tolerance, by_area=kind.spectrum)
            check_neutral(kind, merged[name], options.neutrality_tolerance)
    except AlignmentError as error:
        raise EntryError("not_aligned", str(error), entry.id) from error
    for name, values in of_crystal.items():
        of_crystal[name] = _turned(kinds[name], _carried(kinds[name], values, change), change)
    return Prepared(
        id=entry.id,
        origin=entry.origin,
        split=entry.split,
        pos=np.array(reduced.frac_coords, dtype=np.float64),
        cell=np.array(reduced.lattice.matrix, dtype=np.float64),
        numbers=np.array(reduced.atomic_numbers, dtype=np.int64),
        site_values=merged,
        crystal_values=of_crystal,
        properties=entry.properties
        | {name: COMPUTED[name](reduced) for name in computed if not entry.properties.get(name)},
        method=entry.method,
        signs=next((sign_of_charges(numbers, values) for values in charges.values()), 0),
    )


def warnings_of(items: Sequence[Prepared]) -> list[str]:
    """What is odd about crystals taken together, one sentence each."""
    told = [item.signs for item in items if item.signs]
    opposed = sum(sign < 0 for sign in told)
    if 2 * opposed <= len(told):
        return []
    return [
        f"The charges of {opposed:,} of {len(told):,} crystals oppose electronegativity: are their signs flipped? "
        "Positive means that electrons are lost."
    ]


def _turned(kind: Quantity, values: NDArray[np.float64], change: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values in the reduced cell: components along its vectors, if they are components."""
    if kind.frame == "scalar" or np.array_equal(change, np.eye(3)):
        return values
    if values.shape[-1] % 3:
        raise EntryError(
            "site_count_mismatch", f"{kind.name} has {values.shape[-1]} numbers, expected components along a, b and c"
        )
    return turn_components(values, change)


def _carried(kind: Quantity, values: NDArray[np.float64], change: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of a grid on the points in the reduced cell; others as they are."""
    if kind.place != "grid":
        return values
    try:
        return carry_grid(values, change)
    except AlignmentError as error:
        raise EntryError(
            "grid_not_aligned", f"{kind.name} cannot be carried into the reduced cell: {error}; give that cell"
        ) from error


def hash_split(entry_id: str, seed: int, fractions: tuple[float, float, float]) -> str:
    """Split of an id, from sha256 of "seed:id": the same on every machine and in every order of the input."""
    digest = hashlib.sha256(f"{seed}:{entry_id}".encode()).digest()
    x = int.from_bytes(digest[:8], "big") / 2.0**64
    if x < fractions[0]:
        return "train"
    return "val" if x < fractions[0] + fractions[1] else "test"


@dataclass
class Collector:
    """Takes outcomes in input order and keeps what goes into the cache.

    Attributes:
        seed: Seed of the hash that gives a split to entries without one.
        fractions: Shares of train, val and test for those.
        excluded_ids: Ids that are left out on purpose; they do not count as dropped.
        strict: Raise at the first bad entry.
        functionals: Functionals to take, by name; entries of others are dropped. Empty takes all.
    """

    seed: int
    fractions: tuple[float, float, float]
    excluded_ids: frozenset[str] = frozenset()
    strict: bool = False
    functionals: tuple[str, ...] = ()
    kept: dict[str, list[Prepared]] = field(default_factory=lambda: {s: [] for s in SPLITS})
    dropped: list[Dropped] = field(default_factory=list)
    dims: dict[str, int] = field(default_factory=dict)
    crystal_dims: dict[str, int] = field(default_factory=dict)
    grids: dict[str, tuple[int, ...]] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    excluded: int = 0
    _seen: dict[str, str] = field(default_factory=dict)

    def add(self, outcome: Prepared | Dropped) -> None:
        """Take one outcome.

        Raises:
            UserError: If the entry is bad and `strict` is set.
        """
        if outcome.id is not None and outcome.id in self.excluded_ids:
            self.excluded += 1
            return
        if isinstance(outcome, Prepared):
            if self.functionals and not selects(self.functionals, outcome.method):
                sentence = f"it is of the functional {outcome.method.functional}, which was not asked for"
                self.dropped.append(Dropped(outcome.id, outcome.origin, "other_functional", sentence))
                return
            problem = self._problem(outcome)
            if problem is None:
                self._seen[outcome.id] = outcome.origin
                split = outcome.split or hash_split(outcome.id, self.seed, self.fractions)
                self.kept[split].append(outcome)
                return
            outcome = Dropped(outcome.id, outcome.origin, *problem)
        if self.strict:
            raise UserError(
                f"{outcome.origin} ({outcome.id or 'no id'}): {outcome.sentence}; mend or remove the entry, or build "
                "without --strict to leave it out."
            )
        self.dropped.append(outcome)

    def _problem(self, item: Prepared) -> tuple[str, str] | None:
        if item.id in self._seen:
            return "duplicate_id", f"the id {item.id!r} was already used at {self._seen[item.id]}"
        for name, values in item.crystal_values.items():
            if values.ndim == 4 and self.grids.setdefault(name, values.shape) != values.shape:
                found, before = values.shape[:3], self.grids[name][:3]
                return (
                    "grid_mismatch",
                    f"{name} has {found} points along a, b, c, but {before} in the entries before",
                )
        for name, value in item.properties.items():
            if isinstance(value, list) and value and self.lengths.setdefault(name, len(value)) != len(value):
                found, before = len(value), self.lengths[name]
                return "bad_property", f"{name} has {found} numbers, but {before} in the entries before"
        for kind, given, dims in (
            ("site", item.site_values, self.dims),
            ("crystal", item.crystal_values, self.crystal_dims),
        ):
            for name, values in given.items():
                dim = dims.setdefault(name, values.shape[-1])
                if values.shape[-1] != dim:
                    return (
                        "site_count_mismatch",
                        f"{name} has {values.shape[-1]} numbers per {kind}, but {dim} in the entries before",
                    )
        return None

    def counts(self) -> dict[str, int]:
        """Dropped entries by reason, most frequent first."""
        return dict(Counter(d.reason for d in self.dropped).most_common())


def write_splits(
    folder: Path, collector: Collector, properties: dict[str, dict[str, NDArray[Any]]], read: ReadOptions
) -> tuple[dict[str, cache.SplitInfo], dict[str, dict[str, cache.SiteValue]]]:
    """Write every split that has crystals.

    Args:
        folder: Folder of the cache.
        collector: With all outcomes.
        properties: From `property_arrays`.
        read: What was read.

    Returns:
        What the manifest says of the splits; and of values, by their folder in the cache and their name.
    """
    splits: dict[str, cache.SplitInfo] = {}
    infos: dict[str, dict[str, cache.SiteValue]] = {part: {} for part in cache.VALUE_FOLDERS.values()}
    for name, dim in sorted({**collector.dims, **collector.crystal_dims}.items()):
        kind = read.quantity(name)
        grid = collector.grids.get(name)
        infos[cache.VALUE_FOLDERS[kind.place]][name] = cache.SiteValue(
            unit=kind.unit,
            dim=dim,
            column=dict(read.site_values)[name],
            splits={},
            probes=(grid[0], grid[1], grid[2]) if grid else None,
        )
    for split, items in collector.kept.items():
        if not items:
            continue
        core = {
            "pos": np.concatenate([item.pos for item in items]),
            "cell": np.array([item.cell for item in items]),
            "atomic_numbers": np.concatenate([item.numbers for item in items]),
            "num_atoms": np.array([len(item.numbers) for item in items]),
            "structure_id": np.array([item.id for item in items], dtype=np.str_),
        }
        arrays: dict[str, dict[str, NDArray[np.float32]]] = {part: {} for part in infos}
        for part, name, info in ((p, n, i) for p, of_part in infos.items() for n, i in of_part.items()):
            on_sites, probes = part == cache.SITES_FOLDER, info.probes or ()
            given = [(item.site_values if on_sites else item.crystal_values).get(name) for item in items]
            rows = [None if values is None else values.reshape(-1, info.dim) for values in given]
            counts = core["num_atoms"] if on_sites else np.full(len(items), int(np.prod(probes)))
            stacked, info.splits[split] = _stacked(rows, counts, info.dim)
            arrays[part][name] = stacked.reshape(len(items), *probes, info.dim) if probes else stacked
        splits[split] = cache.write_split(
            folder / split,
            core,
            arrays[cache.SITES_FOLDER],
            arrays[cache.CRYSTALS_FOLDER],
            properties[split],
            arrays[cache.GRIDS_FOLDER],
        )
    return splits, infos


def _stacked(
    rows: list[NDArray[np.float64] | None], counts: NDArray[np.int64], dim: int
) -> tuple[NDArray[np.float32], cache.SiteStatistics]:
    """All values of a split under each other, NaN where unknown."""
    array = np.concatenate(
        [np.full((n, dim), np.nan) if row is None else row for row, n in zip(rows, counts.tolist(), strict=True)]
    ).astype(np.float32)
    known = array[~np.isnan(array).any(axis=1)]
    return array, cache.SiteStatistics(
        labelled_crystals=sum(row is not None for row in rows),
        labelled_sites=len(known),
        coverage=len(known) / len(array),
        rms=float(np.sqrt(np.mean(np.square(known, dtype=np.float64)))) if len(known) else None,
    )
