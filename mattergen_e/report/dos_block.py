"""How `dos_targets` of evaluation.json is put into words: heads, units, numbers and intervals."""

from __future__ import annotations

#: Metrics in the order of "Density of States-Intermediated Crystal Generation", table 3, with head and unit.
METRICS = {
    "cosine": ("cosine", ""),
    "pearson": ("Pearson", ""),
    "js_divergence": ("JS divergence", ""),
    "band_gap": ("band gap error", "eV"),
    "dos_at_fermi": ("DOS(E_F) error", "states/eV"),
    "states_below_fermi": ("N(E_F) error", "states"),
    "mae": ("MAE", "states/eV"),
}
#: Errors of DOSMatGen, table 1, with their head; y_hat is the prediction for the crystal that a target is of.
ERRORS = {
    "mae_generated_target": "MAE(y_gen, y)",
    "mae_generated_predicted": "MAE(y_gen, y_hat)",
    "mae_predicted_target": "MAE(y_hat, y)",
}
#: Rates of DOSMatGen, table 2.
MATCHES = {"structure_match": "structure match, %", "composition_match": "composition match, %"}


def head(name: str) -> str:
    """Of a metric's column, with its unit."""
    words, unit = METRICS[name]
    return f"{words} ({unit})" if unit else words


def shown(value: float | None, unknown: str = "–") -> str:
    """A number for people."""
    return unknown if value is None else f"{value:.3f}"


def between(low: float | None, high: float | None, unknown: str = "–") -> str:
    """An interval for people."""
    return unknown if low is None or high is None else f"{low:.3f}–{high:.3f}"
