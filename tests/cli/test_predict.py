"""`mattergen-e predict`: what cannot be read or predicted costs itself only, and is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

from mattergen_e.cli.predict import predict
from mattergen_e.errors import UserError

MODEL = Path(__file__).resolve().parents[2] / "checkpoints" / "bader_joint_small"


def run(*arguments: Any) -> Any:
    app = typer.Typer()
    app.command()(predict)
    options = ("--model_path", MODEL, "--samples", 1, "--steps", 2)
    return CliRunner().invoke(app, [str(a) for a in (*arguments, *options)], env={"COLUMNS": "200"})


@pytest.fixture
def runs(conventional: dict[str, Structure], tmp_path: Path) -> Path:
    """A folder of VASP runs, one of which was cut off, with a crystal of xenon and one that is shared."""
    for name in ("NaCl", "MgO"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        conventional[name].to(filename=str(tmp_path / "runs" / name / "POSCAR"), fmt="poscar")
    (tmp_path / "runs" / "cut").mkdir()
    (tmp_path / "runs" / "cut" / "POSCAR").write_text("cut\n1.0\n3 0 0\n")
    shared = Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    shared.to(filename=str(tmp_path / "runs" / "shared.cif"))
    Structure(Lattice.cubic(6), ["Po"], [[0, 0, 0]]).to(filename=str(tmp_path / "runs" / "heavy.cif"))
    return tmp_path / "runs"


def test_good_ones_are_predicted_and_bad_ones_named(runs: Path, tmp_path: Path) -> None:
    result = run(runs, "--out", tmp_path / "p.jsonl")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["MgO", "NaCl"] and len(lines[0]["bader_charge"]) == 8
    said = " ".join(result.output.split())
    assert "2 structures written" in said and "3 left out" in said
    assert "cut/POSCAR cannot be read: it has 3 lines, too few for a POSCAR" in said
    assert "structure 'shared' has partially occupied sites" in said
    assert "structure 'heavy' holds Po, an element that MatterGen does not know" in said


def test_nothing_to_predict(runs: Path, tmp_path: Path) -> None:
    result = run(runs / "shared.cif", runs / "heavy.cif", "--out", tmp_path / "p.jsonl")
    assert isinstance(result.exception, UserError) and "no structure can be predicted" in str(result.exception)
    assert not list(tmp_path.glob("p.*"))
