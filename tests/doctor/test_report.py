"""Findings and the first lines of an error."""

from __future__ import annotations

import pytest

from mattergen_e.doctor.report import Finding, Level, Report, first_lines


def test_a_warning_without_a_remedy_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="names no remedy"):
        Finding("versions", "torch", "warning", "old")


def test_first_lines_of_an_error() -> None:
    assert first_lines(ValueError("one\n\n  two \nthree")) == "one two"
    assert first_lines(ValueError()) == "ValueError"


@pytest.mark.parametrize(("level", "healthy"), [("ok", True), ("warning", True), ("problem", False)])
def test_a_report_is_healthy_without_problems(level: Level, healthy: bool) -> None:
    findings = [Finding("versions", "python", "ok", "3.12"), Finding("device", "GPU", level, "old", "Update it.")]
    assert Report(findings).healthy is healthy
