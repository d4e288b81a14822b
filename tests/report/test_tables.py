"""The table in its formats; names that would break one are escaped."""

from __future__ import annotations

import io
import re

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from mattergen_e.evaluation.schema import Evaluation
from mattergen_e.report import tables
from mattergen_e.report.compare import compare
from mattergen_e.report.rates import Run

NASTY = r"a_b|c*d*{e}%&$#~^\x [bold]<i>`--"


def run(name, un, vsun, gap=None, **changes):
    content = {
        "format": 1,
        "conditions": {} if gap is None else {"dft_band_gap": gap},
        "asked": 1024,
        "rates": {
            "un": {"count": un, "total": 1024},
            "sun": {"count": None, "total": 1024, "reason": "not evaluated"},
            "vsun": {"count": vsun, "total": 1024},
        },
        "reference": {"name": "mp_20", "structures": 25982, "hash": "abc"},
        **changes,
    }
    return Run(name, None, Evaluation.model_validate(content))  # type: ignore[arg-type]


@pytest.fixture
def comparison():
    # Okuda et al., table 1, first block; then a block with a decrease, and one that is not comparable
    runs = [run("base", 697, 143), run(NASTY, 771, 136), run("base", 700, 143, 3.0), run("worse", 500, 140, 3.0)]
    return compare([*runs, run("other", 700, 143, 3.0, reference={"name": "x", "hash": "y"})])


def printed(comparison, width=120):
    console = Console(file=io.StringIO(), width=width)
    for part in tables.terminal(comparison):
        console.print(part)
    return console.file.getvalue()


def test_terminal(comparison):
    lines = printed(comparison).splitlines()

    def row(name):
        return next([cell.strip() for cell in line.split("│")[1:-1]] for line in lines if f"│ {name}" in line)

    assert row("base (baseline)") == ["ab initio", "base (baseline)", "1024", "68.1", "–", "14.0", "–"]
    assert row(NASTY) == ["", NASTY, "1024", "75.3 ↑", "–", "13.3", "–"]
    assert row("worse") == ["", "worse", "1024", "48.8 ↓", "–", "13.7", "–"]
    assert row("other") == ["", "other", "1024", "68.4 ‡", "–", "14.0 ‡", "–"]


def test_terminal_shows_sizes_of_effects(comparison):
    shown = " ".join(printed(comparison).split())
    assert "UN │ +7.2 │ +3.3 to +11.1 │ +0.16 │ 0.0003" in shown
    assert "UN │ -19.5 │ -23.7 to -15.3 │ -0.40 │ < 0.0001" in shown
    assert "‡ other and base (dft_band_gap = 3 eV) are not comparable in UN, VSUN" in shown
    assert "– SUN: not evaluated." in shown


@pytest.mark.parametrize("width", [80, 40])
def test_a_narrow_terminal_loses_no_text(comparison, width):
    assert "…" not in printed(comparison, width)


def cells(html, tag):
    return [re.sub(r"\s+", " ", text) for text in re.findall(rf"<{tag}(?: [^>]*)?>(.*?)</{tag}>", html, re.DOTALL)]


def test_markdown_as_a_parser_reads_it(comparison):
    html = MarkdownIt().enable("table").render(tables.markdown(comparison))
    assert html.count("<table>") == 2
    first = html[: html.index("</table>")]
    assert cells(first, "th") == ["condition", "run", "crystals", "UN", "SUN", "VSUN", "success"]
    body = cells(first, "td")
    assert len(body) == 5 * 7
    escaped = NASTY.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert body[7:14] == ["", escaped, "1024", "<strong>75.3 ↑</strong>", "–", "13.3", "–"]
    assert body[24] == "<strong>48.8 ↓</strong>"
    assert html.count("<em>") == 0 and html.count("<strong>") == 4  # two rates, two p-values


def latex_rows(text):
    return [line.removesuffix(r" \\") for line in text.splitlines() if line.endswith(r" \\")]


def test_latex_is_well_formed(comparison):
    text = tables.latex(comparison)
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        assert kind == "begin" or stack.pop() == name
        if kind == "begin":
            stack.append(name)
    assert stack == [] and text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    bare = re.sub(r"\\[\\{}%&$#_]", "", text.split("\n", 1)[1])  # without escaped characters and the first comment
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert not set("#_~^%|<>") & set(bare)
    assert bare.count("$") % 2 == 0
    columns = [7] * 6 + [7] * (1 + 4)
    assert [len(re.findall(r"(?<!\\)&", row)) + 1 for row in latex_rows(text)] == columns
    assert [len(spec) for spec in re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)] == [7, 7]


def test_latex_cells(comparison):
    rows = latex_rows(tables.latex(comparison))
    name = (
        r"a\_b\textbar{}c*d*\{e\}\%\&\$\#\textasciitilde{}\textasciicircum{}\textbackslash{}x "
        r"{[}bold{]}\textless{}i\textgreater{}`-{}-"
    )
    assert rows[2] == rf" & {name} & 1024 & \textbf{{75.3 $\uparrow$}} & -- & 13.3 & --"
    assert any(r"$-$19.5 & $-$23.7 to $-$15.3 & $-$0.40 & \textbf{\textless{} 0.0001}" in row for row in rows)


def test_one_run_needs_no_second_table():
    text = tables.markdown(compare([run("a", 500, 100)]))
    assert text.count("| --- |") == 1 and "(baseline)" not in text
