"""A comparison on paper: for the terminal, as Markdown, as LaTeX. Names are escaped here, for each format its way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mattergen_e.report import dos_tables
from mattergen_e.report.grid import Grid, Text
from mattergen_e.report.notes import NOT_COMPARABLE, ROUGH, UNKNOWN
from mattergen_e.report.rates import COLUMNS

if TYPE_CHECKING:
    from mattergen_e.report.comparison import Cell, Comparison, Line

ARROWS = {1: "↑", -1: "↓"}
_STYLES = {0: "", 1: "bold green", -1: "bold red"}

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~$&])")
#: A minus sign, and a hyphen before another one (two make a dash).
_LATEX_MINUS, _LATEX_DASH = re.compile(r"(?<!\S)-(?=\d)"), re.compile(r"-(?=-)")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "]": "{]}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "≈": r"$\approx$", "–": "--", "‡": r"\ddag{}", "Å": r"\AA{}",
    "≤": r"$\leq$",
}  # fmt: skip


def rates(comparison: Comparison) -> Grid:
    """The rates in %, as in Okuda et al., table 1: a group of rows for each condition."""
    head = ("condition", "run", "crystals", *COLUMNS.values())
    groups = []
    for members in _by_condition(comparison):
        rows = []
        for i, line in enumerate(members):
            name = f"{line.run.name} (baseline)" if line.is_baseline and len(members) > 1 else line.run.name
            start = (line.condition if i == 0 else "", name, str(line.run.evaluation.asked))
            rows.append((*map(Text, start), *(_rate(cell) for cell in line.cells.values())))
        groups.append(tuple(rows))
    return Grid("Rates of generated crystals, %", head, tuple(groups), texts=2)


def differences(comparison: Comparison) -> Grid:
    """What was tested: the differences in percentage points, their intervals, Cohen's h and p."""
    p = "p (Holm)" if comparison.corrected else "p"
    head = ("condition", "run", "rate", "difference", "interval", "Cohen's h", p)
    groups = []
    for members in _by_condition(comparison):
        rows = []
        for line in members:
            for column, cell in line.cells.items():
                if cell.difference is not None and cell.p is not None:
                    names = (line.run.name, COLUMNS[column])
                    rows.append((Text("" if rows else line.condition), *map(Text, names), *_numbers(cell)))
        if rows:
            groups.append(tuple(rows))
    return Grid(
        f"Differences from the baseline in percentage points, with {comparison.percent} intervals",
        head,
        tuple(groups),
        texts=3,
    )


def terminal(comparison: Comparison) -> list[Any]:
    """Rich tables and texts."""
    from rich import text

    shown = [_rich(grid) for grid in _grids(comparison)]
    below = [text.Text(sentence, style="bold yellow") for sentence in comparison.warnings]
    return [*shown, *below, *(text.Text(sentence, style="dim") for sentence in comparison.notes)]


def markdown(comparison: Comparison) -> str:
    """Tables in GitHub's Markdown, and the sentences as a list."""
    parts = []
    for grid in _grids(comparison):
        rule = ["---"] * grid.texts + ["--:"] * (len(grid.head) - grid.texts)
        lines = [[_markdown(name) for name in grid.head], rule]
        lines += [[_bold(cell, _markdown, "**{}**") for cell in row] for group in grid.groups for row in group]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts += [f"{_markdown(grid.title)}:", table]
    sentences = "\n".join(f"- {_markdown(sentence)}" for sentence in _below(comparison))
    return "\n\n".join([*parts, sentences]) + "\n"


def latex(comparison: Comparison) -> str:
    """A floating table for each grid, with booktabs; the sentences stand below the first."""
    notes = " ".join(_latex(sentence) for sentence in _below(comparison))
    parts = [r"% needs \usepackage{booktabs}"]
    for i, grid in enumerate(_grids(comparison)):
        groups = [
            "\n".join(" & ".join(_bold(cell, _latex, r"\textbf{{{}}}") for cell in row) + r" \\" for row in group)
            for group in grid.groups
        ]
        below = ["", r"\smallskip", rf"\parbox{{\linewidth}}{{\footnotesize {notes}}}"] if i == 0 else []
        parts += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(grid.title)}}}",
            rf"\begin{{tabular}}{{{'l' * grid.texts}{'r' * (len(grid.head) - grid.texts)}}}",
            r"\toprule",
            " & ".join(_latex(name) for name in grid.head) + r" \\",
            r"\midrule",
            "\n\\midrule\n".join(groups),
            r"\bottomrule",
            r"\end{tabular}",
            *below,
            r"\end{table}",
        ]
    return "\n".join(parts) + "\n"


def _grids(comparison: Comparison) -> Iterator[Grid]:
    yield rates(comparison)
    if comparison.tests:
        yield differences(comparison)
    yield from dos_tables.grids(comparison)


def _below(comparison: Comparison) -> tuple[str, ...]:
    return (*comparison.warnings, *comparison.notes)


def _by_condition(comparison: Comparison) -> Iterable[list[Line]]:
    groups: dict[str, list[Line]] = {}
    for line in comparison.lines:
        groups.setdefault(line.condition, []).append(line)
    return groups.values()


def _rate(cell: Cell) -> Text:
    if cell.rate.fraction is None:
        return Text(UNKNOWN)
    marks = ROUGH if cell.difference is not None and cell.difference.rough else ""
    marks += "" if cell.comparable else NOT_COMPARABLE
    shown = f"{100 * cell.rate.fraction:.1f}"
    return Text(" ".join(filter(None, (shown, ARROWS.get(cell.direction), marks))), cell.direction)


def _numbers(cell: Cell) -> tuple[Text, ...]:
    found, p = cell.difference, cell.p
    assert found is not None and p is not None
    interval = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
    shown = (f"{100 * found.difference:+.1f}", interval, f"{found.cohens_h:+.2f}")
    return (*map(Text, shown), Text(f"{p:.4f}" if p >= 1e-4 else "< 0.0001", cell.direction))


def _rich(grid: Grid) -> Any:
    from rich.table import Table
    from rich.text import Text as RichText

    table = Table(title=grid.title, title_justify="left")
    for i, name in enumerate(grid.head):
        table.add_column(RichText(name), justify="left" if i < grid.texts else "right", overflow="fold")
    for group in grid.groups:
        for row in group:
            table.add_row(*(RichText(cell.text, style=_STYLES[cell.direction]) for cell in row))
        table.add_section()
    return table


def _bold(cell: Text, escape: Callable[[str], str], form: str) -> str:
    text = escape(cell.text)
    return form.format(text) if cell.direction else text


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _latex(text: str) -> str:
    escaped = "".join(_LATEX.get(character, character) for character in _LATEX_DASH.sub("-\0", text))
    return _LATEX_MINUS.sub("$-$", escaped.replace("\0", "{}"))
