"""`mattergen-e compare`."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from mattergen_e.cli.compare import compare
from mattergen_e.errors import UserError

app = typer.Typer()
app.command()(compare)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """Evaluated runs with the counts of the first block of table 1 of Okuda et al., in the current folder."""
    for name, counts in (("base", (697, 284, 143)), ("bader", (771, 287, 136)), ("strict", (700, 200, 90))):
        rates = {key: {"count": n, "total": 1024} for key, n in zip(("un", "sun", "vsun"), counts, strict=True)}
        content = {"format": 1, "conditions": {}, "asked": 1024, "rates": rates}
        content["settings"] = {"stable": 0.05 if name == "strict" else 0.1}
        (tmp_path / name / "evaluation").mkdir(parents=True)
        (tmp_path / name / "evaluation" / "evaluation.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def said(*words):
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_a_table_by_default():
    shown = said("base", "Bader charge=bader").stdout
    assert "base (baseline)" in shown and "75.3 ↑" in shown and "+3.3 to +11.1" in shown
    assert "3 tests without correction" in shown


def test_options_arrive():
    found = json.loads(
        said("base", "bader", "--baseline", "bader", "--alpha", "0.1", "--holm", "--format", "json").stdout
    )
    assert (found["alpha"], found["correction"], found["tests"]) == (0.1, "holm", 3)
    test = found["runs"][0]["rates"]["un"]["test"]
    assert (test["direction"], test["p_corrected"]) == (-1, pytest.approx(3 * test["p"]))


@pytest.mark.parametrize(
    ("name", "beginning"),
    [("x.md", "Rates of generated"), ("x.tex", "% needs \\usepackage{booktabs}"), ("x.json", "{\n")],
)
def test_the_suffix_tells_the_format(runs, name, beginning):
    (runs / name).write_text("an older one")
    assert said("base", "bader", "--out", name).stdout == f"2 runs, 3 tests: {name}\n"
    text = (runs / name).read_text()
    assert text.startswith(beginning) and text.endswith("\n")
    assert (
        said("base", "bader", "--format", {"x.md": "markdown", "x.tex": "latex", "x.json": "json"}[name]).stdout == text
    )


def test_what_is_not_comparable_is_said_beside_the_file(runs):
    result = said("base", "strict", "--out", "x.md")
    assert "strict and base (ab initio) are not comparable in SUN, VSUN" in result.stderr
    assert "not comparable" in (runs / "x.md").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["."], "has not been evaluated: run `mattergen-e evaluate . --reference REF`"),
        (["base", "--out", "x.txt"], "The format of x.txt is unknown"),
        (["base", "--out", "none/x.md"], "none is no folder"),
        (["base", "--out", "bader", "--format", "json"], "bader cannot be written"),
    ],
)
def test_mistakes_leave_nothing_behind(runs, words, sentence):
    before = sorted(runs.rglob("*"))
    with pytest.raises(UserError, match=sentence):
        said(*words)
    assert sorted(runs.rglob("*")) == before
