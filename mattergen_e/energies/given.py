"""Energies that somebody else computed, by DFT for instance, from a file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mattergen_e.crystals.tables import raw_rows
from mattergen_e.errors import UserError
from mattergen_e.provenance import hash_file

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
    path = Path(path)
    values: dict[str, float] = {}
    for place, row in raw_rows(path, (".csv", ".jsonl"), partial(_check_columns, path)):
        _add(values, f"{path}, {place}", row)
    if not values:
        raise UserError(f"{path} holds no energy: expected rows with {ENERGY!r} and one of {', '.join(NAMES)}.")
    return Energies(values, {"kind": "file", "name": path.name, "sha256": hash_file(path), "rows": len(values)})


def _check_columns(path: Path, columns: list[str]) -> None:
    if ENERGY not in columns or not set(NAMES) & set(columns):
        found = ", ".join(columns[:12]) or "nothing"
        raise UserError(
            f"{path} has the wrong columns: expected {ENERGY} and one of {', '.join(NAMES)}, found {found}."
        )


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
