"""pymatviz's heat map of the periodic table as a small static SVG.

pymatviz makes a plotly figure, whose display takes plotly.js (4 MB). Its tiles, colours and numbers are all that a
static picture needs; they are taken from the figure as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mattergen_e.report.html import Html, join, tag

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

#: From small to large errors; readable with every kind of colour vision.
SCALE = "viridis_r"
TILE = 50
_TEXT = re.compile(r"<span[^>]*>(?P<symbol>[A-Z][a-z]?)</span>(?:<br>(?P<value>.*))?")


def heat_map(values: Mapping[str, float], sites: Mapping[str, int], top: float, label: str, unit: str) -> Html:
    """A periodic table whose tiles show a value of the elements.

    Args:
        values: By symbol.
        sites: Number of sites by symbol, for the tooltips.
        top: End of the colour scale.
        label: What the values are.
        unit: Of the values.

    Returns:
        A figure with inline SVG; elements without a value are grey.
    """
    import pymatviz  # type: ignore[import-not-found]
    from plotly.colors import sample_colorscale

    by_element: dict[str | int, float] = {**values}
    figure = pymatviz.ptable_heatmap_plotly(by_element, colorscale=SCALE, fmt=".2f", cscale_range=(0, top))
    tiles = [_tile(annotation, values, sites, top, unit, sample_colorscale) for annotation in _annotations(figure)]
    words = (
        f"{label} by element: {len(values)} elements, from {_extreme(values, min)} to {_extreme(values, max)} {unit}"
    )
    drawn = tag(
        "svg",
        _bar(top, label, unit, sample_colorscale),
        *tiles,
        viewBox=f"0 0 {18 * TILE} {_ROWS * TILE}",
        role="img",
        aria_label=words,
        class_="table",
    )
    return tag(
        "figure", tag("div", drawn, class_="scroll", tabindex="0"), tag("figcaption", f"{words}. Grey: no sites.")
    )


_ROWS = 10


def _annotations(figure: Figure) -> list[dict[str, Any]]:
    """Texts of the figure's tiles with their places."""
    return [one for one in figure.to_plotly_json()["layout"]["annotations"] if one["text"]]


def _tile(
    annotation: Mapping[str, Any],
    values: Mapping[str, float],
    sites: Mapping[str, int],
    top: float,
    unit: str,
    sample: Any,
) -> Html:
    found = _TEXT.fullmatch(annotation["text"])
    if found is None:
        raise ValueError(f"pymatviz writes its tiles in another way now: {annotation['text']!r}")
    name = found["symbol"]
    x, y = TILE * annotation["x"], TILE * (_ROWS - 1 - annotation["y"])
    if name in values:
        fill, ink = sample(SCALE, min(max(values[name] / top, 0.0), 1.0))[0], None
        said = f"{name}: {values[name]:.3f} {unit}, {sites.get(name, 0):,} sites"
    else:
        fill, ink, said = "var(--none)", "var(--soft)", f"{name}: no sites"
    ink = ink or _ink(fill)
    content = [
        tag("title", said),
        Html(f'<rect x="{x + 1}" y="{y + 1}" width="{TILE - 2}" height="{TILE - 2}" rx="4" fill="{fill}"/>'),
    ]
    middle = x + TILE / 2
    height = 24 if name in values else 31
    content.append(tag("text", name, x=middle, y=y + height, fill=ink, class_="symbol"))
    if name in values:
        content.append(tag("text", found["value"], x=middle, y=y + 41, fill=ink, class_="value"))
    return tag("g", *content)


def _ink(fill: str) -> str:
    """White on dark tiles and dark on light ones."""
    red, green, blue = (float(part) for part in re.findall(r"[\d.]+", fill)[:3])
    return "#fff" if 0.299 * red + 0.587 * green + 0.114 * blue < 135 else "#111"


def _bar(top: float, label: str, unit: str, sample: Any) -> Html:
    """Colour scale in the gap above the transition metals."""
    shades = sample(SCALE, [i / 24 for i in range(25)])
    steps = [
        Html(f'<rect x="{165 + 14 * i}" y="66" width="14.5" height="16" fill="{s}"/>') for i, s in enumerate(shades)
    ]
    words = [
        tag("text", label, x=165, y=48, fill="var(--ink)", class_="label"),
        tag("text", "0", x=165, y=104, fill="var(--soft)", class_="end"),
        tag("text", f"{top:.2f} {unit}", x=515, y=104, fill="var(--soft)", class_="end", text_anchor="end"),
    ]
    return tag("g", join([*steps, *words]), aria_hidden="true")


def _extreme(values: Mapping[str, float], choose: Any) -> str:
    name = choose(values, key=lambda symbol: values[symbol])
    return f"{values[name]:.3f} ({name})"
