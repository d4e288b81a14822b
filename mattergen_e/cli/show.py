"""`mattergen-e data show`: what a data set holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from mattergen_e.report.cache_records import CacheSummary, Distribution

#: Eighths of a block, for histograms in one line.
BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH = 20


def show(
    cache: Annotated[Path, typer.Argument(metavar="CACHE", help="Data set, as `mattergen-e data build` makes it.")],
    html: Annotated[Path | None, typer.Option(help="Also write a page with figures.")] = None,
) -> None:
    """Show what a data set holds: counts, elements, charges, gaps, spectra, and values worth a look."""
    from mattergen_e.cli.console import stdout
    from mattergen_e.quiet import quiet

    with quiet():
        from mattergen_e.report.cache import summarise

        summary = summarise(cache)
        if html is not None:
            from mattergen_e.report.cache_html import write_html

            write_html(summary, html)
    console = stdout()
    for part in tables(summary):
        console.print(part, highlight=False, soft_wrap=isinstance(part, str))
    if html is not None:
        console.print(f"Page: {html}", highlight=False, markup=False, soft_wrap=True)


def tables(summary: CacheSummary) -> list[Any]:
    """What is printed: rich tables and texts."""
    from rich.markup import escape

    from mattergen_e.labels.method import told

    integrals = (spectra.integrals for spectra in summary.spectra)
    sites = (values.total for values in summary.site_values)
    distributions = _distributions((summary.sizes, *summary.properties, *sites, *integrals))
    parts: list[Any] = [_counts(summary), _periodic_table(summary), distributions]
    if summary.manifest.functionals:
        counts = told(summary.manifest.functionals, summary.manifest.spin_polarised)
        parts.insert(1, f"Functionals: {escape(counts)}")
    parts += [f"Warning: {escape(text)}" for text in summary.manifest.warnings]
    parts += [f"{escape(name)}: {count:,} different texts" for name, count in summary.texts.items()]
    parts += [_by_element(values.total, values.elements) for values in summary.site_values]
    if summary.outliers:
        parts.append(_outliers(summary))
    if summary.manifest.dropped_by_reason:
        parts.append(_dropped(summary))
    return parts


def _table(title: str, *columns: str, left: int = 1) -> Table:
    """A table whose first columns are texts and the others numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right")
    return table


def _counts(summary: CacheSummary) -> Table:
    manifest = summary.manifest
    table = _table(f"{manifest.crystals:,} crystals, {manifest.sites:,} sites", "split", "crystals", "sites")
    for split, info in manifest.splits.items():
        table.add_row(split, f"{info.crystals:,}", f"{info.sites:,}")
    return table


def _periodic_table(summary: CacheSummary) -> Any:
    """Symbols in their places, brighter where there are more crystals; others are dots."""
    import math

    from pymatgen.core import Element
    from rich.text import Text

    from mattergen_e.report.periodic import position

    most = max(crystals for crystals, _ in summary.elements.values())
    lines = [[("   ", "dim")] * 18 for _ in range(9)]
    for number in range(1, 104):
        row, group = position(number)
        lines[row - 1][group - 1] = ("  ·", "dim")
    for symbol, (crystals, _) in summary.elements.items():
        row, group = position(Element(symbol).Z)
        share = math.log1p(crystals) / math.log1p(most)
        style = "bold green" if share > 0.75 else "green" if share > 0.4 else "dim green"
        lines[row - 1][group - 1] = (f"{symbol:>3}", style)
    text = Text(f"{len(summary.elements)} elements (bold: in most crystals)\n")
    for line in lines:
        for symbol, style in line:
            text.append(symbol, style)
        text.append("\n")
    return text


def spark(found: Distribution) -> str:
    """A histogram in one line of at most `WIDTH` characters."""
    import numpy as np

    together = -(-len(found.histogram) // WIDTH)
    heights = np.add.reduceat(found.histogram, np.arange(0, len(found.histogram), together))
    most = max(int(heights.max()), 1)
    return "".join(BLOCKS[-(-int(n) * (len(BLOCKS) - 1) // most)] for n in heights)


def _distributions(found: tuple[Distribution, ...]) -> Table:
    from rich.markup import escape

    table = _table("Distributions", "", "known", "min", "median", "max", "0.1 to 99.9 %")
    table.columns[-1].justify = "left"
    table.columns[-1].no_wrap = True
    for one in found:
        numbers = (one.minimum, one.quantiles[2], one.maximum)
        name = f"{one.name} ({one.unit})" if one.unit else one.name
        known = f"{one.count:,} of {one.count + one.unknown:,}" if one.unknown else f"{one.count:,}"
        table.add_row(escape(name), known, *(f"{number:.4g}" for number in numbers), spark(one))
    return table


def _by_element(total: Distribution, elements: dict[str, tuple[int, float, tuple[float, ...], float]]) -> Table:
    from rich.markup import escape

    title = escape(f"{total.name} ({total.unit}) by element")
    table = _table(title, "element", "sites", "min", "5 %", "median", "95 %", "max")
    for symbol, (count, low, quantiles, high) in elements.items():
        numbers = (low, quantiles[0], quantiles[2], quantiles[4], high)
        table.add_row(symbol, f"{count:,}", *(f"{number:+.2f}" for number in numbers))
    return table


def _outliers(summary: CacheSummary) -> Table:
    from rich.markup import escape

    counts = ", ".join(f"{count:,} crystals for {kind}" for kind, count in summary.outlier_counts.items())
    table = _table(
        escape(f"Worth a look ({counts}; the farthest)"), "value", "crystal", "split", "site", "found", left=4
    )
    table.add_column("usual")
    table.add_column("σ", justify="right")
    for one in summary.outliers:
        cells = (one.kind, one.crystal, one.split, one.place, f"{one.found:.3f}", one.usual)
        table.add_row(*map(escape, cells), f"{one.far:.1f}")
    return table


def _dropped(summary: CacheSummary) -> Table:
    from rich.markup import escape

    manifest = summary.manifest
    table = _table(f"Entries dropped: {len(manifest.dropped):,}", "reason", "entries", "example")
    for reason, count in manifest.dropped_by_reason.items():
        first = next((item for item in manifest.dropped if item.reason == reason), None)
        example = f"{first.id or 'no id'}: {first.sentence}" if first else ""
        table.add_row(escape(reason), f"{count:,}", escape(example))
    table.columns[2].justify = "left"
    return table
