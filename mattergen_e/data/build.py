"""Building a cache: read, check, reduce, split, and write all of it or nothing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import batched
from pathlib import Path
from typing import Any

import mattergen_e
from mattergen_e.crystals.checks import CheckOptions, EntryError, mattergen_names
from mattergen_e.crystals.fields import COMPUTED, parse_renames
from mattergen_e.crystals.quantity import Quantity
from mattergen_e.data import cache
from mattergen_e.data.collect import (
    Collector,
    Dropped,
    Prepared,
    prepare,
    warnings_of,
    write_splits,
)
from mattergen_e.data.properties import parse_properties, property_arrays
from mattergen_e.data.sources import ReadOptions, Record, iter_records, parse_record
from mattergen_e.errors import UserError, brief
from mattergen_e.files import appearing
from mattergen_e.journal import claim
from mattergen_e.labels.folder import LABELS, read_settings
from mattergen_e.labels.method import check_one, count
from mattergen_e.labels.quantities import COMMON, PRODUCED, SETTINGS_OF
from mattergen_e.progress import bar
from mattergen_e.provenance import versions

CHUNK = 128
#: What shapes a cache.
PACKAGES = ("python", "numpy", "mattergen", "pymatgen", "torch")


def build_cache(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    site_values: Sequence[str] | None = None,
    properties: Sequence[str] | None = None,
    split_column: str | None = "split",
    split_fractions: tuple[float, float, float] = (0.9, 0.05, 0.05),
    seed: int = 0,
    max_atoms: int = 20,
    neutrality_tolerance: float = 0.05,
    merge_tolerance: float = 0.02,
    strict: bool = False,
    jobs: int | None = None,
    overwrite: bool = False,
    exclude_ids: str | Path | Iterable[str] | None = None,
    functionals: Sequence[str] = (),
    mix_functionals: bool = False,
    progress: bool = True,
    quantities: Iterable[Quantity] = (),
    dropped: Iterable[Dropped] = (),
) -> cache.Manifest:
    """Build a cache from files with crystals.

    Bad entries are left out and listed in the manifest. The cache appears under its name only when it is complete, and
    its arrays do not depend on `jobs`.

    Args:
        sources: .jsonl, .jsonl.gz, .csv or .csv.gz files, or folders of labels; for calculations see
            `labels.run.label_calculations`. Entries keep this order.
        out: Folder of the new cache.
        site_values: NAME or NAME=COLUMN of the values to keep; None keeps bader_charge, atomic_dos, total_dos
            and what `quantities` declare, where present. Crystals without the values are kept as unlabelled.
        properties: NAME or NAME=COLUMN of the properties to keep; None keeps all that MatterGen has a name for. Of
            others, NAME:category keeps words, NAME:list lists of numbers. chemical_system and space_group are computed
            if they are named here and no column has them.
        split_column: Column with train, val or test; None always splits by the hash of the id. Entries without a split
            are split by the hash.
        split_fractions: Shares of train, val and test for the split by hash.
        seed: Seed of the split by hash.
        max_atoms: Most sites of a reduced cell.
        neutrality_tolerance: Largest |sum| of the charges of a reduced cell, in e.
        merge_tolerance: Largest deviation from the mean of values of sites that become one, in the unit of the value.
        strict: Stop at the first bad entry.
        jobs: Worker processes; None takes one per core.
        overwrite: Replace an existing cache.
        exclude_ids: Ids to leave out: a collection, a text file with one id per line, or a structure_id.npy.
        functionals: Functionals to take, by name ("unknown" for labels that do not tell); others are left out.
        mix_functionals: Take labels of several functionals, or with several values of U for one element, together.
        progress: Show a progress bar on stderr if it is a terminal.
        quantities: What is known of values besides those of labels, e.g. `Descriptor.quantity()`: where they live, how
            they turn with the cell. A value that nobody declares is a scalar of sites without a unit.
        dropped: What an earlier step could not use, which the manifest names first.

    Returns:
        The manifest, as written to `<out>/manifest.json`.

    Raises:
        UserError: If an option or a file is wrong, `out` exists, nothing is left, an entry is bad and `strict`, or the
            labels are of several functionals.
    """
    out, files = Path(out), [Path(file) for file in ([sources] if isinstance(sources, str | Path) else sources)]
    read, limits = check_options(
        files,
        out,
        site_values=site_values,
        properties=properties,
        split_column=split_column,
        split_fractions=split_fractions,
        max_atoms=max_atoms,
        neutrality_tolerance=neutrality_tolerance,
        merge_tolerance=merge_tolerance,
        jobs=jobs,
        overwrite=overwrite,
        quantities=quantities,
    )
    collector = Collector(seed, split_fractions, read_ids(exclude_ids), strict, tuple(functionals))
    for item in dropped:
        collector.add(item)
    with claim(out):
        _check_target(out, overwrite)  # as a killed process left it, or another one
        counts = _collect(files, collector, read, limits, jobs, site_values is not None, progress)
        items = [item for kept in collector.kept.values() for item in kept]
        if not mix_functionals:
            check_one([(item.id, item.method) for item in items], several=len(functionals) > 1)
        arrays, infos = property_arrays(collector.kept, dict(read.properties), properties is not None, read.kinds)
        with appearing(out) as folder:
            splits, values = write_splits(folder, collector, arrays, read)
            manifest = cache.Manifest(
                mattergen_e_version=mattergen_e.__version__,
                packages=versions(PACKAGES),
                created=datetime.now(UTC).replace(microsecond=0),
                settings=_settings(read, limits, collector) | {"mix_functionals": mix_functionals},
                sources=[_describe(file, n) for file, n in zip(files, counts, strict=True)],
                splits=splits,
                site_values=values[cache.SITES_FOLDER],
                crystal_values=values[cache.CRYSTALS_FOLDER],
                grid_values=values[cache.GRIDS_FOLDER],
                processing=_processing(files, read, {name for part in values.values() for name in part}),
                properties=infos,
                functionals=count(item.method for item in items),
                spin_polarised=sum(item.method.spin is True for item in items),
                warnings=warnings_of(items),
                excluded=collector.excluded,
                dropped_by_reason=collector.counts(),
                dropped=[cache.DroppedEntry(**vars(item)) for item in collector.dropped],
            )
            (folder / cache.MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
            _check_target(out, overwrite)
    return manifest


def _collect(
    files: Sequence[Path],
    collector: Collector,
    read: ReadOptions,
    limits: CheckOptions,
    jobs: int | None,
    named: bool,
    progress: bool,
) -> list[int]:
    """Reads all files into the collector; `named`: the values to keep were named.

    Returns:
        Entries of each file.
    """
    asked = read if named else None
    counts = [sum(1 for _ in iter_records(file, asked)) for file in files]
    records = (record for file in files for record in iter_records(file, asked))
    outcomes = _outcomes(records, read, limits, _n_jobs(jobs, sum(counts)))
    with bar("Reading crystals", sum(counts), wanted=progress) as advance, closing(outcomes):
        for outcome in outcomes:
            collector.add(outcome)
            advance()
    _check_outcome(collector, read, named)
    return counts


def check_options(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    site_values: Sequence[str] | None,
    properties: Sequence[str] | None,
    split_column: str | None,
    split_fractions: tuple[float, float, float],
    max_atoms: int,
    neutrality_tolerance: float,
    merge_tolerance: float,
    jobs: int | None,
    overwrite: bool,
    quantities: Iterable[Quantity],
) -> tuple[ReadOptions, CheckOptions]:
    """Check what a build is asked for before any work; the arguments are those of `build_cache`.

    Returns:
        What to read of an entry, and the limits of its checks.

    Raises:
        UserError: If an option is wrong, or `out` exists and may not be replaced.
    """
    _check_numbers(sources, split_fractions, max_atoms, neutrality_tolerance, merge_tolerance, jobs)
    _check_target(Path(out), overwrite)
    elements, known_properties = mattergen_names()
    read = _read_options(site_values, properties, split_column, known_properties, tuple(quantities))
    return read, CheckOptions(elements, max_atoms, neutrality_tolerance, merge_tolerance)


def _processing(files: Sequence[Path], read: ReadOptions, names: set[str]) -> dict[str, Any]:
    """How the values of label folders were made; all folders must agree."""
    found: dict[str, Any] = {}
    columns = {column: name for name, column in read.site_values}
    for folder in (file for file in files if file.is_dir()):
        settings = read_settings(folder).model_dump(mode="json")
        for column, part in SETTINGS_OF.items():
            name, made = columns.get(column), settings[part]
            if name is None or name not in names:
                continue
            if found.setdefault(name, made) != made:
                raise UserError(f"{folder}: its {column!r} was made with other settings than that of another folder.")
    return found


def _settings(read: ReadOptions, limits: CheckOptions, collector: Collector) -> dict[str, Any]:
    excluded = collector.excluded_ids
    return {
        "site_values": dict(read.site_values),
        "properties": dict(read.properties),
        **({"kinds": dict(read.kinds)} if read.kinds else {}),
        "split_column": read.split_column,
        "split_fractions": list(collector.fractions),
        "seed": collector.seed,
        "max_atoms": limits.max_atoms,
        "neutrality_tolerance": limits.neutrality_tolerance,
        "merge_tolerance": limits.merge_tolerance,
        "strict": collector.strict,
        "functionals": list(collector.functionals),
        "excluded_ids_sha256": cache.hash_ids(excluded) if excluded else None,
    }


def process_chunk(records: Sequence[Record], read: ReadOptions, limits: CheckOptions) -> list[Prepared | Dropped]:
    """Read, check and reduce some records; bad ones come back as `Dropped`. Runs in worker processes."""
    outcomes: list[Prepared | Dropped] = []
    for record in records:
        entry_id = None
        try:
            entry = parse_record(record, read)
            entry_id = entry.id
            outcomes.append(prepare(entry, limits, read.quantity, read.computed))
        except EntryError as error:
            outcomes.append(Dropped(error.entry_id or entry_id, record.origin, error.reason, error.sentence))
        except Exception as error:
            text = f"the crystal cannot be reduced ({brief(error)})"
            outcomes.append(Dropped(entry_id, record.origin, "broken_entry", text))
    return outcomes


def _outcomes(
    records: Iterable[Record], read: ReadOptions, limits: CheckOptions, jobs: int
) -> Generator[Prepared | Dropped, None, None]:
    chunks = batched(records, CHUNK)
    if jobs == 1:
        for chunk in chunks:
            yield from process_chunk(chunk, read, limits)
        return
    from joblib import Parallel, delayed

    stopped = False

    def tasks() -> Iterator[Any]:
        for chunk in chunks:
            if stopped:
                return
            yield delayed(process_chunk)(chunk, read, limits)

    parallel: Any = Parallel(n_jobs=jobs, return_as="generator", batch_size=1, pre_dispatch=f"{4 * jobs}")  # type: ignore[arg-type]
    results = parallel(tasks())
    try:
        for outcomes in results:
            yield from outcomes
    finally:
        stopped = True
        for _ in results:  # after a failure: what is under way ends, which loky bears better than being cancelled
            pass


def _n_jobs(jobs: int | None, n_entries: int) -> int:
    from joblib import cpu_count

    wanted = cpu_count() if jobs is None else jobs
    return max(1, min(wanted, math.ceil(n_entries / CHUNK) if jobs is not None else n_entries // (4 * CHUNK)))


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not overwrite:
        raise UserError(f"{out} exists: choose another --out, or replace it with --overwrite.")
    if not cache.is_cache(out):
        raise UserError(f"{out} is not a cache of this package, so --overwrite does not replace it: choose another.")


def _check_numbers(
    files: Sequence[str | Path],
    fractions: tuple[float, float, float],
    max_atoms: int,
    neutrality_tolerance: float,
    merge_tolerance: float,
    jobs: int | None,
) -> None:
    if not files:
        raise UserError("No input: name at least one .jsonl or .csv file.")
    if len(fractions) != 3 or not all(0 <= f <= 1 for f in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(f"The split fractions {tuple(fractions)} must be three shares from 0 to 1 that add up to 1.")
    if max_atoms < 1:
        raise UserError(f"The largest number of sites is {max_atoms}: give at least 1.")
    if not (neutrality_tolerance >= 0 and merge_tolerance >= 0):
        raise UserError("The tolerances for neutrality and merging must be zero or positive.")
    if jobs is not None and jobs < 1:
        raise UserError(f"The number of jobs is {jobs}: give at least 1.")


def _read_options(
    site_values: Sequence[str] | None,
    properties: Sequence[str] | None,
    split_column: str | None,
    known: tuple[str, ...],
    quantities: Sequence[Quantity],
) -> ReadOptions:
    taken = (*known, *cache.CORE_NAMES, "num_nodes")
    declared = {quantity.name: quantity for quantity in (*COMMON, *quantities, *PRODUCED)}
    if site_values is None:
        usual = dict.fromkeys(quantity.name for quantity in (*PRODUCED, *quantities))
        values = tuple((name, name) for name in usual if name not in taken)
    else:
        values = parse_renames(site_values, "--site-value")
        for name, _ in values:
            if name in taken:
                raise UserError(f"--site-value {name!r} is a name that MatterGen uses itself: choose another.")
    if properties is None:
        return ReadOptions(values, tuple((name, name) for name in known), {}, (), split_column, declared)
    pairs, kinds = parse_properties(properties, known, {*cache.CORE_NAMES, *declared, *dict(values)})
    computed = tuple(name for name, column in pairs if name in COMPUTED and column == name)
    return ReadOptions(values, pairs, kinds, computed, split_column, declared)


def _check_outcome(collector: Collector, read: ReadOptions, explicit: bool) -> None:
    if not any(collector.kept.values()):
        first = collector.dropped[0] if collector.dropped else None
        why = f" (first: {first.origin}: {first.sentence})" if first else ""
        raise UserError(
            f"No entry is left: {len(collector.dropped)} dropped{why}, {collector.excluded} excluded; check the files."
        )
    for name, column in read.site_values if explicit else ():
        if name not in collector.dims and name not in collector.crystal_dims:
            raise UserError(f"No crystal has the site value {name!r} (column {column!r}): check the name.")


def read_ids(source: str | Path | Iterable[str] | None) -> frozenset[str]:
    """Ids from a collection, from a text file with one id per line, or from a structure_id.npy.

    Raises:
        UserError: If the file cannot be read.
    """
    if source is None:
        return frozenset()
    if not isinstance(source, str | Path):
        return frozenset(source)
    path = Path(source)
    if path.suffix == ".npy":
        return frozenset(map(str, cache.load_array(path).ravel().tolist()))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): give a text file with one id per line.") from error
    return frozenset(line.strip() for line in lines if line.strip())


def _describe(file: Path, entries: int) -> cache.SourceFile:
    name = file.name
    if file.is_dir():
        file = file / LABELS
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return cache.SourceFile(name=name, sha256=digest, size=file.stat().st_size, entries=entries)
