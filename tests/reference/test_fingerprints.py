"""Fingerprints and distances against xtalmet's own, on real crystals."""

from __future__ import annotations

import csv
import gzip
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from mattergen_e.errors import UserError
from mattergen_e.reference import fingerprints as novelty


@pytest.fixture(scope="module")
def crystals(real_data: Path) -> list[Structure]:
    """Sixty of the real crystals, far apart in the file."""
    with gzip.open(real_data / "mp_structures.csv.gz", "rt") as file:
        rows = itertools.islice(csv.DictReader(file), 0, 24_000, 400)
        return [Structure.from_str(row["cif"], fmt="cif") for row in rows]


@pytest.fixture(scope="module")
def xtalmet() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        return pytest.importorskip("xtalmet")


@pytest.mark.filterwarnings("ignore")
def test_fingerprints_are_those_of_xtalmet(crystals: list[Structure], xtalmet: Any) -> None:
    own = [xtalmet.Crystal.from_Structure(s) for s in crystals]
    found = novelty.magpie(crystals)
    assert found.shape == (60, 132)
    np.testing.assert_allclose(found, [c.get_embedding("magpie") for c in own], rtol=1e-12, atol=1e-9)
    found = novelty.amd(crystals)
    assert found.shape == (60, 100)
    np.testing.assert_array_equal(found, [c.get_embedding("amd") for c in own])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "metric"), [("magpie", "euclidean"), ("amd", "chebyshev")])
def test_nearest_is_the_minimum_of_the_matrix_of_xtalmet(
    crystals: list[Structure], xtalmet: Any, monkeypatch: pytest.MonkeyPatch, name: str, metric: novelty.Metric
) -> None:
    matrix = np.array(xtalmet.distance_matrix(name, crystals[:25], crystals[25:], normalize=False))
    make = {"magpie": novelty.magpie, "amd": novelty.amd}[name]
    vectors, reference = make(crystals[:25]), make(crystals[25:])
    for rows in (10_000, 4):
        monkeypatch.setattr(novelty, "BLOCK_BYTES", rows * 8 * reference.shape[1])
        distance, index = novelty.nearest(vectors, reference, metric)
        np.testing.assert_allclose(distance, matrix.min(axis=1), rtol=1e-10)
        np.testing.assert_array_equal(index, matrix.argmin(axis=1))


def test_amd_of_the_simple_cubic_lattice() -> None:
    found = novelty.amd([Structure(Lattice.cubic(3.0), ["Po"], [[0, 0, 0]])], k=20)[0]
    np.testing.assert_allclose(found[:6], 3.0)
    np.testing.assert_allclose(found[6:18], 3.0 * np.sqrt(2))
    np.testing.assert_allclose(found[18:], 3.0 * np.sqrt(3))


def test_neither_the_cell_nor_the_frame_matters(solids: dict[str, Structure]) -> None:
    cell = solids["TiO2"]
    larger = cell.copy()
    larger.make_supercell([[1, 1, 0], [0, 2, 0], [0, 0, 1]])
    shifted = cell.frac_coords[::-1] + np.array([0.2, 0.7, 0.1])
    turned = Structure(Lattice.from_parameters(*cell.lattice.parameters), cell.species[::-1], shifted)
    same = [cell, larger, turned]
    np.testing.assert_allclose(np.ptp(novelty.amd(same), axis=0), 0, atol=1e-8)
    np.testing.assert_allclose(np.ptp(novelty.magpie(same), axis=0), 0, atol=1e-9)


def test_magpie_of_sodium_chloride_by_hand(solids: dict[str, Structure]) -> None:
    found = novelty.magpie([solids["NaCl"]])[0]
    # minimum, maximum, range, mean, mean deviation and mode of the atomic number
    np.testing.assert_allclose(found[:6], [11, 17, 6, 14, 3, 11])


def test_unusable_crystals_have_nan_and_a_reason(solids: dict[str, Structure]) -> None:
    shared = Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    flat = Structure(Lattice.from_parameters(4, 4, 4, 60, 60, 119.9999), ["Na"], [[0, 0, 0]])
    nan = Structure(Lattice(np.full((3, 3), np.nan)), ["Na"], [[0, 0, 0]])
    given = [solids["NaCl"], None, shared, flat, nan]
    reasons: dict[int, str] = {}
    found = novelty.amd(given, reasons=reasons)
    assert np.isfinite(found[0]).all() and np.isnan(found[1:]).all()
    assert set(reasons) == {1, 2, 3, 4}
    assert "Å^3 per site" in reasons[3] and "finite" in reasons[4]
    reasons = {}
    found = novelty.magpie(given, reasons=reasons)
    assert np.isfinite(found[[0, 3, 4]]).all() and np.isnan(found[[1, 2]]).all()
    assert set(reasons) == {1, 2}


def test_nothing_is_near_to_nan() -> None:
    reference = np.array([[np.nan, 0.0], [3.0, 4.0], [0.0, np.inf], [3.0, 4.0]])
    distance, index = novelty.nearest([[0.0, 0.0], [np.nan, 1.0]], reference)
    np.testing.assert_allclose(distance, [5.0, np.nan])
    assert index.tolist() == [1, -1]
    distance, index = novelty.nearest([[0.0, 0.0]], reference, "chebyshev")
    assert distance.tolist() == [4.0] and index.tolist() == [1]
    for empty in (reference[:1], reference[:0]):
        distance, index = novelty.nearest([[0.0, 0.0]], empty)
        assert np.isnan(distance).all() and index.tolist() == [-1]
    assert novelty.nearest(np.empty((0, 2)), reference)[0].shape == (0,)


def test_a_copy_is_at_distance_zero_of_a_reference_stored_in_single_precision(solids: dict[str, Structure]) -> None:
    cells = list(solids.values())
    made: list[tuple[novelty.Metric, np.ndarray]] = [
        ("euclidean", novelty.magpie(cells)),
        ("chebyshev", novelty.amd(cells)),
    ]
    for metric, vectors in made:
        distance, index = novelty.nearest(vectors, vectors.astype(np.float32), metric)
        assert distance.tolist() == [0.0] * len(cells)
        assert index.tolist() == list(range(len(cells)))


def test_vectors_of_another_length_are_refused() -> None:
    with pytest.raises(UserError, match="build the reference anew"):
        novelty.nearest(np.zeros((1, 3)), np.zeros((1, 4)))


def test_workers_give_the_same(solids: dict[str, Structure], monkeypatch: pytest.MonkeyPatch) -> None:
    cells = list(solids.values())
    alone = novelty.magpie(cells), novelty.amd(cells, k=10)
    monkeypatch.setattr(novelty, "CHUNK", 3)
    np.testing.assert_array_equal(novelty.magpie(cells, jobs=2, backend="threading"), alone[0])
    np.testing.assert_array_equal(novelty.amd(cells, k=10, jobs=2, backend="threading"), alone[1])
