"""What a file says of the composition of its crystal, held against the crystal that was read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pymatgen.core import Composition, Element, Structure

#: Deviation of an amount, as a share of it: of ordered crystals, and of partly occupied ones.
_ORDERED, _DISORDERED = 0.01, 0.1
#: An element that a partly occupied crystal holds less of, as a share of its atoms, may be missing in a formula.
_TRACE = 0.02


@dataclass(frozen=True)
class Statement:
    """The composition that a file states.

    Attributes:
        formula: Amounts by element; empty if it states none.
        units: How many of it the cell holds; None if it does not say.
    """

    formula: Mapping[str, float]
    units: float | None = None

    @classmethod
    def of_cif(cls, data: Mapping[str, Any]) -> Statement:
        """That of a data block, by its keys in small letters."""
        return cls(_amounts(data.get("_chemical_formula_sum")), _number(data.get("_cell_formula_units_z")))

    def problem(self, structure: Structure) -> str | None:
        """How a structure differs from the statement, for people; None if it does not."""
        if not self.formula:
            return None
        found = elements(structure.composition)
        ordered = structure.is_ordered
        missing = sorted(set(self.formula) - set(found))
        more = sorted(name for name in set(found) - set(self.formula) if ordered or _share(found, name) > _TRACE)
        text = f"its formula is {_written(self.formula)}, but its sites give {_written(found)}"
        if not ordered:
            missing = [name for name in missing if _share(self.formula, name) > _TRACE]
        if missing or more:
            return text
        ratios = {name: found[name] / self.formula[name] for name in self.formula if name in found}
        limit = _ORDERED if ordered else _DISORDERED
        if max(ratios.values()) > min(ratios.values()) * (1 + limit):
            return text
        factor = sum(found.values()) / sum(self.formula.values())
        if self.units is None or abs(factor / self.units - 1) <= limit or self._whole_cell(factor, limit):
            return None
        return f"{text}, and not {self.units:g} of it (_cell_formula_units_Z)"

    def _whole_cell(self, factor: float, limit: float) -> bool:
        """Whether the formula is that of the whole cell and the units are of the reduced one, as pymatgen writes."""
        if abs(factor - 1) > limit or self.units is None:
            return False
        whole = [round(amount) for amount in self.formula.values()]
        return math.gcd(*whole) == self.units


def elements(composition: Composition) -> dict[str, float]:
    """Amounts by symbol, isotopes and charges left aside."""
    found: dict[str, float] = {}
    for species, amount in composition.items():
        number = getattr(species, "Z", None)
        symbol = Element.from_Z(number).symbol if number else str(species)
        found[symbol] = found.get(symbol, 0.0) + amount
    return found


def _amounts(text: Any) -> dict[str, float]:
    """Amounts by element; empty if the text is no formula."""
    if not isinstance(text, str) or text.strip() in ("", "?", "."):
        return {}
    without_isotopes = re.sub(r"\b[DT](?=[\s\d.]|$)", "H", text.strip())
    try:
        return elements(Composition(without_isotopes, strict=True))
    except Exception:  # pymatgen raises whatever the first odd character leads to
        return {}


def _number(text: Any) -> float | None:
    try:
        number = float(str(text))
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _share(amounts: Mapping[str, float], name: str) -> float:
    return amounts[name] / sum(amounts.values())


def _written(amounts: Mapping[str, float]) -> str:
    return " ".join(name if amount == 1 else f"{name}{amount:.4g}" for name, amount in sorted(amounts.items()))
