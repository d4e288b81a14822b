"""`mattergen-e plot`: figures of generated crystals."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mattergen_e.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mattergen_e.generation.formats import Generated

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Draw figures of generated crystals.")

#: More sites than that are drawn without a legend.
NAMED_SITES = 12


@app.callback()
def _group() -> None:
    """Keeps `dos` a sub-command while it is the only one."""


@app.command()
def dos(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of mattergen-generate.")],
    to: Annotated[Path, typer.Option(help="Figure to write: png, svg or pdf.")],
    index: Annotated[int, typer.Option(help="Index of the crystal, as in the JSON lines.", min=0)] = 0,
) -> None:
    """Draw the density of states of a generated crystal: total, by element and by site."""
    from mattergen_e.quiet import quiet

    with quiet():
        from mattergen_e.generation.store import read_crystals
        from mattergen_e.journal import write_output
        from mattergen_e.networks.autoencoder.evaluation import check_figure

        check_figure(to)
        crystals = {crystal.index: crystal for crystal in read_crystals(out)}
    if index not in crystals:
        raise UserError(f"{out} has no crystal {index}: give one of the {len(crystals)} indices of its JSON lines.")
    if crystals[index].spectra is None:
        raise UserError(f"the crystals in {out} have no spectra: generate with a model of the descriptor atomic_dos.")
    to.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    draw(crystals[index]).savefig(content, dpi=150, format=to.suffix[1:].lower())
    write_output(to, content.getvalue(), "choose another --to")
    typer.echo(f"crystal {index}, {crystals[index].structure.composition.reduced_formula}: {to}")


def draw(crystal: Generated) -> Figure:
    """Three panels: the total, the sum over the sites of each element, and every site; states/eV.

    Args:
        crystal: One with spectra.
    """
    import numpy as np
    from matplotlib.figure import Figure

    assert crystal.spectra is not None
    spectra, grid = crystal.spectra.spectra, crystal.spectra.grid
    symbols = np.array([site.specie.symbol for site in crystal.structure])
    figure = Figure(figsize=(7, 7.5), layout="constrained")
    total, by_element, by_site = figure.subplots(3, sharex=True)
    total.fill_between(grid.energies, spectra.sum(axis=0), color="0.8")
    total.set_title(
        f"crystal {crystal.index}: {crystal.structure.composition.reduced_formula}, total", fontsize="small"
    )
    for symbol in dict.fromkeys(symbols.tolist()):
        by_element.plot(grid.energies, spectra[symbols == symbol].sum(axis=0), label=symbol, linewidth=1.0)
    by_element.set_title("by element", fontsize="small")
    by_element.legend(fontsize="small", frameon=False)
    for i, (symbol, spectrum) in enumerate(zip(symbols, spectra, strict=True)):
        by_site.plot(grid.energies, spectrum, label=f"{i} {symbol}", linewidth=0.8)
    by_site.set_title("by site", fontsize="small")
    if len(symbols) <= NAMED_SITES:
        by_site.legend(fontsize="x-small", frameon=False, ncols=2)
    for axes in (total, by_element, by_site):
        _finish(axes)
    total.set_xlim(grid.minimum, grid.maximum)
    by_element.set_ylabel("density of states (states/eV)")
    by_site.set_xlabel("energy relative to the Fermi energy (eV)")
    return figure


def _finish(axes: Axes) -> None:
    axes.axvline(0.0, color="0.5", linewidth=0.7, linestyle=":")
    axes.set_ylim(0, None)
