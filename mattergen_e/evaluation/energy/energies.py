"""Energies that somebody else computed, by DFT for instance, from a file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mattergen_e.errors import UserError

#: What may name a crystal, in the order in which it is looked for.
NAMES = ("material_id", "id", "index", "key")
ENERGY = "energy_per_atom"


@dataclass(frozen=True)
class Energies:
    """Energies of a file.

    Attributes:
        values: eV/atom by the crystal's name as a string: its id, index or key.
        source: What to write down about them: kind, name and sha256 of the file.
    """

    values: dict[str, float]
    source: dict[str, Any]

    def find(self, *names: object) -> float:
        """The energy of a crystal in eV/atom by any of its names; NaN if the file does not have it."""
        return next((self.values[str(name)] for name in names if str(name) in self.values), math.nan)


def read_energies(path: str | Path) -> Energies:
    """Reads energies from a CSV or JSON lines file (.csv, .jsonl, also .gz).

    Args:
        path: Each row has `energy_per_atom` in eV/atom and a name: `material_id`, `id`, `index` or `key`; in a file for
            a reference the symbol of an element instead names an energy of that element. Empty energies are passed
            over.

    Returns:
        The energies, by name.

    Raises:
        UserError: If the file is missing, of another format, or a row is wrong or repeated; names file and line.
    """
    from mattergen_e.provenance import hash_file

    path = Path(path)
    name = path.name.lower().removesuffix(".gz")
    if not name.endswith((".csv", ".jsonl")):
        raise UserError(f"{path} is of an unknown format: give energies as .csv or .jsonl.")
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.name.lower().endswith(".gz") else data).decode("utf-8-sig")
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): check the path.") from None
    values: dict[str, float] = {}
    for place, row in _csv_rows(path, text) if name.endswith(".csv") else _json_rows(path, text):
        _add(values, f"{path}, {place}", row)
    if not values:
        raise UserError(f"{path} holds no energy: expected rows with {ENERGY!r} and one of {', '.join(NAMES)}.")
    return Energies(values, {"kind": "file", "name": path.name, "sha256": hash_file(path), "rows": len(values)})


def _csv_rows(path: Path, text: str) -> list[tuple[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = [str(c).strip() for c in reader.fieldnames or ()]
    if ENERGY not in columns or not set(NAMES) & set(columns):
        found = ", ".join(columns[:12]) or "nothing"
        raise UserError(
            f"{path} has the wrong columns: expected {ENERGY} and one of {', '.join(NAMES)}, found {found}."
        )
    reader.fieldnames = columns
    try:
        return [(f"line {reader.line_num}", row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as CSV ({error}).") from None


def _json_rows(path: Path, text: str) -> list[tuple[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append((f"line {number}", json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number} is not JSON ({error}).") from None
    return rows


def _add(values: dict[str, float], place: str, row: Any) -> None:
    name = next((row[n] for n in NAMES if row.get(n) not in (None, "")), None) if isinstance(row, dict) else None
    if name is None or isinstance(name, list | dict):
        raise UserError(f"{place}: the row has no name: give one of {', '.join(NAMES)}.")
    raw = row.get(ENERGY)
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        return
    try:
        energy = float(raw)
    except (TypeError, ValueError):
        energy = math.nan
    if isinstance(raw, bool) or not math.isfinite(energy):
        raise UserError(f"{place}: {ENERGY} of {name} is {raw!r}, which is no finite number in eV/atom.")
    if values.setdefault(str(name), energy) != energy:
        raise UserError(f"{place}: {name} has two different energies: keep one.")
