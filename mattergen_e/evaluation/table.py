"""The table of an evaluation: a row per crystal asked for, with every verdict, value and reason."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mattergen_e.evaluation.candidates import Candidate
from mattergen_e.evaluation.properties import within
from mattergen_e.evaluation.schema import COLUMNS, JUDGED, PROPERTY_PARTS, TABLE
from mattergen_e.evaluation.settings import OF_THE_HULL, EvaluationSettings
from mattergen_e.evaluation.summary import verdicts

Results = Mapping[str, Mapping[str, Any]]


@dataclass
class StageResults:
    """What the stages found, plain JSON.

    Attributes:
        geometry, structure_validity, composition_validity, novelty, relaxation, hull, distances: By the crystal's key;
            a crystal that a stage did not look at is missing.
        unique: By index, the index of the crystal that stands for it.
        undecided: By index, why a crystal counts as unique although it could not be compared with all others.
        properties: By index, {property: {value, source}}.
        categories: Names of the conditions that are words and that a file gives.
        descriptors: By index, {charge_mae, dos_wasserstein} and what begins with dos_.
    """

    geometry: Results = field(default_factory=dict)
    structure_validity: Results = field(default_factory=dict)
    composition_validity: Results = field(default_factory=dict)
    unique: Mapping[int, int] = field(default_factory=dict)
    undecided: Mapping[int, str] = field(default_factory=dict)
    novelty: Results = field(default_factory=dict)
    relaxation: Results = field(default_factory=dict)
    hull: Results = field(default_factory=dict)
    properties: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    categories: frozenset[str] = frozenset()
    distances: Results = field(default_factory=dict)
    descriptors: dict[int, dict[str, Any]] = field(default_factory=dict)


def make_rows(
    candidates: Sequence[Candidate], results: StageResults, settings: EvaluationSettings
) -> list[dict[str, Any]]:
    """The rows of all crystals; what was not evaluated is None."""
    more = dict.fromkeys(column for found in results.descriptors.values() for column in found if column not in COLUMNS)
    return [more | _row(candidate, results, settings) for candidate in candidates]


def _row(candidate: Candidate, results: StageResults, settings: EvaluationSettings) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {
        "index": candidate.index,
        "key": candidate.key,
        "name": candidate.name or None,
        "readable": candidate.structure is not None,
        "reason": candidate.reason,
    }
    words = {name: str(candidate.conditions[name]) for name in results.categories & candidate.conditions.keys()}
    targets: dict[str, float | str] = {**settings.targets_of(candidate.conditions), **dict(sorted(words.items()))}
    if candidate.structure is None:
        row |= dict.fromkeys(JUDGED, False) | {"problem": candidate.sentence}
        row |= results.descriptors.get(candidate.index, {})
        row["properties"] = {name: _property({}, target, settings, name) for name, target in targets.items()}
    else:
        row |= results.geometry.get(candidate.key, {})
        row |= _matching(candidate, results) | _validity(candidate, results) | _stability(candidate, results, settings)
        row |= _distances(results.distances.get(candidate.key, {})) | results.descriptors.get(candidate.index, {})
        row["properties"] = _properties(results.properties.get(candidate.index, {}), row, targets, settings)
        row["problem"] = _problem(candidate, results)
    return row | verdicts(row)


def _matching(candidate: Candidate, results: StageResults) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if candidate.index in results.unique:
        first = results.unique[candidate.index]
        found |= {"unique": first == candidate.index, "duplicate_of": None if first == candidate.index else first}
    if candidate.key in results.novelty:
        match = results.novelty[candidate.key]["match"]
        found |= {"novel": match is None, "match": match}
    return found


def _validity(candidate: Candidate, results: StageResults) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage, verdict, reason in (
        (results.structure_validity, "structure_valid", "structure_reason"),
        (results.composition_validity, "valid", "valid_reason"),
    ):
        if candidate.key in stage:
            found |= {verdict: stage[candidate.key]["valid"], reason: stage[candidate.key]["reason"]}
    return found


def _stability(candidate: Candidate, results: StageResults, settings: EvaluationSettings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    relaxed = results.relaxation.get(candidate.key)
    if relaxed is not None:
        found |= {"relaxed": relaxed["ok"], "relax_seconds": relaxed.get("seconds")}
        if relaxed["ok"]:
            names = {"converged": "converged", "steps": "relax_steps", "rmsd": "rmsd"}
            found |= {column: relaxed.get(name) for name, column in names.items()}
        else:
            reason = f"relaxation: {relaxed['reason']}"
            found |= {"relax_reason": relaxed["reason"], "stable": False, "stable_reason": reason}
    hull = results.hull.get(candidate.key)
    if hull is not None:
        found |= {name: hull[name] for name in ("energy_per_atom", OF_THE_HULL, "formation_energy_per_atom")}
        if hull[OF_THE_HULL] is None:
            found |= {"stable": False, "stable_reason": hull["reason"], "hull_reason": hull["reason"]}
        else:
            stable = hull[OF_THE_HULL] <= settings.stable
            reason = f"{hull[OF_THE_HULL]:.3f} eV/atom above the hull, more than {settings.stable:g}"
            found |= {"stable": stable, "stable_reason": None if stable else reason}
    return found


def _properties(
    known: Mapping[str, Any], row: Mapping[str, Any], targets: Mapping[str, float | str], settings: EvaluationSettings
) -> dict[str, Any]:
    values = dict(known)
    if OF_THE_HULL in targets and OF_THE_HULL not in values:
        values[OF_THE_HULL] = {"value": row[OF_THE_HULL], "source": "the hull"}
    names = list(dict.fromkeys([*targets, *values]))
    return {name: _property(values.get(name, {}), targets.get(name), settings, name) for name in names}


def _property(
    known: Mapping[str, Any], target: float | str | None, settings: EvaluationSettings, name: str
) -> dict[str, Any]:
    value = known.get("value")
    tolerance = settings.tolerances.get(name) if target is not None and not isinstance(target, str) else None
    verdict = None
    if value is not None and isinstance(target, str):
        verdict = value == target
    elif value is not None and target is not None and tolerance is not None:
        verdict = bool(within(value, target, tolerance))
    return {
        "value": value,
        "target": target,
        "tolerance": tolerance,
        "within": verdict,
        "source": known.get("source"),
    }


def _distances(found: Mapping[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, nearest in found.items():
        columns |= {f"novelty_{name}": nearest["distance"], f"nearest_{name}": nearest["id"]}
    return columns


def _problem(candidate: Candidate, results: StageResults) -> str | None:
    """Sentences of what went wrong, for people."""
    sentences = [results.undecided.get(candidate.index)]
    sentences += [
        stage.get(candidate.key, {}).get("sentence") for stage in (results.novelty, results.relaxation, results.hull)
    ]
    return " ".join(sentence for sentence in sentences if sentence) or None


# -- files ------------------------------------------------------------------------------------------------------------


def to_json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """crystals.jsonl."""
    return "".join(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in rows).encode()


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """crystals.csv: as the JSON lines, with <property>, <property>_target and so on, and success_<property>.

    Yes and no are true and false; what was not evaluated is empty. A text that a spreadsheet would take for a formula
    stands behind an apostrophe.
    """
    properties = sorted({name for row in rows for name in row["properties"] or {}})
    targeted = sorted({name for row in rows for name in row["success"] or {}})
    header: list[str] = []
    for column in TABLE:
        if column.kind == "properties":
            header += [_flat(name, part) for name in properties for part in PROPERTY_PARTS]
        elif column.kind == "success":
            header += [f"success_{name}" for name in targeted]
        else:
            header.append(column.name)
    header += dict.fromkeys(column for row in rows for column in row if column not in COLUMNS)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_flattened(row) for row in rows)
    return text.getvalue().encode()


def _flat(name: str, part: str) -> str:
    """Column of a part of a property; the hull energy has a column of its own already."""
    return (f"{name}_value" if name in COLUMNS else name) if part == "value" else f"{name}_{part}"


def _flattened(row: Mapping[str, Any]) -> dict[str, str]:
    cells = {name: value for name, value in row.items() if name not in ("properties", "success")}
    for name, parts in (row["properties"] or {}).items():
        cells |= {_flat(name, part): parts[part] for part in PROPERTY_PARTS}
    cells |= {f"success_{name}": value for name, value in (row["success"] or {}).items()}
    return {name: _cell(value) for name, value in cells.items()}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value}" if value[:1] in tuple("=+-@\t\r") else value
    return repr(value)
