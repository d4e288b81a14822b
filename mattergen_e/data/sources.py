"""Readers of crystals with site values: JSON lines and MatterGen's CSV.

Reading has two steps so that the slow one can run in parallel: `iter_records` cuts a file into raw records, and
`parse_record` turns one record into an `Entry` or raises an `EntryError`. `read_entries` does both.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from mattergen_e.crystals.checks import EntryError
from mattergen_e.crystals.fields import (
    ID_KEYS,
    read_cif,
    read_crystal_value,
    read_id,
    read_label_arrays,
    read_property,
    read_site_values,
    read_split,
    read_structure,
)
from mattergen_e.crystals.own_properties import Kind, read_own
from mattergen_e.crystals.quantity import Quantity
from mattergen_e.errors import UserError, brief
from mattergen_e.labels.folder import LABELS, is_label_folder, read_settings
from mattergen_e.labels.method import Method, of_label
from mattergen_e.limits import TooLarge, lines

CSV_SUFFIXES = (".csv", ".csv.gz")
JSONL_SUFFIXES = (".jsonl", ".jsonl.gz")
JSONL_EXPECTED = (
    "'material_id' (or 'id') and either 'structure' (pymatgen's dictionary) or 'species', 'cell' and 'positions' "
    "(cartesian, Å)"
)
CSV_EXPECTED = "'material_id' and 'cif'"


@dataclass(frozen=True)
class Record:
    """A raw record: a line of JSON (`payload` is text) or a row of a CSV (`payload` is a dictionary).

    `folder` is that of the labels, where a line's arrays are; None for other files.
    """

    origin: str
    payload: str | dict[str, str]
    folder: Path | None = None


@dataclass(frozen=True)
class ReadOptions:
    """What to keep of a record.

    Attributes:
        site_values: Pairs (name in the cache, column or key in the file); also of values of crystals and of grids.
        properties: Pairs (name, column or key in the file).
        kinds: What the properties are that MatterGen has no name for, by name.
        computed: Names of those that the structure tells where the file does not.
        split_column: Column or key with the split, or None.
        quantities: What is known of values, by name.
    """

    site_values: tuple[tuple[str, str], ...] = (("bader_charge", "bader_charge"),)
    properties: tuple[tuple[str, str], ...] = ()
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    computed: tuple[str, ...] = ()
    split_column: str | None = "split"
    quantities: Mapping[str, Quantity] = field(default_factory=dict)

    def quantity(self, name: str) -> Quantity:
        """What is known of the value of this name in the cache; of a name that nobody declared: a value of sites.

        A value under another name lives where that of its column does.
        """
        if name in self.quantities:
            return self.quantities[name]
        declared = self.quantities.get(dict(self.site_values).get(name, name))
        return replace(declared, name=name) if declared and declared.place != "site" else Quantity(name=name)


@dataclass
class Entry:
    """One crystal of a file.

    Attributes:
        id: Material id.
        structure: The cell as given (a CSV's CIF is read as MatterGen reads it: primitive and reduced).
        site_values: Arrays (n_sites, dim) in the order of the sites of `structure`.
        crystal_values: Arrays (dim,) of the crystal, or (nx, ny, nz, dim) on a grid in the cell as given.
        properties: Numbers (NaN where empty), texts ("" where empty) and lists of numbers of the crystal.
        split: train, val, test or None where the file does not tell.
        origin: "file:line".
        method: Functional of its values, as far as it is told.
    """

    id: str
    structure: Structure
    site_values: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    crystal_values: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    properties: dict[str, float | str | list[float]] = field(default_factory=dict)
    split: str | None = None
    origin: str = ""
    method: Method = field(default_factory=Method)


def read_entries(path: str | Path, options: ReadOptions | None = None) -> Iterator[Entry]:
    """Read the crystals of a file one by one.

    Args:
        path: A .jsonl, .jsonl.gz, .csv or .csv.gz file.
        options: What to keep.

    Yields:
        One `Entry` per record.

    Raises:
        UserError: If the file cannot be read, is empty or has the wrong columns.
        EntryError: At the first record that cannot be used.
    """
    for record in iter_records(path, options):
        yield parse_record(record, options or ReadOptions())


def iter_records(path: str | Path, options: ReadOptions | None = None) -> Iterator[Record]:
    """Cut a file into records, lazily.

    Args:
        path: A .jsonl, .jsonl.gz, .csv or .csv.gz file, or a folder of labels.
        options: What will be kept; needed to refuse site values that are asked of a CSV.

    Yields:
        Raw records with their origin "file:line".

    Raises:
        UserError: If the file is missing, unreadable, empty, of another format, or has the wrong columns.
    """
    path = Path(path)
    if path.is_dir():
        yield from _label_records(path)
        return
    name = path.name.lower()
    if not name.endswith(CSV_SUFFIXES + JSONL_SUFFIXES):
        raise UserError(f"{path} is of an unknown format: give a .jsonl, .jsonl.gz, .csv or .csv.gz file.")
    if not path.is_file():
        raise UserError(f"{path} is not a file: check the path.")
    is_csv = name.endswith(CSV_SUFFIXES)
    empty = True
    try:
        with _open_text(path) as handle:
            for record in _csv_records(path, handle, options) if is_csv else _jsonl_records(path, handle):
                empty = False
                yield record
    except (OSError, EOFError, zlib.error, csv.Error, TooLarge) as error:
        raise UserError(f"{path} cannot be read to its end ({error}): copy or write it anew.") from error
    if empty:
        raise UserError(f"{path} is empty: expected {CSV_EXPECTED if is_csv else JSONL_EXPECTED} for every crystal.")


def _label_records(folder: Path) -> Iterator[Record]:
    if not is_label_folder(folder):
        raise UserError(f"{folder} is no folder of labels: make one of its calculations with 'mattergen-e data label'.")
    read_settings(folder)
    file = folder / LABELS
    empty = True
    with _open_text(file) as handle:
        for record in _jsonl_records(file, handle):
            empty = False
            yield Record(f"{folder.name}/{record.origin}", record.payload, folder)
    if empty:
        raise UserError(f"{file} holds no label: see {folder / 'failed.jsonl'} for the reasons.")


def _open_text(path: Path) -> IO[str]:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open("rt", encoding="utf-8-sig", errors="replace", newline="")


def _jsonl_records(path: Path, handle: IO[str]) -> Iterator[Record]:
    first = True
    for number, line in enumerate(lines(handle), start=1):
        if not line.strip():
            continue
        record = Record(f"{path.name}:{number}", line)
        if first:
            first = False
            _check_first_line(path, record)
        yield record


def _check_first_line(path: Path, record: Record) -> None:
    if str(record.payload).strip() in ("{", "["):
        raise UserError(f"{path} is JSON over several lines: write each crystal on one line ('jq -c' does).")
    try:
        fields = _json_fields(record)
    except EntryError:
        return
    has_structure = "structure" in fields or {"species", "cell", "positions"} <= fields.keys()
    if not has_structure or not any(key in fields for key in ID_KEYS):
        found = ", ".join(repr(k) for k in list(fields)[:12]) or "nothing"
        raise UserError(f"{path} has the wrong columns: expected {JSONL_EXPECTED}, found {found}.")


def _csv_records(path: Path, handle: IO[str], options: ReadOptions | None) -> Iterator[Record]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.reader(lines(handle))
    header = next(reader, None)
    if header is None:
        return
    header = [column.strip().lstrip("\ufeff") for column in header]
    if "cif" not in header or not any(key in header for key in ID_KEYS):
        raise UserError(
            f"{path} has the wrong columns: expected {CSV_EXPECTED}, found {', '.join(map(repr, header[:12]))}."
        )
    for _, column in options.site_values if options else ():
        if column in header:
            raise UserError(
                f"{path} has a column {column!r}, but a CSV cannot carry values of sites because reading a CIF changes "
                "their order: give JSON lines."
            )
    start = reader.line_num + 1
    for row in reader:
        origin, start = f"{path.name}:{start}", reader.line_num + 1
        if row:
            yield Record(origin, dict(zip(header, row, strict=False)))


def parse_record(record: Record, options: ReadOptions) -> Entry:
    """Turn a raw record into an entry.

    Args:
        record: From `iter_records`.
        options: What to keep.

    Returns:
        The entry; the values are read but not yet checked.

    Raises:
        EntryError: If the record cannot be used, whatever the cause.
    """
    entry_id: str | None = None
    try:
        fields = record.payload if isinstance(record.payload, dict) else _json_fields(record)
        entry_id = read_id(fields)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _parse_fields(entry_id, fields, record, options)
    except EntryError as error:
        error.entry_id = entry_id
        raise
    except Exception as error:
        raise EntryError("broken_entry", f"the entry cannot be read ({brief(error)})", entry_id) from error


def _json_fields(record: Record) -> dict[str, Any]:
    try:
        fields = json.loads(str(record.payload))
    except (ValueError, RecursionError) as error:
        raise EntryError("broken_entry", f"the line is not JSON ({brief(error)})") from error
    if not isinstance(fields, dict):
        raise EntryError("broken_entry", f"the line is not a JSON object but a {type(fields).__name__}")
    return fields


def _parse_fields(entry_id: str, fields: dict[str, Any], record: Record, options: ReadOptions) -> Entry:
    on_sites: dict[str, Any] = {}
    if isinstance(record.payload, dict):
        structure = read_cif(fields.get("cif") or "")
    else:
        structure, on_sites = read_structure(fields)
    given = {**_nested(fields, "values"), **_nested(fields, "site_values")}
    arrays = read_label_arrays(record.folder, fields.get("arrays")) if record.folder is not None else {}
    site_values, crystal_values = {}, {}
    for name, column in options.site_values if isinstance(record.payload, str) else ():
        raw = next((p[column] for p in (arrays, given, fields, on_sites) if p.get(column) is not None), None)
        place = options.quantity(name).place
        if raw is not None and place == "site":
            site_values[name] = read_site_values(name, raw)
        elif raw is not None:
            crystal_values[name] = read_crystal_value(name, raw, 4 if place == "grid" else 1)
    both = {**_nested(fields, "properties"), **fields}
    properties = {
        name: read_own(name, options.kinds[name], both[column])
        if name in options.kinds
        else read_property(name, both[column])
        for name, column in options.properties
        if column in both
    }
    split = read_split(fields.get(options.split_column)) if options.split_column else None
    method = of_label(fields)
    return Entry(entry_id, structure, site_values, crystal_values, properties, split, record.origin, method)


def _nested(fields: dict[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key)
    return value if isinstance(value, dict) else {}
