"""Every kind of bad input: left out, with a reason for programs and a sentence for people."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from mattergen_e.crystals import checks
from mattergen_e.crystals.checks import REASONS, CheckOptions, EntryError, mattergen_names
from mattergen_e.data.build import build_cache
from mattergen_e.errors import UserError

OPTIONS = CheckOptions(mattergen_names()[0])


def cscl(**fields):
    entry = {
        "material_id": "bad",
        "species": ["Cs", "Cl"],
        "cell": [[4.12, 0, 0], [0, 4.12, 0], [0, 0, 4.12]],
        "positions": [[0, 0, 0], [2.06, 2.06, 2.06]],
        "bader_charge": [0.8, -0.8],
    }
    return {**entry, **fields}


def doubled(charges):
    """CsCl with two formula units."""
    return cscl(
        species=["Cs", "Cs", "Cl", "Cl"],
        cell=[[8.24, 0, 0], [0, 4.12, 0], [0, 0, 4.12]],
        positions=[[0, 0, 0], [4.12, 0, 0], [2.06, 2.06, 2.06], [6.18, 2.06, 2.06]],
        bader_charge=charges,
    )


def disordered():
    structure = Structure(Lattice.cubic(4.0), [{"Na": 0.5, "K": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return {"id": "bad", "structure": structure.as_dict()}


def slab():
    structure = Structure(Lattice.cubic(4.0, pbc=(True, True, False)), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return {"id": "bad", "structure": structure.as_dict()}


CHAIN = {
    "species": ["Na", "Cl"] * 11,
    "cell": [[4, 0, 0], [0, 4, 0], [0, 0, 66]],
    "positions": [[0, 0, 3 * i + 0.002 * i * i] for i in range(22)],
    "bader_charge": None,
}

BAD = [
    ("broken_entry", '{"material_id": "bad", ', ["not JSON"]),
    ("broken_entry", "[1, 2]", ["not a JSON object but a list"]),
    ("broken_entry", cscl(species=["Cs", "7!"]), ["cannot be read"]),
    ("broken_entry", cscl(cell=[[1, 0], [0]]), ["cannot be read"]),
    ("absurd_cell", cscl(cell=[[4, 0], [0, 4]]), ["three vectors of three finite numbers"]),
    ("missing_id", {**cscl(), "material_id": None}, ["no 'material_id' (or 'id')"]),
    ("missing_id", cscl(material_id="a\nb"), ["id 'a\\nb'", "not printable"]),
    ("missing_structure", cscl(cell=None), ["no structure: cell not given"]),
    ("missing_structure", {"id": "bad", "structure": "CsCl"}, ["not a pymatgen dictionary"]),
    ("missing_structure", {"id": "bad", "structure": {"sites": []}}, ["'lattice' or 'sites' not given"]),
    ("duplicate_id", cscl(material_id="good"), ["id 'good' was already used at x.jsonl:1"]),
    ("bad_split", cscl(split="holdout"), ["split 'holdout' is none of train, val, test"]),
    ("bad_property", cscl(dft_band_gap="wide"), ["dft_band_gap is 'wide'", "finite number"]),
    ("bad_property", cscl(space_group="P9"), ["space_group 'P9' is not a space group"]),
    ("disordered", disordered(), ["site 0", "K", "Na", "one whole atom per site"]),
    ("unknown_element", cscl(species=["Ar", "Cl"]), ["site 0 is Ar, which MatterGen does not generate"]),
    ("unknown_element", cscl(species=["Tc", "Cl"]), ["site 0 is Tc"]),
    ("too_many_sites", cscl(**CHAIN), ["reduced cell has 22 sites", "the 20 allowed"]),
    ("absurd_cell", cscl(cell=(np.eye(3) * 0.1).tolist()), ["Å^3 per site", "expected 1 to 2000"]),
    ("absurd_cell", cscl(cell=(np.eye(3) * 400).tolist()), ["Å^3 per site"]),
    ("absurd_cell", cscl(cell=[[4, 0, 0], [0, 4, 0], [4, 4, 0]]), ["0 Å^3 per site"]),
    ("absurd_cell", cscl(cell=[[0.1, 0, 0], [0, 0.1, 0], [0, 0, 500]]), ["edge of 500 Å", "volume of only 5 Å^3"]),
    ("absurd_cell", cscl(cell=[[4, 0, 0], [0, 4, 0], [0, 0, math.nan]]), ["three vectors of three finite numbers"]),
    ("absurd_cell", cscl(positions=[[0, 0, 0], [0, math.inf, 0]]), ["positions are not finite numbers"]),
    ("absurd_cell", slab(), ["not periodic in all three directions"]),
    ("overlapping_sites", cscl(positions=[[0, 0, 0], [0, 0.2, 4.12]]), ["sites 0 and 1", "0.2 Å apart", "0.5 Å"]),
    ("site_count_mismatch", cscl(bader_charge=[0.8]), ["bader_charge has 1 values for 2 sites"]),
    ("site_count_mismatch", cscl(bader_charge=[[1, 2], [3, 4]]), ["bader_charge has 2 numbers per site, expected 1"]),
    ("site_count_mismatch", cscl(bader_charge=[[[1]], [[2]]]), ["shape (2, 1, 1)"]),
    ("site_count_mismatch", cscl(positions=[[0, 0, 0]]), ["shape (1, 3) for 2 species"]),
    ("nan_values", cscl(bader_charge=[0.8, math.nan]), ["no finite value at 1 of 2 sites (first: site 1)"]),
    ("nan_values", cscl(bader_charge=[0.8, None]), ["no finite value at 1 of 2 sites"]),
    ("nan_values", cscl(bader_charge=[math.inf, -math.inf]), ["no finite value at 2 of 2 sites"]),
    ("nan_values", cscl(bader_charge=[1e300, -1e300]), ["no finite value at 2 of 2 sites"]),
    ("nan_values", cscl(bader_charge=["much", "little"]), ["not an array of numbers"]),
    ("nan_values", cscl(bader_charge=[[1], [2, 3]]), ["not an array of numbers"]),
    ("nan_values", cscl(bader_charge=["0.8", "-0.8"]), ["not an array of numbers", '"0.8"']),
    ("nan_values", cscl(bader_charge=[True, -1]), ["not an array of numbers", "true"]),
    ("bad_charge", cscl(bader_charge=[87, -87]), ["+87 e at site 0 (Cs)", "beyond Cs's -1.5 to +1.5 e"]),
    ("bad_charge", cscl(bader_charge=[8.2, 7.8]), ["+8.2 e at site 0 (Cs)", "the number of electrons"]),
    ("bad_charge", cscl(bader_charge=[1.6, -1.6]), ["site 0 (Cs)"]),
    ("bad_property", cscl(dft_band_gap=True), ["dft_band_gap is 'True'", "finite number"]),
    ("bad_property", cscl(dft_band_gap=-1), ["dft_band_gap is -1, outside of 0 to 30"]),
    ("bad_property", cscl(dft_band_gap=1e9), ["dft_band_gap is 1e+09, outside of 0 to 30"]),
    ("bad_property", cscl(formation_energy_per_atom=-1e4), ["formation_energy_per_atom is -10000"]),
    ("not_neutral", cscl(bader_charge=[0.9, -0.8]), ["adds up to +0.1 e", "0.05 e from zero"]),
    ("not_neutral", cscl(bader_charge=[0.8, -0.9]), ["adds up to -0.1 e"]),
    ("not_aligned", doubled([0.8, 0.7, -0.7, -0.8]), ["are one site", "merge tolerance of 0.02"]),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "entry", "words"), BAD, ids=[f"{i}-{b[0]}" for i, b in enumerate(BAD)])
def test_bad_entries_are_dropped_and_explained(tmp_path, write, reason, entry, words):
    path = write(tmp_path / "x.jsonl", [cscl(material_id="good"), entry])
    manifest = build_cache([path], tmp_path / "out", jobs=1)
    assert manifest.crystals == 1
    (dropped,) = manifest.dropped
    assert dropped.reason == reason
    assert dropped.reason in REASONS
    assert manifest.dropped_by_reason == {reason: 1}
    assert dropped.origin == "x.jsonl:2"
    for word in words:
        assert word in dropped.sentence
    assert "\n" not in dropped.sentence


def test_the_id_of_a_dropped_entry_is_told(tmp_path, write):
    path = write(tmp_path / "x.jsonl", [cscl(material_id="good"), cscl(split="?"), doubled([1, 0, 0, -1]), "{"])
    manifest = build_cache([path], tmp_path / "out", jobs=1)
    assert [item.id for item in manifest.dropped] == ["bad", "bad", None]


def test_strict_stops_at_the_first(tmp_path, write):
    path = write(tmp_path / "x.jsonl", [cscl(material_id="good"), cscl(split="?"), "{"])
    with pytest.raises(UserError, match=r"x.jsonl:2 \(bad\): the split '\?' is none of .*--strict"):
        build_cache([path], tmp_path / "out", jobs=1, strict=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cif", ["", "data_x\nnothing", "garbage", "data_x\n_cell_length_a 4\n"])
def test_broken_cifs(tmp_path, crystals, cif):
    import csv

    path = tmp_path / "x.csv"
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([["material_id", "cif"], ["a", crystals["ZnS"].to(fmt="cif")], ["b", cif]])
    (dropped,) = build_cache([path], tmp_path / "out", jobs=1).dropped
    assert dropped.id == "b"
    assert dropped.reason == ("broken_cif" if cif else "missing_structure")
    assert ("the CIF " if cif else "the column 'cif' is empty") in dropped.sentence


def test_values_are_never_shifted(tmp_path, write):
    from mattergen_e.data.cache import open_sites

    path = write(tmp_path / "x.jsonl", [cscl(bader_charge=[0.83, -0.8], split="train")])
    build_cache([path], tmp_path / "out", jobs=1)
    assert sorted(open_sites(tmp_path / "out" / "train", "bader_charge")[:, 0]) == [np.float32(-0.8), np.float32(0.83)]


def test_neutrality_is_asked_of_charges_only(tmp_path, write):
    path = write(tmp_path / "x.jsonl", [cscl(my_value=[1.0, 2.0])])
    manifest = build_cache([path], tmp_path / "out", jobs=1, site_values=["my_value"])
    assert manifest.crystals == 1
    assert manifest.site_values["my_value"].unit == ""


def test_limits_are_options(tmp_path, write):
    entries = [cscl(), cscl(material_id="loose", bader_charge=[0.9, -0.8])]
    entries += [{**doubled([0.8, 0.7, -0.7, -0.8]), "material_id": "merge"}, cscl(**CHAIN, material_id="chain")]
    path = write(tmp_path / "x.jsonl", entries)
    manifest = build_cache(
        [path], tmp_path / "out", jobs=1, neutrality_tolerance=0.2, merge_tolerance=0.1, max_atoms=30
    )
    assert manifest.crystals == 4
    assert manifest.dropped == []


def test_huge_input_cells_are_not_reduced():
    structure = Structure(Lattice.cubic(40), ["Na"] * 1001, np.random.default_rng(0).random((1001, 3)))
    with pytest.raises(EntryError, match="the input cell has 1001 sites") as error:
        checks.check_input(structure, OPTIONS)
    assert error.value.reason == "too_many_sites"


def test_distances_see_all_images():
    skewed = Structure(
        Lattice([[4, 0, 0], [2, 3.5, 0], [2, 1.2, 3.3]]), ["Na", "Na"], [[0.02, 0.02, 0.02], [0.98, 0.98, 0.95]]
    )
    shortest = skewed.distance_matrix[0, 1]
    assert shortest < 0.5
    with pytest.raises(EntryError, match=f"{shortest:.3g} Å apart"):
        checks.check_distances(skewed)
    checks.check_distances(Structure(Lattice.cubic(3), ["Na"], [[0, 0, 0]]))
