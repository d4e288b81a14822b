"""A picture per crystal of the shortlist: its spectrum beside the target."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.report.drawing import INK, NEUTRAL, SERIES, canvas, style
from mattergen_e.screening.ranking import FORMATION, HULL
from mattergen_e.screening.target import Target


def draw(row: Mapping[str, Any], spectrum: NDArray[Any], target: Target, label: str) -> bytes:
    """The picture as PNG.

    Args:
        row: Of the table.
        spectrum: (points,) states/eV, on the target's grid.
        target: What it is compared with; only bins that are compared are drawn of it, the others are shaded.
        label: What the spectrum is, for the legend.
    """
    grid = target.grid
    shown = np.where(target.mask, target.values, np.nan)
    with style():
        figure, (axes,) = canvas(width=5.6, height=3.4)
        axes.fill_between(grid.energies, spectrum, color=SERIES[1], alpha=0.25, linewidth=0)
        axes.plot(grid.energies, spectrum, color=SERIES[1], linewidth=1.1, label=label)
        axes.plot(grid.energies, shown, color=SERIES[0], linewidth=1.3, label="target")
        axes.axvline(0.0, color=INK, linewidth=0.7, linestyle=":")
        left_out = (~target.mask).astype(float)
        transform = axes.get_xaxis_transform()
        axes.fill_between(
            grid.energies, left_out, step="mid", color=NEUTRAL, alpha=0.15, linewidth=0, transform=transform
        )
        axes.set_xlim(grid.minimum, grid.maximum)
        axes.set_ylim(0, None)
        axes.set_xlabel("energy relative to the Fermi energy (eV)")
        axes.set_ylabel("states/eV" if row["site"] is not None else "states/eV per atom")
        axes.set_title(_title(row), fontsize=9)
        axes.legend()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor="white", transparent=False, metadata={"Software": None})
    return buffer.getvalue()


def _title(row: Mapping[str, Any]) -> str:
    names = {FORMATION: "formation energy {:.2f} eV/atom", HULL: "{:.2f} eV/atom above the hull"}
    site = [] if row["site"] is None else [f"site {row['site']}"]
    first = [f"{row['rank']}. {row['formula']} ({row['id']})", *site]
    first += [words.format(row[name]) for name, words in names.items() if row[name] is not None]
    second = f"1 - cosine {row['cosine_distance']:.3f}, Wasserstein {row['wasserstein']:.2f} eV"
    return f"{', '.join(first)}\n{second}"
