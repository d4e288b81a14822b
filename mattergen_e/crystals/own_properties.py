"""A user's own properties of crystals: their names, their kinds, and how a value is read.

MatterGen has a list of ten properties. Any other name that a user chooses is one of three kinds: a `number`, a
`category`, which is a word out of a few, or a `list` of numbers, of one length in all crystals.
"""

from __future__ import annotations

import json
import keyword
import math
import re
from collections.abc import Collection
from functools import cache
from typing import Any, Literal, get_args

from mattergen_e.crystals.checks import EntryError, mattergen_names
from mattergen_e.crystals.tables import NAMES
from mattergen_e.errors import UserError
from mattergen_e.upstream import ARRAY_CONDITIONS

Kind = Literal["number", "category", "list"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MAX_NAME = 60
MAX_WORD = 60
#: Most numbers of a list, and most words of a category: beyond, the column is another than the user thinks.
MAX_NUMBERS = 4096
MAX_CATEGORIES = 1000
#: Columns of files, and keys of crystals and of runs, that mean something else.
_COLUMNS = frozenset(
    {
        *NAMES,
        *("structure", "cif", "split", "source", "properties", "conditions", "values", "site_values", "arrays"),
        *("species", "positions", "all", "formula"),
        *("pos", "cell", "atomic_numbers", "num_atoms", "num_nodes", "structure_id", "face"),
    }
)
#: Words that the command line reads as something else than a text.
_LITERALS = frozenset({"nan", "inf", "infinity", "null", "none", "true", "false"})


def split_kind(word: str, where: str) -> tuple[str, Kind | None]:
    """Takes NAME or NAME:KIND apart.

    Args:
        word: As typed.
        where: The option, for the message.

    Returns:
        The name, and the kind if one is given.

    Raises:
        UserError: If the kind is none of `KINDS`.
    """
    name, colon, kind = word.partition(":")
    name, kind = name.strip(), kind.strip()
    if not colon:
        return name, None
    if kind not in KINDS:
        raise UserError(f"{where} {word!r}: {kind!r} is no kind of property: write one of {', '.join(KINDS)}.")
    return name, kind


def check_name(name: str, where: str, taken: Collection[str] = ()) -> None:
    """Refuses a name that a property of one's own cannot have.

    Args:
        name: The name.
        where: Option and word, for the message.
        taken: Names of fields that are generated or stored.

    Raises:
        UserError: If it is no identifier, or means something already.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or re.search("batch|index", name) or len(name) > MAX_NAME:
        raise UserError(
            f"{where}: {name!r} cannot be the name of a property; use letters, digits and underscores, a letter first, "
            f"without 'batch' or 'index', at most {MAX_NAME}."
        )
    known = {*taken, *ARRAY_CONDITIONS, *_COLUMNS, *mattergen_names()[1]}
    means = name in known or name in _graph_names() or keyword.iskeyword(name) or name.lower() in _LITERALS
    if means:
        raise UserError(f"{where}: {name!r} means something else already: choose another name.")


@cache
def _graph_names() -> frozenset[str]:
    """Names of what MatterGen's graphs and torch's dictionaries of modules have themselves."""
    import torch
    from mattergen.common.data.chemgraph import ChemGraph
    from torch_geometric.data import Batch

    return frozenset({*dir(ChemGraph), *dir(Batch), *dir(torch.nn.ModuleDict())})


def read_own(name: str, kind: Kind, raw: Any) -> float | str | list[float]:
    """Reads a value.

    Args:
        name: Of the property, for the message.
        kind: Of the property.
        raw: As it stands in the file: of a CSV a text, of JSON anything. A list is a JSON list, or in a CSV numbers
            between brackets, or with spaces, commas or semicolons between them.

    Returns:
        A number (NaN where unknown), a word ("" where unknown) or a list of numbers (empty where unknown).

    Raises:
        EntryError: With reason bad_property.
    """
    if kind == "category":
        return category(name, raw)
    if raw is None or (isinstance(raw, str) and raw.strip().lower() in ("", "nan", "none", "null")):
        return math.nan if kind == "number" else []
    return _number(name, raw) if kind == "number" else _numbers(name, raw)


def _number(name: str, raw: Any) -> float:
    try:
        number = math.inf if isinstance(raw, bool) else float(raw)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if math.isinf(number):
        hint = f"; for words write {name}:category" if isinstance(raw, str | bool) else ""
        hint = f"; for lists write {name}:list" if isinstance(raw, list) else hint
        raise EntryError("bad_property", f"{name} is {str(raw)[:40]!r}, expected a finite number or nothing{hint}")
    return number


def _numbers(name: str, raw: Any) -> list[float]:
    parts = raw
    if isinstance(raw, str):
        parts = re.split(r"[\s,;]+", raw.strip().removeprefix("[").removesuffix("]").strip())
    if not isinstance(parts, list) or not 0 < len(parts) <= MAX_NUMBERS:
        raise EntryError("bad_property", f"{name} is {str(raw)[:40]!r}, expected a list of up to {MAX_NUMBERS} numbers")
    try:
        numbers = [math.nan if isinstance(part, bool) else float(part) for part in parts]
    except (TypeError, ValueError, OverflowError):
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise EntryError("bad_property", f"{name} is {str(raw)[:40]!r}, expected a list of finite numbers")
    return numbers


def category(name: str, raw: Any) -> str:
    """The word of a category: a text, a whole number or a truth value as a text; "" where it is unknown.

    Raises:
        EntryError: With reason bad_property.
    """
    if raw is None or (isinstance(raw, float) and math.isnan(raw)):
        return ""
    if isinstance(raw, bool):
        word = json.dumps(raw)
    elif isinstance(raw, int | float) and math.isfinite(raw):
        word = f"{raw:.12g}"
    elif isinstance(raw, str):
        word = raw.strip()
    else:
        raise EntryError("bad_property", f"{name} is {str(raw)[:40]!r}, expected a word or a number")
    if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", word):  # 1, 1.0 and "1" are one category
        word = f"{float(word):.12g}"
    if len(word) > MAX_WORD or not word.isprintable() or "${" in word:
        raise EntryError("bad_property", f"{name} is {word[:40]!r}: a category has at most {MAX_WORD} printable signs")
    return word
