"""Which crystals are kept, in which order, and why the others are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.evaluation.candidates import Candidate, structure_key
from mattergen_e.screening import ranking
from mattergen_e.screening.settings import ScreenSettings
from mattergen_e.screening.target import Target
from mattergen_e.spectra.grid import EnergyGrid

GRID = EnergyGrid(minimum=-10, maximum=10, points=40)
FILE = Path("target.csv")


def peak(centre: float) -> np.ndarray:
    return np.exp(-0.5 * (GRID.energies - centre) ** 2).astype(np.float32)


@pytest.fixture
def target() -> Target:
    return Target("t", peak(0.0).astype(float), np.ones(40, dtype=bool), GRID)


@pytest.fixture
def candidates(textbook: dict[str, Any]) -> list[Candidate]:
    """Five crystals and one that was never made."""
    names = ("MgSe", "BaS", "NaI", "SrTe", "Al2O3")
    found = [Candidate(i, textbook[name], None, structure_key(textbook[name])) for i, name in enumerate(names)]
    return [*found, Candidate(5, None, "not_generated", "x", sentence="no draw gave a crystal")]


def results(candidates: list[Candidate], formation: list[float | None], hull: list[float | None] | None = None) -> Any:
    relaxed = {
        c.key: {"ok": True, "energy_per_atom": -1.0, "converged": True, "steps": 2, "rmsd": 0.1} for c in candidates
    }
    energies = {}
    for c, e, h in zip(candidates, formation, hull or [None] * 9, strict=False):
        sentence = None if e is not None else "no energy of Ba"
        energies[c.key] = {"formation_energy_per_atom": e, "energy_above_hull": h, "sentence": sentence}
    return relaxed, energies


def test_the_first_reason_counts(candidates: list[Candidate]) -> None:
    relaxed, energies = results(candidates, [-2.0, None, -1.4, -2.0, -3.0], [0.0, None, 0.0, 0.3, 0.1])
    relaxed[candidates[4].key] |= {"ok": False, "sentence": "it took longer than 120 s and was stopped"}
    settings = ScreenSettings(target=FILE, max_formation_energy=-1.5, max_energy_above_hull=0.1)
    rows = ranking.make_rows(candidates, relaxed, energies, settings)
    assert [row["dropped"] for row in rows] == [
        None, "no_energy", "formation_energy_per_atom", "energy_above_hull", "not_relaxed", "unreadable"
    ]  # fmt: skip
    assert [row["id"] for row in rows] == [f"gen_{i}" for i in range(6)]
    assert rows[2]["reason"] == "-1.400 eV/atom, more than -1.5" and rows[4]["reason"].endswith("was stopped")
    assert ranking.counts(rows) == dict.fromkeys(
        ["unreadable", "not_relaxed", "no_energy", "formation_energy_per_atom", "energy_above_hull"], 1
    )
    lowest = ranking.nearest_miss(rows)
    assert lowest["formation_energy_per_atom"] == {"id": "gen_0", "formula": "MgSe", "value": -2.0}
    assert set(rows[0]) == set(ranking.COLUMNS) and set(ranking.counts(rows)) < set(ranking.DROPPED)


def test_a_limit_is_reached_but_not_passed(candidates: list[Candidate]) -> None:
    settings = ScreenSettings(target=FILE, max_formation_energy=-1.5)
    rows = ranking.make_rows(candidates[:2], *results(candidates[:2], [-1.5, np.nextafter(-1.5, 0)]), settings)
    assert [row["dropped"] for row in rows] == [None, "formation_energy_per_atom"]


def test_without_limits_an_unknown_energy_drops_nothing(candidates: list[Candidate]) -> None:
    rows = ranking.make_rows(candidates[:2], *results(candidates[:2], [None, 3.0]), ScreenSettings(target=FILE))
    assert [row["dropped"] for row in rows] == [None, None]


@pytest.fixture
def rows(candidates: list[Candidate]) -> list[dict[str, Any]]:
    """Of five crystals that are kept."""
    settings = ScreenSettings(target=FILE)
    return ranking.make_rows(candidates[:5], *results(candidates[:5], [-1.0, -2.0, -1.0, -1.0, -1.0]), settings)


def test_the_nearest_comes_first(rows: list[dict[str, Any]], target: Target) -> None:
    spectra = {0: peak(3)[None], 1: peak(1)[None], 2: peak(0)[None], 3: "it has no neighbours", 4: np.zeros((1, 40))}
    settings = ScreenSettings(target=FILE, distance="wasserstein", top=2)
    ranking.measure(rows, spectra, target, settings)  # type: ignore[arg-type]
    found = ranking.ordered(rows)
    assert [row["index"] for row in found] == [2, 1, 0]
    assert [row["distance"] for row in found] == pytest.approx([0.0, 1.0, 3.0], abs=1e-3)
    assert found[1]["cosine_distance"] == pytest.approx(1 - np.exp(-0.25), abs=1e-5)
    assert rows[3]["reason"] == "it has no neighbours" and rows[4]["dropped"] == "no_states"
    shortlist = ranking.rank(found, [0, 1, 2], settings.top)
    assert [row["index"] for row in shortlist] == [2, 1] and [row["rank"] for row in found] == [1, 2, 3]
    assert ranking.counts(rows) == {"no_spectrum": 1, "no_states": 1, "rank": 1}


def test_energy_settles_a_tie(rows: list[dict[str, Any]], target: Target) -> None:
    ranking.measure(rows, {i: peak(1)[None] for i in range(5)}, target, ScreenSettings(target=FILE))
    assert [row["index"] for row in ranking.ordered(rows)] == [1, 0, 2, 3, 4]


def test_a_crystal_stands_in_the_shortlist_once(rows: list[dict[str, Any]], target: Target) -> None:
    ranking.measure(rows, {i: peak(i)[None] for i in range(5)}, target, ScreenSettings(target=FILE))
    shortlist = ranking.rank(ranking.ordered(rows), [0, 0, 2, 2, 4], 2)
    assert [row["index"] for row in shortlist] == [0, 2] and rows[4]["rank"] == 3
    assert [row["duplicate_of"] for row in rows] == [None, "gen_0", None, "gen_2", None]
    assert ranking.counts(rows) == {"duplicate": 2, "rank": 1}


@pytest.mark.parametrize(("site", "nearest", "distance"), [("any", 1, 0.0), (0, 0, 4.0), (2, 2, 2.0)])
def test_sites(rows: list[dict[str, Any]], target: Target, site: Any, nearest: int, distance: float) -> None:
    sites = np.stack([peak(4), peak(0), peak(-2)])
    settings = ScreenSettings(target=FILE, distance="wasserstein", site=site)
    ranking.measure(rows, dict.fromkeys(range(5), sites), target, settings)
    assert all(row["site"] == nearest for row in rows)
    assert rows[0]["distance"] == pytest.approx(distance, abs=1e-3)


def test_a_site_that_is_not_there(rows: list[dict[str, Any]], target: Target) -> None:
    ranking.measure(rows, {i: peak(0)[None] for i in range(5)}, target, ScreenSettings(target=FILE, site=1))
    assert {row["dropped"] for row in rows} == {"no_spectrum"} and "no site 1" in rows[0]["reason"]
