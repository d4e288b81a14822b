"""`mattergen-e screen`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mattergen_e.cli.settings import SHIPPED
from mattergen_e.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mattergen_e.screening.run import Screening
    from mattergen_e.screening.settings import ScreenSettings


def screen(
    crystals: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="Output folder of a generation, a folder of CIFs, or a file of crystals."),
    ],
    target: Annotated[
        Path, typer.Option(help="Spectrum to find: npz, CSV, JSON lines, vasprun.xml, or a CIF to predict it from.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the shortlist.")],
    max_formation_energy: Annotated[
        float | None, typer.Option(help="Largest formation energy of what is kept, eV/atom.")
    ] = None,
    max_energy_above_hull: Annotated[
        float | None, typer.Option(help="Largest energy above the hull of --reference, eV/atom.")
    ] = None,
    top: Annotated[int, typer.Option(help="Crystals of the shortlist.", min=1)] = 8,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Energies to compare, eV. Default: all that the target gives."),
    ] = None,
    curve: Annotated[str | None, typer.Option(help="Name of the curve in a file with several.")] = None,
    site: Annotated[
        str | None, typer.Option(help="Compare one site instead of the crystal: its number from 0, or any.")
    ] = None,
    distance: Annotated[str, typer.Option(help="cosine (1 - cosine) or wasserstein (eV).")] = "cosine",
    predictor: Annotated[
        Path | None, typer.Option(help="Folder of the forward predictor. Default: checkpoints/dos_predictor.")
    ] = None,
    generated: Annotated[
        bool, typer.Option("--generated", help="Compare the spectra that a joint model generated.")
    ] = False,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Folder of `mattergen-e reference build` or `pack`. Default: checkpoints/reference_mp for CHGNet, "
            "else elements alone, no hull."
        ),
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="Evaluation whose relaxations are used. Default: OUT/evaluation.")
    ] = None,
    calculator: Annotated[
        str | None, typer.Option(help="chgnet, sevenn, mattersim, mace, orb or module:factory. Default: chgnet.")
    ] = None,
    fmax: Annotated[float | None, typer.Option(help="Largest force of a relaxed crystal, eV/Å.", min=1e-6)] = None,
    steps: Annotated[int | None, typer.Option(help="Most steps of a relaxation.", min=1)] = None,
    seconds: Annotated[float | None, typer.Option(help="Time limit of a relaxation, s.", min=0.1)] = None,
    device: Annotated[str | None, typer.Option(help="Of calculator and predictor: cpu or cuda.")] = None,
    seed: Annotated[int, typer.Option(help="Written down; every step is deterministic.")] = 0,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Workers. Default: all cores.")] = None,
    backend: Annotated[str, typer.Option(help="Of joblib: loky, threading, dask[:ADDRESS], ray[:ADDRESS].")] = "loky",
) -> None:
    """Shortlist generated crystals for DFT: relaxed, stable enough, nearest to a spectrum; goes on where it stopped."""
    if reference is None and SHIPPED.is_dir() and calculator in (None, "chgnet"):
        reference = SHIPPED
    check_paths(crystals, target, reference, evaluation)
    from mattergen_e.screening.settings import PREDICTOR, ScreenSettings, parse_site

    settings = ScreenSettings(
        target=target,
        curve=curve,
        window=window,
        site=parse_site(site),
        distance=check_distance(distance),
        max_formation_energy=max_formation_energy,
        max_energy_above_hull=max_energy_above_hull,
        top=top,
        predictor=check_predictor(predictor, generated, PREDICTOR),
        seed=seed,
    )
    given = {"calculator": calculator, "fmax": fmax, "steps": steps, "seconds": seconds, "device": device}
    relaxation = {key: value for key, value in given.items() if value is not None}
    options = {"out": out, "reference": reference, "evaluation": evaluation, "jobs": jobs, "backend": backend}
    found = _run(crystals, settings, relaxation, options)
    from mattergen_e.cli.console import stdout

    show(found, settings, stdout())


def _run(crystals: Path, settings: ScreenSettings, relaxation: dict[str, Any], options: dict[str, Any]) -> Screening:
    from mattergen_e.quiet import quiet

    with quiet():
        from mattergen_e.energies.relaxation import RelaxSettings
        from mattergen_e.screening.run import screen as run

        try:
            return run(crystals, settings, RelaxSettings(**relaxation), **options)
        except KeyboardInterrupt:
            typer.echo("mattergen-e: interrupted: the same command goes on from here.", err=True)
            raise typer.Exit(130) from None


def check_paths(crystals: Path, target: Path, reference: Path | None, evaluation: Path | None) -> None:
    """Whether the inputs are there at all.

    Raises:
        UserError: If one is not.
    """
    if not crystals.exists():
        raise UserError(f"{crystals} does not exist: give the output folder of a generation, or files of crystals.")
    if not target.exists():
        raise UserError(f"{target} does not exist: give a file with a density of states as --target.")
    if reference is not None and not reference.is_dir():
        raise UserError(
            f"{reference} is no folder of a reference: make one with `mattergen-e reference build CACHE --out "
            f"{reference}`."
        )
    if evaluation is not None and not evaluation.is_dir():
        raise UserError(f"{evaluation} is no folder of an evaluation: make one with `mattergen-e evaluate`.")


def check_distance(name: str) -> Literal["cosine", "wasserstein"]:
    """The distance of a name.

    Raises:
        UserError: If it is unknown.
    """
    if name not in ("cosine", "wasserstein"):
        raise UserError(f"--distance {name!r} is unknown: give cosine or wasserstein.")
    return name


def check_predictor(given: Path | None, generated: bool, default: Path) -> Path | None:
    """The folder of the predictor; None for generated spectra.

    Raises:
        UserError: If it is not there, or the options contradict each other.
    """
    if generated:
        if given is not None:
            raise UserError("--generated and --predictor contradict each other: give one.")
        return None
    folder = given or default
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder of a predictor: train one with `mattergen-e dos-predictor train`, give another "
            "--predictor, or take the spectra of a joint model with --generated."
        )
    return folder


# -- what is printed --------------------------------------------------------------------------------------------------


def show(found: Screening, settings: ScreenSettings, console: Console) -> None:
    """Print the shortlist, and why the others are not in it.

    Args:
        found: The screening.
        settings: Its settings.
        console: Where to print.
    """
    from rich.markup import escape

    if found.shortlist:
        console.print(_table(found, settings))
    else:
        console.print(escape(nothing(found.summary, settings)), highlight=False)
    lines = [*_dropped(found.summary)]
    if found.summary["relaxations_of_evaluation"]:
        lines.append(f"Relaxations taken from the evaluation: {found.summary['relaxations_of_evaluation']}.")
    if found.left:
        lines.append(f"Left as you changed them: {', '.join(found.left)}.")
    for line in lines:
        console.print(escape(line), highlight=False)
    for warning in found.summary["warnings"]:
        console.print(f"[yellow]{escape(warning)}[/yellow]", highlight=False)
    known = "" if sum(found.computed.values()) else " (everything was known already)"
    console.print(f"Written to {escape(str(found.folder))}{known}.", highlight=False, soft_wrap=True)
    if found.shortlist:
        command = f"mattergen-e data compute {found.folder / 'crystals'} --out computed"
        console.print(f"DFT: vasp/ and gpaw_dos.py there, or {escape(command)}", highlight=False, soft_wrap=True)


def _table(found: Screening, settings: ScreenSettings) -> Table:
    from rich.table import Table

    from mattergen_e.screening.ranking import FORMATION, HULL

    asked = found.summary["counts"]["asked"]
    title = f"{len(found.shortlist)} of {asked:,} crystals, nearest to {found.summary['target']['file']}"
    table = Table("", "crystal", "formula", title=title, title_justify="left")
    columns = {FORMATION: "formation\n(eV/atom)", HULL: "above hull\n(eV/atom)"}
    columns = {name: title for name, title in columns.items() if any(row[name] is not None for row in found.shortlist)}
    columns |= {"cosine_distance": "1 - cosine", "wasserstein": "Wasserstein\n(eV)"}
    for name in columns.values():
        table.add_column(name, justify="right")
    if settings.site is not None:
        table.add_column("site", justify="right")
    for row in found.shortlist:
        cells = [_number(row[name]) for name in columns]
        site = [] if settings.site is None else [str(row["site"])]
        table.add_row(str(row["rank"]), row["id"], row["formula"], *cells, *site)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _dropped(summary: dict[str, Any]) -> list[str]:
    from mattergen_e.screening.ranking import DROPPED

    dropped = summary["counts"]["dropped"]
    if not dropped:
        return []
    return ["Not in the shortlist:", *(f"  {DROPPED[reason]}: {number:,}" for reason, number in dropped.items())]


def nothing(summary: dict[str, Any], settings: ScreenSettings) -> str:
    """Sentences that say why there is no shortlist, and how near the best crystal came."""
    from mattergen_e.screening.ranking import FORMATION, HULL

    parts = [f"None of {summary['counts']['asked']:,} crystals passes."]
    limits = {FORMATION: settings.max_formation_energy, HULL: settings.max_energy_above_hull}
    words = {FORMATION: "formation energy", HULL: "energy above the hull"}
    for name, limit in limits.items():
        lowest = summary["lowest"].get(name)
        if limit is not None and lowest is not None:
            parts.append(
                f"The lowest {words[name]} is {lowest['value']:.3f} eV/atom ({lowest['formula']}, {lowest['id']}); "
                f"the limit is {limit:g}."
            )
    return " ".join(parts)
