"""`mattergen-e compare`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mattergen_e.errors import UserError

if TYPE_CHECKING:
    from mattergen_e.report.comparison import Comparison


class Format(StrEnum):
    """Of what is written."""

    markdown = "markdown"
    latex = "latex"
    json = "json"


SUFFIXES = {".md": Format.markdown, ".tex": Format.latex, ".json": Format.json}


def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Output folders that were evaluated; NAME=FOLDER names one.")
    ],
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="Run that the others of its condition are tested against; by default the first."),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Level of significance.")] = 0.05,
    holm: Annotated[bool, typer.Option("--holm", help="Correct for the number of tests.")] = False,
    success: Annotated[str, typer.Option(help="Property of the success rate; all: every one with a target.")] = "all",
    format: Annotated[
        Format | None, typer.Option(help="Of what is written; by default a table for reading here.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; its suffix tells the format.")] = None,
) -> None:
    """Compare evaluated runs: UN, SUN, VSUN and success, and which differ from a baseline by more than luck."""
    from mattergen_e.cli.console import stderr, stdout
    from mattergen_e.report import tables
    from mattergen_e.report.compare import compare as compare_runs
    from mattergen_e.report.rates import read_run

    wanted = format or (_format_of(out) if out is not None else None)
    if out is not None and not out.parent.is_dir():
        raise UserError(f"{out.parent} is no folder: give an --out in a folder that exists.")
    found = [read_run(word) for word in runs]
    comparison = compare_runs(found, baselines=baseline or (), alpha=alpha, corrected=holm, success=success)
    if wanted is None:
        for part in tables.terminal(comparison):
            stdout().print(part)
        return
    text = _render(comparison, wanted)
    if out is None:
        typer.echo(text, nl=False)
    else:
        _write(out, text)
        typer.echo(f"{len(found)} runs, {comparison.tests} tests: {out}")
    for sentence in comparison.warnings:
        stderr().print(sentence, style="bold yellow", markup=False, highlight=False, soft_wrap=True)


def _format_of(out: Path) -> Format:
    if out.suffix not in SUFFIXES:
        raise UserError(f"The format of {out} is unknown: call it .md, .tex or .json, or give --format.")
    return SUFFIXES[out.suffix]


def _render(comparison: Comparison, wanted: Format) -> str:
    from mattergen_e.report import tables
    from mattergen_e.report.compare import as_json

    if wanted is Format.json:
        return json.dumps(as_json(comparison), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return tables.markdown(comparison) if wanted is Format.markdown else tables.latex(comparison)


def _write(out: Path, text: str) -> None:
    from mattergen_e.journal import write_output

    write_output(out, text.encode())
