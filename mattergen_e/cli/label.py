"""`mattergen-e data label`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mattergen_e.errors import UserError, first_problem

if TYPE_CHECKING:
    from rich.console import Console

    from mattergen_e.labels.run import Summary
    from mattergen_e.labels.settings import LabelSettings


def label(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Folders of VASP calculations, of .npz labels or of downloads."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the labels.")],
    settings: Annotated[
        Path | None, typer.Option(help="YAML with grids, smearing, semicore cut and tolerances; see docs/data.md.")
    ] = None,
    prop: Annotated[
        list[str] | None,
        typer.Option("--property", metavar="NAME[=KEY]", help="Number of a manifest of .npz files to keep; repeat."),
    ] = None,
    average_equivalent: Annotated[
        bool,
        typer.Option("--average-equivalent", help="Average charges of equivalent sites that differ, don't refuse."),
    ] = False,
    allow_unconverged: Annotated[
        bool, typer.Option("--allow-unconverged", help="Take calculations that did not converge.")
    ] = False,
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Keep a crystal that is the same as an earlier one.")
    ] = False,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Workers. Default: all cores.")] = None,
    backend: Annotated[str, typer.Option(help="Of joblib: loky, threading, dask[:ADDRESS], ray[:ADDRESS].")] = "loky",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace labels made with other settings.")] = False,
) -> None:
    """Make labels (charges, spectra, band gaps) of finished calculations, with checks; goes on where it was stopped."""
    from mattergen_e.cli.console import stdout
    from mattergen_e.crystals.fields import parse_renames
    from mattergen_e.labels import run
    from mattergen_e.quiet import quiet

    with quiet():
        summary = run.label(
            sources,
            out,
            read_settings(settings, average_equivalent, allow_unconverged),
            properties=dict(parse_renames(prop or [], "--property")),
            jobs=jobs,
            backend=backend,
            keep_duplicates=keep_duplicates,
            overwrite=overwrite,
        )
    show(summary, out, stdout())


def read_settings(path: Path | None, average_equivalent: bool, allow_unconverged: bool) -> LabelSettings:
    """Settings from a YAML file and the flags.

    Raises:
        UserError: If the file cannot be read or has a wrong key or value.
    """
    import yaml
    from pydantic import ValidationError

    from mattergen_e.labels.settings import LabelSettings
    from mattergen_e.limits import read_yaml

    given = {}
    if path is not None:
        try:
            given = read_yaml(path) or {}
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{path} cannot be read as YAML ({' '.join(str(error).split())}).") from error
    try:
        read = LabelSettings.model_validate(given)
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}; see the table of settings in docs/data.md.") from error
    bader = read.bader.model_copy(update={"average_equivalent": read.bader.average_equivalent or average_equivalent})
    return read.model_copy(update={"bader": bader, "allow_unconverged": read.allow_unconverged or allow_unconverged})


def show(summary: Summary, out: Path, console: Console) -> None:
    """Print what a run left.

    Args:
        summary: Of the run.
        out: Folder of the labels.
        console: Where to print.
    """
    from rich.markup import escape
    from rich.table import Table

    from mattergen_e.labels.method import told

    reused = f", {summary.reused:,} of them from before" if summary.reused else ""
    console.print(f"{summary.labelled:,} of {len(summary.outcomes):,} calculations labelled{reused}.", highlight=False)
    if summary.functionals:
        console.print(
            f"Functionals: {told(summary.functionals, summary.spin_polarised)}", highlight=False, markup=False
        )
    if summary.failed:
        table = Table("reason", "calculations", "example", title="without labels", title_justify="left")
        for reason, outcomes in summary.failed.items():
            first = outcomes[0]
            table.add_row(reason, f"{len(outcomes):,}", escape(f"{first.origin}: {first.sentence}"))
        console.print(table)
    console.print(f"Labels: {out / 'labels.jsonl'}, failures: {out / 'failed.jsonl'}", highlight=False, soft_wrap=True)
