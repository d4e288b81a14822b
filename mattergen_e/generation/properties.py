"""Values of conditions: what each takes, several values as several targets, and what lies outside of the training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import spglib
from mattergen.common.utils.globals import SELECTED_ATOMIC_NUMBERS
from pymatgen.core import Element
from pymatgen.symmetry.groups import SpaceGroup

from mattergen_e.data.conditions import CACHED
from mattergen_e.errors import UserError

OPTION = "--properties_to_condition_on"
SPACE_GROUP, SYSTEM = "space_group", "chemical_system"
SYMBOLS = frozenset(Element.from_Z(number).symbol for number in range(1, 119))
#: Elements that MatterGen generates; it masks all others at every step.
GENERATED = frozenset(Element.from_Z(number).symbol for number in SELECTED_ATOMIC_NUMBERS)
UNITS = {
    "dft_band_gap": "eV",
    "formation_energy_per_atom": "eV/atom",
    "energy_above_hull": "eV/atom",
    "dft_bulk_modulus": "GPa",
    "ml_bulk_modulus": "GPa",
    "dft_shear_modulus": "GPa",
    "dft_mag_density": "Bohr magnetons per cubic angstrom",
}
#: Symbols of before 1992, which pymatgen and spglib know no more.
OLD_SYMBOLS = {"Abm2": 39, "Aba2": 41, "Cmca": 64, "Cmma": 67, "Ccca": 68}
#: A value this many standard deviations from the mean of the training lies outside of it, where no range was recorded.
FAR = 3.0
NOT_NEGATIVE = ("dft_band_gap", "dft_mag_density", "hhi_score")


class Word(str):
    """A word of a category, which is taken as it is, also if it looks like a number."""


class NumberList(tuple[float, ...]):
    """A list of numbers that is one value of a condition."""


Value = float | int | str | NumberList


def read_properties(properties: Any) -> dict[str, list[Value]]:
    """Reads the values of a request, without knowing the model.

    Args:
        properties: Values by name, as typed: a value, or a list of several, which crystals are given in turn. Spectra
            are left out.

    Returns:
        The values of each condition, one or several: a space group as its number, a chemical system as symbols joined
        by hyphens, others as they are. Where there are several, all conditions that have several have as many.

    Raises:
        UserError: If a value is of the wrong kind.
    """
    if not isinstance(properties or {}, Mapping):
        raise UserError(f"{OPTION} is no dictionary: write it with quotes, as \"{{'dos': 'FILE'}}\".")
    found = {name: _read(name, value) for name, value in (properties or {}).items() if name not in CACHED}
    several = {name: len(values) for name, values in found.items() if len(values) > 1}
    if len(set(several.values())) > 1:
        counts = " and ".join(f"{count} of '{name}'" for name, count in several.items())
        raise UserError(f"{OPTION} gives {counts}: give as many values of each, they are taken together in turn.")
    return found


def check_takes(values: Mapping[str, Sequence[Value]], numbers: Iterable[str], masked: bool = True) -> None:
    """Refuses words where a model has learned numbers, and elements that it cannot generate.

    Args:
        values: As of `read_properties`.
        numbers: Names of the conditions that are numbers for the model.
        masked: Whether elements that MatterGen does not generate are masked, as its command and this package do.

    Raises:
        UserError: If a value is of the wrong kind.
    """
    for name in set(numbers) & set(values):
        for value in values[name]:
            if isinstance(value, str):
                raise _wrong(name, value)
    for system in values.get(SYSTEM, ()) if masked else ():
        absent = [symbol for symbol in str(system).split("-") if symbol not in GENERATED]
        if absent:
            rest = "-".join(symbol for symbol in str(system).split("-") if symbol not in absent)
            raise UserError(
                f"{OPTION} asks for the chemical system '{system}', but MatterGen generates no {', '.join(absent)}"
                + (f": leave it out, which asks for '{rest}'." if rest else ": ask for other elements.")
            )


def _read(name: str, value: Any) -> list[Value]:
    """The values of one condition."""
    whole = name == SYSTEM and _is_list(value) and bool(value) and all(v in SYMBOLS for v in value if _is_text(v))
    several = _is_list(value) and not (whole and all(_is_text(v) for v in value))  # ['Li', 'O'] is one system
    values = list(value) if several else [value]
    if not values:
        raise UserError(f"{OPTION}: '{name}' is an empty list: give a value, or leave it out.")
    read = {SPACE_GROUP: _space_group, SYSTEM: _system}.get(name)
    return [read(item) if read is not None else _number(name, item) for item in values]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | NumberList)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _number(name: str, value: Any) -> Value:
    """A finite number, also if it is written as a text; other texts are for the model to judge."""
    if isinstance(value, Word | NumberList):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return value
    elif isinstance(value, str) and value.strip():
        try:
            number = float(value)
        except ValueError:
            return value
        if math.isfinite(number):
            return number
    raise _wrong(name, value)


def _wrong(name: str, value: Any) -> UserError:
    unit = f" in {UNITS[name]}" if name in UNITS else ""
    return UserError(
        f"{OPTION}: '{name}' is {value!r}: give a number{unit}, or a list of numbers, which crystals are given in turn."
    )


def _space_group(value: Any) -> int:
    """The number of a space group, which may be given by its symbol."""
    error = UserError(
        f"{OPTION}: '{SPACE_GROUP}' is {value!r}: give a number from 1 to 230, or a Hermann-Mauguin symbol such as "
        "'Fm-3m' or 'P2_1/c'."
    )
    number: Any = value
    if isinstance(value, str):
        text = "".join(value.split())
        if text.isascii() and text.isdigit():
            number = int(text)
        else:
            number = _numbers_of_symbols().get(text.replace("_", "").partition(":")[0])  # a setting: R-3m:H
    if isinstance(number, bool) or not isinstance(number, int | float) or number not in range(1, 231):
        raise error
    return int(number)


@cache
def _numbers_of_symbols() -> dict[str, int]:
    """Numbers of the space groups by symbol without blanks and underscores: short, full, of other settings, and old."""
    settings = [spglib.get_spacegroup_type(hall) for hall in range(1, 531)]
    named = [(kind.international_short, kind.number) for kind in settings if kind is not None]
    named += [(kind.international_full, kind.number) for kind in settings if kind is not None]
    named += [(symbol, fields["int_number"]) for symbol, fields in SpaceGroup.sg_encoding.items()]
    named += [
        (fields[key], fields["number"]) for fields in SpaceGroup.SYMM_OPS for key in ("hermann_mauguin", "short_h_m")
    ]
    named += OLD_SYMBOLS.items()
    named += [(symbol.replace("-", ""), number) for symbol, number in named if number >= 195]  # Fm3m of older tables
    found: dict[str, int] = {}
    for symbol, number in named:
        found.setdefault(symbol.replace("_", "").replace(" ", ""), int(number))
    return found


def _system(value: Any) -> str:
    """A chemical system as symbols joined by hyphens, in the order given."""
    parts = value.split("-") if isinstance(value, str) else value if _is_list(value) else []
    symbols = [str(part).strip() for part in parts]
    if not any(symbols):
        raise UserError(f"{OPTION}: '{SYSTEM}' is {value!r}: give symbols joined by hyphens, such as 'Li-O'.")
    unknown = [symbol for symbol in symbols if symbol not in SYMBOLS]
    if unknown:
        raise UserError(
            f"{OPTION}: '{SYSTEM}' is '{'-'.join(symbols)}', but '{unknown[0]}' is no chemical element: give symbols "
            "joined by hyphens, such as 'Li-O'."
        )
    return "-".join(symbols)


# -- what lies outside of the training --------------------------------------------------------------------------------


def outside_training(
    name: str, values: Sequence[Value], reach: tuple[float, float] | None, usual: tuple[float, float] | None
) -> str | None:
    """What is said of numbers that the training crystals did not have.

    Args:
        name: Of the condition.
        values: That are asked for.
        reach: Smallest and largest value of the training crystals; None where they were not recorded.
        usual: Ends of `usual_range`, which is all that older models tell; None if they do not tell that either.

    Returns:
        A sentence; None if nothing is known against the values.
    """
    numbers = [value for value in values if isinstance(value, int | float)]
    unit = f" {UNITS[name]}" if name in UNITS else ""
    if reach is not None:
        low, high, where = *reach, "outside of the training data, which reach from {} to {}"
    elif usual is not None:
        low, high, where = *usual, "far from the training data, which lie mostly between {} and {}"
    elif name in NOT_NEGATIVE:
        low, high, where = 0.0, math.inf, "which no crystal has"
    else:
        return None
    far = [value for value in numbers if not low <= value <= high or (name in NOT_NEGATIVE and value < 0)]
    if not far:
        return None
    place = where.format(f"{low:.4g}", f"{high:.4g}{unit}")
    return f"'{name}' is asked to be {', '.join(f'{value:g}' for value in far)}{unit}, {place}: expect little of this."


def usual_range(mean: float, deviation: float, log10: bool) -> tuple[float, float] | None:
    """Where most training values lie, from what a model's scaler knows.

    Args:
        mean: Of the training values, of their logarithms if `log10`.
        deviation: Standard deviation of the same.
        log10: Whether the scaler takes the logarithm.

    Returns:
        `FAR` standard deviations around the mean; None if the scaler was never fitted.
    """
    if not (math.isfinite(mean) and math.isfinite(deviation) and deviation > 0):
        return None
    ends = mean - FAR * deviation, mean + FAR * deviation
    return (10 ** ends[0], 10 ** ends[1]) if log10 else ends
