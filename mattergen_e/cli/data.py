"""Commands that make and show data: `mattergen-e data label`, `compute`, `fetch`, `build` and `show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mattergen_e.cli.compute import command as compute
from mattergen_e.cli.fetch import fetch
from mattergen_e.cli.label import label
from mattergen_e.cli.show import show as show_cache
from mattergen_e.data.build import build_cache, check_options, read_ids
from mattergen_e.data.cache import MANIFEST_NAME, Manifest
from mattergen_e.data.collect import Dropped
from mattergen_e.errors import UserError
from mattergen_e.labels.method import told

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Label calculations, and build the data set that a model is trained on.",
)


@app.callback()
def main() -> None:
    """Label calculations, and build the data set that a model is trained on."""


app.command("fetch")(fetch)
app.command("compute")(compute)
app.command("label")(label)
app.command("show")(show_cache)


@app.command()
def build(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...", help="Crystals: .jsonl, .csv (also .gz), or folders of labels or calculations."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new data set.")],
    site_value: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=COLUMN]", help="Site value to keep; repeat for more. Default: bader_charge, DOS."),
    ] = None,
    prop: Annotated[
        list[str] | None,
        typer.Option(
            "--property",
            metavar="NAME[:KIND][=COLUMN]",
            help="Property of the crystals to keep, e.g. dft_band_gap=band_gap_aflow; repeat for more. Names of your "
            "own are numbers, or words with :category, lists with :list. Default: all that MatterGen knows.",
        ),
    ] = None,
    split_column: Annotated[str, typer.Option(help="Column with train, val or test; '' splits by the id.")] = "split",
    split_fractions: Annotated[
        str, typer.Option(metavar="TRAIN,VAL,TEST", help="Shares where the file has no split.")
    ] = "0.9,0.05,0.05",
    seed: Annotated[int, typer.Option(help="Seed of the split by the id.")] = 0,
    max_atoms: Annotated[int, typer.Option(min=1, help="Most sites of a reduced cell.")] = 20,
    neutrality_tolerance: Annotated[float, typer.Option(help="Largest sum of the charges of a crystal, in e.")] = 0.05,
    merge_tolerance: Annotated[
        float, typer.Option(help="Largest deviation from their mean of values of sites that become one.")
    ] = 0.02,
    exclude_ids: Annotated[
        list[Path] | None,
        typer.Option(help="Leave out the ids of this file: one per line, or a structure_id.npy; repeat for more."),
    ] = None,
    functional: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Take labels of this functional alone, e.g. PBE or HSE06; repeat for more."),
    ] = None,
    mix_functionals: Annotated[
        bool, typer.Option("--mix-functionals", help="Take labels of several functionals as one data set.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad entry.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing data set.")] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Worker processes. Default: all cores.")
    ] = None,
) -> None:
    """Check crystals and their site values and store them for training."""
    from mattergen_e.descriptors.registry import known
    from mattergen_e.labels.run import label_calculations

    excluded = frozenset[str]().union(*(read_ids(file) for file in exclude_ids or ()))
    options: dict[str, Any] = {
        "site_values": site_value or None,
        "properties": prop or None,
        "split_column": split_column or None,
        "split_fractions": _fractions(split_fractions),
        "max_atoms": max_atoms,
        "neutrality_tolerance": neutrality_tolerance,
        "merge_tolerance": merge_tolerance,
        "jobs": jobs,
        "overwrite": overwrite,
        "quantities": [descriptor.quantity() for descriptor in known().values()],
    }
    check_options(sources, out, **options)
    files, failed = label_calculations(sources, out.parent / f"{out.name}.labels", jobs=jobs)
    dropped = [Dropped(o.id, o.origin, o.reason, o.sentence) for o in failed if o.reason is not None]
    manifest = build_cache(
        files,
        out,
        **options,
        seed=seed,
        strict=strict,
        exclude_ids=excluded,
        functionals=functional or (),
        mix_functionals=mix_functionals,
        dropped=dropped,
    )
    show(manifest, out, Console())


def _fractions(text: str) -> tuple[float, float, float]:
    try:
        train, val, test = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--split-fractions {text!r}: give three shares, e.g. 0.9,0.05,0.05.") from error
    return train, val, test


def show(manifest: Manifest, out: Path, console: Console) -> None:
    """Print what a build made.

    Args:
        manifest: Of the cache.
        out: Where the cache is.
        console: Where to print.
    """
    table = Table(title=f"{manifest.crystals:,} crystals, {manifest.sites:,} sites")
    table.add_column("split")
    table.add_column("crystals", justify="right")
    table.add_column("sites", justify="right")
    values = manifest.site_values | manifest.crystal_values | manifest.grid_values
    for name, value in values.items():
        unit = f" [{value.unit}]" if value.unit else ""
        table.add_column(f"{name}\nknown, rms{unit}".replace("[", r"\["), justify="right")
    for split, info in manifest.splits.items():
        row = [split, f"{info.crystals:,}", f"{info.sites:,}"]
        for value in values.values():
            stats = value.splits[split]
            row.append(f"{stats.coverage:.1%}" + (f", {stats.rms:.3f}" if stats.rms is not None else ""))
        table.add_row(*row)
    console.print(table)
    if manifest.properties:
        known = (f"{name} ({sum(info.known.values()):,})" for name, info in manifest.properties.items() if info.written)
        console.print(f"Properties (known for): {', '.join(known)}", highlight=False)
    skipped = [name for name, info in manifest.properties.items() if not info.written]
    if skipped:
        console.print(f"Not stored, because some crystals lack it: {', '.join(skipped)}", highlight=False)
    if manifest.functionals:
        counts = told(manifest.functionals, manifest.spin_polarised)
        console.print(f"Functionals: {counts}", highlight=False, markup=False)
    for warning in manifest.warnings:
        console.print(f"Warning: {warning}", style="yellow", highlight=False, markup=False)
    if manifest.excluded:
        console.print(f"Left out by --exclude-ids: {manifest.excluded:,}", highlight=False)
    if manifest.dropped:
        console.print(_dropped_table(manifest))
    console.print(f"Manifest: {out / MANIFEST_NAME}", highlight=False, soft_wrap=True)


def _dropped_table(manifest: Manifest) -> Table:
    table = Table(title=f"{len(manifest.dropped):,} entries dropped")
    table.add_column("reason")
    table.add_column("entries", justify="right")
    table.add_column("example")
    for reason, count in manifest.dropped_by_reason.items():
        first = next(item for item in manifest.dropped if item.reason == reason)
        example = f"{first.origin} ({first.id or 'no id'}): {first.sentence}"
        table.add_row(reason, f"{count:,}", example.replace("[", r"\["))
    return table
