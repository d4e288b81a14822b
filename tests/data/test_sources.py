"""Files in, entries out; whatever stands in a file, nothing but a reported problem."""

from __future__ import annotations

import csv
import gzip
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mattergen_e.crystals.checks import REASONS, EntryError, mattergen_names
from mattergen_e.crystals.fields import parse_renames, read_property
from mattergen_e.data.collect import Dropped, Prepared
from mattergen_e.data.sources import ReadOptions, Record, iter_records, parse_record, read_entries
from mattergen_e.errors import UserError

GAPS = ReadOptions(properties=(("dft_band_gap", "band_gap_aflow"), ("space_group", "space_group")))


def write_csv(path, rows, header=None):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        if header:
            writer.writerow(header)
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_json_lines(tmp_path, crystals, make_entry, write, suffix):
    entry = make_entry("a", crystals["NaCl"], split="val", band_gap_aflow=5.0, formula="NaCl")
    path = write(tmp_path / f"x{suffix}", [entry, "", make_entry("b", crystals["ZnS"])])
    first, second = read_entries(path, GAPS)
    assert (first.id, first.split, first.origin) == ("a", "val", f"x{suffix}:1")
    assert (second.id, second.split, second.origin) == ("b", None, f"x{suffix}:3")
    assert first.site_values["bader_charge"].shape == (8, 1)
    np.testing.assert_allclose(first.site_values["bader_charge"][:, 0], entry["bader_charge"])
    np.testing.assert_allclose(first.structure.cart_coords, entry["positions"], atol=1e-12)
    assert first.properties == {"dft_band_gap": 5.0}
    assert second.properties == {}


def test_pymatgen_dictionary_with_site_properties(tmp_path, crystals, write):
    structure = crystals["TiO2"].copy(
        site_properties={"bader_charge": [2.0, 2.0, -1.0, -1.0, -1.0, -1.0], "magmom": [1] * 6}
    )
    path = write(
        tmp_path / "x.jsonl", [{"id": "r", "structure": structure.as_dict(), "properties": {"band_gap_aflow": 1}}]
    )
    options = ReadOptions(site_values=(("charge", "bader_charge"), ("magmom", "magmom")), properties=GAPS.properties)
    (entry,) = read_entries(path, options)
    assert entry.site_values["charge"][:, 0].tolist() == [2.0, 2.0, -1.0, -1.0, -1.0, -1.0]
    assert entry.site_values["magmom"].shape == (6, 1)
    assert entry.properties["dft_band_gap"] == 1.0
    assert entry.structure.site_properties == {}
    np.testing.assert_array_equal(entry.structure.frac_coords, structure.frac_coords)


def test_a_dictionary_cannot_name_classes_to_build(tmp_path, crystals, write):
    given = crystals["NaCl"].as_dict()
    trap = {"@module": "subprocess", "@class": "Popen", "args": ["false"]}
    given["sites"][0]["properties"] = {"bader_charge": trap}
    path = write(tmp_path / "x.jsonl", [{"id": "r", "structure": given}])
    with pytest.raises(EntryError, match="not an array of numbers"):
        list(read_entries(path))


def test_site_values_in_their_own_dictionary_win(tmp_path, crystals, make_entry, write):
    entry = make_entry("a", crystals["CsCl"], site_values={"bader_charge": [0.7, -0.7]})
    (read,) = read_entries(write(tmp_path / "x.jsonl", [entry]))
    assert read.site_values["bader_charge"][:, 0].tolist() == [0.7, -0.7]


def test_null_is_unknown(tmp_path, crystals, make_entry, write):
    entry = make_entry("a", crystals["CsCl"], bader_charge=None)
    (read,) = read_entries(write(tmp_path / "x.jsonl", [entry]))
    assert read.site_values == {}


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_csv(tmp_path, crystals, suffix):
    cifs = [crystals[name].to(fmt="cif") for name in ("NaCl", "TiO2")]
    rows = [["mp-1", cifs[0], "train", "5.0"], [], ["mp-2", cifs[1], "", ""]]
    path = write_csv(tmp_path / f"x{suffix}", rows, ["\ufeffmaterial_id", "cif", "split", "band_gap_aflow"])
    first, second = read_entries(path, GAPS)
    assert (first.id, first.split, first.origin, len(first.structure)) == ("mp-1", "train", f"x{suffix}:2", 2)
    assert (second.id, second.split, len(second.structure)) == ("mp-2", None, 6)
    assert second.origin == f"x{suffix}:{4 + cifs[0].count(chr(10))}"
    assert math.isnan(second.properties["dft_band_gap"])


def test_a_csv_cannot_carry_site_values(tmp_path):
    path = write_csv(tmp_path / "x.csv", [["a", "c", "[1]"]], ["material_id", "cif", "bader_charge"])
    with pytest.raises(UserError, match=r"x.csv has a column 'bader_charge'.*JSON lines"):
        list(iter_records(path, ReadOptions()))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.jsonl", b"", ["x.jsonl is empty", "'material_id'", "'species'"]),
        ("x.jsonl", b"\n\n", ["x.jsonl is empty"]),
        ("x.csv", b"", ["x.csv is empty", "'material_id' and 'cif'"]),
        ("x.csv", b"material_id,cif\n", ["x.csv is empty"]),
        (
            "x.csv",
            b"id_,structure\n1,2\n",
            ["x.csv has the wrong columns", "'material_id' and 'cif'", "found 'id_', 'structure'"],
        ),
        ("x.jsonl", b'{"name": 1}\n', ["x.jsonl has the wrong columns", "'structure'", "found 'name'"]),
        ("x.jsonl", b"{}\n", ["wrong columns", "found nothing"]),
        ("x.txt", b"1", ["x.txt is of an unknown format", ".jsonl.gz"]),
        ("x.jsonl.gz", b"not gzip", ["x.jsonl.gz cannot be read to its end"]),
        (
            "x.csv.gz",
            gzip.compress(b"material_id,cif\n" + b"a,b\n" * 5000, mtime=0)[:60],
            ["x.csv.gz cannot be read to its end"],
        ),
    ],
)
def test_unusable_files(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        list(iter_records(tmp_path / name))
    for word in words:
        assert word in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"no.jsonl is not a file: check the path"):
        list(iter_records(tmp_path / "no.jsonl"))


def test_renames():
    assert parse_renames(["a", "b=C d", " x = y "], "--o") == (("a", "a"), ("b", "C d"), ("x", "y"))
    for bad in ("A", "", "=x", "my-name", "x_batch", "site_index", "1a"):
        with pytest.raises(UserError, match="cannot be a name"):
            parse_renames([bad], "--o")
    with pytest.raises(UserError, match="given twice"):
        parse_renames(["a", "a=b"], "--o")


def test_properties():
    assert read_property("dft_band_gap", "1.5") == 1.5
    assert math.isnan(read_property("dft_band_gap", " "))
    assert math.isnan(read_property("dft_band_gap", None))
    assert read_property("space_group", 225) == "Fm-3m"
    assert read_property("space_group", "P6_3mc") == "P6_3mc"
    assert read_property("chemical_system", "Cl-Na") == "Cl-Na"
    for name, value in [
        ("dft_band_gap", "much"),
        ("dft_band_gap", "inf"),
        ("dft_band_gap", [1]),
        ("dft_band_gap", 10**400),
    ]:
        with pytest.raises(EntryError, match="expected a finite number") as error:
            read_property(name, value)
        assert error.value.reason == "bad_property"
    for value in ("P9", "999", "Fm-3m" * 50, "\ud800"):
        with pytest.raises(EntryError):
            read_property("space_group", value)


def outcomes(records):
    from mattergen_e.crystals.checks import CheckOptions
    from mattergen_e.data.build import process_chunk

    return process_chunk(records, GAPS, CheckOptions(mattergen_names()[0]))


def assert_reported(record):
    (outcome,) = outcomes([record])
    if isinstance(outcome, Dropped):
        assert outcome.reason in REASONS
        assert outcome.sentence
        outcome.sentence.encode()
        assert (outcome.id or "").isprintable()
    else:
        assert isinstance(outcome, Prepared)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(text=st.text(max_size=60) | JSON.map(json.dumps))
def test_garbage_lines_are_reported(text):
    assert_reported(Record("x:1", text))


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_entries_are_reported(crystals, make_entry, data):
    base = make_entry("a", crystals["CsCl"], band_gap_aflow=1.0, space_group=221, split="train")
    if data.draw(st.booleans()):
        base = {"id": "a", "structure": crystals["CsCl"].as_dict(), "bader_charge": base["bader_charge"]}
    entry = json.loads(json.dumps(base))
    place = entry
    while True:  # walk down to a random place and put something else there
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            place = inner
            continue
        place[key] = data.draw(JSON)
        break
    assert_reported(Record("x:1", json.dumps(entry)))


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_damaged_cifs_are_reported(crystals, data):
    text = crystals["CsCl"].to(fmt="cif")
    start = data.draw(st.integers(0, len(text)))
    stop = min(len(text), start + data.draw(st.integers(0, 30)))
    text = text[:start] + data.draw(st.text(max_size=12)) + text[stop:]
    assert_reported(Record("x:1", {"material_id": "a", "cif": text}))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=80),
    name=st.sampled_from(["x.csv", "x.jsonl", "x.csv.gz", "x.jsonl.gz"]),
    header=st.booleans(),
)
def test_garbage_files_are_reported(tmp_path, content, name, header):
    if header:
        content = (b"material_id,cif\n" if ".csv" in name else b'{"id": "a", "structure": {}}\n') + content
    if name.endswith(".gz") and header:
        content = gzip.compress(content, mtime=0)
    (tmp_path / name).write_bytes(content)
    try:
        records = list(iter_records(tmp_path / name))
    except UserError as error:
        assert name in str(error)
        return
    for record in records:
        assert_reported(record)


def test_parse_record_keeps_the_id_of_a_bad_entry(crystals, make_entry):
    entry = make_entry("bad-one", crystals["CsCl"], positions=[[0, 0, 0]])
    with pytest.raises(EntryError) as error:
        parse_record(Record("x:7", json.dumps(entry)), GAPS)
    assert (error.value.entry_id, error.value.reason) == ("bad-one", "site_count_mismatch")


def test_a_cif_of_a_table_holds_one_crystal(crystals):
    both = "".join(crystals[name].to(fmt="cif") for name in ("NaCl", "CsCl"))
    with pytest.raises(EntryError, match=r"holds 2 crystals \(NaCl, CsCl\), where one is needed") as error:
        parse_record(Record("x:1", {"material_id": "a", "cif": both}), ReadOptions())
    assert error.value.reason == "broken_cif"


def test_json_over_several_lines_is_named(tmp_path, crystals):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"id": "a", "structure": crystals["CsCl"].as_dict()}, indent=1))
    with pytest.raises(UserError, match="JSON over several lines: write each crystal on one line"):
        list(read_entries(path))


def test_a_mark_before_the_text_and_heavy_hydrogen(tmp_path):
    entry = {"id": "a", "species": ["Li", "D"], "cell": (4 * np.eye(3)).tolist(), "positions": [[0, 0, 0], [2, 2, 2]]}
    (tmp_path / "x.jsonl").write_text(json.dumps(entry), encoding="utf-8-sig")
    (found,) = read_entries(tmp_path / "x.jsonl")
    assert [site.specie.symbol for site in found.structure] == ["Li", "H"]
