"""A page about a cache: one file without scripts, network or fonts, for a desk and for a phone."""

from __future__ import annotations

import base64
import io
import math
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mattergen_e.errors import UserError
from mattergen_e.files import replacing
from mattergen_e.report.cache_records import CacheSummary, Distribution, SiteDistribution, SpectraSummary, position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

STYLE = """
:root { color-scheme: light; --ink: #1c2733; --soft: #5b6875; --line: #dde3e9; --accent: #1f6f8b; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; color: var(--ink); background: #fff;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: .4rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
p { margin: .4rem 0; color: var(--soft); overflow-wrap: anywhere; }
.cards { display: flex; flex-wrap: wrap; gap: .6rem; margin: .8rem 0; }
.cards div { flex: 1 1 7rem; border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .8rem; }
.cards b { display: block; font-size: 1.35rem; }
.cards span { color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
figure { margin: 0; }
figure img { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .85rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; }
th, td { padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  white-space: nowrap; }
table.text td:last-child { white-space: normal; min-width: 14rem; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; }
td.n, th.n { text-align: right; }
table.wide { width: 100%; max-width: 52rem; }
td.bar { width: 60%; min-width: 8rem; vertical-align: middle; }
td.bar svg { display: block; width: 100%; height: 14px; }
.elements { display: grid; grid-template-columns: repeat(18, minmax(0, 1fr)); gap: 2px; max-width: 60rem; }
.elements div { aspect-ratio: 1; border-radius: 3px; display: flex; flex-direction: column; align-items: center;
  justify-content: center; font-size: clamp(8px, 1.5vw, 14px); line-height: 1.1; min-width: 0; }
.elements small { font-size: clamp(0px, .85vw, 10px); }
.elements .none { background: #f2f4f6; color: #a9b2bb; }
@media (max-width: 700px) { .elements small { display: none; } td.bar { min-width: 6rem; } }
"""


def write_html(summary: CacheSummary, path: Path) -> None:
    """Write a page about a cache.

    Args:
        summary: From `mattergen_e.report.cache.summarise`.
        path: The file; one that exists is replaced when the new one is complete.

    Raises:
        UserError: If it cannot be written.
    """
    page = render(summary)
    try:
        with replacing(path) as file:
            file.write(page.encode())
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): choose another --html.") from error


def render(summary: CacheSummary) -> str:
    """The page as a text."""
    manifest = summary.manifest
    name = escape(summary.path.resolve().name)
    parts = [
        f"<h1>{name}</h1>",
        f"<p>Made {manifest.created:%Y-%m-%d %H:%M} UTC by mattergen-e {escape(manifest.mattergen_e_version)} from "
        f"{escape(', '.join(source.name for source in manifest.sources) or 'nothing')}.</p>",
        _cards(summary),
        _splits(summary),
        "<h2>Elements</h2>",
        _crystals_per_element(summary),
        "<h2>Distributions</h2>",
        _figures(map(histogram, _distributions(summary))),
        *(_site_values(values) for values in summary.site_values),
        *(_spectra(spectra) for spectra in summary.spectra),
        _outliers(summary),
        _dropped(summary),
    ]
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    )
    return head + "\n".join(part for part in parts if part) + "\n</body>\n</html>\n"


def _distributions(summary: CacheSummary) -> list[Distribution]:
    values = [values.total for values in summary.site_values]
    integrals = [spectra.integrals for spectra in summary.spectra]
    return [one for one in (summary.sizes, *summary.properties, *values, *integrals) if one.count]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), kind: str = "") -> str:
    """An HTML table of texts that are escaped here; `numbers` are the columns of numbers, `kind` is its class."""
    kinds = [' class="n"' if i in numbers else "" for i in range(len(head))]

    def line(cells: Sequence[str], tag: str) -> str:
        inner = (f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return _scrolling(line(head, "th"), body, kind)


def _scrolling(head: str, body: str, kind: str) -> str:
    return f'<div class="scroll"><table class="{kind}"><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _cards(summary: CacheSummary) -> str:
    manifest = summary.manifest
    cards = [(f"{manifest.crystals:,}", "crystals"), (f"{manifest.sites:,}", "sites")]
    cards.append((f"{len(summary.elements)}", "elements"))
    cards += [(f"{values.total.count:,}", f"sites with {values.total.name}") for values in summary.site_values]
    cards += [(f"{spectra.count:,}", f"{spectra.of} with {spectra.name}") for spectra in summary.spectra]
    cards.append((f"{len(manifest.dropped):,}", "entries dropped"))
    inner = "".join(f"<div><b>{number}</b><span>{escape(text)}</span></div>" for number, text in cards)
    return f'<div class="cards">{inner}</div>'


def _splits(summary: CacheSummary) -> str:
    rows = [(name, f"{info.crystals:,}", f"{info.sites:,}") for name, info in summary.manifest.splits.items()]
    return "<h2>Splits</h2>" + table(("split", "crystals", "sites"), rows, (1, 2))


# -- elements ---------------------------------------------------------------------------------------------------------


def _crystals_per_element(summary: CacheSummary) -> str:
    most = max(crystals for crystals, _ in summary.elements.values())
    cells = {
        symbol: (
            math.log1p(crystals) / math.log1p(most),
            _short(crystals),
            f"{symbol}: {crystals:,} crystals, {sites:,} sites",
        )
        for symbol, (crystals, sites) in summary.elements.items()
    }
    words = f"Colour (on a wide screen number too): crystals that hold the element (the most: {most:,})."
    return periodic_table(cells, _sequential) + f"<p>{words}</p>"


def periodic_table(cells: dict[str, tuple[float, str, str]], colour: Callable[[float], tuple[int, int, int]]) -> str:
    """A periodic table.

    Args:
        cells: Value for the colour, short text and long text by element.
        colour: Red, green and blue (0 to 255) of a value.

    Returns:
        HTML; elements that are not in `cells` are grey.
    """
    from pymatgen.core import Element

    inner = []
    for number in range(1, 104):
        symbol = Element.from_Z(number).symbol
        row, group = position(number)
        place = f"grid-row:{row};grid-column:{group}"
        if symbol not in cells:
            inner.append(f'<div class="none" style="{place}">{symbol}</div>')
            continue
        value, short, text = cells[symbol]
        red, green, blue = colour(value)
        ink = "#fff" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else "#1c2733"
        style = f"{place};background:rgb({red},{green},{blue});color:{ink}"
        inner.append(
            f'<div style="{style}" title="{escape(text)}">{escape(symbol)}<small>{escape(short)}</small></div>'
        )
    return f'<div class="elements">{"".join(inner)}</div>'


def _mix(low: tuple[int, int, int], high: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(a + (b - a) * min(max(share, 0.0), 1.0)) for a, b in zip(low, high, strict=True))
    return red, green, blue


def _sequential(share: float) -> tuple[int, int, int]:
    return _mix((226, 240, 244), (16, 78, 104), share)


def _diverging(share: float) -> tuple[int, int, int]:
    """From blue (-1) over near white to red (1)."""
    return _mix((246, 246, 246), (178, 60, 48) if share > 0 else (40, 92, 160), abs(share))


def _short(count: int) -> str:
    return f"{count / 1000:.1f}k" if count >= 1000 else str(count)


def _site_values(values: SiteDistribution) -> str:
    total = values.total
    if not values.elements:
        return ""
    name = escape(f"{total.name} ({total.unit})" if total.unit else total.name)
    medians = {symbol: quantiles[2] for symbol, (_, _, quantiles, _) in values.elements.items()}
    largest = max(max(map(abs, medians.values())), 1e-9)
    cells = {
        symbol: (median / largest, f"{median:+.2f}", f"{symbol}: median {median:+.3f} {total.unit}")
        for symbol, median in medians.items()
    }
    return (
        f"<h2>{name} by element</h2>{periodic_table(cells, _diverging)}"
        "<p>Colour (on a wide screen number too): median of the sites (red: positive, blue: negative).</p>"
        + _boxes(values)
    )


def _boxes(values: SiteDistribution) -> str:
    """A table with a box plot in every row."""
    low, high = values.total.minimum, values.total.maximum
    width = max(high - low, 1e-9)

    def x(value: float) -> str:
        return f"{100 * (value - low) / width:.2f}"

    rows = []
    for symbol, (count, minimum, (q05, q25, q50, q75, q95), maximum) in values.elements.items():
        zero = f'<line x1="{x(0)}" x2="{x(0)}" y1="0" y2="14" stroke="#dde3e9"/>' if low < 0 < high else ""
        box = (
            '<svg viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true">'
            f'{zero}<line x1="{x(minimum)}" x2="{x(maximum)}" y1="7" y2="7" stroke="#c3ccd5"/>'
            f'<line x1="{x(q05)}" x2="{x(q95)}" y1="7" y2="7" stroke="#1f6f8b" stroke-width="2"/>'
            f'<rect x="{x(q25)}" width="{max(100 * (q75 - q25) / width, 0.4):.2f}" y="2" height="10" fill="#8cc3d4"/>'
            f'<rect x="{x(q50)}" width="0.6" y="1" height="12" fill="#0d3b4d"/></svg>'
        )
        numbers = "".join(f'<td class="n">{number:+.2f}</td>' for number in (q05, q50, q95))
        rows.append(f'<tr><td>{symbol}</td><td class="n">{count:,}</td>{numbers}<td class="bar">{box}</td></tr>')
    head = "".join(f'<th class="n">{text}</th>' for text in ("sites", "5 %", "median", "95 %"))
    head = f"<tr><th></th>{head}<th>{low:+.2f} to {high:+.2f}</th></tr>"
    return (
        _scrolling(head, "".join(rows), "wide")
        + "<p>Thin line: all sites; thick line: 5 to 95 %; box: the middle half; mark: median.</p>"
    )


# -- figures ----------------------------------------------------------------------------------------------------------


def _figures(drawn: Iterable[tuple[Any, str]]) -> str:
    return f'<div class="figures">{"".join(_figure(figure, words) for figure, words in drawn)}</div>'


def _figure(figure: Any, words: str) -> str:
    """A matplotlib figure as a picture inside the page, whose ids and styles touch nothing else."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mattergen-e"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    text = escape(words)
    picture = f'<img alt="{text}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{picture}<figcaption>{text}</figcaption></figure>"


def _axes(height: float = 2.5, rows: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, height), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9, colors="#5b6875")
    return figure, axes


def histogram(found: Distribution) -> tuple[Any, str]:
    """Figure and caption of a distribution."""
    figure, (ax,) = _axes()
    ax.stairs(found.histogram, found.edges, fill=True, color="#1f6f8b", alpha=0.85)
    ax.axvline(found.quantiles[2], color="#b23c30", linewidth=1)
    ax.set_xlabel(_plain(f"{found.name} ({found.unit})" if found.unit else found.name), fontsize=9)
    ax.set_ylim(bottom=0)
    words = f"{found.name}: {found.count:,} known"
    words += f", {found.unknown:,} unknown" if found.unknown else ""
    words += f"; median (red) {found.quantiles[2]:.4g}, from {found.minimum:.4g} to {found.maximum:.4g}"
    words += f", {found.zero:.0%} are zero" if found.zero > 0.01 else ""
    return figure, words


def _spectra(spectra: SpectraSummary) -> str:
    if not spectra.count:
        return f"<h2>{escape(spectra.name)}</h2><p>No {spectra.of} have it.</p>"
    x = np.arange(len(spectra.mean)) if spectra.energies is None else spectra.energies
    label = "point" if spectra.energies is None else "energy from the Fermi energy (eV)"
    unit = spectra.unit or "value"
    figure, (ax,) = _axes(3.0)
    ax.fill_between(x, spectra.low, spectra.high, color="#8cc3d4", linewidth=0, label="10 to 90 %")
    ax.plot(x, spectra.middle, color="#1f6f8b", linewidth=1, label="median")
    ax.plot(x, spectra.mean, color="#b23c30", linewidth=1, label="mean")
    ax.set_xlabel(label, fontsize=9)
    ax.set_ylabel(_plain(unit), fontsize=9)
    ax.legend(fontsize=8, frameon=False)
    words = f"{spectra.name} of {spectra.count:,} {spectra.of}; median and quantiles over a sample."
    examples, axes = _axes(0.95 * max(len(spectra.examples), 2), len(spectra.examples))
    for ax, (title, values) in zip(axes, spectra.examples, strict=True):
        ax.fill_between(x, 0, values, color="#1f6f8b", alpha=0.85, linewidth=0)
        ax.set_title(_plain(title), fontsize=8, loc="left")
    axes[-1].set_xlabel(label, fontsize=9)
    if spectra.energies is not None:
        for ax in (*figure.axes, *axes):
            ax.axvline(0, color="#5b6875", linewidth=0.7, linestyle=":")
    drawn = [(figure, words), (examples, f"Examples of {spectra.name} ({unit}).")]
    return f"<h2>{escape(spectra.name)}</h2>{_figures(drawn)}"


def _plain(text: str) -> str:
    """A text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


# -- what to look at --------------------------------------------------------------------------------------------------


def _outliers(summary: CacheSummary) -> str:
    if not summary.outliers:
        return ""
    counts = ", ".join(f"{count:,} crystals for {kind}" for kind, count in summary.outlier_counts.items())
    rows = [
        (one.kind, one.crystal, one.split, one.place, f"{one.found:.3f}", one.usual, f"{one.far:.1f}")
        for one in summary.outliers
    ]
    words = f"Farther than 4 robust standard deviations (σ) from the median: {counts}. The farthest of each:"
    head = ("value", "crystal", "split", "site", "found", "usual", "σ")
    return f"<h2>Worth a look</h2><p>{escape(words)}</p>{table(head, rows, (4, 6))}"


def _dropped(summary: CacheSummary) -> str:
    manifest = summary.manifest
    rows = []
    for reason, count in manifest.dropped_by_reason.items():
        first = next((item for item in manifest.dropped if item.reason == reason), None)
        rows.append((reason, f"{count:,}", f"{first.id or 'no id'}: {first.sentence}" if first else ""))
    if not rows:
        return ""
    return f"<h2>Entries dropped</h2>{table(('reason', 'entries', 'example'), rows, (1,), 'text')}"
