"""From the rows of crystals to rates: what `evaluation.json` says about a whole run.

A row is one asked-for crystal, also one that could not be read or relaxed: every rate is a fraction of all of them, as
in Okuda et al. (section 2.1). Verdicts are True, False or None, not evaluated. None is never counted as False: where a
rate depends on a crystal that has not been evaluated, it is null with a reason. One False is enough for a False: a
crystal that is not novel is not SUN, whether it has been relaxed or not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mattergen_e.evaluation.schema import ALL, COLUMNS, NOVELTIES, RATED
from mattergen_e.evaluation.statistics import CONFIDENCE, fractions

Row = Mapping[str, Any]

#: Quantiles of every distribution.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def all_of(*verdicts: bool | None) -> bool | None:
    """False if one is, else None if one is not known, else True."""
    if any(verdict is False for verdict in verdicts):
        return False
    return None if any(verdict is None for verdict in verdicts) else True


def verdicts(row: Row) -> dict[str, Any]:
    """What follows from the single verdicts of a crystal (Okuda et al., section 2.1).

    Args:
        row: With unique, novel, stable, valid and properties; missing ones are not evaluated. Of a crystal that could
            not be read all verdicts are False.

    Returns:
        un: unique and novel. sun: stable and UN. vsun: valid and SUN. success: by property with a target, whether the
        crystal is VSUN and its value within the tolerance. success_all: for all these at once; None without a target.
    """
    un = all_of(_verdict(row, "unique"), _verdict(row, "novel"))
    sun = all_of(_verdict(row, "stable"), un)
    vsun = all_of(_verdict(row, "valid"), sun)
    success = {name: all_of(vsun, value.get("within")) for name, value in _targeted(row).items()}
    return {
        "un": un,
        "sun": sun,
        "vsun": vsun,
        "success": success,
        "success_all": all_of(*success.values()) if success else None,
    }


def summarise(rows: Sequence[Row], confidence: float = CONFIDENCE) -> dict[str, Any]:
    """The parts of `evaluation.json` that rows can tell.

    Args:
        rows: One per asked-for crystal. What follows from other verdicts (`verdicts`) is worked out anew.
        confidence: Of the Wilson intervals.

    Returns:
        asked, readable, failures, rates, success, relaxation, novelty and descriptors.
    """
    full = [{**row, **verdicts(row)} for row in rows]
    return {
        "asked": len(full),
        "readable": sum(bool(row.get("readable")) for row in full),
        "failures": count_reasons(row.get("reason") for row in full if not row.get("readable")),
        "rates": rates(full, confidence),
        "success": success(full, confidence),
        "relaxation": relaxation(full),
        "novelty": novelty(full),
        "descriptors": descriptors(full),
    }


def rates(rows: Sequence[Row], confidence: float = CONFIDENCE) -> dict[str, Any]:
    """The rate of each of `schema.RATED` in all rows, which have un, sun and vsun already."""
    return {name: fractions([_verdict(row, name) for row in rows], confidence).as_dict() for name in RATED}


def success(rows: Sequence[Row], confidence: float = CONFIDENCE) -> dict[str, Any]:
    """Success rates: VSUN crystals with a property within its tolerance of the target, as a fraction of all.

    Args:
        rows: With vsun and properties. A crystal without an entry for a property, such as one that could not be read,
            counts with its vsun alone.
        confidence: Of the Wilson intervals.

    Returns:
        By property with a target: the rate, and its target, tolerance and source (a list if rows differ). `all` stands
        for all properties at once. Empty if nothing has a target.
    """
    names = sorted({name for row in rows for name in _targeted(row)})
    if not names:
        return {}
    masks = {name: [_success(row, name) for row in rows] for name in names}
    found = {}
    for name in names:
        values = [row["properties"][name] for row in rows if name in _targeted(row)]
        origin = {key: _common(value.get(key) for value in values) for key in ("target", "tolerance", "source")}
        found[name] = {**fractions(masks[name], confidence).as_dict(), **origin}
    together = [all_of(*marks) for marks in zip(*masks.values(), strict=True)]
    return {**found, ALL: fractions(together, confidence).as_dict()}


def relaxation(rows: Sequence[Row]) -> dict[str, Any]:
    """How the relaxations went: numbers of crystals, reasons of failure, RMSD in Å, hull energies in eV/atom."""
    tried = [row for row in rows if row.get("readable") and row.get("relaxed") is not None]
    done = [row for row in tried if row["relaxed"]]
    return {
        "asked": len(tried),
        "finished": len(done),
        "converged": sum(bool(row.get("converged")) for row in done),
        "failures": count_reasons(row.get("relax_reason") for row in tried if not row["relaxed"]),
        "steps": distribution(row.get("relax_steps") for row in done),
        "seconds": distribution(row.get("relax_seconds") for row in done),
        "rmsd": distribution(row.get("rmsd") for row in done),
        "energy_above_hull": distribution(row.get("energy_above_hull") for row in rows),
    }


def novelty(rows: Sequence[Row]) -> dict[str, Any]:
    """Distances to the nearest reference crystal, of all crystals and of the VSUN ones (Okuda et al., section 4.4)."""

    def both(chosen: Iterable[Row]) -> dict[str, Any]:
        chosen = list(chosen)
        return {name: distribution(row.get(f"novelty_{name}") for row in chosen) for name in NOVELTIES}

    return {**both(rows), "vsun": both(row for row in rows if row.get("vsun"))}


def descriptors(rows: Sequence[Row]) -> dict[str, Any]:
    """Accuracy of generated descriptors as far as rows know it: means over the sites of all and of SUN crystals.

    Returns:
        By descriptor: the mean of its distance, in the unit of its `Measure`, by the name `mae` if that is a mean
        absolute error, else `mean`. A descriptor that no row has is left out.
    """
    from mattergen_e.descriptors.registry import known as known_descriptors

    installed = [(descriptor, descriptor.measure()) for descriptor in known_descriptors().values()]
    places = {column: place for place, column in enumerate(COLUMNS)}
    found = {}
    for descriptor, measure in sorted(installed, key=lambda one: places.get(one[1].column, len(places))):
        known = [row for row in rows if row.get(measure.column) is not None]
        if known:
            chosen = {"all": known, "sun": [row for row in known if row.get("sun")]}
            on_sites = descriptor.place == "site"
            found[descriptor.name] = {
                which: _over_rows(some, measure.column, measure.mean_key, on_sites) for which, some in chosen.items()
            }
    return found


def distribution(values: Iterable[float | None]) -> dict[str, Any]:
    """Number, mean, median and quantiles of the values that are known; null and a reason where none is."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    known = known[np.isfinite(known)]
    if len(known) == 0:
        return {"crystals": 0, "mean": None, "median": None, "quantiles": {}, "reason": "not evaluated"}
    quantiles = {f"{q:g}": float(np.quantile(known, q)) for q in QUANTILES}
    return {
        "crystals": len(known),
        "mean": float(known.mean()),
        "median": float(np.median(known)),
        "quantiles": quantiles,
    }


def count_reasons(reasons: Iterable[str | None]) -> dict[str, int]:
    """How often each reason occurs, the most frequent first."""
    return dict(Counter(reason or "unknown" for reason in reasons).most_common())


def _verdict(row: Row, name: str) -> bool | None:
    return False if row.get("readable") is False else row.get(name)


def _targeted(row: Row) -> dict[str, Any]:
    """The properties of a crystal that have a target."""
    return {name: value for name, value in (row.get("properties") or {}).items() if value.get("target") is not None}


def _success(row: Row, name: str) -> bool | None:
    return all_of(row.get("vsun"), _targeted(row).get(name, {}).get("within"))


def _over_rows(rows: Sequence[Row], column: str, label: str, on_sites: bool) -> dict[str, Any]:
    """The mean of a column; a crystal counts once for each of its sites if the descriptor lives on them."""
    weights = np.array([row["sites"] if on_sites else 1 for row in rows], dtype=np.int64)
    values = np.array([row[column] for row in rows], dtype=np.float64)
    total = int(weights.sum())
    found: dict[str, Any] = {label: float((values * weights).sum() / total) if total else None}
    found |= {"sites": total} if on_sites else {}
    found["crystals"] = len(rows)
    return found if total else {**found, "reason": "no crystals"}


def _common(values: Iterable[Any]) -> Any:
    """The one value of those that have any, or the list of the different ones; None if none has one."""
    different: list[Any] = []
    for value in values:
        if value is not None and value not in different:
            different.append(value)
    return different if len(different) > 1 else different[0] if different else None
