"""Rows of a table that somebody else wrote, as .csv or .jsonl, also packed (.gz)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mattergen_e.errors import UserError
from mattergen_e.limits import read_bytes

NAMES = ("index", "key", "id", "material_id")
"""What may name the crystal of a row, in the order in which it is looked for."""


def raw_rows(
    path: Path, formats: tuple[str, ...], check_columns: Callable[[list[str]], None] | None = None
) -> Iterator[tuple[str, Any]]:
    """Place and content of each row of a table.

    Args:
        path: The file.
        formats: Allowed endings of its name, of .csv and .jsonl; .gz may follow.
        check_columns: Called with the columns of a CSV file before its first row.

    Yields:
        The line, for errors, and what stands there: a dictionary, or of a .jsonl file anything.

    Raises:
        UserError: If it is of another format or cannot be read, or a line is wrong.
    """
    name = path.name.lower().removesuffix(".gz")
    if not name.endswith(formats):
        raise UserError(f"{path} is of an unknown format: give a file named {' or '.join(formats)}.")
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): check the path.") from None
    yield from _csv_rows(path, text, check_columns) if name.endswith(".csv") else _json_rows(path, text)


def read_rows(path: Path, formats: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """As `raw_rows`, with dictionaries only.

    Raises:
        UserError: As `raw_rows`; or if a row is none.
    """
    for place, row in raw_rows(path, formats):
        if not isinstance(row, dict):
            raise UserError(f"{path}, {place} is no JSON object: give names and properties.")
        yield place, row


def _csv_rows(
    path: Path, text: str, check_columns: Callable[[list[str]], None] | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        columns = [str(column).strip() for column in reader.fieldnames or ()]
        if check_columns is not None:
            check_columns(columns)
        reader.fieldnames = columns
        for row in reader:
            yield f"line {reader.line_num}", row
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as CSV ({error}): write it anew.") from None


def _json_rows(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):  # a JSON string may hold what splitlines splits at
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number} is not JSON ({error}): write it anew.") from None
            yield f"line {number}", row


def row_name(row: Mapping[str, Any], place: str) -> str:
    """What a row calls its crystal; `place` is for the error."""
    name = next((row[key] for key in NAMES if row.get(key) not in (None, "")), None)
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise UserError(f"{place}: the row has no name: give one of {', '.join(NAMES)}.")
    return str(name).strip()
