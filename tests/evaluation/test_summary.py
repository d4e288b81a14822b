"""Rates of rows whose verdicts are set by hand."""

from __future__ import annotations

import itertools
import json
import math

import pytest

from mattergen_e.evaluation.summary import all_of, distribution, summarise, verdicts


def row(index=0, **fields):
    """A crystal that passes everything, but for what is given."""
    return {
        "index": index, "sites": 2, "readable": True, "reason": None, "structure_valid": True, "unique": True,
        "novel": True, "valid": True, "stable": True, "relaxed": True, "converged": True, "relax_steps": 10,
        "relax_seconds": 1.0, "relax_reason": None, "rmsd": 0.1, "energy_above_hull": 0.05, "properties": {},
        "novelty_magpie": None, "novelty_amd": None, "charge_mae": None, "dos_wasserstein": None, **fields,
    }  # fmt: skip


def gap(within, target=3.0, **fields):
    return {
        "dft_band_gap": {"value": 2.8, "target": target, "tolerance": 0.5, "within": within, "source": "made up"}
        | fields
    }


FAILED = {
    "index": 9, "readable": False, "reason": "broken_cif", "unique": False, "novel": False, "valid": False,
    "stable": False, "structure_valid": False, "properties": {},
}  # fmt: skip


@pytest.mark.parametrize("values", itertools.product([True, False, None], repeat=3))
def test_one_false_is_enough_and_nothing_unknown_is_guessed(values):
    # the answer is known if, and only if, it is the same for every way to fill in what is not
    fillings = itertools.product(*([value] if value is not None else [True, False] for value in values))
    answers = {all(filled) for filled in fillings}
    assert all_of(*values) == (answers.pop() if len(answers) == 1 else None)


def test_verdicts_follow_from_each_other():
    assert verdicts(row(properties=gap(True))) == {
        "un": True, "sun": True, "vsun": True, "success": {"dft_band_gap": True}, "success_all": True,
    }  # fmt: skip
    assert verdicts(row(valid=False, properties=gap(True)))["success"] == {"dft_band_gap": False}
    assert verdicts(row(novel=False, stable=None, valid=None)) == {
        "un": False, "sun": False, "vsun": False, "success": {}, "success_all": None,
    }  # fmt: skip
    assert verdicts(row(stable=None))["sun"] is None and verdicts(row(stable=None, valid=False))["vsun"] is False
    assert verdicts(row(properties=gap(None)))["success_all"] is None
    assert verdicts(row(properties=gap(None, target=None)))["success"] == {}


def test_a_crystal_that_could_not_be_read_passes_nothing():
    found = verdicts({"index": 0, "readable": False, "properties": None})
    assert found == {"un": False, "sun": False, "vsun": False, "success": {}, "success_all": None}


def test_rates_are_fractions_of_all_asked_for():
    rows = [row(0), row(1, unique=False), row(2, novel=False), row(3, stable=False), row(4, valid=False), FAILED]
    found = summarise(rows)
    counts = {name: rate["count"] for name, rate in found["rates"].items()}
    assert counts == {
        "unique": 4, "novel": 4, "stable": 4, "valid": 4, "structure_valid": 5, "un": 3, "sun": 2, "vsun": 1,
    }  # fmt: skip
    assert {rate["total"] for rate in found["rates"].values()} == {6}
    assert found["rates"]["vsun"]["fraction"] == pytest.approx(1 / 6)
    assert (found["asked"], found["readable"], found["failures"]) == (6, 5, {"broken_cif": 1})
    assert found["success"] == {}


def test_what_was_not_evaluated_is_null_with_a_reason():
    rates = summarise([row(i, stable=None, valid=None) for i in range(4)])["rates"]
    for name in ("stable", "valid", "sun", "vsun"):
        assert (rates[name]["count"], rates[name]["fraction"], rates[name]["reason"]) == (None, None, "not evaluated")
    assert rates["un"]["fraction"] == 1.0 and "reason" not in rates["un"]


def test_relaxing_the_un_ones_only_is_enough_for_sun():
    rates = summarise([row(0), row(1, novel=False, stable=None, relaxed=None), row(2, stable=False)])["rates"]
    assert (rates["sun"]["count"], rates["sun"]["total"]) == (1, 3)
    assert rates["stable"]["reason"] == "evaluated for 2 of 3 crystals"


def test_success_is_vsun_and_within_the_tolerance():
    rows = [
        row(0, properties=gap(True)),
        row(1, properties=gap(False)),
        row(2, valid=False, properties=gap(True)),
        {**FAILED, "properties": gap(None, value=None, source=None)},
    ]
    found = summarise(rows)["success"]
    assert (found["dft_band_gap"]["count"], found["dft_band_gap"]["total"]) == (1, 4)
    assert [found["dft_band_gap"][key] for key in ("target", "tolerance", "source")] == [3.0, 0.5, "made up"]
    assert found["all"]["fraction"] == 0.25


def test_success_in_all_properties_at_once():
    other = {
        "formation_energy_per_atom": {"value": -1.0, "target": -1.0, "tolerance": 0.2, "within": True, "source": "x"}
    }
    rows = [row(0, properties=gap(True) | other), row(1, properties=gap(False) | other)]
    found = summarise(rows)["success"]
    assert {name: rate["count"] for name, rate in found.items()} == {
        "dft_band_gap": 1, "formation_energy_per_atom": 2, "all": 1,
    }  # fmt: skip


def test_success_is_not_known_where_a_vsun_crystal_has_no_value():
    found = summarise(
        [row(0, properties=gap(True)), row(1, properties=gap(None)), row(2, valid=False, properties=gap(None))]
    )
    assert found["success"]["all"]["reason"] == "evaluated for 2 of 3 crystals"
    assert found["success"]["dft_band_gap"]["fraction"] is None


def test_targets_that_differ_are_listed():
    found = summarise([row(0, properties=gap(True)), row(1, properties=gap(True, target=1.0))])
    assert found["success"]["dft_band_gap"]["target"] == [3.0, 1.0]


def test_relaxations():
    rows = [
        row(0, rmsd=0.1, energy_above_hull=0.0),
        row(1, rmsd=0.3, converged=False, energy_above_hull=0.2),
        row(2, relaxed=False, rmsd=None, energy_above_hull=None, relax_reason="time_limit"),
        row(3, relaxed=None, rmsd=None, energy_above_hull=None),
        {**FAILED, "relaxed": False},
    ]
    found = summarise(rows)["relaxation"]
    assert [found[name] for name in ("asked", "finished", "converged", "failures")] == [3, 2, 1, {"time_limit": 1}]
    assert found["rmsd"]["mean"] == pytest.approx(0.2)
    assert found["energy_above_hull"] == {
        "crystals": 2, "mean": pytest.approx(0.1), "median": pytest.approx(0.1),
        "quantiles": pytest.approx({"0.05": 0.01, "0.25": 0.05, "0.5": 0.1, "0.75": 0.15, "0.95": 0.19}),
    }  # fmt: skip


def test_novelty_of_all_and_of_vsun():
    rows = [row(0, novelty_magpie=10.0), row(1, novelty_magpie=30.0, valid=False), FAILED]
    found = summarise(rows)["novelty"]
    assert (found["magpie"]["mean"], found["vsun"]["magpie"]["mean"]) == (20.0, 10.0)
    assert found["amd"]["reason"] == "not evaluated" and found["amd"]["mean"] is None


def test_descriptor_errors_are_means_over_sites():
    rows = [row(0, sites=2, charge_mae=0.1), row(1, sites=6, charge_mae=0.3, stable=False), row(2), FAILED]
    found = summarise(rows)["descriptors"]
    assert found == {
        "bader_charge": {
            "all": {"mae": pytest.approx(0.25), "sites": 8, "crystals": 2},  # (2 * 0.1 + 6 * 0.3) / 8
            "sun": {"mae": pytest.approx(0.1), "sites": 2, "crystals": 1},
        }
    }
    none = summarise([row(0, charge_mae=0.1, stable=False)])["descriptors"]["bader_charge"]["sun"]
    assert none == {"mae": None, "sites": 0, "crystals": 0, "reason": "no crystals"}


def test_no_rows_at_all():
    found = summarise([])
    assert found["asked"] == 0 and found["rates"]["un"]["reason"] == "there are no crystals"
    json.dumps(found, allow_nan=False)


def test_numbers_that_are_not_finite_are_left_out():
    found = distribution([1.0, math.nan, None, math.inf, 3.0])
    assert (found["crystals"], found["mean"]) == (2, 2.0)
