"""All checks together, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mattergen_e import doctor
from mattergen_e.cli import main
from mattergen_e.doctor import Finding


def test_a_failing_check_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_moon() -> list[Finding]:
        raise OSError("no moon")

    monkeypatch.setattr(doctor, "CHECKS", (check_moon, doctor.check_device))
    report = doctor.examine()
    assert not report.healthy
    assert {"moon": "problem", "CPU": "ok"}.items() <= {f.subject: f.level for f in report.findings}.items()


def run(*words: str) -> int:
    """Exit code of `mattergen-e doctor`."""
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *words])
    return int(ended.value.code or 0)


def test_command_prints_json(model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "check_versions", list)  # not about the versions of the day
    assert run("--json", "--model-path", str(model)) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is True
    assert report["model"]["epoch"] == 3
    assert {"section", "subject", "level", "text", "remedy"} == set(report["findings"][0])


def test_command_ends_with_1_at_a_problem_and_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", ())
    monkeypatch.setenv("COLUMNS", "200")
    assert run("--model_path", str(tmp_path)) == 1
    shown = capsys.readouterr().out
    assert "problem" in shown
    assert "Give the folder that holds config.yaml" in shown
    assert "1 problem," in shown


def test_command_ends_with_0_at_a_warning(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    doubtful = Finding("device", "GPU", "warning", "[not] used", "Update the driver.")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: [doubtful],))
    monkeypatch.setattr(doctor, "check_versions", list)
    monkeypatch.setenv("COLUMNS", "200")
    assert run("--model_path", str(model)) == 0
    shown = capsys.readouterr().out
    assert "GPU: [not] used" in shown
    assert "no problems, 1 warning." in shown
    assert "bader_charge (mattergen_e.descriptors.bader.BaderCharge)" in shown
