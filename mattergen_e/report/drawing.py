"""Figures of matplotlib as small SVG inside a page, in the page's own colours and fonts."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import escape

from mattergen_e.report.html import Html, piece

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

#: Colours that the page replaces by its own, so that they follow its light or dark scheme.
INK, SOFT, LINE, NEUTRAL = "#1c2733", "#566471", "#dde3e9", "#8795a2"
#: One a run: Okabe and Ito's colour-blind safe hues, darkened to be read on white.
SERIES = ("#0072b2", "#c24e00", "#00805d", "#a8477f", "#8a6d00", "#4b5a94")
_VARIABLES = {INK: "--ink", SOFT: "--soft", LINE: "--line"} | {c: f"--series-{i}" for i, c in enumerate(SERIES)}

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "savefig.transparent": True,
    "savefig.dpi": 220,
}


def colour(i: int) -> str:
    """Of the i-th run."""
    return SERIES[i % len(SERIES)]


@contextmanager
def style() -> Iterator[None]:
    """Figures have to be made and written inside."""
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS):
        yield


def canvas(
    rows: int = 1, columns: int = 1, width: float = 4.3, height: float = 2.6, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure (inches) and its axes, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.ravel())


def spectra_panels(
    energies: NDArray[Any], panels: Sequence[tuple[NDArray[Any], NDArray[Any], str]], run: int, unit: str
) -> Figure:
    """Spectra (line) over others (grey), a panel for each.

    Args:
        energies: (points,) eV relative to the Fermi energy.
        panels: The grey spectrum (points,), NaN where there is none, that of the line (points,), and a title.
        run: Its number, for the colour.
        unit: Of the spectra.
    """
    import numpy as np

    figure, axes = canvas(len(panels), 1, height=4.8, sharex=True)
    for ax, (below, line, title) in zip(axes, panels, strict=True):
        known = np.isfinite(below)
        ax.fill_between(energies, np.where(known, below, 0.0), where=known, color=NEUTRAL, alpha=0.45, linewidth=0)
        ax.plot(energies, line, color=colour(run), linewidth=1.3)
        ax.axvline(0, color=INK, linewidth=0.6, linestyle=":")
        ax.set_title(title, fontsize=8.5)
        ax.set_ylim(bottom=0)
    axes[-1].set_xlabel("energy relative to the Fermi energy (eV)")
    axes[-1].set_xlim(energies[0], energies[-1])
    figure.supylabel(f"density of states ({unit})", fontsize=9)
    return figure


def picture(figure: Figure, alternative: str, caption: object = None) -> Html:
    """A figure as inline SVG with a caption.

    Args:
        figure: It is written inside of `style`.
        alternative: What is seen, for those who do not see it.
        caption: Below the figure; by default the same words.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    salt = hashlib.sha256(alternative.encode()).hexdigest()[:8]
    with mpl.rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawn = _inline(buffer.getvalue(), alternative)
    return piece("figure", drawn, alternative if caption is None else caption)


def _inline(svg: str, alternative: str) -> Html:
    """An SVG file as an element of a page: without its own ids, styles and fonts."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", body)
    body = re.sub(r' (?:d|transform|points)="[^"]*"', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), body)
    body = re.sub(r"font: (?:(\d{3}|bold) )?([\d.]+px) [^;\"]*", lambda m: f"font-size: {m[2]}", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    for sentinel, name in _VARIABLES.items():
        body = body.replace(sentinel, f"var({name})")
    box = re.search(r'viewBox="([^"]*)"', body)
    content = body[body.index(">") + 1 :]
    head = f'<svg class="drawn" role="img" aria-label="{escape(alternative)}" viewBox="{box[1] if box else ""}">'
    return Html(re.sub(r"\n\s*", "\n", head + content))


def key(names: Sequence[str]) -> Html:
    """Which colour is which run; nothing for one run."""
    return piece("key", names, len(SERIES)) if len(names) > 1 else Html()
