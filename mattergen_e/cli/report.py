"""`mattergen-e report`: one page about evaluated runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mattergen_e.cli.settings import SHIPPED
from mattergen_e.errors import UserError


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders that `mattergen-e evaluate` has been run on, or NAME=FOLDER."),
    ],
    out: Annotated[Path, typer.Option(help="Page to write; one that exists is replaced.")],
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Reference set, for the training distribution of the properties. Default: checkpoints/reference_mp."
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page; by default the names of the runs.")] = None,
    gallery: Annotated[int, typer.Option(help="Most crystals to show of each run.", min=0)] = 24,
) -> None:
    """Write one self-contained page about evaluated runs: rates, distributions, accuracy and crystals to turn."""
    from mattergen_e.quiet import quiet

    if out.is_dir():
        raise UserError(f"{out} is a folder: give the file to write, for instance {out / 'report.html'}.")
    if not out.parent.is_dir():
        raise UserError(f"the folder {out.parent} does not exist: make it, or choose another --out.")
    if reference is None and SHIPPED.is_dir():
        reference = SHIPPED
    with quiet():
        from mattergen_e.report.page import write_report

        size = write_report(runs, out, reference=reference, title=title, gallery=gallery)
    typer.echo(f"{out}: {len(runs)} run{'s' if len(runs) > 1 else ''}, {size / 1e6:.1f} MB")
