"""A comparison of runs: its lines, their rates and what was found of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mattergen_e.evaluation.statistics import Difference, Proportion
from mattergen_e.report.rates import Run


@dataclass(frozen=True)
class Cell:
    """One rate of one run.

    Attributes:
        rate: With its interval.
        difference: From the baseline; None where there is no test.
        p: Of the test, corrected if asked for; None where there is no test.
        significant: Whether p is below alpha.
        untested: Why there is no test; None where there is one, and for the baseline itself.
        comparable: False where the baseline's rate rests on other things.
    """

    rate: Proportion
    difference: Difference | None = None
    p: float | None = None
    significant: bool = False
    untested: str | None = None
    comparable: bool = True

    @property
    def direction(self) -> int:
        """1 where significantly above the baseline, -1 below, else 0."""
        if not self.significant or self.difference is None:
            return 0
        return 1 if self.difference.difference > 0 else -1


@dataclass(frozen=True, eq=False)
class Line:
    """One run in the table: its condition, itself, the baseline of its condition, and its rates by column."""

    condition: str
    run: Run
    baseline: Run
    cells: Mapping[str, Cell]

    @property
    def is_baseline(self) -> bool:
        """Whether the others of its condition are tested against this one."""
        return self.run is self.baseline


@dataclass(frozen=True, eq=False)
class Comparison:
    """The table.

    Attributes:
        lines: Of the same condition together, in the order of the runs.
        alpha: Level of significance; intervals have the confidence 1 - alpha.
        corrected: Whether p-values are corrected for their number by Holm's method.
        success: Property of the success rates, or `all`.
        warnings: What keeps runs from being comparable, one sentence each.
        notes: What a reader of the table has to know, one sentence each.
    """

    lines: tuple[Line, ...]
    alpha: float
    corrected: bool
    success: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def tests(self) -> int:
        """How many tests were made."""
        return sum(cell.p is not None for line in self.lines for cell in line.cells.values())

    @property
    def percent(self) -> str:
        """Confidence of the intervals, in %."""
        return f"{100 * (1 - self.alpha):g} %"
