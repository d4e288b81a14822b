"""The sites of a CIF: the element, the amount and the place of each row; nothing is guessed or passed over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element

_AXES = tuple(f"_atom_site_fract_{axis}" for axis in "xyz")
_UNKNOWN = ("?", "")
#: Occupancies that are one, as refinements and rounding leave it.
_WHOLE = (0.999, 1.01)
#: Names of the oxygen and hydrogen of water in labels; the rest of such names are of groups.
_WATER = {"Ow": "O", "Hw": "H"}
_SPRINGER = " + "
#: Pairs of capitals that may be two atoms as well as one element.
_LIGHT = frozenset("HCNO")


@dataclass(frozen=True)
class SiteTable:
    """Rows of a CIF's sites, in the order of the file.

    Attributes:
        labels: As the file has them.
        symbols: Elements with charges where the file has them, or what pymatgen splits into several ('0.8Nb + 0.2Zr').
        texts: (n, 3) fractional coordinates as text.
        coordinates: (n, 3), the same as numbers.
        rounding: (n, 3), by how much the text of a coordinate may differ from what it means.
        occupancies: As text.
        left_out: What the file says of atoms that are not among the rows; empty if nothing.
    """

    labels: list[str]
    symbols: list[str]
    texts: list[list[str]]
    coordinates: NDArray[np.float64]
    rounding: NDArray[np.float64]
    occupancies: list[str]
    left_out: str = ""

    def columns(self) -> dict[str, list[str]]:
        """The loop of sites, by CIF's keys."""
        found = {"_atom_site_type_symbol": self.symbols, "_atom_site_label": self.labels}
        found |= {axis: [row[i] for row in self.texts] for i, axis in enumerate(_AXES)}
        return found | {"_atom_site_occupancy": self.occupancies}

    def moved(self, coordinates: NDArray[np.float64]) -> SiteTable:
        """The same sites at other places; where a coordinate is the same, its text is kept."""
        texts = [
            [text if new == old else repr(float(new)) for text, new, old in zip(*row, strict=True)]
            for row in zip(self.texts, coordinates, self.coordinates, strict=True)
        ]
        return replace(self, texts=texts, coordinates=coordinates)

    def hint(self) -> str:
        """What may be the reason why the composition is not that of the file."""
        return f" ({self.left_out})" if self.left_out else ""


def values(data: Mapping[str, Any], key: str) -> list[str]:
    """Values of a key as a list, also where it stands outside of a loop; empty if it is not there."""
    given = data.get(key)
    return [] if given is None else given if isinstance(given, list) else [given]


def read_sites(data: Mapping[str, Any], elements: frozenset[str] = frozenset()) -> SiteTable:
    """The sites of a data block.

    Args:
        data: Values by key in small letters.
        elements: Of its formula, which tell what a label means that may mean several.

    Raises:
        ValueError: If a row is no atom at a known place.
    """
    types, labels = values(data, "_atom_site_type_symbol"), values(data, "_atom_site_label")
    labels = labels or types
    axes = [values(data, axis) for axis in _AXES]
    if not labels or not all(len(axis) == len(labels) for axis in axes):
        raise ValueError("its sites have no fractional coordinates or no labels (_atom_site_fract_x, _atom_site_label)")
    texts = _rows(list(zip(*axes, strict=True)), labels)
    given = values(data, "_atom_site_occupancy")
    occupancies = _occupancies(given if len(given) == len(labels) else ["1"] * len(labels), labels)
    symbols = _symbols(types, labels, elements)
    dummies = values(data, "_atom_site_calc_flag")
    empty = [i for i, text in enumerate(occupancies) if text == "0"]
    dropped = {*empty, *(i for i, flag in enumerate(dummies) if flag.lower() == "dum")}
    kept = [i for i in range(len(labels)) if i not in dropped]
    if not kept:
        raise ValueError("none of its sites is occupied")
    numbers = np.array([[_number(text) for text in texts[i]] for i in kept])
    return SiteTable(
        labels=[labels[i] for i in kept],
        symbols=[symbols[i] for i in kept],
        texts=[texts[i] for i in kept],
        coordinates=numbers,
        rounding=np.array([[_rounding(text) for text in texts[i]] for i in kept]),
        occupancies=[occupancies[i] for i in kept],
        left_out=_left_out(data, labels, empty) or _lone_water(labels, types),
    )


def _left_out(data: Mapping[str, Any], labels: Sequence[str], empty: Sequence[int]) -> str:
    attached = values(data, "_atom_site_attached_hydrogens")
    for label, text in zip(labels, attached, strict=False):
        if text not in (".", *_UNKNOWN) and _number(text, 0.0) > 0:
            return f"site {label!r} carries hydrogen that has no place of its own (_atom_site_attached_hydrogens)"
    if empty:
        return f"site {labels[empty[0]]!r} has the occupancy 0, and no formula says whether an atom is there"
    return ""


# -- places and amounts -----------------------------------------------------------------------------------------------


def _rows(rows: Sequence[Sequence[str]], labels: Sequence[str]) -> list[list[str]]:
    """Coordinates as text; one that does not apply is 0, as CIF has it."""
    found = []
    for row, label in zip(rows, labels, strict=True):
        texts = ["0" if text == "." else re.sub(r"\(.*", "", text) for text in row]
        for text in texts:
            if not np.isfinite(_number(text, np.nan)):
                raise ValueError(f"the place of site {label[:40]!r} is not known: a coordinate is {text[:40]!r}")
        found.append(texts)
    return found


def _occupancies(given: Sequence[str], labels: Sequence[str]) -> list[str]:
    found = []
    for text, label in zip(given, labels, strict=True):
        if text in (".", *_UNKNOWN):
            found.append("1")
            continue
        number = _number(text, np.nan)
        if not np.isfinite(number) or number < 0:
            raise ValueError(f"the occupancy of site {label[:40]!r} is {text[:40]!r}, no share of an atom")
        found.append("1" if _WHOLE[0] <= number <= _WHOLE[1] else "0" if number == 0 else text)
    return found


def _number(text: str, otherwise: float = np.nan) -> float:
    try:
        return float(re.sub(r"\(.*", "", text))
    except ValueError:
        return otherwise


def _rounding(text: str) -> float:
    """By how much a coordinate may be off: its last digit, unless it is a simple fraction as it stands."""
    number = float(text)
    if abs(24 * number - round(24 * number)) < 1e-9:
        return 0.0
    decimals = len(text.lower().partition("e")[0].partition(".")[2])
    return 10.0 ** -max(decimals, 2)


# -- elements ---------------------------------------------------------------------------------------------------------


def _symbols(types: Sequence[str], labels: Sequence[str], elements: frozenset[str]) -> list[str]:
    """The element of each row, with its charge where the file gives one.

    Raises:
        ValueError: If a row is a group of atoms, or no element.
    """
    told = len(types) == len(labels)
    found = []
    for name, label in zip(types if told else labels, labels, strict=True):
        symbol = _of_type(name, elements) if told else _of_label(name, elements)
        if symbol is None:
            raise ValueError(
                f"site {label[:40]!r} is {name[:40]!r}, which is no single element: give each atom, hydrogen too, a "
                "site of its own with its symbol (_atom_site_type_symbol)"
            )
        found.append(symbol)
    return found


def _of_type(name: str, elements: frozenset[str]) -> str | None:
    """A type symbol as pymatgen takes it; None if it is no element, perhaps with a charge."""
    if _SPRINGER in name:  # pymatgen splits these
        return name
    match = re.fullmatch(r"([A-Z][a-z]?)(\d*\.?\d*[+-]|[+-]\d+\.?\d*|0\+?)?", name)
    if match is None or not (_is_element(match[1]) or match[1] in ("D", "T")):
        bare = name.rstrip("+-0123456789")
        return _of_label(bare, elements) if bare.isalpha() else None
    return f"H{match[2] or ''}" if match[1] in ("D", "T") else name


def _of_label(name: str, elements: frozenset[str]) -> str | None:
    """The element that the first letters of a label are; None if that is not clear.

    Letters behind the element may number sites ('SiA', 'Ob1') or be further atoms ('OH', 'NH4'), and capitals may be
    one element or two: with a formula, its elements decide, and the composition shows what was wrong.
    """
    match = re.match(r"[A-Za-z]+", name)
    letters = match[0] if match else ""
    if letters in ("D", "T"):
        return "H"
    if elements:
        parts = (letters[:2], letters[:1])
        named = next((part.title() for part in parts if part.title() in elements), None)
        return named or (letters if _is_element(letters) else None)
    if re.fullmatch(r"[HD][23]O\d*", name):
        return None
    if _is_element(letters):
        return letters
    title = letters.title()
    if title in _WATER:
        return _WATER[title]
    light = set(letters.upper()) <= _LIGHT
    return title if len(letters) <= 2 and _is_element(title) and not light else None


def _lone_water(labels: Sequence[str], types: Sequence[str]) -> str:
    """What to say of the oxygen of water whose hydrogen has no site."""
    names = types if len(types) == len(labels) else labels
    water = next((label for label, name in zip(labels, names, strict=True) if name[:2].title() == "Ow"), None)
    if water is None or any(re.match(r"[HhDd](?![a-z])|[Hh]w", name) for name in names):
        return ""
    return f"site {water!r} is the oxygen of water, whose hydrogen has no site"


def _is_element(symbol: str) -> bool:
    return symbol not in ("", "D", "T") and Element.is_valid_symbol(symbol)
