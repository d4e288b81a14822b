"""Tables of a comparison about spectra: against the targets, beside random pairing, and against the right crystals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mattergen_e.evaluation.schema import DosTargets
from mattergen_e.report.dos_block import ERRORS, MATCHES, METRICS, between, head, shown
from mattergen_e.report.grid import Grid, Text
from mattergen_e.report.notes import UNKNOWN

if TYPE_CHECKING:
    from mattergen_e.report.comparison import Comparison
    from mattergen_e.report.rates import Run

ROWS = ("", "95 %", "random")


def grids(comparison: Comparison) -> Iterator[Grid]:
    """The tables; none where no run was held against densities of states."""
    judged = [line.run for line in comparison.lines if line.run.evaluation.dos_targets is not None]
    if judged:
        yield spectra(judged)
    if any(_block(run).truth is not None for run in judged):
        yield truth([run for run in judged if _block(run).truth is not None])


def spectra(runs: list[Run]) -> Grid:
    """Metrics as in "Density of States-Intermediated Crystal Generation", table 3; three rows for a run."""
    columns = ("run", "", "crystals", *map(head, METRICS), "TE filter, %")
    return Grid(
        "Densities of states against what was asked for", columns, tuple(tuple(_rows(run)) for run in runs), texts=2
    )


def _rows(run: Run) -> Iterator[tuple[Text, ...]]:
    block = _block(run)
    metrics = [block.metric(name) for name in METRICS]
    share = block.te_filter.fraction
    filtered = UNKNOWN if share is None else f"{100 * share:.1f}"
    cells = [shown(metric.value, UNKNOWN) for metric in metrics]
    yield _texts(run.name, ROWS[0], f"{block.crystals} of {block.asked}", *cells, filtered)
    ends = [between(metric.low, metric.high, UNKNOWN) for metric in metrics]
    low, high = block.te_filter.low, block.te_filter.high
    yield _texts(
        "", ROWS[1], "", *ends, UNKNOWN if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f}"
    )
    yield _texts("", ROWS[2], "", *(shown(metric.random, UNKNOWN) for metric in metrics), "")


def truth(runs: list[Run]) -> Grid:
    """Errors and match rates as in DOSMatGen, tables 1 and 2."""
    columns = ("run", "crystals", *(f"{words} (states/eV)" for words in ERRORS.values()), *MATCHES.values())
    rows = []
    for run in runs:
        block = _block(run)
        found = block.truth
        assert found is not None
        errors = [getattr(found, name).value for name in ERRORS]
        rates = [getattr(found, name).fraction for name in MATCHES]
        percent = [UNKNOWN if rate is None else f"{100 * rate:.1f}" for rate in rates]
        rows.append(_texts(run.name, str(block.asked), *(shown(error, UNKNOWN) for error in errors), *percent))
    return Grid("Generated crystals and those that the targets are of", columns, (tuple(rows),), texts=1)


def _block(run: Run) -> DosTargets:
    block = run.evaluation.dos_targets
    assert block is not None
    return block


def _texts(*cells: str) -> tuple[Text, ...]:
    return tuple(map(Text, cells))
