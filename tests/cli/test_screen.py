"""`mattergen-e screen`: arguments, and what is printed."""

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

from mattergen_e.cli.screen import nothing, screen, show
from mattergen_e.errors import UserError
from mattergen_e.screening.run import Screening
from mattergen_e.screening.settings import ScreenSettings


@pytest.fixture
def app() -> typer.Typer:
    """The command alone."""
    made = typer.Typer()
    made.command()(screen)
    return made


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Arguments that exist: crystals, target, predictor."""
    (tmp_path / "three.jsonl").write_text("")
    (tmp_path / "target.csv").write_text("energy,dos\n-1,1\n1,2\n")
    (tmp_path / "predictor").mkdir()
    crystals, target, predictor = (str(tmp_path / name) for name in ("three.jsonl", "target.csv", "predictor"))
    return [crystals, "--target", target, "--predictor", predictor, "--out", str(tmp_path / "short")]


def test_help_names_every_option(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    for option in ("target", "max-formation-energy", "max-energy-above-hull", "top", "window", "site", "distance",
                   "predictor", "generated", "reference", "evaluation", "calculator", "jobs", "backend", "device",
                   "seed", "out"):  # fmt: skip
        assert f"--{option}" in result.output


def test_a_wrong_path_is_said_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    code = """
import sys
import typer
from mattergen_e.cli.screen import screen
from mattergen_e.errors import UserError
app = typer.Typer()
app.command()(screen)
for words in (["nowhere", "--target", "t"], [".", "--target", "t"], [".", "--target", "."]):
    try:
        app([*words, "--out", "short"], standalone_mode=False)
    except UserError as error:
        print(error)
print(sorted({"torch", "numpy", "pymatgen", "mattergen", "ase", "chgnet", "matplotlib", "pandas"} & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path
    )
    first, second, third, imported = result.stdout.splitlines()
    assert first.startswith("nowhere does not exist") and second.startswith("t does not exist")
    assert third.startswith("checkpoints/dos_predictor is no folder of a predictor") and "--generated" in third
    assert imported == "[]" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reference", "nowhere"], "nowhere is no folder of a reference"),
        (["--evaluation", "nowhere"], "nowhere is no folder of an evaluation"),
        (["--distance", "euclid"], "--distance 'euclid'"),
        (["--site", "first"], "--site 'first'"),
        (["--generated"], "--generated and --predictor contradict each other"),
        (["--calculator", "vasp"], "vasp"),
        (["--device", "abacus"], "abacus"),
        (["--window", "-2", "2"], "three.jsonl holds no crystals"),  # a negative number is no option
        (["--max-formation-energy", "-1.5"], "three.jsonl holds no crystals"),
    ],
)
def test_wrong_options_are_one_sentence(
    words: list[str], message: str, app: typer.Typer, files: list[str], tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    result = CliRunner().invoke(app, [*files, *words])
    assert isinstance(result.exception, UserError) and message in str(result.exception)
    assert "\n" not in str(result.exception) and sorted(tmp_path.iterdir()) == before


# -- what is printed --------------------------------------------------------------------------------------------------


def row(rank: int, **changes: Any) -> dict[str, Any]:
    return {
        "rank": rank, "id": f"gen_{rank}", "formula": "NaI", "formation_energy_per_atom": -1.42, "site": None,
        "energy_above_hull": None, "cosine_distance": 0.125, "wasserstein": 0.826, **changes,
    }  # fmt: skip


def found(rows: list[dict[str, Any]], **changes: Any) -> Screening:
    summary = {
        "counts": {"asked": 2000, "dropped": {"not_relaxed": 3, "formation_energy_per_atom": 1990}},
        "lowest": {"formation_energy_per_atom": {"id": "gen_5", "formula": "KCl", "value": -1.21}},
        "target": {"file": "ir[1].csv"}, "relaxations_of_evaluation": 40, "warnings": ["Look out."],
    }  # fmt: skip
    return Screening(Path("short"), summary, rows, rows, {"relaxation": 1}, changes.get("left", []))


def text(screening: Screening, settings: ScreenSettings) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    show(screening, settings, console)
    return console.export_text()


def test_the_shortlist_is_printed() -> None:
    settings = ScreenSettings(target=Path("ir[1].csv"), site="any")
    shown = text(found([row(1, site=4), row(2, site=0)], left=["vasp/gen_1/relax/INCAR"]), settings)
    assert "2 of 2,000 crystals, nearest to ir[1].csv" in shown
    assert "above hull" not in shown and "-1.420" in shown and "0.125" in shown and "0.826" in shown and "site" in shown
    assert "formation energy above the limit: 1,990" in shown and "not relaxed: 3" in shown
    assert "taken from the evaluation: 40" in shown and "Look out." in shown
    assert "Left as you changed them: vasp/gen_1/relax/INCAR" in shown
    assert "mattergen-e data compute short/crystals" in shown


def test_how_near_the_best_was_is_printed() -> None:
    settings = ScreenSettings(target=Path("t"), max_formation_energy=-1.5, max_energy_above_hull=0.1)
    sentence = (
        "None of 2,000 crystals passes. The lowest formation energy is -1.210 eV/atom (KCl, gen_5); the limit is -1.5."
    )
    assert nothing(found([]).summary, settings) == sentence
    shown = text(found([]), settings)
    assert sentence in shown and "data compute" not in shown


# -- from files to files ----------------------------------------------------------------------------------------------


def test_none_passes_is_no_error(app: typer.Typer, tmp_path: Path) -> None:
    """An empty table, a sentence and exit code 0; a Lennard-Jones potential is quick."""
    import numpy as np
    from pymatgen.core import Lattice, Structure

    from mattergen_e.generation.formats import Generated, batch_files
    from mattergen_e.spectra.grid import ATOMIC_GRID
    from mattergen_e.spectra.objects import CrystalSpectra

    crystal = Structure.from_spacegroup("Fm-3m", Lattice.cubic(2.2), ["Ar", "Ne"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    values = np.ones((8, ATOMIC_GRID.points), np.float32)
    spectra = CrystalSpectra(values, ATOMIC_GRID, np.zeros((8, 2), np.float32), "x")
    (tmp_path / "out").mkdir()
    for name, content in batch_files([Generated(0, 0, crystal, {}, 7, spectra=spectra)]).items():
        (tmp_path / "out" / name).write_bytes(content)
    (tmp_path / "target.csv").write_text("energy,dos\n-1,1\n1,2\n")
    words = ["out", "--target", "target.csv", "--generated", "--out", "short", "--jobs", "1", "--steps", "1",
             "--calculator", "ase.calculators.lj:LennardJones", "--max-formation-energy", "-99"]  # fmt: skip
    words = [str(tmp_path / word) if word in ("out", "target.csv", "short") else word for word in words]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "None of 1 crystals passes. The lowest formation energy is" in " ".join(result.output.split())
    assert (tmp_path / "short" / "shortlist.json").read_text().strip() == "[]"
