"""Caches that get predicted spectra."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.data.cache import load_manifest
from mattergen_e.data.conditions import read_labels
from mattergen_e.errors import UserError
from mattergen_e.networks.predictor.fill import Filled, fill
from tests.support.caches import rehash


def rename(cache: Path, split: str, ids: list[str]) -> None:
    """Gives crystals of a split other ids."""
    np.save(cache / split / "structure_id.npy", np.array(ids))
    rehash(cache)


def test_predicted_calculated_and_withheld(
    make_predictor: Any, make_cache: Callable[..., Path], tmp_path: Path
) -> None:
    predictor, calculated, structures = make_predictor(), make_cache("calculated"), make_cache("structures")
    ids = np.load(calculated / "train" / "structure_id.npy").tolist()
    test = np.load(calculated / "test" / "structure_id.npy").tolist()
    others = [f"new-{i}" for i in range(len(ids))]
    rename(structures, "train", [ids[3], test[1], *others[2:]])
    rename(structures, "val", others)
    found = fill(predictor, structures, tmp_path / "filled", calculated=calculated)
    assert found["train"] == Filled(calculated=1, predicted=len(ids) - 2, withheld=1)
    assert found["val"] == Filled(0, len(ids), 0)
    spectra = np.load(tmp_path / "filled" / "train" / "crystals" / "total_dos.npy")
    of_calculation = np.load(calculated / "train" / "crystals" / "total_dos.npy")
    np.testing.assert_array_equal(spectra[0], of_calculation[3])
    assert np.isnan(spectra[1]).all() and np.isfinite(np.delete(spectra, 1, axis=0)).all()
    # the crystals of all splits of these caches are the same eight, so predictions of one split are those of the other
    predicted = np.load(tmp_path / "filled" / "val" / "crystals" / "total_dos.npy")
    np.testing.assert_allclose(spectra[2:], predicted[2:], rtol=1e-4, atol=1e-6)


def test_the_manifest_tells_and_a_training_reads_it(
    make_predictor: Any, make_cache: Callable[..., Path], tmp_path: Path
) -> None:
    predictor = make_predictor()
    fill(predictor, make_cache(), tmp_path / "filled")
    manifest = load_manifest(tmp_path / "filled")
    assert manifest.settings["filled"] == {"predictor": predictor.fingerprint}
    assert manifest.crystal_values["total_dos"].splits["train"].coverage == 1
    predictor.require_cache(tmp_path / "filled")
    labels = read_labels(tmp_path / "filled" / "train", "dos")  # onto the condition's own grid
    assert labels.shape == (8, 256) and np.isfinite(labels).all()


def test_nothing_is_written_over(make_predictor: Any, make_cache: Callable[..., Path], tmp_path: Path) -> None:
    cache = make_cache()
    with pytest.raises(UserError, match="exists: give another --out"):
        fill(make_predictor(), cache, cache)
    with pytest.raises(UserError, match="does not exist"):
        fill(make_predictor(), tmp_path / "none", tmp_path / "filled")
    assert not (tmp_path / "filled").exists() and not list(tmp_path.glob(".*.tmp"))
