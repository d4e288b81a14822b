"""Names, kinds and values of a user's own properties."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mattergen_e.crystals.checks import EntryError
from mattergen_e.crystals.own_properties import Kind, check_name, read_own, split_kind
from mattergen_e.errors import UserError


@pytest.mark.parametrize("name", ["my_hardness", "Hv", "k300"])
def test_names_that_can_be(name: str) -> None:
    check_name(name, "--property")


@pytest.mark.parametrize(
    "name",
    [
        *("pos", "cell", "num_atoms", "dft_band_gap", "dos", "x", "keys", "type", "class", "nan", "index", "my_batch"),
        *("material_id", "2d", "_a", "a b", "a.b", "", "größe", "a" * 61, "bader_charge"),
    ],
)
def test_names_that_mean_something_else(name: str) -> None:
    with pytest.raises(UserError, match="cannot be the name|means something else"):
        check_name(name, "--property", {"bader_charge"})


def test_kinds() -> None:
    assert split_kind("a", "x") == ("a", None) and split_kind("a:list", "x") == ("a", "list")
    with pytest.raises(UserError, match="'word' is no kind of property: write one of number, category, list"):
        split_kind("a:word", "x")


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        ("number", " 2.5 ", 2.5),
        ("number", 3, 3.0),
        ("category", " 2H ", "2H"),
        ("category", 1, "1"),
        ("category", 1.0, "1"),
        ("category", "1.0", "1"),
        ("category", True, "true"),
        ("category", None, ""),
        ("list", "[1, 2.5]", [1.0, 2.5]),
        ("list", "1; 2 3", [1.0, 2.0, 3.0]),
        ("list", [4], [4.0]),
        ("list", "", []),
    ],
)
def test_values(kind: Kind, raw: Any, value: Any) -> None:
    assert read_own("a", kind, raw) == value


def test_an_unknown_number() -> None:
    assert all(math.isnan(float(str(read_own("a", "number", raw)))) for raw in (None, "", " NaN "))


@pytest.mark.parametrize(
    ("kind", "raw", "words"),
    [
        ("number", "hard", "write a:category"),
        ("number", True, "write a:category"),
        ("number", [1, 2], "write a:list"),
        ("number", "inf", "finite"),
        ("category", ["x"], "a word or a number"),
        ("category", "${oc.env:HOME}", "printable"),
        ("category", "a" * 61, "printable"),
        ("list", "1,x", "finite numbers"),
        ("list", [1, None], "finite numbers"),
        ("list", [[1]], "finite numbers"),
        ("list", 5, "a list"),
    ],
)
def test_wrong_values(kind: Kind, raw: Any, words: str) -> None:
    with pytest.raises(EntryError, match=words) as caught:
        read_own("a", kind, raw)
    assert caught.value.reason == "bad_property"
