"""The periodic table as a small static SVG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mattergen_e.report.html import Html, figures, piece

#: From small to large values; readable with every kind of colour vision. And from negative to positive ones.
SEQUENTIAL, DIVERGING = "viridis_r", "RdBu_r"
TILE = 50


class Tile(NamedTuple):
    """Of an element: its place on the colour scale (0 to 1), a short text in the tile, and what the tooltip says."""

    share: float
    short: str
    said: str


def periodic_table(
    tiles: Mapping[str, Tile], label: str, ends: tuple[str, str], words: str, *, scale: str = SEQUENTIAL,
    unknown: str = "no sites",
) -> Html:  # fmt: skip
    """A periodic table whose tiles show a value of the elements.

    Args:
        tiles: By symbol; the other elements are grey.
        label: What the values are.
        ends: Of the colour scale.
        words: What is seen; the caption, too.
        scale: Name of a colour map of matplotlib.
        unknown: Why elements are grey.
    """
    from matplotlib import colormaps
    from pymatgen.core import Element

    colours = colormaps[scale]
    drawn: list[dict[str, Any]] = []
    for number in range(1, 119):
        symbol, (row, group) = Element.from_Z(number).symbol, position(number)
        place = {"symbol": symbol, "x": TILE * (group - 1), "y": TILE * (row - 1 + (row > 7))}
        if symbol in tiles:
            tile = tiles[symbol]
            fill, ink = _shade(colours, tile.share)
            drawn.append({**place, "said": tile.said, "short": tile.short, "fill": fill, "ink": ink})
        else:
            drawn.append({**place, "said": unknown, "short": "", "fill": "var(--none)", "ink": "var(--soft)"})
    shades = [_shade(colours, i / 24)[0] for i in range(25)]
    table = piece("periodic", drawn, TILE, shades, label, ends, words)
    return figures([piece("figure", table, f"{words}. Grey: {unknown}.")], wide=True)


def _shade(colours: Any, share: float) -> tuple[str, str]:
    """A colour, and that of a text on it: white on dark ones and dark on light ones."""
    red, green, blue = (int(part) for part in colours(min(max(share, 0.0), 1.0), bytes=True)[:3])
    return f"rgb({red}, {green}, {blue})", "#fff" if 0.299 * red + 0.587 * green + 0.114 * blue < 135 else "#111"


def position(number: int) -> tuple[int, int]:
    """Row (1 to 9; 8 and 9 are lanthanides and actinides) and group (1 to 18) of an element in the periodic table."""
    for first, row in ((57, 8), (89, 9)):
        if first <= number < first + 15:
            return row, number - first + 3
    from pymatgen.core import Element

    element = Element.from_Z(number)
    return element.row, element.group
