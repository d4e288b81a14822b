"""Crystals of training caches and of files, as arrays."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.checks import EntryError, check_cell
from mattergen_e.data import cache
from mattergen_e.data.sources import ReadOptions, iter_records, parse_record
from mattergen_e.errors import UserError
from mattergen_e.parallel import in_parallel
from mattergen_e.provenance import hash_file

SPLITS = ("train", "val", "test")
FILE_PROPERTIES = ("dft_band_gap", "formation_energy_per_atom", "energy_above_hull")


@dataclass
class Crystals:
    """n crystals with all their sites.

    Attributes:
        ids: (n,) names.
        split: (n,) train, val, test or "".
        num_atoms: (n,).
        cell: (n, 3, 3), Å.
        frac_coords: (sites, 3).
        atomic_numbers: (sites,).
        properties: (n,) by name, NaN where unknown.
        sources: What to write down about caches and files.
        dropped: Number of entries that were not used, by reason.
    """

    ids: NDArray[np.str_]
    split: NDArray[np.str_]
    num_atoms: NDArray[np.int64]
    cell: NDArray[np.float64]
    frac_coords: NDArray[np.float64]
    atomic_numbers: NDArray[np.int64]
    properties: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


def read_sources(paths: Sequence[Path], splits: Sequence[str], jobs: int | None, backend: str) -> Crystals:
    """Reads caches (folders of `mattergen-e data build`) and files of crystals (.csv, .jsonl, also .gz).

    Args:
        paths: Caches and files; of crystals with the same id the first counts.
        splits: Splits to take; crystals of files that have none are always taken.
        jobs: Workers that read files.
        backend: Of joblib.

    Returns:
        The crystals, in the order of the sources and the splits.

    Raises:
        UserError: If a source is missing or damaged, or nothing is left.
    """
    parts = []
    for path in paths:
        parts.append(_read_cache(path, splits) if path.is_dir() else _read_file(path, splits, jobs, backend))
    joined = _without_duplicates(_join(parts))
    if not len(joined):
        raise UserError(f"No crystals in {', '.join(map(str, paths))} in the splits {', '.join(splits)}.")
    return joined


def take(crystals: Crystals, chosen: NDArray[np.intp]) -> Crystals:
    """The chosen crystals, in increasing order of their positions."""
    mask = np.zeros(len(crystals), dtype=bool)
    mask[chosen] = True
    sites = np.repeat(mask, crystals.num_atoms)
    return Crystals(
        ids=crystals.ids[mask],
        split=crystals.split[mask],
        num_atoms=crystals.num_atoms[mask],
        cell=crystals.cell[mask],
        frac_coords=crystals.frac_coords[sites],
        atomic_numbers=crystals.atomic_numbers[sites],
        properties={name: values[mask] for name, values in crystals.properties.items()},
        sources=crystals.sources,
        dropped=crystals.dropped,
    )


def _join(parts: Sequence[Crystals]) -> Crystals:
    dropped: Counter[str] = Counter()
    for part in parts:
        dropped.update(part.dropped)
    names = sorted({name for part in parts for name in part.properties})
    properties = {
        name: np.concatenate([part.properties.get(name, np.full(len(part), np.nan)) for part in parts])
        for name in names
    }

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    return Crystals(
        ids=joined("ids"),
        split=joined("split"),
        num_atoms=joined("num_atoms"),
        cell=joined("cell"),
        frac_coords=joined("frac_coords"),
        atomic_numbers=joined("atomic_numbers"),
        properties=properties,
        sources=[source for part in parts for source in part.sources],
        dropped=dict(dropped),
    )


def _without_duplicates(crystals: Crystals) -> Crystals:
    _, first = np.unique(crystals.ids, return_index=True)
    if len(first) == len(crystals):
        return crystals
    kept = take(crystals, first)
    kept.dropped = {**kept.dropped, "duplicate_id": kept.dropped.get("duplicate_id", 0) + len(crystals) - len(first)}
    return kept


def _read_cache(path: Path, splits: Sequence[str]) -> Crystals:
    manifest = cache.load_manifest(path)
    wanted = [split for split in splits if split in manifest.splits]
    if not wanted:
        raise UserError(f"{path} has none of the splits {', '.join(splits)}; it has {', '.join(manifest.splits)}.")
    parts = [_read_split(path / split, split) for split in wanted]
    source = {
        "kind": "cache",
        "name": path.resolve().name,
        "splits": {split: manifest.splits[split].arrays_sha256 for split in wanted},
    }
    return _join([*parts[:-1], _with_source(parts[-1], source)])


def _with_source(crystals: Crystals, source: dict[str, Any]) -> Crystals:
    crystals.sources = [source]
    return crystals


def _read_split(folder: Path, split: str) -> Crystals:
    ids = cache.load_array(folder / "structure_id.npy")
    arrays = {name: cache.load_array(folder / f"{name}.npy") for name in ("num_atoms", "cell", "pos", "atomic_numbers")}
    n, sites = len(ids), int(arrays["num_atoms"].sum())
    shapes = {"num_atoms": (n,), "cell": (n, 3, 3), "pos": (sites, 3), "atomic_numbers": (sites,)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise UserError(f"{folder / name}.npy has the shape {arrays[name].shape}, expected {shape}: build it anew.")
    properties = {file.stem: _read_property(file, n) for file in sorted(folder.glob("*.json"))}
    return Crystals(
        ids=ids.astype(np.str_),
        split=np.full(n, split),
        num_atoms=arrays["num_atoms"].astype(np.int64),
        cell=arrays["cell"].astype(np.float64),
        frac_coords=arrays["pos"].astype(np.float64),
        atomic_numbers=arrays["atomic_numbers"].astype(np.int64),
        properties={name: values for name, values in properties.items() if values is not None},
    )


def _read_property(file: Path, n: int) -> NDArray[np.float64] | None:
    """Numbers of MatterGen's PropertyValues; None for texts."""
    try:
        values = json.loads(file.read_bytes())["values"]
        if any(isinstance(value, str) for value in values):
            return None
        found = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read ({error}): build the cache anew.") from None
    if found.shape != (n,):
        raise UserError(f"{file} has {found.size} values for {n} crystals: build the cache anew.")
    return found


def _read_file(path: Path, splits: Sequence[str], jobs: int | None, backend: str) -> Crystals:
    rows: dict[int, Any] = {}
    dropped: Counter[str] = Counter()
    for number, row in in_parallel(_parse, enumerate(iter_records(path)), jobs, backend):
        if isinstance(row, str):
            dropped[row] += 1
        elif not row["split"] or row["split"] in splits:
            rows[number] = row
    ordered = [rows[number] for number in sorted(rows)]
    source = {"kind": "file", "name": path.name, "sha256": hash_file(path)}
    return Crystals(
        ids=np.array([row["id"] for row in ordered], dtype=np.str_),
        split=np.array([row["split"] for row in ordered], dtype=np.str_),
        num_atoms=np.array([len(row["numbers"]) for row in ordered], dtype=np.int64),
        cell=_stack((row["cell"] for row in ordered), (0, 3, 3)),
        frac_coords=_concatenate((row["frac"] for row in ordered), (0, 3), np.float64),
        atomic_numbers=_concatenate((row["numbers"] for row in ordered), (0,), np.int64),
        properties={
            name: np.array([row["properties"].get(name, np.nan) for row in ordered], dtype=np.float64)
            for name in FILE_PROPERTIES
        },
        sources=[source],
        dropped=dict(dropped),
    )


def _stack(arrays: Iterable[NDArray[Any]], empty: tuple[int, ...]) -> NDArray[np.float64]:
    given = list(arrays)
    return np.stack(given).astype(np.float64) if given else np.zeros(empty)


def _concatenate(arrays: Iterable[NDArray[Any]], empty: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    given = list(arrays)
    return np.concatenate(given).astype(dtype) if given else np.zeros(empty, dtype=dtype)


def _parse(item: tuple[int, Any]) -> tuple[int, dict[str, Any] | str]:
    """One record of a file, or why it is not used; never raises."""
    number, record = item
    options = ReadOptions(site_values=(), properties=tuple((name, name) for name in FILE_PROPERTIES))
    try:
        entry = parse_record(record, options)
        check_cell(entry.structure)
        if not entry.structure.is_ordered or len(entry.structure) == 0:
            raise EntryError("disordered", "sites are shared or partly occupied")
        numbers = np.array([site.specie.Z for site in entry.structure])
    except EntryError as error:
        return number, error.reason
    except Exception:
        return number, "broken_entry"
    numeric = {name: value for name, value in entry.properties.items() if isinstance(value, float)}
    return number, {
        "id": entry.id,
        "split": entry.split or "",
        "numbers": numbers,
        "cell": entry.structure.lattice.matrix,
        "frac": entry.structure.frac_coords,
        "properties": numeric,
    }
