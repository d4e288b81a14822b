"""Verdicts on compositions against xtalmet and smact, and on structures against geometry."""

from __future__ import annotations

import csv
import gzip
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure

from mattergen_e.evaluation import validity
from mattergen_e.evaluation.validity import composition_valid, explain, structure_valid


def _crystal(formula: str) -> Structure:
    species = [e for e, n in Composition(formula).items() for _ in range(round(n))]
    return Structure(Lattice.cubic(10), species, np.linspace(0, 0.9, 3 * len(species)).reshape(-1, 3))


@pytest.mark.parametrize(
    ("formula", "valid", "reason"),
    [
        ("NaCl", True, None),
        ("Fe2O3", True, None),
        ("Si4", True, "one element"),
        ("Cu3Au", True, "alloy"),
        ("NaO3", False, "add up to zero"),
        ("HeO", False, "oxidation state of He"),
        ("AtO", False, "oxidation state of At"),
        ("Pm2O3", False, "electronegativity of Pm"),
        ("KrBr2", False, "electronegative"),
    ],
)
def test_verdicts_and_their_reasons(formula: str, valid: bool, reason: str | None) -> None:
    ((found, why),) = composition_valid([_crystal(formula)])
    assert found is valid
    assert why is None if reason is None else reason in str(why)


@pytest.mark.filterwarnings("ignore")
def test_verdicts_are_those_of_xtalmet_on_real_and_mixed_compositions(real_data: Path) -> None:
    xtalmet: Any = pytest.importorskip("xtalmet")
    with gzip.open(real_data / "mp_structures.csv.gz", "rt") as file:
        formulas = [row["reduced_formula"] for row in itertools.islice(csv.DictReader(file), 0, 24_000, 200)]
    elements = sorted({str(e) for formula in formulas for e in Composition(formula).elements})
    rng = np.random.default_rng(0)
    for _ in range(300):
        chosen = rng.choice(elements, size=rng.integers(2, 5), replace=False)
        formulas.append("".join(f"{e}{rng.integers(1, 5)}" for e in chosen))
    crystals = [_crystal(formula) for formula in formulas]
    expected = xtalmet.Validator(["smact"]).validate([xtalmet.Crystal.from_Structure(c) for c in crystals], [])[0]
    expected = expected["smact"].astype(bool).tolist()
    assert 100 < sum(expected) < 400
    assert [valid for valid, _ in composition_valid(crystals)] == expected
    # the sums by themselves, without xtalmet's verdict
    keys = [validity._composition(crystal) for crystal in crystals]
    assert [explain(*key)[0] for key in keys if not isinstance(key, str)] == expected


def test_a_draw_of_many_elements_takes_no_time() -> None:
    metals = "TiVCrMnFeCoNiMoWNb"  # 10^8 combinations, none of which is in order with a single oxygen
    composition_valid([_crystal("NaCl")])
    begin = time.perf_counter()
    found = composition_valid([_crystal(f"{metals}O"), _crystal(f"{metals}O16")])
    assert time.perf_counter() - begin < 5
    assert [valid for valid, _ in found] == [False, True]


def test_what_is_no_composition_is_not_valid() -> None:
    shared = Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    heavy = Structure(Lattice.cubic(4), ["Db"], [[0, 0, 0]])
    dummy = Structure(Lattice.cubic(4), ["X"], [[0, 0, 0]])
    found = composition_valid([None, shared, heavy, _crystal("NaCl"), dummy])
    assert [valid for valid, _ in found] == [False, False, False, True, False]
    assert [bool(reason) for _, reason in found] == [True, True, True, False, True]


def test_the_scale_of_a_composition_does_not_matter() -> None:
    assert composition_valid([_crystal("Fe2O3"), _crystal("Fe6O9")]) == [(True, None)] * 2


def test_solids_are_valid_structures(solids: dict[str, Structure], conventional: dict[str, Structure]) -> None:
    assert {structure_valid(s) for s in (*solids.values(), *conventional.values())} == {(True, None)}


@pytest.mark.parametrize(("distance", "valid"), [(0.49, False), (0.51, True)])
def test_the_least_distance(distance: float, valid: bool) -> None:
    near = Structure(Lattice.cubic(6), ["H", "H"], [[0.99, 0, 0], [0.99 + distance / 6 - 1, 0, 0]])
    found, reason = structure_valid(near)
    assert found is valid
    assert valid or "sites 0 and 1 are 0.49 Å apart" in str(reason)


def test_images_of_a_site_count_also_in_a_skewed_cell() -> None:
    assert structure_valid(Structure(Lattice.orthorhombic(0.4, 6, 6), ["H"], [[0, 0, 0]])) == (
        False,
        "site 0 and its own image are 0.4 Å apart, less than 0.5 Å",
    )
    # three steps along a and one along b lead to an image 0.45 Å away, though both edges are longer than 4 Å
    skewed = Lattice([[4, 0, 0], [-12, 0.45, 0], [0, 0, 9]])
    assert structure_valid(Structure(skewed, ["H"], [[0, 0, 0]]))[0] is False
    assert structure_valid(Structure(Lattice([[4, 0, 0], [-12, 0.55, 0], [0, 0, 9]]), ["H"], [[0, 0, 0]]))[0] is True


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (np.full((3, 3), np.nan), "finite"),
        (np.eye(3) * 0.9, "Å^3 per site"),
        (np.eye(3) * 13, "Å^3 per site"),
        (np.zeros((3, 3)), "Å^3 per site"),
        ([[1000, 0, 0], [0, 0.1, 0], [0, 0, 0.1]], "edge"),
        ([[20, 0, 0], [0, 20, 0], [20, 20, 0.1]], "its own image are 0.1 Å apart"),
    ],
)
def test_cells_that_no_crystal_has(cell: Any, reason: str) -> None:
    valid, why = structure_valid(Structure(Lattice(cell), ["Na"], [[0, 0, 0]]))
    assert not valid and reason in str(why)


def test_a_sound_crystal_in_a_flat_cell_is_sound(solids: dict[str, Structure]) -> None:
    cell = solids["NaCl"]
    whole = np.array([[1, 0, 0], [40, 1, 0], [30, 40, 1]])
    flat = Structure(whole @ cell.lattice.matrix, cell.species, cell.frac_coords @ np.linalg.inv(whole))
    assert max(flat.lattice.abc) > 150 and min(flat.lattice.angles) < 2
    assert structure_valid(flat) == (True, None)


def test_positions_must_be_finite() -> None:
    assert structure_valid(Structure(Lattice.cubic(5), ["Na"], [[np.nan, 0, 0]]))[0] is False
    assert structure_valid(None) == (False, "there is no crystal")
