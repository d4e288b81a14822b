"""The whole way from files to a cache."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from kills import kills
from typer.testing import CliRunner

from mattergen_e.cli.data import app
from mattergen_e.data import build as build_module
from mattergen_e.data.build import build_cache, read_ids
from mattergen_e.data.cache import CORE_NAMES, load_manifest, open_sites
from mattergen_e.data.collect import hash_split
from mattergen_e.errors import UserError


def arrays(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*.npy"))}


def write_csv(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_build_from_json_lines(tmp_path, bader_file, crystals):
    manifest = build_cache([bader_file], tmp_path / "out", properties=["dft_band_gap=band_gap_aflow"], jobs=1)
    assert manifest.crystals == len(crystals)
    assert manifest.dropped == []
    assert manifest.sites == sum(len(s.get_primitive_structure()) for s in crystals.values())
    assert {split: (tmp_path / "out" / split).is_dir() for split in manifest.splits} == dict.fromkeys(
        manifest.splits, True
    )
    info = manifest.site_values["bader_charge"]
    assert (info.unit, info.dim, info.column) == ("e", 1, "bader_charge")
    assert all(s.coverage == 1.0 and s.rms > 0 for s in info.splits.values())
    assert sum(manifest.properties["dft_band_gap"].known.values()) == 6
    for split, ids in {"val": {"c-CsCl", "c-TiO2"}, "test": {"c-GaAs", "c-MgAl2O4"}}.items():
        assert ids <= set(np.load(tmp_path / "out" / split / "structure_id.npy").tolist())
    assert manifest == load_manifest(tmp_path / "out")


def test_charges_arrive_with_their_species(tmp_path, bader_file, crystals, charges):
    build_cache([bader_file], tmp_path / "out", jobs=1, split_column=None, split_fractions=(1, 0, 0))
    folder = tmp_path / "out" / "train"
    numbers, counts = np.load(folder / "atomic_numbers.npy"), np.load(folder / "num_atoms.npy")
    values, start = open_sites(folder, "bader_charge")[:, 0], 0
    for name, count in zip(np.load(folder / "structure_id.npy"), counts, strict=True):
        structure = crystals[name.removeprefix("c-")].get_primitive_structure()
        expected = {site.specie.Z: q for site, q in zip(structure, charges(structure), strict=True)}
        for z, q in zip(numbers[start : start + count], values[start : start + count], strict=True):
            assert q == pytest.approx(expected[z], abs=1e-6)
        start += count


def test_the_result_does_not_depend_on_the_number_of_processes(tmp_path, bader_file, monkeypatch):
    monkeypatch.setattr(build_module, "CHUNK", 3)
    one = build_cache([bader_file], tmp_path / "one", jobs=1)
    two = build_cache([bader_file], tmp_path / "two", jobs=2)
    assert arrays(tmp_path / "one") == arrays(tmp_path / "two")
    assert one.model_copy(update={"created": two.created}) == two


def test_strict_stops_with_several_processes(tmp_path, crystals, make_entry, write, monkeypatch):
    monkeypatch.setattr(build_module, "CHUNK", 2)
    entries = [make_entry(f"m-{i}", crystals["CsCl"], split="?" if i == 3 else None) for i in range(60)]
    path = write(tmp_path / "x.jsonl", entries)
    with pytest.raises(UserError, match=r"x.jsonl:4 \(m-3\): the split '\?'"):
        build_cache([path], tmp_path / "out", jobs=2, strict=True)
    assert sorted(tmp_path.iterdir()) == [path]


def test_same_arrays_as_mattergen(tmp_path, crystals, real_data):
    import gzip

    from mattergen.common.data.dataset import CrystalDatasetBuilder

    with gzip.open(real_data / "mp_structures.csv.gz", "rt", newline="") as handle:
        rows = [row for i, row in enumerate(csv.DictReader(handle)) if i % 866 == 0]
    rows = [{k: r[k] for k in ("material_id", "dft_band_gap", "energy_above_hull", "cif")} for r in rows]
    for name, structure in crystals.items():  # conventional cells and cells with symmetry as well
        rows.append(
            {"material_id": name, "dft_band_gap": "", "energy_above_hull": "0.1", "cif": structure.to(fmt="cif")}
        )
        cif = structure.to(fmt="cif", symprec=0.01)
        rows.append({"material_id": f"{name}-s", "dft_band_gap": "1", "energy_above_hull": "", "cif": cif})
    path = write_csv(tmp_path / "x.csv", rows)
    upstream = CrystalDatasetBuilder.from_csv(str(path), str(tmp_path / "upstream"))
    manifest = build_cache([path], tmp_path / "ours", jobs=1, split_fractions=(1, 0, 0))
    assert manifest.crystals == len(rows) == 51
    for name in CORE_NAMES:
        ours, theirs = np.load(tmp_path / "ours/train" / f"{name}.npy"), np.load(tmp_path / "upstream" / f"{name}.npy")
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs), name
    again = CrystalDatasetBuilder(str(tmp_path / "ours/train"), properties=upstream.property_names)
    for name, values in upstream.properties.items():
        np.testing.assert_allclose(again.properties[name], values, rtol=1e-12)


def test_splits_by_hash_are_stable():
    ids = [f"mp-{i}" for i in range(2000)]
    fractions = (0.9, 0.05, 0.05)
    splits = [hash_split(i, 0, fractions) for i in ids]
    assert splits[:12] == EXPECTED_SPLITS
    shares = [splits.count(s) / len(ids) for s in ("train", "val", "test")]
    np.testing.assert_allclose(shares, fractions, atol=0.02)
    assert [hash_split(i, 1, fractions) for i in ids] != splits
    assert {hash_split(i, 0, (1.0, 0.0, 0.0)) for i in ids} == {"train"}
    assert {hash_split(i, 0, (0.0, 0.0, 1.0)) for i in ids} == {"test"}


EXPECTED_SPLITS = ["test", *["train"] * 10, "test"]


def test_splits_do_not_depend_on_the_order(tmp_path, crystals, make_entry, write):
    entries = [make_entry(f"m-{i}", crystals["CsCl"]) for i in range(20)]
    found = []
    for name, order in (("a", entries), ("b", entries[::-1])):
        manifest = build_cache(
            [write(tmp_path / f"{name}.jsonl", order)], tmp_path / name, jobs=1, split_fractions=(0.4, 0.3, 0.3)
        )
        found.append({s: sorted(np.load(tmp_path / name / s / "structure_id.npy").tolist()) for s in manifest.splits})
        assert {s: i.ids_sha256 for s, i in manifest.splits.items()}
    assert found[0] == found[1]


def test_unlabelled_crystals_are_kept(tmp_path, crystals, make_entry, write):
    entries = [make_entry("a", crystals["CsCl"]), make_entry("b", crystals["CsCl"], bader_charge=None)]
    manifest = build_cache([write(tmp_path / "x.jsonl", entries)], tmp_path / "out", jobs=1, split_fractions=(1, 0, 0))
    stats = manifest.site_values["bader_charge"].splits["train"]
    assert (stats.labelled_crystals, stats.labelled_sites, stats.coverage) == (1, 2, 0.5)
    assert np.isnan(open_sites(tmp_path / "out" / "train", "bader_charge")[2:]).all()


def test_several_sources_and_excluded_ids(tmp_path, crystals, make_entry, write):
    first = write(
        tmp_path / "a.jsonl", [make_entry("a", crystals["CsCl"], split="test"), make_entry("b", crystals["ZnS"])]
    )
    second = write_csv(tmp_path / "b.csv", [{"material_id": i, "cif": crystals["TiO2"].to(fmt="cif")} for i in "acd"])
    build_cache([first], tmp_path / "one", jobs=1)
    manifest = build_cache(
        [second, first], tmp_path / "two", jobs=1, exclude_ids=tmp_path / "one/test/structure_id.npy"
    )
    assert manifest.excluded == 2
    assert manifest.crystals == 3
    assert [s.name for s in manifest.sources] == ["b.csv", "a.jsonl"]
    assert [s.entries for s in manifest.sources] == [3, 2]
    (tmp_path / "ids.txt").write_text("c\n\n d \n")
    manifest = build_cache([first, second], tmp_path / "three", jobs=1, exclude_ids=tmp_path / "ids.txt")
    assert manifest.excluded == 2
    assert manifest.dropped_by_reason == {"duplicate_id": 1}
    assert read_ids(["x"]) == {"x"}
    with pytest.raises(UserError, match=r"no.txt cannot be read .* one id per line"):
        read_ids(tmp_path / "no.txt")


def test_components_must_agree(tmp_path, crystals, make_entry, write):
    entries = [make_entry(i, crystals["CsCl"], v=v) for i, v in (("a", None), ("b", [[1, 2], [3, 4]]), ("c", [1, 2]))]
    manifest = build_cache([write(tmp_path / "x.jsonl", entries)], tmp_path / "out", jobs=1, site_values=["v"])
    assert manifest.site_values["v"].dim == 2
    (dropped,) = manifest.dropped
    assert (dropped.id, dropped.reason) == ("c", "site_count_mismatch")
    assert "v has 1 numbers per site, but 2 in the entries before" in dropped.sentence


def test_text_properties_must_be_complete(tmp_path, crystals, make_entry, write):
    full = [make_entry("a", crystals["CsCl"], space_group=221), make_entry("b", crystals["ZnS"], space_group="P6_3mc")]
    manifest = build_cache([write(tmp_path / "a.jsonl", full)], tmp_path / "a", jobs=1)
    assert manifest.properties["space_group"].written
    part = [make_entry("a", crystals["CsCl"], space_group=221), make_entry("b", crystals["ZnS"])]
    path = write(tmp_path / "b.jsonl", part)
    manifest = build_cache([path], tmp_path / "b", jobs=1)
    assert not manifest.properties["space_group"].written
    assert not list((tmp_path / "b").rglob("space_group.json"))
    part = [make_entry("a", crystals["CsCl"], sg=221), make_entry("b", crystals["ZnS"])]
    with pytest.raises(UserError, match=r"'space_group' .* known for 1 of 2 crystals: a text must be known for all"):
        build_cache([write(tmp_path / "c.jsonl", part)], tmp_path / "c", jobs=1, properties=["space_group=sg"])


@pytest.mark.parametrize("error", [RuntimeError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["write_split", "Manifest"])
def test_a_failure_leaves_nothing_behind(tmp_path, bader_file, monkeypatch, error, where):
    from mattergen_e.data import cache

    calls = []

    def fail(*args, **kwargs):
        calls.append(args)
        if len(calls) > 1 or where == "Manifest":
            raise error
        return original(*args, **kwargs)

    original = getattr(cache, where)
    monkeypatch.setattr(cache, where, fail)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(type(error)):
        build_cache([bader_file], tmp_path / "out", jobs=1)
    assert calls
    assert sorted(tmp_path.iterdir()) == before


def test_a_failed_overwrite_keeps_the_old(tmp_path, bader_file, monkeypatch):
    from mattergen_e.data import cache

    build_cache([bader_file], tmp_path / "out", jobs=1)
    before = arrays(tmp_path / "out")
    listing = sorted(tmp_path.iterdir())

    def fail(*args, **kwargs):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(cache, "write_split", fail)
        with pytest.raises(UserError, match="disk full"):
            build_cache([bader_file], tmp_path / "out", jobs=1, overwrite=True)
    assert arrays(tmp_path / "out") == before
    assert sorted(tmp_path.iterdir()) == listing
    build_cache([bader_file], tmp_path / "out", jobs=1, overwrite=True, split_fractions=(1, 0, 0), split_column=None)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.json", "train"]
    assert sorted(tmp_path.iterdir()) == listing


def test_killed_anywhere(tmp_path, bader_file):
    """Killed before each so many-th of its file operations, the old cache or the new one is there, and nothing else."""
    only = bader_file.parent / "one.jsonl"
    only.write_text(bader_file.read_text().splitlines()[0] + "\n")
    whole = {"split_fractions": (1, 0, 0), "split_column": None, "progress": False, "jobs": 1}
    build_cache([only], tmp_path / "old", **whole, seed=1)

    def build(folder):
        build_cache([only], folder / "out", **whole, overwrite=True)

    number = 0
    for place in kills(build, lambda at: shutil.copytree(tmp_path / "old", at / "out"), tmp_path, every=3):
        number += 1
        assert load_manifest(place / "out").crystals == 1
        build(place)
        assert [path.name for path in place.iterdir()] == ["out"] and load_manifest(place / "out").settings["seed"] == 0
    assert number > 5


def test_only_caches_are_replaced(tmp_path, bader_file):
    for content in ('{"name": "a page"}', "[]", "not json", "[" * 100_000):
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        (out / "manifest.json").write_text(content)
        with pytest.raises(UserError, match="is not a cache of this package"):
            build_cache([bader_file], out, jobs=1, overwrite=True)
        assert (out / "manifest.json").read_text() == content


@pytest.mark.parametrize("part", ["splits", "site_values", "properties"])
def test_a_manifest_names_no_other_place(tmp_path, bader_file, part):
    build_cache([bader_file], tmp_path / "out", jobs=1, properties=["dft_band_gap=band_gap_aflow"])
    path = tmp_path / "out" / "manifest.json"
    fields = json.loads(path.read_text())
    fields[part]["../../victim"] = next(iter(fields[part].values()))
    path.write_text(json.dumps(fields))
    with pytest.raises(UserError, match=f"{part}: .*leave out slashes"):
        load_manifest(tmp_path / "out")


def test_existing_folders_are_refused(tmp_path, bader_file):
    build_cache([bader_file], tmp_path / "out", jobs=1)
    with pytest.raises(UserError, match=r"out exists: .*--overwrite"):
        build_cache([bader_file], tmp_path / "out", jobs=1)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious.txt").write_text("x")
    with pytest.raises(UserError, match="home is not a cache of this package"):
        build_cache([bader_file], tmp_path / "home", jobs=1, overwrite=True)
    assert (tmp_path / "home" / "precious.txt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_fractions": (0.5, 0.5, 0.5)}, "three shares"),
        ({"split_fractions": (1.5, -0.5, 0.0)}, "three shares"),
        ({"max_atoms": 0}, "at least 1"),
        ({"jobs": 0}, "at least 1"),
        ({"neutrality_tolerance": -1}, "zero or positive"),
        ({"merge_tolerance": float("nan")}, "zero or positive"),
        ({"site_values": ["pos"]}, "MatterGen uses itself"),
        ({"site_values": ["nothing"]}, "No crystal has the site value 'nothing'"),
        ({"properties": ["band_gap"]}, "known for 0 of 10 .*MatterGen has names for .*dft_band_gap"),
        ({"properties": ["dft_band_gap"]}, "'dft_band_gap' .* known for 0 of"),
        ({"max_atoms": 1}, "No entry is left: 10 dropped .*first: bader.jsonl:1"),
    ],
)  # fmt: skip
def test_wrong_options(tmp_path, bader_file, options, message):
    with pytest.raises(UserError, match=message):
        build_cache([bader_file], tmp_path / "out", **{"jobs": 1, **options})
    assert not (tmp_path / "out").exists()


def test_no_input(tmp_path):
    with pytest.raises(UserError, match="name at least one"):
        build_cache([], tmp_path / "out")


def test_no_machine_paths_in_the_manifest(tmp_path, bader_file):
    build_cache([bader_file], tmp_path / "out", jobs=1)
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()


def test_the_command(tmp_path, bader_file, write):
    bad = write(tmp_path / "bad.jsonl", ['{"material_id": "x", "structure": {}}', "{"])
    (tmp_path / "ids.txt").write_text("c-Si\n")
    arguments = ["build", str(bader_file), str(bad), "--out", str(tmp_path / "out"), "--jobs", "1"]
    arguments += ["--property", "dft_band_gap=band_gap_aflow", "--exclude-ids", str(tmp_path / "ids.txt")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "160"})
    assert result.exit_code == 0
    for word in (
        "9 crystals",
        "train",
        "bader_charge",
        "[e]",
        "dft_band_gap (6)",
        "missing_structure",
        "bad.jsonl:1",
        "manifest.json",
    ):
        assert word in result.output
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["excluded"] == 1
    with pytest.raises(UserError, match="exists"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    with pytest.raises(UserError, match="three shares"):
        CliRunner().invoke(app, [*arguments, "--overwrite", "--split-fractions", "a,b"], catch_exceptions=False)
