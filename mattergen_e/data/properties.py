"""Properties of crystals on their way into a cache: which are asked for, and the arrays that they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.checks import mattergen_names
from mattergen_e.crystals.fields import TEXT_PROPERTIES, split_rename
from mattergen_e.crystals.own_properties import MAX_CATEGORIES, Kind, check_name, split_kind
from mattergen_e.data import cache
from mattergen_e.data.collect import Prepared
from mattergen_e.errors import UserError


def parse_properties(
    options: Sequence[str], known: Sequence[str], taken: set[str]
) -> tuple[tuple[tuple[str, str], ...], dict[str, Kind]]:
    """Reads `--property` options.

    Args:
        options: NAME, NAME=COLUMN, NAME:KIND or NAME:KIND=COLUMN.
        known: MatterGen's names.
        taken: Names that a property of one's own cannot have, because the cache has them.

    Returns:
        Pairs (name, column), and the kinds of those that MatterGen has no name for.

    Raises:
        UserError: If a name or a kind is wrong, or a name is given twice.
    """
    pairs: dict[str, str] = {}
    kinds: dict[str, Kind] = {}
    for option in options:
        word, column = split_rename(option)
        name, kind = split_kind(word, "--property")
        if name in known:
            if kind is not None:
                raise UserError(f"--property {option!r}: {name} is MatterGen's own, leave ':{kind}' out.")
        else:
            check_name(name, f"--property {option!r}", taken)
            kinds[name] = kind or "number"
        if name.lower() in {other.lower() for other in pairs}:  # some disks take their files for one
            raise UserError(f"--property {name!r} is given twice: give each name once.")
        pairs[name] = column
    return tuple(pairs.items()), kinds


def property_arrays(
    kept: dict[str, list[Prepared]], columns: dict[str, str], explicit: bool, kinds: Mapping[str, Kind] | None = None
) -> tuple[dict[str, dict[str, NDArray[Any]]], dict[str, cache.PropertyInfo]]:
    """Collect the properties of all splits.

    A number that is unknown becomes NaN, and so does each of a list; an unknown category becomes "". MatterGen has no
    value for an unknown text, so that its text properties are written only if every crystal has them.

    Args:
        kept: Crystals by split.
        columns: Column of the file by name.
        explicit: Whether the properties were asked for by name.
        kinds: What the properties are that MatterGen has no name for, by name.

    Returns:
        Arrays by split and name, and what the manifest says of each property.

    Raises:
        UserError: If a property that was asked for is known nowhere, or a text is not known everywhere; or a category
            has too many words.
    """
    arrays: dict[str, dict[str, NDArray[Any]]] = {split: {} for split in kept}
    infos = {}
    total = sum(map(len, kept.values()))
    for name, column in columns.items():
        kind = (kinds or {}).get(name)
        values = {split: _column(name, kind, kept[split], _length(name, kept)) for split in kept}
        known = {split: int(_is_known(array).sum()) for split, array in values.items()}
        n_known = sum(known.values())
        written = n_known == total if name in TEXT_PROPERTIES else n_known > 0
        if explicit and not written:
            raise UserError(
                f"The property {name!r} (column {column!r}) is known for {n_known} of {total} crystals: "
                + ("a text must be known for all; " if n_known else "")
                + "check the name of the column or leave the property out"
                + (f"; MatterGen has names for {', '.join(mattergen_names()[1])}." if kind is not None else ".")
            )
        if n_known:
            infos[name] = cache.PropertyInfo(column=column, known=known, written=written, **_own(name, kind, values))
        if written:
            for split in kept:
                arrays[split][name] = values[split]
    return arrays, infos


def _length(name: str, kept: Mapping[str, Sequence[Prepared]]) -> int:
    """Numbers of a list; 0 if no crystal has one."""
    lists = (value for items in kept.values() for item in items if isinstance(value := item.properties.get(name), list))
    return next((len(value) for value in lists if value), 0)


def _column(name: str, kind: Kind | None, items: Sequence[Prepared], length: int) -> NDArray[Any]:
    """The values of a property, (n_crystals,) or, of lists, (n_crystals, length)."""
    if kind == "list":
        unknown = [np.nan] * length
        return np.array([item.properties.get(name) or unknown for item in items], np.float64).reshape(-1, length)
    if kind == "category" or name in TEXT_PROPERTIES:
        return np.array([item.properties.get(name, "") for item in items], dtype=np.str_)
    return np.array([item.properties.get(name, np.nan) for item in items], dtype=np.float64)


def _is_known(array: NDArray[Any]) -> NDArray[np.bool_]:
    if array.dtype.kind == "U":
        return array != ""
    return ~np.isnan(array) if array.ndim == 1 else np.isfinite(array).all(axis=1) & (array.shape[1] > 0)


def _own(name: str, kind: Kind | None, values: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """What the manifest says of a property that MatterGen has no name for."""
    if kind is None:
        return {}
    if kind == "list":
        return {"kind": kind, "length": next(iter(values.values())).shape[1]}
    if kind == "number":
        return {"kind": kind}
    words = sorted({str(word) for array in values.values() for word in np.unique(array)} - {""})
    if len(words) > MAX_CATEGORIES:
        raise UserError(
            f"The category {name!r} has {len(words):,} words, among them {words[0]!r} and {words[1]!r}: at most "
            f"{MAX_CATEGORIES:,} can be learned; leave it out, or check the column."
        )
    return {"kind": kind, "categories": words}
