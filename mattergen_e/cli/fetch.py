"""`mattergen-e data fetch`: download materials of the Materials Project."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from mattergen_e.errors import UserError


def fetch(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of downloads.")],
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Materials, e.g. mp-149.")] = None,
    ids_file: Annotated[Path | None, typer.Option(help="File with one id per line.")] = None,
    chemsys: Annotated[
        list[str] | None, typer.Option(help="Chemical system, e.g. Li-Fe-O or Si-*; repeat for more.")
    ] = None,
    formula: Annotated[list[str] | None, typer.Option(help="Formula, e.g. Fe2O3 or ABO3; repeat for more.")] = None,
    elements: Annotated[str | None, typer.Option(metavar="A,B", help="Elements that all are there.")] = None,
    exclude_elements: Annotated[str | None, typer.Option(metavar="A,B", help="Elements that are not.")] = None,
    num_elements: Annotated[str | None, typer.Option(metavar="MIN,MAX", help="Fewest and most elements.")] = None,
    num_sites: Annotated[str | None, typer.Option(metavar="MIN,MAX", help="Fewest and most sites.")] = None,
    band_gap: Annotated[
        str | None, typer.Option(metavar="MIN,MAX", help="Lowest and highest gap in eV; either may be empty.")
    ] = None,
    energy_above_hull: Annotated[
        str | None, typer.Option(metavar="MIN,MAX", help="Lowest and highest energy above the hull, eV per atom.")
    ] = None,
    formation_energy: Annotated[
        str | None, typer.Option(metavar="MIN,MAX", help="Lowest and highest formation energy, eV per atom.")
    ] = None,
    stable: Annotated[bool | None, typer.Option(help="Only materials on the hull, or off it.")] = None,
    metal: Annotated[bool | None, typer.Option(help="Only metals, or none.")] = None,
    theoretical: Annotated[bool | None, typer.Option(help="Only materials that were never made, or were.")] = None,
    gnome: Annotated[
        bool, typer.Option("--gnome", help="Materials of GNoME too, which may not be used commercially.")
    ] = False,
    dos: Annotated[bool, typer.Option("--dos", help="Fetch densities of states with projections.")] = False,
    charge_density: Annotated[
        bool, typer.Option("--charge-density", help="Fetch charge densities, up to 100 MB each.")
    ] = False,
    interval: Annotated[float, typer.Option(min=0, help="Shortest time between two requests, s.")] = 0.2,
) -> None:
    """Download materials of the Materials Project, for `mattergen-e data label`.

    The key is taken from MP_API_KEY or from ~/.pmgrc.yaml (PMG_MAPI_KEY). What is in the folder already is not fetched
    again, so a run that was interrupted goes on when it is started again.
    """
    from mattergen_e.data.build import read_ids
    from mattergen_e.labels.materials_project import source as materials_project

    query = materials_project.Query(
        ids=tuple(dict.fromkeys([*(ids or ()), *sorted(read_ids(ids_file))])),
        chemsys=tuple(chemsys or ()),
        formula=tuple(formula or ()),
        elements=_words(elements),
        exclude_elements=_words(exclude_elements),
        num_elements=_counts("--num-elements", num_elements),
        num_sites=_counts("--num-sites", num_sites),
        band_gap=_range("--band-gap", band_gap),
        energy_above_hull=_range("--energy-above-hull", energy_above_hull),
        formation_energy=_range("--formation-energy", formation_energy),
        is_stable=stable,
        is_metal=metal,
        theoretical=theoretical,
        include_gnome=gnome,
    )
    if query.ids and query.filters():
        raise UserError("Ids and filters were both given: give either.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", materials_project.UnknownIds)
        count = materials_project.fetch(query, out, dos=dos, charge_density=charge_density, interval=interval)
    for warning in caught:
        if issubclass(warning.category, materials_project.UnknownIds):
            typer.echo(f"mattergen-e: {warning.message}", err=True)
    typer.echo(f"{count:,} materials in {out}")


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip()) if text else ()


def _range(option: str, text: str | None) -> tuple[float | None, float | None] | None:
    """Two numbers, either of which may be left open."""
    if text is None:
        return None
    try:
        low, high = (float(part) if part.strip() else None for part in text.split(","))
    except ValueError:
        raise UserError(f"{option} {text!r}: give two numbers, e.g. 0.5,3 or 0.5, for no upper end.") from None
    if (low is None and high is None) or (low is not None and high is not None and not low <= high):
        raise UserError(f"{option} {text!r}: the first number must not be larger than the second.")
    return low, high


def _counts(option: str, text: str | None) -> tuple[int, int] | None:
    found = _range(option, text)
    if found is None:
        return None
    low, high = (1 if found[0] is None else found[0]), (100_000 if found[1] is None else found[1])
    if low != int(low) or high != int(high):
        raise UserError(f"{option} {text!r}: give two whole numbers, e.g. 1,20.")
    return int(low), int(high)
