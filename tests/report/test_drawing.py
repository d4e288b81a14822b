"""Figures inside a page."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest

from mattergen_e.report import descriptor_figures, figures
from mattergen_e.report.drawing import SERIES, key, picture, style
from mattergen_e.report.html import formula, table
from mattergen_e.report.runs import SitePairs
from mattergen_e.report.sections import errors


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with style():
        yield


def test_a_figure_takes_the_page_s_colours_and_fonts():
    drawn = picture(*figures.hull_histogram([np.array([0.02, 0.2, 3.0])], [0.1], ["a $x$"]))
    assert "var(--series-0)" in drawn and "var(--ink)" in drawn
    assert not re.search(r"<style|<metadata|<!--|font-family|font:|\bid=\"(figure|axes|patch|text)_", drawn)
    assert not any(colour in drawn for colour in SERIES)
    assert "a $x$: 3 crystals, median 0.200 eV/atom, 1 above 1 (in the last bin)" in drawn


def test_the_same_figure_twice_is_the_same_text():
    def draw() -> str:
        return picture(*figures.novelty_curve("d", [np.array([1.0, 2.0])], [np.array([])], ["a"]))

    assert draw() == draw()


def lines_of(figure) -> list[tuple[np.ndarray, np.ndarray]]:
    return [line.get_data() for line in figure.axes[0].lines]


@pytest.mark.parametrize("count", [5, 1000])
def test_cumulative_shares(count):
    """Energies spread evenly from 0 to 0.5 of half of the crystals: 10 % of all are at most 0.1, 50 % arrive."""
    values = np.linspace(0, 0.5, count)
    figure, _ = figures.hull_curve([values], [0.1], [2 * count], ["a"])
    x, y = lines_of(figure)[0]
    assert y[0] == 0 and y[-1] == 50
    assert y[np.searchsorted(x, 0.1, side="right") - 1] == pytest.approx(10, abs=0.5)
    assert np.all(np.diff(y) >= 0)


def test_parity_of_each_element():
    """O is exact, H off by 0.1 e."""
    numbers = np.array([8, 8, 8, 1])
    reference = np.array([-1.0, -1.1, -1.2, 0.5])
    pairs = SitePairs(
        crystal=np.zeros(4, int), site=np.arange(4), number=numbers, sun=np.array([True, True, True, False]),
        generated=reference + 0.1 * (numbers == 1), reference=reference,
    )  # fmt: skip
    figure, words = descriptor_figures.parity_by_element(pairs, "charge (e)", "e", "a", 0)
    assert words.endswith("MAE in e: O 0.000, H 0.100.")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["O (3)", "H (1)"]
    _, words = descriptor_figures.parity(pairs, "charge (e)", "e", "a", 0)
    assert words == "a: MAE 0.025 e of 4 sites; SUN crystals (filled): MAE 0.000 e of 3 sites."


def test_examples_stand_at_their_percentiles():
    n = 101
    energies = np.linspace(-5, 5, 20)
    pairs = SitePairs(
        crystal=np.arange(n), site=np.zeros(n, int), number=np.full(n, 6), sun=np.zeros(n, bool),
        generated=np.ones((n, 20)), reference=np.ones((n, 20)),
        distance=np.random.default_rng(0).permutation(np.arange(n) / 100), energies=energies,
    )  # fmt: skip
    assert pairs.distance is not None
    figure, _ = descriptor_figures.spectra_examples(pairs, {}, "a", 0)
    found = [ax.get_title(loc="left").split(":") for ax in figure.axes]
    assert [title for title, _ in found] == ["1 %", "50 %", "90 %"]
    assert [float(said.split()[0]) for _, said in found] == [0.01, 0.5, 0.9]


def test_a_property_beyond_the_training_distribution_is_in_the_picture():
    figure, words = figures.property_histogram(
        "gap (eV)", [np.array([9.0, 9.5])], ["a"], [(12.0, None)], np.linspace(0, 5, 100)
    )
    low, high = figure.axes[0].get_xlim()
    assert low <= 0 and high >= 12
    assert "target 12" in words and "band" not in words


def test_a_periodic_table_of_errors():
    drawn = errors({"Na": 0.05, "Cl": 0.2, "U": 0.1}, {"Na": 3, "Cl": 5}, 0.2, "MAE of charges", "e")
    tiles = dict(re.findall(r"<title>([A-Z][a-z]?): (.*?)</title>", drawn))
    assert len(tiles) == 118
    assert (tiles["Na"], tiles["Cl"], tiles["He"]) == ("0.050 e, 3 sites", "0.200 e, 5 sites", "no sites")
    places = {
        symbol: (int(x), int(y))
        for symbol, x, y in re.findall(r'<title>([A-Z][a-z]?):.*?</title><rect x="(\d+)" y="(\d+)"', drawn)
    }
    assert places["H"] == (1, 1) and places["He"] == (851, 1) and places["Na"] == (1, 101)
    assert places["Cl"] == (801, 101) and places["U"][0] == places["Nd"][0]
    fills = dict(re.findall(r'<title>([A-Z][a-z]?):.*?fill="(.*?)"', drawn))
    assert fills["Cl"] == "rgb(68, 1, 84)" and fills["He"] == "var(--none)"
    assert "from 0.050 (Na) to 0.200 (Cl) e" in drawn


def test_runs_are_named_only_where_there_are_several():
    assert key(["one"]) == ""
    assert key(["<a>", "b"]).count("<li>") == 2 and "&lt;a&gt;" in key(["<a>", "b"])


def test_formulas_and_tables_are_escaped():
    assert formula("Mg2Si") == "Mg<sub>2</sub>Si"
    assert formula("Ca(OH)2") == "Ca(OH)<sub>2</sub>"
    assert formula("<b>x'2") == "&lt;b&gt;x&#39;2"
    assert "&lt;i&gt;" in table(("a", "<i>"), [("1", "2")], "<c>")
