"""Comparing evaluated runs: the numbers of Okuda et al., table 1, and whether they differ by more than luck.

Runs with equal conditions are tested against one of them, the baseline. Where two rest on different things (reference
set, energies, source or tolerance of a property), rates are shown but not tested: a difference would not be that of the
models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mattergen_e.errors import UserError
from mattergen_e.evaluation import statistics
from mattergen_e.evaluation.schema import ALL
from mattergen_e.evaluation.statistics import Proportion
from mattergen_e.report import notes
from mattergen_e.report.comparison import Cell, Comparison, Line
from mattergen_e.report.rates import COLUMNS, Run, differing

#: Of a success rate, what a comparison repeats.
_SUCCESS = {"count", "total", "reason", "target", "tolerance", "source"}


def compare(
    runs: Sequence[Run],
    *,
    baselines: Sequence[str] = (),
    alpha: float = 0.05,
    corrected: bool = False,
    success: str = ALL,
) -> Comparison:
    """Compares runs with the baseline of their condition.

    Args:
        runs: At least one; no two of a condition have the same name.
        baselines: Names of the runs that the others of their conditions are tested against; the first run of a
            condition unless given.
        alpha: Level of significance, between 0 and 1.
        corrected: Correct p-values for their number by Holm's method.
        success: Property whose success rate is shown; `all` for all properties of the condition at once.

    Raises:
        UserError: If alpha, names, baselines or the property are wrong.
    """
    if not 0 < alpha < 1:
        raise UserError(f"--alpha {alpha:g} is wrong: give a number between 0 and 1, for instance 0.05.")
    if success != ALL and not any(success in run.evaluation.success for run in runs):
        known = sorted({name for run in runs for name in run.evaluation.success if name != ALL})
        raise UserError(f"No run has a success rate of {success!r}: give one of {', '.join([ALL, *known])}.")
    groups = _groups(runs)
    lines = []
    for members, baseline in zip(groups.values(), _baselines(groups, baselines), strict=True):
        for run in members:
            cells = {column: _cell(run, baseline, column, success, 1 - alpha) for column in COLUMNS}
            lines.append(Line(run.condition, run, baseline, cells))
    lines = _decide(lines, alpha, corrected)
    bare = Comparison(tuple(lines), alpha, corrected, success, (), ())
    return replace(bare, warnings=tuple(notes.warnings(bare)), notes=tuple(notes.notes(bare)))


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Every number of a comparison."""
    return {
        "format": 1,
        "test": notes.TEST,
        "alpha": comparison.alpha,
        "confidence": 1 - comparison.alpha,
        "correction": "holm" if comparison.corrected else None,
        "tests": comparison.tests,
        "success": comparison.success,
        "runs": [_line_json(line) for line in comparison.lines],
        "warnings": list(comparison.warnings),
        "notes": list(comparison.notes),
    }


def _line_json(line: Line) -> dict[str, Any]:
    evaluation = line.run.evaluation
    return {
        "condition": line.condition,
        "conditions": evaluation.conditions,
        "run": line.run.name,
        "path": str(line.run.path),
        "baseline": line.baseline.name,
        "is_baseline": line.is_baseline,
        "asked": evaluation.asked,
        "rates": {column: _cell_json(cell) for column, cell in line.cells.items()},
        "success": {name: rate.model_dump(include=_SUCCESS) for name, rate in evaluation.success.items()},
        "sources": line.run.sources("success"),
        "dos_targets": evaluation.dos_targets.model_dump() if evaluation.dos_targets is not None else None,
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    found: dict[str, Any] = {**cell.rate.as_dict(), "test": None}
    if cell.difference is not None:
        test = {**vars(cell.difference), "p_corrected": cell.p, "significant": cell.significant}
        found["test"] = test | {"direction": cell.direction}
    return found if cell.untested is None else {**found, "untested": cell.untested}


def _groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        members = groups.setdefault(run.condition, [])
        if run.name in {other.name for other in members}:
            raise UserError(f"Two runs of the condition {run.condition} are called {run.name}: give NAME={run.path}.")
        members.append(run)
    if not groups:
        raise UserError("There are no runs to compare: give at least one evaluated run.")
    return groups


def _baselines(groups: Mapping[str, Sequence[Run]], names: Sequence[str]) -> list[Run]:
    """The baseline of each condition."""
    known = [run.name for members in groups.values() for run in members]
    for name in names:
        if name not in known:
            raise UserError(f"--baseline {name!r} is none of the runs: give one of {', '.join(dict.fromkeys(known))}.")
    found = []
    for condition, members in groups.items():
        named = [run for run in members if run.name in names]
        if len(named) > 1:
            both = " and ".join(run.name for run in named)
            raise UserError(f"The condition {condition} has several baselines, {both}: give one --baseline for it.")
        found.append(named[0] if named else members[0])
    return found


def _cell(run: Run, baseline: Run, column: str, success: str, confidence: float) -> Cell:
    rate, other = run.rate(column, success), baseline.rate(column, success)
    shown = _proportion(rate.count, rate.total, rate.reason, confidence)
    if run is baseline:
        return Cell(shown)
    if rate.count is None or rate.total == 0:
        return Cell(shown, untested=shown.reason)
    if other.count is None or other.total == 0:
        return Cell(shown, untested=f"the baseline has no rate ({other.reason or 'there are no crystals'})")
    different = differing(run, baseline, column)
    if different:
        return Cell(shown, untested=f"not comparable: they differ in {', '.join(different)}", comparable=False)
    difference = statistics.compare(rate.count, rate.total, other.count, other.total, confidence)
    return Cell(shown, difference, difference.p)


def _proportion(count: int | None, total: int, reason: str | None, confidence: float) -> Proportion:
    if count is None:
        return Proportion(None, total, None, None, None, 0, reason or "not evaluated")
    return statistics.proportion(count, total, confidence)


def _decide(lines: Iterable[Line], alpha: float, corrected: bool) -> list[Line]:
    """The lines with p-values corrected, if asked for, and their significance."""
    lines = list(lines)
    p_values = [cell.p for line in lines for cell in line.cells.values() if cell.p is not None]
    left = iter(statistics.holm(p_values) if corrected else p_values)

    def decided(cell: Cell) -> Cell:
        if cell.p is None:
            return cell
        p = next(left)
        return replace(cell, p=p, significant=p < alpha)

    return [replace(line, cells={name: decided(cell) for name, cell in line.cells.items()}) for line in lines]
