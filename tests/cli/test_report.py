"""`mattergen-e report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mattergen_e.cli.report import report
from mattergen_e.errors import UserError

app = typer.Typer()
app.command()(report)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of which nothing is known but that one crystal was asked for and failed."""
    folder = tmp_path / "run" / "evaluation"
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps({"format": 1, "name": "run", "asked": 1}))
    (folder / "crystals.jsonl").write_text('{"index": 0, "readable": false, "reason": "broken_cif"}\n')
    return folder.parent


def test_it_writes_the_page_and_says_so(run, tmp_path):
    out = tmp_path / "report.html"
    result = CliRunner().invoke(app, [str(run), "--out", str(out), "--title", "Mine"], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{out}: 1 run, 0.0 MB")
    page = out.read_text()
    assert "<h1>Mine</h1>" in page and "broken_cif" in page


@pytest.mark.parametrize(
    ("out", "words"),
    [(".", "is a folder: give the file"), ("nowhere/report.html", "does not exist: make it")],
)
def test_mistakes_are_one_sentence(run, tmp_path, out, words):
    with pytest.raises(UserError, match=words):
        CliRunner().invoke(app, [str(run), "--out", str(tmp_path / out)], catch_exceptions=False, standalone_mode=False)


def test_a_run_that_was_not_evaluated(tmp_path):
    with pytest.raises(UserError, match="run `mattergen-e evaluate"):
        CliRunner().invoke(app, [str(tmp_path), "--out", str(tmp_path / "r.html")], catch_exceptions=False)
