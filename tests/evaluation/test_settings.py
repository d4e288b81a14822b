"""Numbers of the command line, and which conditions are targets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mattergen_e.errors import UserError
from mattergen_e.evaluation.settings import EvaluationSettings, parse_numbers


@pytest.mark.parametrize("words", [["gap"], ["=1"], ["a=b"], ["a=nan"], ["a=-1"], ["a=1", "a=2"], ["a=inf"], ["a=1=2"]])
def test_wrong_numbers_of_an_option(words: list[str]) -> None:
    with pytest.raises(UserError, match="--tolerance"):
        parse_numbers(words, "--tolerance", least=0)


def test_numbers_by_name() -> None:
    assert parse_numbers(["a=0.5", "b=2"], "--tolerance", least=0) == {"a": 0.5, "b": 2.0}
    assert parse_numbers(["formation_energy_per_atom=-3"], "--target") == {"formation_energy_per_atom": -3.0}
    assert parse_numbers([], "--target") == {}


@given(words=st.lists(st.text(max_size=20), max_size=3))
def test_any_words_are_numbers_or_one_sentence(words: list[str]) -> None:
    try:
        found = parse_numbers(words, "--target")
    except UserError:
        return
    assert len(found) == len(words) and all(name and math.isfinite(value) for name, value in found.items())


def test_targets_are_the_numbers_among_conditions_that_have_a_tolerance() -> None:
    conditions = {"dft_band_gap": 3, "chemical_system": "Na-Cl", "energy_above_hull": 0.0, "space_group": 225}
    assert EvaluationSettings().targets_of(conditions) == {"dft_band_gap": 3.0}
    given = EvaluationSettings(
        targets={"dft_band_gap": 1.0}, tolerances={"dft_band_gap": 0.1, "energy_above_hull": 0.1}
    )
    assert given.targets_of(conditions) == {"dft_band_gap": 1.0, "energy_above_hull": 0.0}
    assert EvaluationSettings().targets_of({"dft_band_gap": "3.0"}) == {}
    assert EvaluationSettings().targets_of({"dft_band_gap": True}) == {}


@pytest.mark.parametrize("wrong", [{"stable": -0.1}, {"stable": math.nan}, {"relax": "some"}, {"tolerence": {}}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EvaluationSettings.model_validate(wrong)
