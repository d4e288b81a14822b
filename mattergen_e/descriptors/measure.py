"""How generated values of a descriptor are judged by computed ones, and what that is called where people see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A distance between generated and computed values of a descriptor.

    Attributes:
        key: Name of the comparison in evaluation.json and prefix of its arrays in descriptor_sites.npz.
        column: Name of the crystal's mean in crystals.csv and crystals.jsonl.
        name: Of the distance, as people say it, e.g. 'mean absolute error'.
        unit: Of the distance.
        title: Heading of the descriptor's section in the report.
        axis: What an axis of a figure of the values says, with the unit.
        distance: Distance of each row: (n_rows, dim) generated and (n_rows, dim) computed values to (n_rows,), NaN
            where there is none.
        summary: Which number stands for many rows.
        noun: What people call the values, in the plural.
    """

    key: str
    column: str
    name: str
    unit: str
    title: str
    axis: str
    distance: Callable[[NDArray[np.floating], NDArray[np.floating]], NDArray[np.float64]]
    summary: Literal["mean", "median"] = "mean"
    noun: str = "values"

    @property
    def mean_key(self) -> str:
        """Of the mean distance in evaluation.json."""
        return "mae" if self.name == "mean absolute error" else "mean"


def mean_absolute(generated: NDArray[np.floating], reference: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean absolute difference over the components of each row, (n_rows, dim) twice to (n_rows,)."""
    return np.abs(np.asarray(generated, dtype=np.float64) - reference).mean(axis=-1)
