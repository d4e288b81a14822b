"""The first sections of a report: rates with their intervals, where verdicts come from, and why crystals failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mattergen_e.report import figures
from mattergen_e.report.drawing import key, picture
from mattergen_e.report.html import Html, join, percent, piece, table
from mattergen_e.report.runs import EvaluatedRun, number

#: Rates in the order of the table, with their meaning.
RATES = {
    "unique": ("unique (U)", "first of its kind among the generated crystals"),
    "novel": ("novel (N)", "matches no crystal of the reference"),
    "stable": ("stable (S)", "energy close to the hull, or below"),
    "structure_valid": ("valid structure", "no atoms too close, a reasonable cell"),
    "valid": ("valid (V)", "composition balances its charges (SMACT)"),
    "un": ("UN", "unique and novel"),
    "sun": ("SUN", "stable and UN"),
    "vsun": ("VSUN", "valid and SUN"),
}
_DRAWN = ("un", "sun", "vsun")

#: What may go wrong with a crystal, and the column that says why.
FAILURES = {
    "not readable": "reason",
    "structure not valid": "structure_reason",
    "composition not valid": "valid_reason",
    "relaxation failed": "relax_reason",
    "no hull energy": "stable_reason",
}


def names_of(runs: Iterable[EvaluatedRun]) -> list[str]:
    """Names of runs."""
    return [run.name for run in runs]


def introduction(runs: Sequence[EvaluatedRun]) -> Html:
    """What was evaluated, in a line per run."""
    lines = []
    for run in runs:
        conditions = ", ".join(f"{name} = {value}" for name, value in run.part("conditions").items())
        readable = number(run.summary.get("readable"))
        counts = f"{run.asked():,} crystals asked for" + ("" if readable is None else f", {readable:,.0f} readable")
        lines.append(piece("of_run", run.name, f"{counts}; {conditions or 'no condition'}."))
    return join([*lines, key(names_of(runs))])


def summary(runs: Sequence[EvaluatedRun]) -> Html:
    """Table and figure of the rates, warnings, and where the verdicts come from."""
    names = names_of(runs)
    targets = [name for name in dict.fromkeys(name for run in runs for name in run.part("success")) if name != "all"]
    rows = [(_head(*words), *(_rate(run.part("rates", rate)) for run in runs)) for rate, words in RATES.items()]
    for name in targets:
        head = _head(f"success, {name}", "VSUN and the property near its target")
        rows.append((head, *(_rate(run.part("success", name)) for run in runs)))
    if len(targets) > 1:
        head = _head("success, all", "VSUN and all properties near their targets")
        rows.append((head, *(_rate(run.part("success", "all")) for run in runs)))
    words = "% of all crystals asked for (failed ones count), Wilson 95 % interval, number of crystals."
    parts = [table(("rate", *names), rows, words)]
    shown = {RATES[rate][0]: [_known(run.part("rates", rate)) for run in runs] for rate in _DRAWN}
    shown |= {f"success\n{name}": [_known(run.part("success", name)) for run in runs] for name in targets}
    shown = {name: found for name, found in shown.items() if any(found)}
    if shown:
        figure, said = figures.intervals(shown, names)
        parts.append(picture(figure, said, "Rates with Wilson 95 % intervals."))
    return join([piece("beside", parts), *map(_warnings, runs), _sources(runs)])


def _head(name: str, meaning: str) -> Html:
    return piece("cell", name, [meaning])


def _known(rate: Mapping[str, Any]) -> Mapping[str, Any] | None:
    keys = ("fraction", "low", "high", "count", "total")
    return rate if all(number(rate.get(key)) is not None for key in keys) else None


def _rate(rate: Mapping[str, Any]) -> Html | str:
    if not rate:
        return "–"
    if _known(rate) is None:
        return piece("cell", "not evaluated", [rate.get("reason") or ""])
    interval = f"{100 * rate['low']:.1f} to {100 * rate['high']:.1f} · {rate['count']:,} of {rate['total']:,}"
    lines = [interval]
    target, tolerance = number(rate.get("target")), number(rate.get("tolerance"))
    if target is not None:
        lines.append(f"target {target:g}" + ("" if tolerance is None else f" ± {tolerance:g}"))
    return piece("cell", percent(rate["fraction"]), lines, bold=True)


def _warnings(run: EvaluatedRun) -> Html:
    found = run.summary.get("warnings")
    return join(piece("of_run", run.name, words) for words in (found if isinstance(found, list) else []))


def _sources(runs: Sequence[EvaluatedRun]) -> Html:
    """Where verdicts and values come from, in words."""
    found = [_sources_of(run) for run in runs]
    rows = [
        (term, *(said.get(term, "–") for said in found)) for term in dict.fromkeys(term for s in found for term in s)
    ]
    if not rows:
        return Html()
    return join([piece("heading", "Sources"), table(("", *names_of(runs)), rows, texts=1 + len(runs))])


def _sources_of(run: EvaluatedRun) -> dict[str, str]:
    reference, energies, relaxed = run.part("reference"), run.part("reference", "energy_source"), run.part("relaxation")
    items: dict[str, str] = {}
    if reference:
        items["novelty against"] = f"{reference.get('name')}, {_count(reference.get('structures'))} structures"
    if energies:
        said = (energies.get(key) for key in ("kind", "name", "calculator", "version"))
        items["hull energies from"] = " ".join(dict.fromkeys(str(word) for word in said if word))
    if relaxed.get("asked"):
        finished, asked, converged = (_count(relaxed.get(name)) for name in ("finished", "asked", "converged"))
        items["relaxed"] = f"{finished} of {asked}, {converged} of them converged"
    items |= {
        f"{name} from": ", ".join(found) for name in run.property_names() if (found := run.property_sources(name))
    }
    for name, part in run.part("descriptors").items():
        if isinstance(part, dict) and part.get("source"):
            items[f"{name} compared with"] = str(part["source"])
    return items


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"


def failures(runs: Sequence[EvaluatedRun]) -> Html:
    """Why crystals failed a step, by reason."""
    rows = []
    for step, column in FAILURES.items():
        found = [Counter(_reasons(run, column)) for run in runs]
        for reason, _ in sum(found, Counter()).most_common():
            rows.append((step, reason, *(f"{count[reason]:,}" for count in found)))
    if not rows:
        return piece("paragraph", "No crystal failed a step.")
    return table(
        ("step", "reason", *names_of(runs)), rows, "Crystals by the step that they fail and the reason.", texts=2
    )


def _reasons(run: EvaluatedRun, column: str) -> Iterable[str]:
    """Reasons of the crystals that fail a step; one that is far from the hull, or was not relaxed, fails no other.

    A composition may be valid with a reason: elements and alloys are not tested.
    """
    for row in run.rows:
        elsewhere = column == "stable_reason" and (
            number(row.get("energy_above_hull")) is not None or row.get("relax_reason")
        )
        passed = column == "valid_reason" and row.get("valid")
        if row.get(column) and not elsewhere and not passed:
            yield str(row[column])
