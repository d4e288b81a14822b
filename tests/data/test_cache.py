"""The layout on disk, the manifest, and MatterGen reading the cache without this package."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from mattergen.common.data.dataset import CrystalDataset, CrystalDatasetBuilder

from mattergen_e.data.build import build_cache
from mattergen_e.data.cache import CORE_NAMES, hash_ids, list_sites, load_array, load_manifest, open_sites
from mattergen_e.data.dataset import JointCrystalDataset
from mattergen_e.errors import UserError


@pytest.fixture
def cache(tmp_path, bader_file):
    build_cache([bader_file], tmp_path / "cache", properties=["dft_band_gap=band_gap_aflow"], jobs=1)
    return tmp_path / "cache"


def test_layout(cache):
    for split in load_manifest(cache).splits:
        core = {name: np.load(cache / split / f"{name}.npy", allow_pickle=False) for name in CORE_NAMES}
        n_sites, n_crystals = core["num_atoms"].sum(), len(core["num_atoms"])
        assert core["pos"].shape == (n_sites, 3) and core["pos"].dtype == np.float64
        assert core["cell"].shape == (n_crystals, 3, 3) and core["cell"].dtype == np.float64
        assert core["atomic_numbers"].shape == (n_sites,) and core["atomic_numbers"].dtype == np.int64
        assert core["num_atoms"].dtype == np.int64
        assert core["structure_id"].dtype.kind == "U" and core["structure_id"].shape == (n_crystals,)
        charges = np.load(cache / split / "sites" / "bader_charge.npy", allow_pickle=False)
        assert charges.dtype == np.float32 and charges.shape == (n_sites, 1)
        gaps = json.loads((cache / split / "dft_band_gap.json").read_text())
        assert gaps["property_source_doc_id"] == "dft_band_gap" and len(gaps["values"]) == n_crystals


def test_manifest_tells_the_truth(cache, bader_file):
    manifest = load_manifest(cache)
    for split, info in manifest.splits.items():
        for name, digest in info.arrays_sha256.items():
            if not name.endswith(".json"):
                array = np.load(cache / split / f"{name}.npy")
                assert hashlib.sha256(array.tobytes()).hexdigest() == digest
        ids = sorted(np.load(cache / split / "structure_id.npy").tolist())
        assert info.ids_sha256 == hashlib.sha256("\n".join(ids).encode()).hexdigest() == hash_ids(ids[::-1])
        charges = np.load(cache / split / "sites" / "bader_charge.npy").astype(float)
        assert manifest.site_values["bader_charge"].splits[split].rms == pytest.approx(np.sqrt((charges**2).mean()))
        assert (info.crystals, info.sites) == (len(ids), len(charges))
    (source,) = manifest.sources
    assert source.sha256 == hashlib.sha256(bader_file.read_bytes()).hexdigest()
    assert source.size == bader_file.stat().st_size
    assert {"mattergen", "pymatgen", "numpy", "torch", "python"} <= manifest.packages.keys()
    assert manifest.created.utcoffset().total_seconds() == 0
    assert manifest.settings["max_atoms"] == 20
    assert load_manifest(cache / "train") == load_manifest(cache / "manifest.json") == manifest


def test_mattergen_reads_it_by_itself(cache):
    for split, info in load_manifest(cache).splits.items():
        dataset = CrystalDataset.from_cache_path(str(cache / split), properties=["dft_band_gap"])
        assert len(dataset) == info.crystals
        assert all(graph.pos.shape == (int(graph.num_atoms), 3) for graph in dataset)
        assert "dft_band_gap" in CrystalDatasetBuilder.from_cache_path(str(cache / split)).list_available_properties()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(format_version=2), "format_version"),
        (lambda m: m.pop("splits"), "splits"),
        (lambda m: m["splits"]["train"].update(crystals="many"), "splits.train.crystals"),
        (lambda m: m.update(surprise=1), "surprise"),
    ],
)
def test_damaged_manifests(cache, change, words):
    path = cache / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=rf"manifest.json is not a manifest of format 1: {words}.*build the cache anew"):
        load_manifest(cache)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_manifests_that_are_no_json(cache, content):
    (cache / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match="is not a manifest of format 1"):
        load_manifest(cache)


def test_missing_manifest(tmp_path):
    with pytest.raises(UserError, match=r"manifest.json does not exist: .*mattergen-e data build"):
        load_manifest(tmp_path)


def test_open_sites(cache):
    values = open_sites(cache / "train", "bader_charge")
    assert isinstance(values.base, np.memmap)
    assert not values.flags.writeable
    assert list_sites(cache / "train") == ["bader_charge"]
    with pytest.raises(UserError, match=r"magmom.npy does not exist: .* 'magmom'; it has: bader_charge"):
        open_sites(cache / "train", "magmom")
    np.save(cache / "train" / "sites" / "wrong.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"wrong.npy holds float64 of shape \(3,\), expected float32"):
        open_sites(cache / "train", "wrong")


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"x.npy is not a plain array"):
        load_array(tmp_path / "x.npy", mmap=False)
    with pytest.raises(UserError, match=r"x.npy is not a plain array"):
        load_array(tmp_path / "x.npy")
    (tmp_path / "y.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"y.npy is not a plain array"):
        load_array(tmp_path / "y.npy")
    (tmp_path / "z.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"z.npy is not a plain array"):
        load_array(tmp_path / "z.npy")


@pytest.mark.parametrize("name", ["pos", "num_atoms", "sites/bader_charge"])
def test_arrays_that_are_not_what_was_built(cache, name):
    path = cache / "train" / f"{name}.npy"
    load_array(path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path.name} is not what .*manifest.json tells of"):
        load_array(path)


def test_properties_that_are_not_what_was_built(cache):
    path = cache / "train" / "dft_band_gap.json"
    gaps = json.loads(path.read_text())
    JointCrystalDataset.from_cache_path(str(cache / "train"), properties=["dft_band_gap"])
    gaps["values"][0] = 17.0
    path.write_text(json.dumps(gaps))
    with pytest.raises(UserError, match=r"dft_band_gap.json is not what .*manifest.json tells of"):
        JointCrystalDataset.from_cache_path(str(cache / "train"), properties=["dft_band_gap"])
