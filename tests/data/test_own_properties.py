"""A user's own properties in a cache and in batches, and properties that a structure tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mattergen.common.data.collate import collate
from mattergen.common.data.dataset_transform import filter_sparse_properties
from pymatgen.io.cif import CifWriter

from mattergen_e.data.build import build_cache
from mattergen_e.data.cache import load_manifest
from mattergen_e.data.dataset import JointCrystalDataset
from mattergen_e.errors import UserError

OWN = ["hardness=Hv", "phase:category", "moduli:list"]


@pytest.fixture
def file(tmp_path: Path, solids: dict[str, Any]) -> Path:
    """Three solids; the third has none of the values."""
    path, rows = tmp_path / "own.jsonl", []
    for name, hardness, phase, moduli in (
        ("NaCl", 20.0, "rocksalt", [1, 2]),
        ("ZnS", 1.5, "wurtzite", [3, 4]),
        ("CsCl", None, None, None),
    ):
        structure = solids[name].copy(site_properties={}).as_dict()
        rows.append({"id": name, "structure": structure, "split": "train", "Hv": hardness})
        rows[-1] |= {"phase": phase, "moduli": moduli}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.usefixtures("list_of_conditions")
def test_from_a_file_into_a_batch(file: Path, tmp_path: Path) -> None:
    manifest = build_cache([file], tmp_path / "cache", properties=OWN, jobs=1)
    kinds = {name: (info.kind, info.categories, info.length) for name, info in manifest.properties.items()}
    assert kinds == {
        "hardness": ("number", None, None),
        "phase": ("category", ["rocksalt", "wurtzite"], None),
        "moduli": ("list", None, 2),
    }
    assert load_manifest(tmp_path / "cache") == manifest
    names = ["hardness", "phase", "moduli"]
    data = JointCrystalDataset.from_cache_path(str(tmp_path / "cache/train"), properties=names)
    batch: Any = collate([data[i] for i in range(3)])
    assert batch["phase"] == ["rocksalt", "wurtzite", ""]
    torch.testing.assert_close(batch["hardness"], torch.tensor([20.0, 1.5, torch.nan]), equal_nan=True)
    unknown = [torch.nan, torch.nan]
    torch.testing.assert_close(batch["moduli"], torch.tensor([[1.0, 2.0], [3.0, 4.0], unknown]), equal_nan=True)
    for one in ("hardness", "phase"):  # a crystal without a value is left out, as of MatterGen's properties
        data = JointCrystalDataset.from_cache_path(str(tmp_path / "cache/train"), properties=[one])
        kept: Any = filter_sparse_properties(data)
        assert [str(name) for name in kept.structure_id] == ["NaCl", "ZnS"]
        assert kept[1]["phase" if one == "phase" else "hardness"] == ("wurtzite" if one == "phase" else 1.5)
    assert data.repeat(2)[4]["phase"] == "wurtzite"


def test_the_manifest_says_of_mattergens_properties_what_it_said_before(file: Path, tmp_path: Path) -> None:
    build_cache([file], tmp_path / "cache", properties=["dft_band_gap=Hv"], jobs=1)
    written = json.loads((tmp_path / "cache/manifest.json").read_text())["properties"]
    assert written == {"dft_band_gap": {"column": "Hv", "known": {"train": 2, "val": 0, "test": 0}, "written": True}}


def test_a_structure_tells_its_elements_and_its_space_group(
    tmp_path: Path, conventional: dict[str, Any], file: Path
) -> None:
    """The space groups are those that the cells were made with; 0.03 Å off a place is within the tolerance."""
    from mattergen.common.data.types import PropertyValues

    moved = conventional["CsCl"].copy()
    moved.translate_sites([1], [0.03, 0, 0], frac_coords=False)
    structures = {"NaCl": conventional["NaCl"], "ZnS": conventional["ZnS"], "moved": moved}
    path = tmp_path / "plain.csv"
    text = "material_id,cif,split\n"
    for name, structure in structures.items():
        text += f'{name},"{str(CifWriter(structure)).replace(chr(34), chr(34) * 2)}",train\n'
    path.write_text(text)
    build_cache([path], tmp_path / "cache", properties=["chemical_system", "space_group"], jobs=1)
    groups = PropertyValues.from_json(str(tmp_path / "cache/train/space_group.json")).values.tolist()
    assert groups == ["Fm-3m", "P6_3mc", "Pm-3m"]
    systems = PropertyValues.from_json(str(tmp_path / "cache/train/chemical_system.json")).values.tolist()
    assert systems == ["Cl-Na", "S-Zn", "Cl-Cs"]
    given = build_cache([path], tmp_path / "all", jobs=1)  # not asked for: not computed
    assert given.properties == {}
    with pytest.raises(UserError, match="'space_group' \\(column 'sg'\\) is known for 0"):
        build_cache([path], tmp_path / "none", properties=["space_group=sg"], jobs=1)


@pytest.mark.parametrize(
    ("properties", "sentence"),
    [
        (["pos"], "means something else already"),
        (["bader_charge"], "means something else already"),
        (["dft_band_gap:category"], "is MatterGen's own"),
        (["phase:word"], "no kind of property"),
        (["phase"], "for words write phase:category"),
        (["moduli"], "for lists write moduli:list"),
        (["Hv", "hv"], "given twice"),
    ],
)
def test_wrong_properties(file: Path, tmp_path: Path, properties: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build_cache([file], tmp_path / "cache", properties=properties, jobs=1, strict=True)
    assert not (tmp_path / "cache").exists()


def test_lists_have_one_length(file: Path, tmp_path: Path) -> None:
    file.write_text(file.read_text().replace("[3, 4]", "[3, 4, 5]"))
    manifest = build_cache([file], tmp_path / "cache", properties=["moduli:list"], jobs=1)
    assert [(item.id, item.reason) for item in manifest.dropped] == [("ZnS", "bad_property")]
