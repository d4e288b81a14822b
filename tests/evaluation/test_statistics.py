"""Intervals, tests and corrections beside scipy's and numbers worked out by hand."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mattergen_e.evaluation.statistics import Proportion, compare, fractions, holm, proportion, wilson

FAST = settings(max_examples=100, deadline=None, database=None)
COUNTS = st.integers(1, 2000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@FAST
@given(COUNTS, st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_is_scipys(counts, confidence):
    count, total = counts
    expected = stats.binomtest(count, total).proportion_ci(confidence, method="wilson")
    low, high = wilson(count, total, confidence)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= count / total <= high <= 1


def test_wilson_by_hand():
    # z = 1.959964, z^2 = 3.841459; none of 10: high = z^2 / (10 + z^2)
    assert wilson(0, 10) == pytest.approx((0.0, 3.841459 / 13.841459), abs=1e-6)
    # 5 of 10: 0.5 ± z sqrt(0.25 / (10 + z^2)), the centre stays at a half
    half = 1.959964 * math.sqrt(0.25 / 13.841459)
    assert wilson(5, 10) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)


def test_all_and_none_touch_the_ends_exactly():
    assert [wilson(0, n)[0] for n in range(1, 300)] == [0.0] * 299
    assert [wilson(n, n)[1] for n in range(1, 300)] == [1.0] * 299


@FAST
@given(COUNTS, COUNTS)
def test_z_test_is_pearsons_chi_squared(one, other):
    found = compare(*one, *other)
    table = [[one[0], one[1] - one[0]], [other[0], other[1] - other[0]]]
    if 0 in np.sum(table, axis=0):  # all or none in both: nothing differs
        assert (found.z, found.p, found.difference) == (0.0, 1.0, 0.0)
        return
    expected = stats.chi2_contingency(table, correction=False)
    assert found.z**2 == pytest.approx(expected.statistic, rel=1e-9, abs=1e-12)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.rough == (expected.expected_freq.min() < 5 - 1e-9)
    assert math.copysign(1, found.z) == math.copysign(1, found.difference) or found.z == 0


@FAST
@given(COUNTS, COUNTS)
def test_newcombe_is_made_of_two_wilson_intervals(one, other):
    # Newcombe 1998, method 10
    found, (a, b) = compare(*one, *other), (one[0] / one[1], other[0] / other[1])
    (a_low, a_high), (b_low, b_high) = wilson(*one), wilson(*other)
    assert found.low == pytest.approx(a - b - math.hypot(a - a_low, b_high - b), abs=1e-9)
    assert found.high == pytest.approx(a - b + math.hypot(a_high - a, b - b_low), abs=1e-9)


def test_newcombes_own_example():
    # Newcombe 1998, table II, example (a): 56/70 and 48/80, method 10: 0.0524 to 0.3339
    found = compare(56, 70, 48, 80)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_cohens_h():
    # Cohen 1988, section 6.2: phi(0.65) = 1.875, phi(0.50) = 1.571, h = 0.304
    assert compare(65, 100, 50, 100).cohens_h == pytest.approx(0.304, abs=1e-3)
    assert compare(10, 10, 0, 10).cohens_h == pytest.approx(math.pi)
    assert compare(3, 9, 1, 3).cohens_h == pytest.approx(0.0, abs=1e-12)


def test_a_difference_turned_round_changes_signs_only():
    one, other = compare(771, 1024, 174, 256), compare(174, 256, 771, 1024)
    for name in ("difference", "cohens_h", "z"):
        assert getattr(one, name) == pytest.approx(-getattr(other, name))
    assert (one.low, one.p) == pytest.approx((-other.high, other.p))


@pytest.mark.parametrize(("count", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts(count, total):
    with pytest.raises(ValueError, match=f"{count} of {total} is no proportion"):
        wilson(count, total)
    with pytest.raises(ValueError, match="no proportion"):
        compare(1, 2, count, total)


def test_no_crystals_have_no_rate():
    assert proportion(0, 0) == Proportion(None, 0, None, None, None, 0, "there are no crystals")
    assert fractions([]) == proportion(0, 0)


def test_fractions_of_masks():
    assert fractions(np.array([True, False, True, True])) == proportion(3, 4)
    assert fractions([None, None]).as_dict() == {
        "count": None, "total": 2, "fraction": None, "low": None, "high": None, "evaluated": 0,
        "reason": "not evaluated",
    }  # fmt: skip
    partly = fractions([True, None, False])
    assert (partly.fraction, partly.evaluated, partly.reason) == (None, 2, "evaluated for 2 of 3 crystals")
    assert set(fractions([False]).as_dict()) == {"count", "total", "fraction", "low", "high"}


def test_holm_by_hand():
    # times 4, 3, 2, 1 from the smallest up, never below the one before, never above 1
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == [0.2] and holm([]) == []


@pytest.mark.parametrize("number", [1, 2, 7, 36])
def test_holm_steps_down(number):
    p_values = np.random.default_rng(number).uniform(size=number) ** 3
    order, corrected, least = np.argsort(p_values), np.empty(number), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (number - rank) * p_values[place]))
        corrected[place] = least
    assert holm(list(p_values)) == pytest.approx(corrected.tolist())


def test_importing_it_all_loads_nothing_heavy():
    code = (
        "import sys, mattergen_e.evaluation.statistics, mattergen_e.evaluation.summary, mattergen_e.cli.compare\n"
        "import mattergen_e.report.compare, mattergen_e.report.tables\n"
        "print(sorted({'torch', 'pymatgen', 'statsmodels', 'scipy', 'pandas', 'rich.table'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout == "[]\n"
