"""`mattergen-e data fetch`: options become a query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mattergen_e.cli.fetch import fetch
from mattergen_e.errors import UserError
from mattergen_e.labels.materials_project import source as mp


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the command; what it would fetch comes back."""
    app, calls = typer.Typer(), []
    app.command()(fetch)

    def instead(query: mp.Query, out: Path, **options: Any) -> int:
        calls.append((query, out, options))
        import warnings

        warnings.warn("the Materials Project does not know 1 of 2 ids", mp.UnknownIds, stacklevel=2)
        return 1

    monkeypatch.setattr(mp, "fetch", instead)

    def call(*arguments: str) -> tuple[Any, Any]:
        calls.clear()
        result = CliRunner().invoke(app, ["--out", str(tmp_path), *arguments])
        return result, calls[0] if calls else None

    return call


def test_ids_from_the_command_line_and_from_a_file(run, tmp_path):
    (tmp_path / "ids.txt").write_text("mp-2\nmp-1\n\n")
    result, (query, out, options) = run("mp-149", "mp-1", "--ids-file", str(tmp_path / "ids.txt"), "--dos")
    assert result.exit_code == 0, result.output
    assert query == mp.Query(ids=("mp-149", "mp-1", "mp-2"))
    assert out == tmp_path
    assert options == {"dos": True, "charge_density": False, "interval": 0.2}
    assert "does not know 1 of 2 ids" in result.output
    assert "1 materials in" in result.output


def test_filters(run):
    arguments = (
        "--chemsys Mg-O --chemsys Si-* --elements O,Mg --num-sites ,20 --band-gap 0.5, --energy-above-hull ,0.1 "
        "--no-metal --stable --gnome --interval 1.5 --charge-density"
    )
    result, (query, _, options) = run(*arguments.split())
    assert result.exit_code == 0, result.output
    assert query == mp.Query(
        chemsys=("Mg-O", "Si-*"), elements=("O", "Mg"), num_sites=(1, 20), band_gap=(0.5, None),
        energy_above_hull=(None, 0.1), is_metal=False, is_stable=True, include_gnome=True,
    )  # fmt: skip
    assert options == {"dos": False, "charge_density": True, "interval": 1.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--band-gap", "1"], r"--band-gap '1': give two numbers"),
        (["--band-gap", "2,1"], "must not be larger"),
        (["--band-gap", ","], "must not be larger"),
        (["--num-sites", "1.5,2"], "two whole numbers"),
        (["mp-1", "--stable"], "Ids and filters were both given"),
    ],
)
def test_mistakes_are_one_sentence(run, arguments, message):
    result, call = run(*arguments)
    assert call is None
    assert isinstance(result.exception, UserError)
    import re

    assert re.search(message, str(result.exception))
