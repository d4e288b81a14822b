"""Figures of rates, properties, hull energies and novelty; every function gives a figure and the words for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.report.drawing import INK, NEUTRAL, SOFT, canvas, colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
Drawn = tuple["Figure", str]

#: Hull energies up to this one are drawn; eV/atom.
HULL_RANGE = (-0.3, 1.0)


def intervals(rates: Mapping[str, Sequence[Mapping[str, Any] | None]], names: Sequence[str]) -> Drawn:
    """Rates with their Wilson intervals, a row for each rate and run.

    Args:
        rates: By the rate's name, one for each run, with fraction, low and high; None where it is not known.
        names: Of the runs.
    """
    count = len(names)
    figure, (ax,) = canvas(height=0.55 + 0.22 * len(rates) * max(count, 1.6))
    words = []
    for row, (rate, found) in enumerate(rates.items()):
        for i, one in enumerate(found):
            if one is None:
                continue
            y = row + (i - (count - 1) / 2) * 0.6 / max(count, 2)
            share, low, high = (100 * one[key] for key in ("fraction", "low", "high"))
            ax.plot([low, high], [y, y], color=colour(i), linewidth=2.2, solid_capstyle="round", alpha=0.55)
            ax.plot([share], [y], "o", color=colour(i), markersize=5)
            words.append(f"{names[i]}, {rate}: {share:.1f} % ({low:.1f} to {high:.1f})")
    ax.set_yticks(range(len(rates)), list(rates))
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(len(rates) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("% of all crystals asked for")
    return figure, f"Rates with Wilson 95 % intervals: {'; '.join(words)}."


def property_histogram(
    label: str,
    values: Sequence[Floats],
    names: Sequence[str],
    targets: Sequence[tuple[float, float | None] | None],
    training: Floats | None,
) -> Drawn:
    """Values of a property beside the training distribution and the targets, as densities.

    Args:
        label: Name of the property with its unit.
        values: Of each run.
        names: Of the runs.
        targets: Target and tolerance of each run; None where there is none.
        training: Values of the reference; None where they are not known.
    """
    figure, (ax,) = canvas()
    marks = [target[0] for target in targets if target is not None]
    edges = _edges([*values, np.array(marks)], training)
    words = []
    if training is not None and len(training):
        heights, _ = np.histogram(np.clip(training, edges[0], edges[-1]), edges, density=True)
        ax.stairs(heights, edges, fill=True, color=NEUTRAL, alpha=0.4, label="training")
        words.append(f"grey: {len(training):,} crystals of the reference, median {np.median(training):.3g}")
    for i, (found, name) in enumerate(zip(values, names, strict=True)):
        if len(found):
            heights, _ = np.histogram(np.clip(found, edges[0], edges[-1]), edges, density=True)
            ax.stairs(heights, edges, color=colour(i), linewidth=1.5, fill=False)
            words.append(f"{name}: {len(found):,} crystals, median {np.median(found):.3g}")
    for target, tolerance in dict.fromkeys(target for target in targets if target is not None):
        ax.axvline(target, color=INK, linewidth=1, linestyle="--")
        if tolerance:
            ax.axvspan(target - tolerance, target + tolerance, color=INK, alpha=0.1, linewidth=0)
        band = f", band: ± {tolerance:g}" if tolerance else ""
        words.append(f"dashed: target {target:g}{band}")
    ax.set_xlabel(label)
    ax.set_ylabel("density")
    ax.set_ylim(bottom=0)
    return figure, f"{label}. " + "; ".join(words) + "."


def _edges(values: Sequence[Floats], training: Floats | None) -> Floats:
    """Bins over the values, and over all but the farthest thousandth of the training values."""
    ends = [np.array([found.min(), found.max()]) for found in values if len(found)]
    if training is not None and len(training):
        ends.append(np.quantile(training, [0.001, 0.999]))
    joined = np.concatenate(ends)
    low, high = float(joined.min()), float(joined.max())
    bins = int(np.clip(2 * np.sqrt(max(map(len, values))), 8, 32))
    return np.linspace(low, high if high > low else low + 1, bins + 1)


def hull_histogram(values: Sequence[Floats], limits: Sequence[float], names: Sequence[str]) -> Drawn:
    """How hull energies are distributed; those beyond the range stand in the outermost bins.

    Args:
        values: Of each run, eV/atom.
        limits: Up to which a crystal is stable, of each run, eV/atom.
        names: Of the runs.
    """
    figure, (ax,) = canvas()
    edges = np.linspace(*HULL_RANGE, 27)
    words = []
    for i, (found, name) in enumerate(zip(values, names, strict=True)):
        heights, _ = np.histogram(np.clip(found, *HULL_RANGE), edges)
        shares = 100 * heights / max(len(found), 1)
        ax.stairs(shares, edges, color=colour(i), alpha=0.18, fill=True)
        ax.stairs(shares, edges, color=colour(i), linewidth=1.5)
        median = f", median {np.median(found):.3f} eV/atom" if len(found) else ""
        below, above = int((found < HULL_RANGE[0]).sum()), int((found > HULL_RANGE[1]).sum())
        first = f", {below:,} below {HULL_RANGE[0]:g} (in the first bin)" if below else ""
        last = f", {above:,} above {HULL_RANGE[1]:g} (in the last bin)" if above else ""
        words.append(f"{name}: {len(found):,} crystals{median}{first}{last}")
    _stable_lines(ax, limits)
    ax.set_xlim(*HULL_RANGE)
    ax.set_ylim(0, max(ax.get_ylim()[1], 1) * 1.1)
    ax.set_xlabel("energy above hull (eV/atom)")
    ax.set_ylabel("% of the crystals with one")
    return figure, f"Energy above hull. {'; '.join(words)}."


def hull_curve(values: Sequence[Floats], limits: Sequence[float], asked: Sequence[int], names: Sequence[str]) -> Drawn:
    """Share of all asked-for crystals whose hull energy is at most x; at the line it is the share of stable ones.

    Args:
        values: Of each run, eV/atom.
        limits: Up to which a crystal is stable, of each run, eV/atom.
        asked: Number of crystals asked for of each run.
        names: Of the runs.
    """
    figure, (ax,) = canvas()
    words = []
    for i, (found, limit, total, name) in enumerate(zip(values, limits, asked, names, strict=True)):
        _cumulative(ax, found, total, HULL_RANGE, color=colour(i))
        words.append(f"{name}: {int((found <= limit).sum()):,} of {total:,} at most {limit:g}")
    _stable_lines(ax, limits)
    ax.set_xlabel("energy above hull (eV/atom)")
    ax.set_ylabel("% of all asked for")
    return figure, f"Share of all crystals asked for, up to a hull energy; those without one count. {'; '.join(words)}."


def _stable_lines(ax: Axes, limits: Sequence[float]) -> None:
    for limit in dict.fromkeys(limits):
        ax.axvline(limit, color=SOFT, linewidth=1, linestyle="--")
        ax.annotate(
            f"{limit:g} eV/atom", (limit, 1), (4, -1), xycoords=("data", "axes fraction"),
            textcoords="offset points", va="top", color=SOFT, fontsize=8,
        )  # fmt: skip


def novelty_curve(label: str, values: Sequence[Floats], vsun: Sequence[Floats], names: Sequence[str]) -> Drawn:
    """Cumulative distributions of the distance to the nearest crystal of the reference.

    Args:
        label: Of the distance.
        values: Of all crystals of each run.
        vsun: Of the VSUN ones.
        names: Of the runs.
    """
    figure, (ax,) = canvas()
    share = 0.99 if max(map(len, values)) > 100 else 1.0
    longest = max((float(np.quantile(found, share)) for found in values if len(found)), default=1.0) or 1.0
    words = []
    for i, name in enumerate(names):
        for found, line, which in ((values[i], "-", "all"), (vsun[i], "--", "VSUN")):
            if len(found):
                _cumulative(ax, found, len(found), (0, longest), color=colour(i), linestyle=line)
                words.append(f"{name}, {which} ({len(found):,}): median {np.median(found):.3g}")
    ax.set_xlabel(label)
    ax.set_ylabel("% of the crystals")
    return figure, f"{label}: solid: all crystals, dashed: VSUN. " + "; ".join(words) + "."


def _cumulative(ax: Axes, values: Floats, total: int, limits: tuple[float, float], **line: Any) -> None:
    """A cumulative distribution as steps within limits; no more points than can be seen."""
    low, high = limits
    x = np.linspace(low, high, 260) if len(values) > 260 else np.sort(np.clip(values, low, high))
    x = np.concatenate([[low], x, [high]])
    y = 100 * np.searchsorted(np.sort(values), x, side="right") / max(total, 1)
    y[0] = 100 * (values < low).sum() / max(total, 1)
    ax.step(x, y, where="post", linewidth=1.5, **line)
    ax.set_xlim(low, high)
    ax.set_ylim(0, 103)
