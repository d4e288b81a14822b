"""Rates, sources and failures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mattergen_e.evaluation.summary import summarise
from mattergen_e.report import overview
from mattergen_e.report.drawing import style
from mattergen_e.report.runs import EvaluatedRun


def run_of(rows: list[dict[str, Any]], name: str = "run", **summary: Any) -> EvaluatedRun:
    """A run without files."""
    return EvaluatedRun(name, Path(name), {**summarise(rows), **summary}, rows)


def cells(content: str) -> list[list[str]]:
    """Texts of a table by row."""
    rows = re.findall(r"<tr>(.*?)</tr>", content)
    return [
        [re.sub("(<.*?>)+", "|", cell).strip("|") for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)]
        for row in rows
    ]


def test_each_crystal_counts_under_the_step_that_it_fails():
    far = {"energy_above_hull": 0.4, "stable_reason": "0.400 eV/atom above the hull, more than 0.1"}
    rows: list[dict[str, Any]] = [
        {"index": 0, "readable": False, "reason": "broken_cif"},
        {"index": 1, "readable": True, "relax_reason": "time_limit", "stable_reason": "relaxation: time_limit"},
        {"index": 2, "readable": True, "stable_reason": "missing_element"},
        {"index": 3, "readable": True, **far, "valid_reason": "not neutral"},
        {"index": 4, "readable": True, "valid": False, "valid_reason": "not neutral"},
        {"index": 5, "readable": True, "valid": True, "valid_reason": "an alloy, which is not tested"},
    ]
    found = cells(overview.failures([run_of(rows), run_of(rows[:2], "other")]))
    assert found == [
        ["step", "reason", "run", "other"],
        ["not readable", "broken_cif", "1", "1"],
        ["composition not valid", "not neutral", "2", "0"],
        ["relaxation failed", "time_limit", "1", "1"],
        ["no hull energy", "missing_element", "1", "0"],
    ]
    assert "No crystal failed" in overview.failures([run_of([{"index": 0, "readable": True}])])


def test_a_rate_that_is_not_known_is_no_zero():
    rows = [{"index": i, "readable": True, "unique": True, "novel": i == 0} for i in range(4)]
    with style():
        found = {row[0].split("|")[0]: row[1] for row in cells(overview.summary([run_of(rows)]))[1:]}
    assert found["novel (N)"].startswith("25.0 %") and found["novel (N)"].endswith("1 of 4")
    assert found["UN"].startswith("25.0 %")
    assert found["stable (S)"].startswith("not evaluated")
    assert found["SUN"].startswith("not evaluated")


@pytest.mark.parametrize(
    ("targets", "expected"), [(1, ["success, a"]), (2, ["success, a", "success, b", "success, all"])]
)
def test_success_of_all_properties_only_where_there_are_several(targets, expected):
    values = {"value": 1.0, "target": 1.0, "tolerance": 0.5, "within": True}
    verdicts = dict.fromkeys(("unique", "novel", "stable", "valid"), True)
    rows = [{"index": 0, "readable": True, **verdicts, "properties": dict.fromkeys("ab"[:targets], values)}]
    with style():
        found = [row[0].split("|")[0] for row in cells(overview.summary([run_of(rows)]))]
    assert [name for name in found if name.startswith("success")] == expected


def test_warnings_of_an_evaluation_are_shown():
    with style():
        assert "on the same &lt;footing&gt;" in overview.summary([run_of([], warnings=["on the same <footing>"])])
