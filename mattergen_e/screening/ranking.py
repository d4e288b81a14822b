"""Which crystals are kept, in which order, and why the others are not: a row for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mattergen_e.evaluation.candidates import Candidate
from mattergen_e.evaluation.spectra.predicted import Spectrum
from mattergen_e.screening.settings import ScreenSettings
from mattergen_e.screening.target import Target

FORMATION, HULL = "formation_energy_per_atom", "energy_above_hull"

#: Why a crystal is not in the shortlist, in the order in which it is asked.
DROPPED = {
    "unreadable": "not generated, or not readable",
    "not_relaxed": "not relaxed",
    "no_energy": "with an element that has no energy to refer to",
    FORMATION: "formation energy above the limit",
    HULL: "too far above the hull",
    "no_spectrum": "without a spectrum",
    "no_states": "without states at the energies that are compared",
    "duplicate": "the same crystal as one nearer to the target",
    "rank": "farther from the target than the shortlist",
}
COLUMNS = (
    "rank", "id", "index", "name", "formula", "sites", FORMATION, HULL, "distance", "cosine_distance", "wasserstein",
    "site", "energy_per_atom", "converged", "relax_steps", "rmsd", "dropped", "reason", "duplicate_of",
)  # fmt: skip
#: Column of each distance.
DISTANCES = {"cosine": "cosine_distance", "wasserstein": "wasserstein"}
Row = dict[str, Any]


def make_rows(
    candidates: Iterable[Candidate], relaxed: Mapping[str, Any], energies: Mapping[str, Any], settings: ScreenSettings
) -> list[Row]:
    """A row per crystal asked for, with what relaxation found and whether the limits drop it.

    Args:
        candidates: The crystals.
        relaxed: Results of relaxation by key.
        energies: Of `energies.formation` by key.
        settings: The limits.
    """
    return [_row(candidate, relaxed, energies, settings) for candidate in candidates]


def _row(
    candidate: Candidate, relaxed: Mapping[str, Any], energies: Mapping[str, Any], settings: ScreenSettings
) -> Row:
    row: Row = dict.fromkeys(COLUMNS)
    row |= {"id": f"gen_{candidate.index}", "index": candidate.index, "name": candidate.name or None}
    if candidate.structure is None:
        return row | {"dropped": "unreadable", "reason": candidate.sentence}
    row |= {"formula": candidate.structure.composition.reduced_formula, "sites": len(candidate.structure)}
    found = relaxed[candidate.key]
    if not found["ok"]:
        return row | {"dropped": "not_relaxed", "reason": found["sentence"]}
    row |= {name: found[name] for name in ("energy_per_atom", "converged", "rmsd")} | {"relax_steps": found["steps"]}
    place = energies[candidate.key]
    row |= {name: place[name] for name in (FORMATION, HULL)}
    for name, limit in ((FORMATION, settings.max_formation_energy), (HULL, settings.max_energy_above_hull)):
        if limit is not None and row[name] is None:
            return row | {"dropped": "no_energy", "reason": place["sentence"]}
    for name, limit in ((FORMATION, settings.max_formation_energy), (HULL, settings.max_energy_above_hull)):
        if limit is not None and row[name] > limit:
            return row | {"dropped": name, "reason": f"{row[name]:.3f} eV/atom, more than {limit:g}"}
    return row


def kept(rows: Iterable[Row]) -> list[Row]:
    """Those that nothing has dropped."""
    return [row for row in rows if row["dropped"] is None]


def measure(rows: Sequence[Row], spectra: Mapping[int, Spectrum], target: Target, settings: ScreenSettings) -> None:
    """Adds the distances to the rows that are kept, and drops those that have none.

    Args:
        rows: Of all crystals; changed in place.
        spectra: By index.
        target: What they are compared with.
        settings: Name the distance and the site.
    """
    rows, known = kept(rows), []
    for row in rows:
        spectrum = spectra[row["index"]]
        if isinstance(spectrum, str):
            row |= {"dropped": "no_spectrum", "reason": spectrum}
        elif isinstance(settings.site, int) and settings.site >= len(spectrum):
            row |= {"dropped": "no_spectrum", "reason": f"it has no site {settings.site}, only {len(spectrum)} sites"}
        else:
            known.append((row, spectrum[[settings.site]] if isinstance(settings.site, int) else spectrum))
    if not known:
        return
    found = target.distances(np.concatenate([spectrum for _, spectrum in known]))
    starts = np.cumsum([0, *(len(spectrum) for _, spectrum in known)])
    for (row, _), start, end in zip(known, starts[:-1], starts[1:], strict=True):
        values = found[settings.distance][start:end]
        if np.isnan(values).all():
            row |= {"dropped": "no_states", "reason": "its spectrum is zero in the energies that are compared"}
            continue
        nearest = int(np.nanargmin(values))
        place = start + nearest
        row |= {column: round(float(found[name][place]), 6) for name, column in DISTANCES.items()}
        row["distance"] = row[DISTANCES[settings.distance]]
        if settings.site is not None:
            row["site"] = settings.site if isinstance(settings.site, int) else nearest


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Those that are kept, the nearest to the target first; the lower energy, then the index, settles a tie."""
    nothing = float("inf")

    def order(row: Row) -> tuple[float, float, int]:
        return row["distance"], nothing if row[FORMATION] is None else row[FORMATION], row["index"]

    return sorted(kept(rows), key=order)


def rank(candidates: Sequence[Row], first: Sequence[int], top: int) -> list[Row]:
    """Gives ranks, from 1, and drops duplicates and what lies beyond the shortlist.

    Args:
        candidates: Of `ordered`; changed in place.
        first: For each of them the position of the one that stands for it.
        top: Length of the shortlist.

    Returns:
        The shortlist.
    """
    shortlist: list[Row] = []
    place = 0
    for position, row in enumerate(candidates):
        if first[position] != position:
            same = candidates[first[position]]["id"]
            row |= {"dropped": "duplicate", "duplicate_of": same, "reason": f"it is the same crystal as {same}"}
            continue
        place += 1
        row["rank"] = place
        if place > top:
            row |= {"dropped": "rank", "reason": f"it is number {place}"}
        else:
            shortlist.append(row)
    return shortlist


def counts(rows: Iterable[Row]) -> dict[str, int]:
    """How many were dropped by reason, in the order of `DROPPED`."""
    found = Counter(row["dropped"] for row in rows)
    return {reason: found[reason] for reason in DROPPED if found[reason]}


def nearest_miss(rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """The crystal with the lowest value of each energy, among all that have one: id, formula and value, eV/atom."""
    rows = list(rows)
    best = {}
    for name in (FORMATION, HULL):
        known = [row for row in rows if row[name] is not None]
        if known:
            lowest = min(known, key=lambda row: row[name])
            best[name] = {"id": lowest["id"], "formula": lowest["formula"], "value": lowest[name]}
    return best
