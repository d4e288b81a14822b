"""Labels of the condition: from a cache into batches."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from mattergen.common.data.collate import collate
from mattergen.common.data.dataset_transform import filter_sparse_properties

from mattergen_e.data.cache import Manifest, write_split
from mattergen_e.data.conditions import CACHED, onto, read_labels
from mattergen_e.data.dataset import JointCrystalDataset
from mattergen_e.errors import UserError
from mattergen_e.spectra.curves import NOT_GIVEN
from mattergen_e.spectra.grid import TOTAL_GRID, EnergyGrid
from mattergen_e.targets.files import read_curves
from mattergen_e.upstream import ARRAY_CONDITIONS

pytestmark = pytest.mark.usefixtures("list_of_conditions")


@pytest.fixture
def write(tmp_path, solids):
    """Writes a split of eight crystals with spectra (8, points); returns its folder."""

    def make(spectra, grid=None):
        crystals = list(solids.values())
        core = {
            "pos": np.concatenate([s.frac_coords % 1.0 for s in crystals]),
            "cell": np.stack([s.lattice.matrix for s in crystals]),
            "atomic_numbers": np.concatenate([s.atomic_numbers for s in crystals]).astype(np.int64),
            "num_atoms": np.array([len(s) for s in crystals]),
            "structure_id": np.array(list(solids)),
        }
        gaps = {"dft_band_gap": np.array([np.nan, *range(7)], dtype=float)}
        split = write_split(tmp_path / "train", core, {}, {"total_dos": spectra.astype(np.float32)}, gaps)
        made = {} if grid is None else {"total_dos": {"grid": grid.model_dump(), "smearing": 0.1}}
        manifest = Manifest(
            mattergen_e_version="0", packages={}, created=datetime.now(UTC), settings={}, sources=[],
            splits={"train": split}, site_values={}, processing=made, properties={}, dropped_by_reason={}, dropped=[],
        )  # fmt: skip
        (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
        return tmp_path / "train"

    return make


def test_names_agree():
    assert set(CACHED) == ARRAY_CONDITIONS


def test_batches_of_the_training(write):
    spectra = np.random.default_rng(0).random((8, 256)).astype(np.float32)
    spectra[2] = np.nan
    folder = write(spectra, TOTAL_GRID)
    dataset = JointCrystalDataset.from_cache_path(str(folder), properties=["dos", "dft_band_gap"])
    assert dataset[1]["dos"].shape == (1, 256) and dataset[1]["dos"].dtype == torch.float32
    batch = collate([dataset[i] for i in (3, 2, 5)])
    assert np.array_equal(batch["dos"].numpy(), spectra[[3, 2, 5]], equal_nan=True)
    known = filter_sparse_properties(dataset)  # drops the crystal without a gap, keeps the one without a spectrum
    assert len(known) == 7 and np.array_equal(known[1]["dos"].numpy(), spectra[[2]], equal_nan=True)
    assert np.array_equal(dataset.repeat(2)[9]["dos"].numpy(), spectra[[1]])
    assert "dos" not in JointCrystalDataset.from_cache_path(str(folder), properties=["dft_band_gap"])[0]


def test_other_grid_and_labels_that_end_early(write):
    grid = EnergyGrid(minimum=-15, maximum=5, points=400)
    spectra = np.full((8, 400), 0.5)
    spectra[1, 300:] = np.nan  # known to 0 eV
    spectra[2] = np.nan
    found = read_labels(write(spectra, grid), "dos")
    below = TOTAL_GRID.edges[1:] <= 5 + 1e-9
    assert found.shape == (8, 256) and np.allclose(found[0, below], 0.5, atol=1e-6)
    assert (found[0, ~below] == NOT_GIVEN).all() and np.isnan(found[2]).all()
    assert ((found[1] >= 0) == (TOTAL_GRID.edges[1:] <= 1e-9)).all()


def test_onto_keeps_states_where_all_is_known():
    spectra = np.random.default_rng(0).random((3, 500))
    grid = EnergyGrid(minimum=-12, maximum=12, points=500)
    found = onto(spectra, grid, TOTAL_GRID)
    states = grid.rebin(spectra, EnergyGrid(minimum=-10, maximum=10, points=2)).sum(axis=1) * 10
    assert np.allclose(found.sum(axis=1) * TOTAL_GRID.step, states, rtol=1e-5)


def test_cache_without_spectra_or_grid(write, tmp_path):
    folder = write(np.ones((8, 300)))
    with pytest.raises(UserError, match="300 values per crystal, but 256 points"):
        read_labels(folder, "dos")
    (folder / "crystals" / "total_dos.npy").unlink()
    with pytest.raises(UserError, match="the cache has no 'total_dos'"):
        JointCrystalDataset.from_cache_path(str(folder), properties=["dos"])


def test_split_of_a_cache_as_targets(write):
    spectra = np.ones((8, 256))
    spectra[0], spectra[3, :10] = np.nan, np.nan
    curves = read_curves(write(spectra, TOTAL_GRID))
    assert [c.name for c in curves] == ["CsCl", "MgO", "ZnS", "TiO2", "BaTiO3", "Li2O", "Mg2Si"]
    assert np.isnan(curves[2].dos[:10]).all() and (curves[2].dos[10:] == 1).all()
