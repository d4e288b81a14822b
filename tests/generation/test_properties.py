"""What conditions take, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from mattergen_e.errors import UserError
from mattergen_e.generation.properties import check_takes, outside_training, read_properties, usual_range


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (
            {"space_group": 300},
            "'space_group' is 300: give a number from 1 to 230, or a Hermann-Mauguin symbol such as",
        ),
        ({"space_group": "Fm-4m"}, "'space_group' is 'Fm-4m': give a number from 1 to 230, or a Hermann-Mauguin symb"),
        ({"space_group": 12.5}, "'space_group' is 12.5: give a number from 1 to 230"),
        ({"space_group": True}, "'space_group' is True: give a number from 1 to 230"),
        ({"chemical_system": "Li-M-X"}, "'chemical_system' is 'Li-M-X', but 'M' is no chemical element: give symbols"),
        ({"chemical_system": "He-O"}, "MatterGen generates no He: leave it out, which asks for 'O'."),
        ({"chemical_system": "Xe"}, "MatterGen generates no Xe: ask for other elements."),
        ({"chemical_system": 8}, "'chemical_system' is 8: give symbols joined by hyphens, such as 'Li-O'."),
        ({"dft_band_gap": "abc"}, "'dft_band_gap' is 'abc': give a number in eV, or a list of numbers"),
        ({"dft_band_gap": True}, "'dft_band_gap' is True: give a number in eV"),
        ({"dft_band_gap": None}, "'dft_band_gap' is None: give a number in eV"),
        ({"dft_band_gap": float("nan")}, "'dft_band_gap' is nan: give a number in eV"),
        ({"dft_band_gap": [1, "abc"]}, "'dft_band_gap' is 'abc': give a number in eV"),
        ({"dft_band_gap": []}, "'dft_band_gap' is an empty list"),
        ({"dft_band_gap": {"low": 1}}, "'dft_band_gap' is {'low': 1}: give a number in eV"),
        ({"dft_band_gap": [1, 2], "dft_mag_density": [1, 2, 3]}, "2 of 'dft_band_gap' and 3 of 'dft_mag_density'"),
        (["dft_band_gap", 1], "--properties_to_condition_on is no dictionary: write it with quotes"),
    ],
)
def test_values_of_the_wrong_kind(wanted: Any, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        check_takes(read_properties(wanted), ["dft_band_gap", "dft_mag_density"])
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_values_that_are_taken() -> None:
    for wanted, read in (
        ({"space_group": "Fm-3m"}, [225]),
        ({"space_group": ["P1", "225", 2.0]}, [1, 225, 2]),
        ({"chemical_system": ["Li", "O"]}, ["Li-O"]),
        ({"chemical_system": ["Li-O", ["Na", "Cl"]]}, ["Li-O", "Na-Cl"]),
        ({"dft_band_gap": "1.5"}, [1.5]),
        ({"dft_band_gap": [1, 3]}, [1, 3]),
    ):
        assert list(read_properties(wanted).values()) == [read]
    assert read_properties(None) == {} and read_properties({"dos": "target.csv"}) == {}
    check_takes({"colour": ["red"], "chemical_system": ["He-O"]}, ["dft_band_gap"], masked=False)


@pytest.mark.parametrize(
    ("reach", "usual", "told"),
    [
        ((0.0, 9.5), (-3.0, 6.0), "-5, 30 eV, outside of the training data, which reach from 0 to 9.5 eV"),
        (None, (-3.0, 6.0), "-5, 30 eV, far from the training data, which lie mostly between -3 and 6 eV"),
        (None, (-9.0, 40.0), "-5 eV, far from the training data"),  # no gap is negative
        (None, None, "-5 eV, which no crystal has"),
    ],
)
def test_values_outside_of_the_training(reach: Any, usual: Any, told: str) -> None:
    assert told in str(outside_training("dft_band_gap", [-5, 2.0, 30], reach, usual))
    assert outside_training("dft_band_gap", [2.0], reach, usual) is None


def test_what_a_scaler_knows() -> None:
    """Three standard deviations, of the logarithm where the model has that; one that was never fitted knows nothing."""
    assert usual_range(1.5, 1.5, log10=False) == (-3.0, 6.0)
    assert usual_range(2.0, 1.0, log10=True) == pytest.approx((0.1, 1e5))
    assert usual_range(0.0, 0.0, log10=False) is None and usual_range(float("nan"), 1.0, log10=False) is None
