"""`mattergen-e reference`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mattergen_e.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from mattergen_e.reference import ReferenceManifest

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Reference sets for novelty and stability.")


@app.callback()
def group() -> None:
    """Reference sets for novelty and stability."""


@app.command()
def build(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Caches of `data build`; also .csv or .jsonl files of crystals."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the reference.")],
    calculator: Annotated[
        str, typer.Option(help="Of the energies: chgnet, sevenn, mattersim, mace, orb or module:factory.")
    ] = "chgnet",
    energies: Annotated[
        Path | None,
        typer.Option(
            help="Take energies from a .csv or .jsonl file with material_id (or an element's symbol) and "
            "energy_per_atom in eV/atom."
        ),
    ] = None,
    no_energies: Annotated[bool, typer.Option("--no-energies", help="For novelty only: no energies, no hull.")] = False,
    splits: Annotated[str, typer.Option(help="Splits of the caches, joined by commas.")] = "train,val,test",
    limit: Annotated[int | None, typer.Option(min=1, help="First so many crystals only.")] = None,
    device: Annotated[str, typer.Option(help="Of the calculator: cpu or cuda.")] = "cpu",
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Workers. Default: all cores.")] = None,
    backend: Annotated[str, typer.Option(help="Of joblib: loky, threading, dask[:ADDRESS], ray[:ADDRESS].")] = "loky",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a reference: damaged, or with other settings.")
    ] = False,
) -> None:
    """Build the reference that `evaluate` compares with; goes on where it was stopped."""
    from mattergen_e.cli.console import stdout
    from mattergen_e.quiet import quiet

    if energies is not None and no_energies:
        raise UserError("--energies and --no-energies exclude each other: give one of them.")
    with quiet():
        from mattergen_e.reference.build import BuildSettings
        from mattergen_e.reference.build import build as run

        settings = BuildSettings(
            splits=tuple(dict.fromkeys(part.strip() for part in splits.split(",") if part.strip())),
            calculator=None if no_energies or energies is not None else calculator,
            energies=energies,
            limit=limit,
            device=device,
        )
        manifest, reused = run(sources, out, settings, jobs=jobs, backend=backend, overwrite=overwrite)
    show(manifest, out, reused, stdout())


@app.command()
def pack(
    folder: Annotated[Path, typer.Argument(help="A reference that is built.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the packed copy.")],
) -> None:
    """Compress a reference to share it; commands take the copy as they take the original."""
    from mattergen_e.quiet import quiet

    with quiet():
        from mattergen_e.reference import Reference
        from mattergen_e.reference.packed import pack as run

        opened = Reference.open(folder)
        size = run(opened.path, out, [*opened.manifest.arrays])
    typer.echo(f"{out}: {len(opened):,} crystals, {size / 1e6:.1f} MB")


def show(manifest: ReferenceManifest, out: Path, reused: bool, console: Console) -> None:
    """Prints what a reference holds.

    Args:
        manifest: Of the reference.
        out: Its folder.
        reused: Whether it was there already.
        console: Where to print.
    """
    source = manifest.energy_source
    kinds = {"none": "no energies", "file": f"energies of {source.get('name')}"}
    energies = kinds.get(source["kind"], f"energies of {source.get('name')} {source.get('version') or ''}".rstrip())
    known = manifest.structures - manifest.without_energy
    number = "" if source["kind"] == "none" else f" for {known:,}"
    there = "already in" if reused else "in"
    console.print(
        f"{manifest.structures:,} crystals, {energies}{number}, {there} {out}", highlight=False, soft_wrap=True
    )
    if manifest.dropped_by_reason:
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(manifest.dropped_by_reason.items()))
        console.print(f"Left out: {dropped}", highlight=False, soft_wrap=True)
    if manifest.missing_elements and source["kind"] != "none":
        missing = manifest.missing_elements
        console.print(
            f"No energy of {len(missing)} elements ({', '.join(missing)}): crystals that contain them get no energy "
            "above hull.",
            highlight=False,
            soft_wrap=True,
        )
