"""`dos_targets` of evaluation.json: spectra against what crystals were asked for, as tables need it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

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


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Interval(_Part):
    """A mean and the ends of its interval."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Metric(Interval):
    """The same, beside that of mismatched pairs, and the difference of the two."""

    random: float | None = None
    random_low: float | None = None
    random_high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


class Share(_Part):
    """A rate of crystals."""

    fraction: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


class Truth(_Part):
    """Errors and match rates of DOSMatGen."""

    crystals: int = 0
    mae_generated_target: Interval = Interval()
    mae_generated_predicted: Interval = Interval()
    mae_predicted_target: Interval = Interval()
    cosine_predicted_target: Interval = Interval()
    structure_match: Share = Share()
    composition_match: Share = Share()


class Targets(_Part):
    """What the crystals were held against."""

    file: str | None = None
    curves: int | None = None
    sha256: str | None = None
    given: bool = False


class DosTargets(_Part):
    """The block; a metric that is not there was not evaluated."""

    source: str
    asked: int = Field(default=0, ge=0)
    crystals: int = Field(default=0, ge=0)
    targets: Targets = Targets()
    structures: dict[str, int] = {}
    interval: dict[str, Any] = {}
    cosine: Metric = Metric()
    pearson: Metric = Metric()
    js_divergence: Metric = Metric()
    band_gap: Metric = Metric()
    dos_at_fermi: Metric = Metric()
    states_below_fermi: Metric = Metric()
    mae: Metric = Metric()
    te_filter: Share = Share()
    truth: Truth | None = None

    def metric(self, name: str) -> Metric:
        """One of `METRICS`."""
        return getattr(self, name)


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
