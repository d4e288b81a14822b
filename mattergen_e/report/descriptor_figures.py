"""Figures of generated descriptors beside their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mattergen_e.report.drawing import SOFT, canvas, colour, spectra_panels
from mattergen_e.spectra.metrics import at_quantiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mattergen_e.report.figures import Drawn
    from mattergen_e.report.runs import SitePairs

#: Elements with a parity plot of their own: the most frequent ones.
ELEMENTS = 12
#: Shares of the sites below the examples of spectra.
PERCENTILES = (0.01, 0.5, 0.9)


def symbol(number: int) -> str:
    """Of an element by its atomic number."""
    from pymatgen.core import Element

    return Element.from_Z(int(number)).symbol


def parity(pairs: SitePairs, axis: str, unit: str, name: str, run: int) -> Drawn:
    """Generated values over their labels, those of SUN crystals filled; of a vector, each component.

    Args:
        pairs: The values.
        axis: What an axis says.
        unit: Of the values.
        name: Of the run.
        run: Its number, for the colour.
    """
    figure, (ax,) = canvas(height=4.0)
    reference, generated = pairs.reference.ravel(), pairs.generated.ravel()
    _line(ax, reference, generated)
    _points(ax, reference, generated, np.repeat(pairs.sun, len(reference) // len(pairs)), colour(run), 12)
    ax.set_xlabel(f"calculated {axis}")
    ax.set_ylabel(f"generated {axis}")
    words = f"{name}: {_errors(pairs.generated, pairs.reference, unit)}"
    if not pairs.sun.any():
        return figure, f"{words}; none belongs to a SUN crystal."
    of_sun = _errors(pairs.generated[pairs.sun], pairs.reference[pairs.sun], unit)
    return figure, f"{words}; SUN crystals (filled): {of_sun}."


def parity_by_element(pairs: SitePairs, axis: str, unit: str, name: str, run: int) -> Drawn:
    """As `parity`, a panel for each of the most frequent elements; scales differ."""
    kinds, counts = np.unique(pairs.number, return_counts=True)
    chosen = kinds[np.argsort(-counts, kind="stable")][:ELEMENTS]
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, axes = canvas(rows, columns, height=0.4 + 1.35 * rows)
    words, in_unit = [], f" in {unit}" if unit else ""
    for ax, kind in zip(axes, chosen, strict=False):
        here = pairs.number == kind
        reference, generated = pairs.reference[here].ravel(), pairs.generated[here].ravel()
        _line(ax, reference, generated)
        _points(ax, reference, generated, np.repeat(pairs.sun[here], len(reference) // here.sum()), colour(run), 8)
        ax.set_title(f"{symbol(kind)} ({here.sum():,})", fontsize=8.5)
        ax.tick_params(labelsize=7)
        ax.locator_params(nbins=2)
        words.append(f"{symbol(kind)} {np.abs(generated - reference).mean():.3f}")
    for ax in axes[len(chosen) :]:
        ax.set_axis_off()
    figure.supxlabel(f"calculated {axis}", fontsize=9)
    figure.supylabel(f"generated {axis}", fontsize=9)
    return figure, f"{name}: the most frequent elements (sites), scales differ. MAE{in_unit}: {', '.join(words)}."


def _errors(generated: np.ndarray, reference: np.ndarray, unit: str) -> str:
    return f"MAE {np.abs(generated - reference).mean():.3f}{unit and ' ' + unit} of {len(generated):,} sites"


def _line(ax: Axes, *values: np.ndarray) -> None:
    """Equal limits for both axes, and the line where both are equal."""
    low, high = (float(function([v.min() if function is min else v.max() for v in values])) for function in (min, max))
    room = 0.05 * (high - low) + 0.02
    ends = [low - room, high + room]
    ax.plot(ends, ends, color=SOFT, linewidth=0.7)
    ax.set_xlim(ends[0], ends[1])
    ax.set_ylim(ends[0], ends[1])
    ax.set_aspect("equal")


def _points(ax: Axes, x: np.ndarray, y: np.ndarray, filled: np.ndarray, shade: str, size: float) -> None:
    """Rings, and discs where `filled`; many become a picture, so that the page stays small."""
    many = len(x) > 600
    ax.scatter(
        x[~filled], y[~filled], s=size, facecolors="none", edgecolors=shade, linewidths=0.7, alpha=0.7, rasterized=many
    )
    ax.scatter(x[filled], y[filled], s=size, color=shade, linewidths=0, alpha=0.8, rasterized=many)


def distances(pairs: SitePairs, name: str, run: int) -> Drawn:
    """Cumulative distribution of the Wasserstein distances, solid for all sites, dashed for SUN crystals."""
    assert pairs.distance is not None
    figure, (ax,) = canvas()
    words = []
    for chosen, line, which in ((pairs.distance, "-", "all"), (pairs.distance[pairs.sun], "--", "SUN crystals")):
        if len(chosen):
            y = 100 * np.arange(1, len(chosen) + 1) / len(chosen)
            ax.step(np.sort(chosen), y, where="post", color=colour(run), linestyle=line, linewidth=1.5)
            words.append(
                f"{which} ({len(chosen):,} sites): median {np.median(chosen):.3f}, mean {chosen.mean():.3f} eV"
            )
    ax.set_xlabel("Wasserstein distance (eV)")
    ax.set_ylabel("% of the sites")
    ax.set_xlim(left=0)
    ax.set_ylim(0, 103)
    return figure, f"{name}: solid: all, dashed: SUN crystals. {'; '.join(words)}."


def spectra_examples(pairs: SitePairs, formulas: dict[int, str], name: str, run: int) -> Drawn:
    """Generated spectra beside their labels at the 1st, 50th and 90th percentile of the distance.

    Args:
        pairs: Spectra in states/eV.
        formulas: Of the crystals by index.
        name: Of the run.
        run: Its number, for the colour.
    """
    assert pairs.distance is not None and pairs.energies is not None
    panels = []
    for share, place in zip(PERCENTILES, at_quantiles(pairs.distance, PERCENTILES), strict=True):
        crystal, site = int(pairs.crystal[place]), int(pairs.site[place])
        where = (
            f"{symbol(int(pairs.number[place]))}, site {site} of {formulas.get(crystal, 'crystal')} (crystal {crystal})"
        )
        title = f"{100 * share:g} %: {pairs.distance[place]:.3f} eV, {where}"
        panels.append((pairs.reference[place], pairs.generated[place], title))
    titles = "; ".join(title for *_, title in panels)
    return (
        spectra_panels(pairs.energies, panels, run, "states/eV"),
        f"{name}: generated (line) and calculated (grey) at percentiles of the distance. {titles}.",
    )
