"""`mattergen-e doctor`: what is right and what is wrong with an installation and with a trained model."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mattergen_e.cli.settings import Trust

if TYPE_CHECKING:
    from rich.console import Console

    from mattergen_e.doctor import ModelSummary, Report

MARKS = {"ok": "[green]ok     [/]", "warning": "[yellow]warning[/]", "problem": "[red]problem[/]"}


def doctor(
    model_path: Annotated[
        Path | None,
        typer.Option(
            "--model_path", "--model-path", metavar="DIR", help="Also look at this trained model (its run folder)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable findings.")] = False,
    trust: Trust = False,
) -> None:
    """Check the installation, and whether it can load a trained model.

    Ends with exit code 1 if there is a problem; warnings alone do not count.
    """
    from mattergen_e.cli.console import stdout
    from mattergen_e.doctor import examine

    report = examine(model_path)
    if as_json:
        typer.echo(json.dumps({"healthy": report.healthy, **asdict(report)}, indent=2))
    else:
        show(report, stdout())
    raise typer.Exit(0 if report.healthy else 1)


def show(report: Report, console: Console) -> None:
    """Prints a report.

    Args:
        report: Of `mattergen_e.doctor.examine`.
        console: Where to print.
    """
    from rich.markup import escape
    from rich.padding import Padding

    for section, findings in groupby(report.findings, key=lambda finding: finding.section):
        console.print(f"[bold]{section}[/]")
        for finding in findings:
            line = f"{MARKS[finding.level]}  {escape(finding.subject)}: {escape(finding.text)}"
            console.print(Padding(line, (0, 0, 0, 2)), highlight=False)
            if finding.remedy:
                console.print(Padding(escape(finding.remedy), (0, 0, 0, 11)), style="italic", highlight=False)
    if report.model is not None:
        show_model(report.model, console)
    counts = {level: sum(f.level == level for f in report.findings) for level in ("problem", "warning")}
    console.print(", ".join(f"{n or 'no'} {level}{'' if n == 1 else 's'}" for level, n in counts.items()) + ".")


def show_model(model: ModelSummary, console: Console) -> None:
    """Prints what a trained model holds.

    Args:
        model: Its summary.
        console: Where to print.
    """
    from rich.table import Table

    table = Table(title=model.path, title_justify="left", show_header=False)
    rows = {
        "fields": ", ".join(model.fields),
        "descriptors": ", ".join(f"{name} ({target})" for name, target in model.descriptors.items()) or "none",
        "conditions": ", ".join(model.properties) or "none",
        "width, blocks": f"{_or_unknown(model.hidden_dim)}, {_or_unknown(model.blocks)}",
        "reverse steps": _or_unknown(model.steps),
        "parameters": f"{model.parameters:,}" if model.parameters is not None else "unknown",
        "epoch, step": f"{_or_unknown(model.epoch)}, {_or_unknown(model.global_step)}",
        "made with": ", ".join(f"{name} {version}" for name, version in model.versions.items()) or "unknown",
    }
    for name, text in rows.items():
        table.add_row(name, text.replace("[", r"\["))
    console.print(table)


def _or_unknown(value: object) -> str:
    return "unknown" if value is None else str(value)
