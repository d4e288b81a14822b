"""Figures of spectra beside what their crystals were asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mattergen_e.report.drawing import NEUTRAL, canvas, colour, spectra_panels
from mattergen_e.spectra.metrics import at_quantiles

if TYPE_CHECKING:
    from mattergen_e.report.figures import Drawn
    from mattergen_e.report.runs import TargetCurves

#: Shares of the crystals with a lower cosine, of the examples.
PERCENTILES = (0.9, 0.5, 0.1)
_BINS = np.linspace(0, 1, 31)


def cosines(curves: TargetCurves, name: str, run: int) -> Drawn:
    """How the cosines with the targets are distributed, beside those of mismatched pairs (grey).

    Args:
        curves: Of a run.
        name: Of the run.
        run: Its number, for the colour.
    """
    figure, (ax,) = canvas()
    words = []
    random = curves.random[np.isfinite(curves.random)]
    if len(random):
        heights, _ = np.histogram(random, _BINS, density=True)
        ax.stairs(heights, _BINS, fill=True, color=NEUTRAL, alpha=0.4)
        words.append(f"grey: {len(random):,} mismatched pairs, median {np.median(random):.3f}")
    own = curves.cosine[np.isfinite(curves.cosine)]
    heights, _ = np.histogram(own, _BINS, density=True)
    ax.stairs(heights, _BINS, color=colour(run), linewidth=1.5)
    words.insert(0, f"{len(own):,} crystals with their own target, median {np.median(own):.3f}")
    ax.set_xlabel("cosine with the target")
    ax.set_ylabel("density")
    ax.set_xlim(0, 1)
    ax.set_ylim(bottom=0)
    return figure, f"{name}: cosine of the density of states with the target: {'; '.join(words)}."


def examples(curves: TargetCurves, formulas: dict[int, str], name: str, run: int) -> Drawn:
    """Spectra (line) beside their targets (grey) at percentiles of the cosine.

    Args:
        curves: Of a run, states/eV per atom.
        formulas: Of the crystals by index.
        name: Of the run.
        run: Its number, for the colour.
    """
    panels = []
    for share, place in zip(PERCENTILES, at_quantiles(curves.cosine, PERCENTILES), strict=True):
        crystal, curve = int(curves.crystal[place]), int(curves.curve[place])
        what = f"{formulas.get(crystal, 'crystal')} (crystal {crystal}) for {curves.names[curve]}"
        title = f"{100 * share:g} %: {curves.cosine[place]:.3f}, {what}"
        panels.append((curves.targets[curve], curves.generated[place], title))
    titles = "; ".join(title for *_, title in panels)
    return (
        spectra_panels(curves.energies, panels, run, "states/eV per atom"),
        f"{name}: density of states (line) and target (grey) at percentiles of the cosine. {titles}.",
    )
