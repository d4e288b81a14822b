"""`mattergen-e data show`."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from mattergen_e.cli.show import show, spark, tables
from mattergen_e.data.build import build_cache
from mattergen_e.errors import UserError
from mattergen_e.report.cache import summarise
from mattergen_e.report.cache_records import distribution

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "textbook_crystals.jsonl"


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("show") / "cache"
    build_cache([EXAMPLES], out, jobs=1, progress=False)
    return out


def printed(path: Path) -> str:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in tables(summarise(path)):
        console.print(part)
    return console.export_text()


def test_what_is_printed(cache):
    summary, text = summarise(cache), printed(cache)
    assert f"{summary.manifest.crystals:,} crystals, {summary.manifest.sites:,} sites" in text
    assert f"{len(summary.elements)} elements" in text
    for symbol in summary.elements:
        assert f" {symbol} " in text
    assert "bader_charge (e) by element" in text
    assert "sites per crystal" in text


def test_the_command(cache, tmp_path):
    app = typer.Typer()
    app.command()(show)
    result = CliRunner().invoke(app, [str(cache), "--html", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    assert "crystals" in result.output and "page.html" in result.output
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    result = CliRunner().invoke(app, [str(tmp_path)])
    assert isinstance(result.exception, UserError)


def test_a_histogram_in_one_line():
    import numpy as np

    assert spark(distribution("n", "", np.array([1, 1, 1, 1, 2, 3, 3]))) == "█▂▄"
    assert len(spark(distribution("x", "", np.random.default_rng(0).normal(size=1000)))) == 20
