"""From checked entries to the arrays of the splits.

`prepare` does the work for one entry and runs in worker processes; `Collector` sees the outcomes in the order of the
input, so that the cache does not depend on the number of processes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.alignment import AlignmentError, merge_site_values, reduce_with_map
from mattergen_e.crystals.checks import (
    SITE_VALUE_UNITS,
    SPECTRA,
    CheckOptions,
    EntryError,
    check_crystal_value,
    check_input,
    check_neutral,
    check_reduced,
    check_site_values,
)
from mattergen_e.crystals.fields import SPLITS, TEXT_PROPERTIES
from mattergen_e.data import cache
from mattergen_e.data.sources import Entry
from mattergen_e.errors import UserError


@dataclass
class Prepared:
    """One crystal in the reduced cell: what the cache stores of it.

    Attributes:
        pos: (n, 3) fractional positions.
        cell: (3, 3) lattice vectors in Å.
        numbers: (n,) atomic numbers.
        site_values: Known values (n, dim) by name.
        crystal_values: Known values (dim,) of the crystal by name.
        properties: Properties of the crystal by MatterGen's name.
    """

    id: str
    origin: str
    split: str | None
    pos: NDArray[np.float64]
    cell: NDArray[np.float64]
    numbers: NDArray[np.int64]
    site_values: dict[str, NDArray[np.float64]]
    crystal_values: dict[str, NDArray[np.float64]]
    properties: dict[str, float | str]


@dataclass
class Dropped:
    """One entry that cannot be used."""

    id: str | None
    origin: str
    reason: str
    sentence: str


def prepare(entry: Entry, options: CheckOptions) -> Prepared:
    """Check an entry and carry it over to the reduced cell.

    Args:
        entry: From a source.
        options: Limits of the checks.

    Returns:
        What the cache stores.

    Raises:
        EntryError: If the entry cannot be used.
    """
    structure, n_sites = entry.structure, len(entry.structure)
    check_input(structure, options)
    known = {k: v for k, v in entry.site_values.items() if check_site_values(k, v, n_sites)}
    try:
        reduced, site_map = reduce_with_map(structure)
        check_reduced(reduced, options)
        merged = {}
        for name, values in known.items():
            spectrum = name in SPECTRA
            tolerance = options.spectrum_tolerance if spectrum else options.merge_tolerance
            merged[name] = merge_site_values(values, site_map, len(reduced), tolerance, by_area=spectrum)
            check_neutral(name, merged[name], options.neutrality_tolerance)
    except AlignmentError as error:
        raise EntryError("not_aligned", str(error), entry.id) from error
    return Prepared(
        id=entry.id,
        origin=entry.origin,
        split=entry.split,
        pos=np.array(reduced.frac_coords, dtype=np.float64),
        cell=np.array(reduced.lattice.matrix, dtype=np.float64),
        numbers=np.array(reduced.atomic_numbers, dtype=np.int64),
        site_values=merged,
        crystal_values={k: v for k, v in entry.crystal_values.items() if check_crystal_value(k, v)},
        properties=entry.properties,
    )


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
    """

    seed: int
    fractions: tuple[float, float, float]
    excluded_ids: frozenset[str] = frozenset()
    strict: bool = False
    kept: dict[str, list[Prepared]] = field(default_factory=lambda: {s: [] for s in SPLITS})
    dropped: list[Dropped] = field(default_factory=list)
    dims: dict[str, int] = field(default_factory=dict)
    crystal_dims: dict[str, int] = field(default_factory=dict)
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


def property_arrays(
    kept: dict[str, list[Prepared]], columns: dict[str, str], explicit: bool
) -> tuple[dict[str, dict[str, NDArray[Any]]], dict[str, cache.PropertyInfo]]:
    """Collect the properties of all splits.

    A number that is unknown becomes NaN. MatterGen has no value for an unknown text, so that a text property is
    written only if every crystal has it.

    Args:
        kept: Crystals by split.
        columns: Column of the file by MatterGen's name.
        explicit: Whether the properties were asked for by name.

    Returns:
        Arrays by split and name, and what the manifest says of each property.

    Raises:
        UserError: If a property that was asked for is known nowhere, or a text is not known everywhere.
    """
    arrays: dict[str, dict[str, NDArray[Any]]] = {split: {} for split in kept}
    infos = {}
    total = sum(map(len, kept.values()))
    for name, column in columns.items():
        empty: float | str = "" if name in TEXT_PROPERTIES else np.nan
        values = {split: np.array([item.properties.get(name, empty) for item in kept[split]]) for split in kept}
        known = {s: int(np.sum(v != "" if v.dtype.kind == "U" else ~np.isnan(v))) for s, v in values.items()}
        n_known = sum(known.values())
        written = n_known == total if name in TEXT_PROPERTIES else n_known > 0
        if explicit and not written:
            raise UserError(
                f"The property {name!r} (column {column!r}) is known for {n_known} of {total} crystals: "
                + ("a text must be known for all; " if n_known else "")
                + "check the name of the column or leave the property out."
            )
        if n_known:
            infos[name] = cache.PropertyInfo(column=column, known=known, written=written)
        if written:
            for split in kept:
                arrays[split][name] = values[split]
    return arrays, infos


def write_splits(
    folder: Path, collector: Collector, properties: dict[str, dict[str, NDArray[Any]]], columns: dict[str, str]
) -> tuple[dict[str, cache.SplitInfo], dict[str, cache.SiteValue], dict[str, cache.SiteValue]]:
    """Write every split that has crystals.

    Args:
        folder: Folder of the cache.
        collector: With all outcomes.
        properties: From `property_arrays`.
        columns: Column of the file by name of the site value.

    Returns:
        What the manifest says of the splits, of the values of sites, and of those of crystals.
    """
    splits: dict[str, cache.SplitInfo] = {}
    of_sites, of_crystals = (
        {
            name: cache.SiteValue(unit=site_value_unit(name), dim=dim, column=columns[name], splits={})
            for name, dim in sorted(dims.items())
        }
        for dims in (collector.dims, collector.crystal_dims)
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
        sites, crystals = {}, {}
        for name, info in of_sites.items():
            rows = [item.site_values.get(name) for item in items]
            sites[name], info.splits[split] = _stacked(rows, core["num_atoms"], info.dim)
        for name, info in of_crystals.items():
            rows = [None if row is None else row[None] for row in (item.crystal_values.get(name) for item in items)]
            crystals[name], info.splits[split] = _stacked(rows, np.ones(len(items), dtype=np.int64), info.dim)
        splits[split] = cache.write_split(folder / split, core, sites, crystals, properties[split])
    return splits, of_sites, of_crystals


def site_value_unit(name: str) -> str:
    """Unit of a site value: from the table of this package, or from a registered descriptor of that name; else ""."""
    if name in SITE_VALUE_UNITS:
        return SITE_VALUE_UNITS[name]
    from mattergen_e.descriptors.registry import known

    return next((d.unit for d in known().values() if d.name == name), "")


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
