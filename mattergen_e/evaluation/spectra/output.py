"""`dos_targets` of evaluation.json for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

#: Names of the metrics for people, in the order of "Density of States-Intermediated Crystal Generation", table 3.
METRICS = {
    "cosine": "cosine",
    "pearson": "Pearson",
    "js_divergence": "JS divergence",
    "band_gap": "band gap, MAE",
    "dos_at_fermi": "DOS(E_F), MAE",
    "states_below_fermi": "N(E_F), MAE",
    "mae": "spectrum, MAE",
}


def table(block: Mapping[str, Any]) -> Table:
    """Metrics with their intervals, beside mismatched pairs.

    Args:
        block: `dos_targets` of evaluation.json.
    """
    from rich.table import Table

    title = f"densities of states against {block['targets']['curves']} targets, {block['crystals']} of {block['asked']}"
    found = Table("", "unit", title=f"{title} crystals", title_justify="left")
    for column in ("crystals", "95 % interval", "random pairing"):
        found.add_column(column, justify="right")
    for name, label in METRICS.items():
        metric = block.get(name)
        if metric is not None:
            ends = "-" if metric["low"] is None else f"{metric['low']:.3f} to {metric['high']:.3f}"
            found.add_row(label, metric["unit"], _number(metric["value"]), ends, _number(metric["random"]))
    return found


def sentences(block: Mapping[str, Any]) -> list[str]:
    """Where the spectra come from, what was not judged, the filter, and the crystals that the targets are of."""
    of = ", ".join(f"{number} {kind}" for kind, number in block["structures"].items() if number)
    lines = [f"Spectra by {block['source']} ({of or 'no crystal'})."]
    if block["not_judged"]:
        lines.append(f"Without a spectrum: {', '.join(f'{n} {reason}' for reason, n in block['not_judged'].items())}.")
    if "no_random" in block:
        lines.append(f"No random pairing: {block['no_random']}.")
    rate = block.get("te_filter") or {}
    if rate.get("fraction") is not None:
        lines.append(f"Filter for thermoelectric materials: {rate['count']} of {rate['total']} crystals pass.")
    truth = block.get("truth")
    if truth:
        for name in ("structure", "composition"):
            match = truth[f"{name}_match"]
            if match["fraction"] is not None:
                lines.append(f"Same {name} as the target's crystal: {match['count']} of {match['total']}.")
        if "mae_generated_target" in truth:
            values = [truth[f"mae_{which}"]["value"] for which in _ERRORS]
            listed = ", ".join(f"{label} {_number(v)}" for label, v in zip(_ERRORS.values(), values, strict=True))
            lines.append(f"MAE in states/eV per atom: {listed}.")
    return lines


_ERRORS = {
    "generated_target": "generated to target",
    "generated_predicted": "generated to predicted of the target's crystal",
    "predicted_target": "that to target",
}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
