"""A page about a cache: one file without scripts, network or fonts, for a desk and for a phone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mattergen_e.report.cache_records import CacheSummary, Distribution, SiteDistribution, SpectraSummary
from mattergen_e.report.drawing import SOFT, canvas, colour, picture, style
from mattergen_e.report.html import Html, Section, figures, join, page, piece, table, write_page
from mattergen_e.report.periodic import DIVERGING, Tile, periodic_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mattergen_e.report.figures import Drawn


def write_html(summary: CacheSummary, path: Path) -> None:
    """Write a page about a cache.

    Args:
        summary: From `mattergen_e.report.cache.summarise`.
        path: The file; one that exists is replaced when the new one is complete.

    Raises:
        UserError: If it cannot be written.
    """
    write_page(render(summary), path, "--html")


def render(summary: CacheSummary) -> str:
    """The page as a text."""
    manifest = summary.manifest
    sources = ", ".join(source.name for source in manifest.sources) or "nothing"
    made = f"Made {manifest.created:%Y-%m-%d %H:%M} UTC by mattergen-e {manifest.mattergen_e_version} from {sources}."
    with style():
        sections = [
            Section("splits", "Splits", _splits(summary)),
            Section("elements", "Elements", _crystals_per_element(summary)),
            Section("distributions", "Distributions", _pictures(map(histogram, _distributions(summary)))),
            *(
                Section(f"values-{i}", f"{_with_unit(values.total)} by element", _site_values(values))
                for i, values in enumerate(summary.site_values)
                if values.elements
            ),
            *(Section(f"spectra-{i}", one.name, _spectra(one)) for i, one in enumerate(summary.spectra)),
        ]
    if summary.outliers:
        sections.append(Section("outliers", "Worth a look", _outliers(summary)))
    if manifest.dropped_by_reason:
        sections.append(Section("dropped", "Entries dropped", _dropped(summary)))
    introduction = join([piece("paragraph", made), piece("cards", _counts(summary))])
    return page(summary.path.resolve().name, sections, introduction=introduction)


def _distributions(summary: CacheSummary) -> list[Distribution]:
    values = [values.total for values in summary.site_values]
    integrals = [spectra.integrals for spectra in summary.spectra]
    return [one for one in (summary.sizes, *summary.properties, *values, *integrals) if one.count]


def _with_unit(found: Distribution) -> str:
    return f"{found.name} ({found.unit})" if found.unit else found.name


def _pictures(drawn: Iterable[Drawn]) -> Html:
    return figures(picture(*one) for one in drawn)


def _counts(summary: CacheSummary) -> list[tuple[str, str]]:
    manifest = summary.manifest
    cards = [(f"{manifest.crystals:,}", "crystals"), (f"{manifest.sites:,}", "sites")]
    cards.append((f"{len(summary.elements)}", "elements"))
    cards += [(f"{values.total.count:,}", f"sites with {values.total.name}") for values in summary.site_values]
    cards += [(f"{spectra.count:,}", f"{spectra.of} with {spectra.name}") for spectra in summary.spectra]
    cards.append((f"{len(manifest.dropped):,}", "entries dropped"))
    return cards


def _splits(summary: CacheSummary) -> Html:
    rows = [(name, f"{info.crystals:,}", f"{info.sites:,}") for name, info in summary.manifest.splits.items()]
    return table(("split", "crystals", "sites"), rows)


# -- elements ---------------------------------------------------------------------------------------------------------


def _crystals_per_element(summary: CacheSummary) -> Html:
    most = max(crystals for crystals, _ in summary.elements.values())
    tiles = {
        symbol: Tile(
            math.log1p(crystals) / math.log1p(most), _short(crystals), f"{crystals:,} crystals, {sites:,} sites"
        )
        for symbol, (crystals, sites) in summary.elements.items()
    }
    words = f"Colour and number: crystals that hold the element (the most: {most:,})"
    return periodic_table(tiles, "crystals (logarithmic)", ("0", f"{most:,}"), words, unknown="no crystals")


def _short(count: int) -> str:
    return f"{count / 1000:.1f}k" if count >= 1000 else str(count)


def _site_values(values: SiteDistribution) -> Html:
    """Medians in a periodic table, and a table with a box plot in every row."""
    total = values.total
    medians = {symbol: quantiles[2] for symbol, (_, _, quantiles, _) in values.elements.items()}
    largest = max(max(map(abs, medians.values())), 1e-9)
    tiles = {
        symbol: Tile((median / largest + 1) / 2, f"{median:+.2f}", f"median {median:+.3f} {total.unit}")
        for symbol, median in medians.items()
    }
    ends = (f"{-largest:+.2f} {total.unit}", f"{largest:+.2f} {total.unit}")
    words = f"Colour and number: median of {total.name} of the sites (red: positive, blue: negative)"
    return join([periodic_table(tiles, f"median of {total.name}", ends, words, scale=DIVERGING), _boxes(values)])


def _boxes(values: SiteDistribution) -> Html:
    low, high = values.total.minimum, values.total.maximum
    width = max(high - low, 1e-9)

    def x(*places: float) -> list[float]:
        return [round(100 * (place - low) / width, 2) for place in places]

    rows = []
    for symbol, (count, minimum, (q05, q25, q50, q75, q95), maximum) in values.elements.items():
        zero = x(0.0)[0] if low < 0 < high else None
        box = piece("box", zero, x(minimum, maximum), x(q05, q95), x(q25, q75), x(q50)[0])
        rows.append((symbol, f"{count:,}", f"{q05:+.2f}", f"{q50:+.2f}", f"{q95:+.2f}", box))
    head = ("element", "sites", "5 %", "median", "95 %", f"{low:+.2f} to {high:+.2f}")
    words = "Thin line: all sites; thick line: 5 to 95 %; box: the middle half; mark: median."
    return table(head, rows, words)


# -- figures ----------------------------------------------------------------------------------------------------------


def histogram(found: Distribution) -> Drawn:
    """Figure and caption of a distribution."""
    figure, (ax,) = canvas()
    ax.stairs(found.histogram, found.edges, fill=True, color=colour(0), alpha=0.7)
    ax.axvline(found.quantiles[2], color=colour(1), linewidth=1)
    ax.set_xlabel(_with_unit(found))
    ax.set_ylim(bottom=0)
    words = f"{found.name}: {found.count:,} known"
    words += f", {found.unknown:,} unknown" if found.unknown else ""
    words += f"; median (line) {found.quantiles[2]:.4g}, from {found.minimum:.4g} to {found.maximum:.4g}"
    words += f", {found.zero:.0%} are zero" if found.zero > 0.01 else ""
    return figure, words


def _spectra(spectra: SpectraSummary) -> Html:
    if not spectra.count:
        return piece("paragraph", f"No {spectra.of} have it.")
    x = np.arange(len(spectra.mean)) if spectra.energies is None else spectra.energies
    label = "point" if spectra.energies is None else "energy from the Fermi energy (eV)"
    unit = spectra.unit or "value"
    figure, (ax,) = canvas(height=3.0)
    ax.fill_between(x, spectra.low, spectra.high, color=colour(0), alpha=0.3, linewidth=0, label="10 to 90 %")
    ax.plot(x, spectra.middle, color=colour(0), linewidth=1, label="median")
    ax.plot(x, spectra.mean, color=colour(1), linewidth=1, label="mean")
    ax.set_xlabel(label)
    ax.set_ylabel(unit)
    ax.legend()
    words = f"{spectra.name} of {spectra.count:,} {spectra.of}; median and quantiles over a sample."
    count = len(spectra.examples)
    examples, axes = canvas(count, height=0.95 * max(count, 2), sharex=True)
    for ax, (title, values) in zip(axes, spectra.examples, strict=True):
        ax.fill_between(x, 0, values, color=colour(0), alpha=0.7, linewidth=0)
        ax.set_title(title, fontsize=8)
    axes[-1].set_xlabel(label)
    if spectra.energies is not None:
        for ax in (*figure.axes, *axes):
            ax.axvline(0, color=SOFT, linewidth=0.7, linestyle=":")
    return _pictures([(figure, words), (examples, f"Examples of {spectra.name} ({unit}).")])


# -- what to look at --------------------------------------------------------------------------------------------------


def _outliers(summary: CacheSummary) -> Html:
    counts = ", ".join(f"{count:,} crystals for {kind}" for kind, count in summary.outlier_counts.items())
    rows = [
        (one.kind, one.crystal, one.split, one.place, one.usual, f"{one.found:.3f}", f"{one.far:.1f}")
        for one in summary.outliers
    ]
    words = f"Farther than 4 robust standard deviations (σ) from the median: {counts}. The farthest of each:"
    return table(("value", "crystal", "split", "site", "usual", "found", "σ"), rows, words, texts=5)


def _dropped(summary: CacheSummary) -> Html:
    manifest = summary.manifest
    rows = []
    for reason, count in manifest.dropped_by_reason.items():
        first = next((item for item in manifest.dropped if item.reason == reason), None)
        rows.append((reason, f"{first.id or 'no id'}: {first.sentence}" if first else "", f"{count:,}"))
    return table(("reason", "example", "entries"), rows, texts=2)
