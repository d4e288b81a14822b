"""How the commands speak to a person: consoles and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from mattergen_e.prediction.accuracy import Accuracy
    from mattergen_e.prediction.spectra import SpectralAccuracy


def stdout() -> Console:
    """For results."""
    return Console()


def stderr() -> Console:
    """For progress and problems."""
    return Console(stderr=True)


#: Problems that are named one by one.
MOST_NAMED = 50


def name_left_out(problems: Sequence[str]) -> None:
    """Says at the end what was left out, and why.

    Args:
        problems: A sentence for each.
    """
    if problems:
        console = stderr()
        console.print(f"{len(problems)} left out:", highlight=False)
        for problem in problems[:MOST_NAMED]:
            console.print(f"  {problem}", highlight=False, markup=False, soft_wrap=True)
        if len(problems) > MOST_NAMED:
            console.print(f"  and {len(problems) - MOST_NAMED} more", highlight=False)


def accuracy_tables(results: Iterable[Accuracy], elements: int = 12) -> list[Table]:
    """One table per descriptor, two for spectra: all sites, then the most frequent elements."""
    tables = []
    for r in results:
        which = f"{r.crystals} {r.split} crystals"
        title = f"{r.descriptor}, mean absolute error ({r.unit}), {which}"
        table = Table("sites of", "number", "model", "element mean", title=title, title_justify="left", min_width=60)
        table.add_row("all elements", str(r.sites), f"{r.mae:.3f}", f"{r.baseline:.3f}", style="bold")
        for e in r.by_element[:elements]:
            table.add_row(e.element, str(e.sites), f"{e.mae:.3f}", f"{e.baseline:.3f}")
        tables.append(table)
        if r.spectra is not None:
            tables.append(_distances(r, r.spectra, elements))
    return tables


def _distances(accuracy: Accuracy, spectra: SpectralAccuracy, elements: int) -> Table:
    """Median and mean Wasserstein distances."""
    title = f"{accuracy.descriptor}, Wasserstein distance (eV), median / mean, {accuracy.split}"
    columns = ("sites of", "number", "model", "element mean", "autoencoder alone")
    table = Table(*columns, title=title, title_justify="left", min_width=60)
    rows = [("all elements", spectra.all), *list(spectra.by_element.items())[:elements]]
    for i, (name, found) in enumerate(rows):
        kinds = (found.model, found.element_mean, found.autoencoder)
        cells = ["none" if s.median is None else f"{s.median:.3f} / {s.mean:.3f}" for s in kinds]
        table.add_row(name, str(found.model.sites), *cells, style="" if i else "bold")
    return table
