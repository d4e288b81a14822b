"""`mattergen-e data compute`: labels of crystals from open DFT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mattergen_e.errors import UserError


def command(
    structures: Annotated[
        list[Path],
        typer.Argument(metavar="STRUCTURES...", help="CIF, POSCAR, extxyz or JSON lines files, or folders of them."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")],
    calculator: Annotated[str, typer.Option(help="The code: gpaw.")] = "gpaw",
    python: Annotated[Path | None, typer.Option(help="A Python that has GPAW. Default: one that is found.")] = None,
    cutoff: Annotated[float, typer.Option(help="Kinetic energy of the largest plane wave, eV.")] = 350.0,
    kpoint_density: Annotated[float, typer.Option(help="k-points per Å^-1 along each axis.")] = 2.5,
    smearing: Annotated[float, typer.Option(help="Width of the Fermi-Dirac occupation, eV.")] = 0.05,
    spin: Annotated[bool, typer.Option("--spin", help="Spin-polarised, from ferromagnetic moments.")] = False,
    bands: Annotated[float, typer.Option(help="Bands of the density, as a multiple of the occupied ones.")] = 1.4,
    dos_to: Annotated[float, typer.Option(help="No band is missing in the DOS up to this energy, eV from E_F.")] = 5.0,
    dos_width: Annotated[float, typer.Option(help="w of the DOS's broadening exp(-(E/w)^2), eV.")] = 0.1,
    refinement: Annotated[int, typer.Option(help="Grid of the all-electron density, 2 or 4 times GPAW's.")] = 4,
    max_iterations: Annotated[int, typer.Option(help="Most electronic steps.")] = 333,
    average_equivalent: Annotated[
        bool, typer.Option("--average-equivalent", help="Average differing charges of equivalent sites.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Longest time of a crystal, s.", min=1)] = 14400.0,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Crystals at a time.", min=1)] = 1,
    backend: Annotated[str, typer.Option(help="loky, threading, dask[:ADDRESS] or ray[:ADDRESS].")] = "loky",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Compute again what failed before.")] = False,
    keep_density: Annotated[
        bool, typer.Option("--keep-density", help="Keep the all-electron density as ID.CHGCAR.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what was computed with other settings or structures.")
    ] = False,
) -> None:
    """Compute DOS, site DOS, density and Bader charges of crystals with PBE.

    What is in the folder already is not computed again. The results are a source for `mattergen-e data label`.
    """
    from pydantic import ValidationError

    from mattergen_e.labels.computed import compute as labels

    given = {
        "calculator": calculator,
        "cutoff": cutoff,
        "kpoint_density": kpoint_density,
        "smearing": smearing,
        "spin": spin,
        "bands": bands,
        "dos_to": dos_to,
        "dos_width": dos_width,
        "refinement": refinement,
        "max_iterations": max_iterations,
        "bader": {"average_equivalent": average_equivalent},
    }
    try:
        settings = labels.ComputeSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise UserError(f"--{name} {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}.") from None
    try:
        summary = labels.compute(
            structures,
            out,
            settings=settings,
            python=python,
            jobs=jobs,
            backend=backend,
            timeout=timeout,
            overwrite=overwrite,
            retry_failed=retry_failed,
            keep_density=keep_density,
        )
    except KeyboardInterrupt:
        typer.echo(f"mattergen-e: interrupted; the same command goes on with what is missing in {out}.", err=True)
        raise typer.Exit(130) from None
    _show(summary, out)


def _show(summary: object, out: Path) -> None:
    from mattergen_e.labels.computed.compute import Summary
    from mattergen_e.labels.computed.folder import FAILED_NAME

    assert isinstance(summary, Summary)
    typer.echo(f"{summary.computed} crystals computed, {summary.present} present already, in {out}")
    if summary.refused:
        typer.echo(f"{summary.refused} without charges that passed the checks: see `findings` in the manifest")
    if summary.failed:
        typer.echo(f"{summary.failed} failed: {out / FAILED_NAME} has the reasons, --retry-failed computes them again")
