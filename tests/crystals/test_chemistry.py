"""Bounds of charges, against what chemistry knows and against charges of real crystals."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Element

from mattergen_e.crystals.checks import EntryError
from mattergen_e.crystals.chemistry import charge_bounds, check_charge_bounds, sign_of_charges


def numbers(*symbols: str) -> np.ndarray:
    return np.array([Element(symbol).Z for symbol in symbols])


@pytest.mark.parametrize(
    ("symbol", "low", "high"),
    # Formal charges that are known: LiH, CsAu, Mg2Si, BN, CF4, NH3, OF2, PtF6, OsO4, Ba4 anions aside.
    [("H", -1, 1), ("Li", 0, 1), ("Cs", 0, 1), ("Au", -1, 5), ("Si", -4, 4), ("B", -3, 3), ("N", -3, 5), ("O", -2, 2),
     ("F", -1, 0), ("Pt", -2, 6), ("Os", 0, 8), ("Zn", 0, 2), ("Al", 0, 3), ("La", 0, 3), ("U", 0, 6), ("Mn", -1, 7)],
)  # fmt: skip
def test_what_chemistry_knows_is_within_the_bounds(symbol: str, low: float, high: float) -> None:
    found = charge_bounds(Element(symbol).Z)
    assert found[0] <= low and high <= found[1] <= high + 0.5


def test_no_atom_loses_more_electrons_than_it_has() -> None:
    for number in range(1, 104):
        low, high = charge_bounds(number)
        assert -9 < low < 0 < high <= number


def test_a_charge_beyond_the_valence_names_its_site() -> None:
    check_charge_bounds("q", numbers("Na", "Cl"), np.array([0.9, -0.9]))
    for charges in ([0.9, -87.0], [0.9, np.nan]):
        with pytest.raises(EntryError, match=r"site 1 \(Cl\)") as caught:
            check_charge_bounds("q", numbers("Na", "Cl"), np.array(charges))
        assert caught.value.reason == "bad_charge"


def test_signs() -> None:
    assert sign_of_charges(numbers("Na", "Cl"), np.array([0.9, -0.9])) == 1
    assert sign_of_charges(numbers("Na", "Cl"), np.array([-0.9, 0.9])) == -1
    assert sign_of_charges(numbers("Si", "Si"), np.array([0.3, -0.3])) == 0  # one element
    assert sign_of_charges(numbers("Ga", "As"), np.array([-0.6, 0.6])) == 0  # too alike to tell
    assert sign_of_charges(numbers("Na", "Cl"), np.array([-0.1, 0.1])) == 0  # hardly charged
    assert sign_of_charges(numbers("Na", "Ne"), np.array([0.9, -0.9])) == 0  # neon has no electronegativity


def test_charges_of_952_real_crystals(real_data: Path) -> None:
    """AFLOW's Bader charges: all within the bounds, and none opposes electronegativity."""
    with gzip.open(real_data / "bader_aflow.jsonl.gz", "rt") as lines:
        entries = [json.loads(line) for line in lines]
    signs = []
    for entry in entries:
        z, charges = numbers(*entry["species"]), np.array(entry["bader_charge"])
        check_charge_bounds("bader_charge", z, charges)
        signs.append(sign_of_charges(z, charges))
    assert len(entries) == 952 and min(signs) == 0 and sum(signs) > 850
