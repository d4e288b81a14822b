"""Items, batches and subsets of the joint data set."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from mattergen.common.data.collate import collate
from mattergen.common.data.dataset import CrystalDataset
from mattergen.common.data.dataset_transform import filter_sparse_properties, repeat
from mattergen.common.data.transform import set_chemical_system_string, symmetrize_lattice
from torch.utils.data import DataLoader

from mattergen_e.data.build import build_cache
from mattergen_e.data.dataset import JointCrystalDataset
from mattergen_e.descriptors import Descriptor, Dummy
from mattergen_e.errors import UserError


@pytest.fixture(scope="module")
def split(tmp_path_factory, crystals, make_entry, write):
    folder = tmp_path_factory.mktemp("dataset")
    entries = [
        make_entry(
            name,
            s.get_primitive_structure(),
            dft_band_gap=float(i) if i % 4 else None,
            vec=[[i, j, -j] for j in range(len(s.get_primitive_structure()))],
        )
        for i, (name, s) in enumerate(crystals.items())
    ]
    path = write(folder / "x.jsonl", entries)
    build_cache([path], folder / "cache", site_values=["bader_charge", "vec"], jobs=1, split_fractions=(1, 0, 0))
    return folder / "cache" / "train"


@pytest.fixture(scope="module")
def dataset(split):
    return JointCrystalDataset.from_cache_path(
        str(split), descriptors=["bader_charge", "vec"], properties=["dft_band_gap"]
    )


def test_items_are_those_of_mattergen_plus_site_values(split, dataset):
    upstream = CrystalDataset.from_cache_path(str(split), properties=["dft_band_gap"])
    assert len(dataset) == len(upstream)
    extra = {"bader_charge", "bader_charge_batch", "vec", "vec_batch"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        items = [dataset[i] for i in range(len(dataset))]
    for ours, theirs in zip(items, upstream, strict=True):
        assert set(ours.keys()) - extra == set(theirs.keys())
        for key in theirs.keys():  # noqa: SIM118
            assert ours[key].dtype == theirs[key].dtype
            assert torch.equal(ours[key].nan_to_num(), theirs[key].nan_to_num())
        n = int(ours.num_atoms)
        assert ours["bader_charge"].shape == (n, 1) and ours["bader_charge"].dtype == torch.float32
        assert ours["vec"].shape == (n, 3)
        assert torch.equal(ours["vec_batch"], torch.zeros(n, dtype=torch.long))


def test_collating_counts_the_crystals(dataset):
    items = [dataset[i] for i in (2, 0, 5)]
    batch = collate(items)
    for name in ("bader_charge", "vec"):
        assert torch.equal(batch.get_batch_idx(name), batch.batch)
        assert torch.equal(batch[name], torch.cat([item[name] for item in items]))
    assert batch.num_graphs == 3
    assert torch.equal(batch.num_atoms, torch.stack([item.num_atoms for item in items]))
    with pytest.raises(NotImplementedError, match="Unable to determine batch index for magmom"):  # MatterGen's error
        batch.get_batch_idx("magmom")


def test_items_can_be_changed_without_changing_the_data(dataset):
    item = dataset[3]
    for key in ("pos", "cell", "atomic_numbers", "num_atoms", "bader_charge"):
        item[key].zero_()
    fresh = dataset[3]
    assert fresh.num_atoms > 0 and fresh.atomic_numbers.min() > 0 and fresh.cell.abs().max() > 0
    assert fresh["bader_charge"].abs().sum() == dataset.repeat(1)[3]["bader_charge"].abs().sum()


def same(a, b):
    return all(torch.equal(a[k].nan_to_num(), b[k].nan_to_num()) for k in set(a.keys()) | set(b.keys()))


def test_subset_and_repeat_keep_site_values(dataset):
    indices = [7, 1, 4]
    for chosen in (indices, np.array(indices), torch.tensor(indices)):
        part = dataset.subset(chosen)
        assert isinstance(part, JointCrystalDataset)
        assert all(same(part[i], dataset[j]) for i, j in enumerate(indices))
        assert part.structure_id.tolist() == dataset.structure_id[indices].tolist()
    assert same(dataset.subset(indices).subset([2])[0], dataset[4])
    assert len(dataset.subset([])) == 0
    thrice = part.repeat(3)
    assert len(thrice) == 9
    assert all(same(thrice[i], part[i % 3]) for i in range(9))


def test_dataset_transforms_and_transforms(split):
    dataset = JointCrystalDataset.from_cache_path(
        str(split),
        descriptors=["bader_charge"],
        transforms=[symmetrize_lattice, set_chemical_system_string],
        properties=["dft_band_gap"],
        dataset_transforms=[filter_sparse_properties, partial(repeat, n=2)],
    )
    assert len(dataset) == 14
    item = dataset[0]
    assert torch.allclose(item.cell, item.cell.transpose(1, 2), atol=1e-5)
    assert isinstance(item.chemical_system, str)
    assert not torch.isnan(item.dft_band_gap)
    assert "bader_charge" in item and "vec" not in item


def test_indices(dataset):
    assert same(dataset[-1], dataset[len(dataset) - 1])
    assert same(dataset[np.int64(2)], dataset[2])
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    assert len(list(dataset)) == len(dataset)


@pytest.mark.parametrize("workers", [0, 1])
def test_data_loader(dataset, workers):
    loader = DataLoader(dataset, batch_size=4, shuffle=True, collate_fn=collate, num_workers=workers)
    total = sum(float(batch["bader_charge"].double().abs().sum()) for batch in loader)
    assert total == pytest.approx(float(np.abs(dataset.site_values["bader_charge"].astype(float)).sum()), rel=1e-5)


def test_without_site_values(split):
    item = JointCrystalDataset.from_cache_path(str(split))[0]
    assert "bader_charge" not in item


def test_what_the_cache_lacks_is_named(split, tmp_path):
    with pytest.raises(UserError, match=r"magmom.npy does not exist: .* it has: bader_charge, vec"):
        JointCrystalDataset.from_cache_path(str(split), descriptors=["magmom"])
    with pytest.raises(UserError, match=r"hhi_score.json does not exist: .* it has: dft_band_gap"):
        JointCrystalDataset.from_cache_path(str(split), properties=["hhi_score"])
    with pytest.raises(UserError, match="is not a split of a cache"):
        JointCrystalDataset.from_cache_path(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"pos.npy does not exist"):
        JointCrystalDataset.from_cache_path(str(split.parent))


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("pos.npy", "pos.npy has 5 rows, expected"),
        ("cell.npy", "cell.npy has 5 rows, expected"),
        ("sites/bader_charge.npy", "'bader_charge' has 5 rows for"),
    ],
)
def test_parts_that_do_not_fit(split, tmp_path, file, words):
    import shutil

    broken = tmp_path / "train"
    shutil.copytree(split, broken)
    np.save(broken / file, np.load(broken / file)[:5])
    with pytest.raises(UserError, match=words):
        JointCrystalDataset.from_cache_path(str(broken), descriptors=["bader_charge"])


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"values": [1.0], "property_source_doc_id": "dft_band_gap"}',
        '{"x": 1}',
        '{"values": [], "property_source_doc_id": "y"}',
    ],
)
def test_damaged_properties(split, tmp_path, text):
    import shutil

    broken = tmp_path / "train"
    shutil.copytree(split, broken)
    (broken / "dft_band_gap.json").write_text(text)
    with pytest.raises(UserError, match=r"dft_band_gap.json (is not a property|has 1 values for 10 crystals)"):
        JointCrystalDataset.from_cache_path(str(broken), properties=["dft_band_gap"])


def test_descriptors_read_their_own_training_values(split):
    """A mapping holds descriptors, as a recipe has them; a sequence of names gives arrays as they are."""

    @dataclass(frozen=True, kw_only=True)
    class Doubled(Descriptor):
        name: str = "other"

        def read_cache(self, split_dir):
            return 2 * super().read_cache(split_dir)

    plain = JointCrystalDataset.from_cache_path(str(split), descriptors=["bader_charge"])
    descriptors = {"bader_charge": Doubled(), "dummy": Dummy()}  # the key is the name
    doubled = JointCrystalDataset.from_cache_path(str(split), descriptors=descriptors)
    assert list(doubled.site_values) == ["bader_charge"]
    assert np.array_equal(doubled.site_values["bader_charge"], 2 * plain.site_values["bader_charge"], equal_nan=True)
