"""Properties of a file."""

from __future__ import annotations

import gzip
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.evaluation.properties import make_predictor, own_properties, read_properties, within


def test_the_ends_of_the_tolerance_count() -> None:
    assert within([0.8, 0.2, 0.81, 0.19, np.nan], 0.5, 0.3).tolist() == [True, True, False, False, False]
    assert bool(within(3.0, 3.0, 0.0)) and not bool(within(3.0, np.nan, 9.0))


# -- from a file ------------------------------------------------------------------------------------------------------


def test_a_table_of_values(tmp_path: Path) -> None:
    path = tmp_path / "dft.csv"
    path.write_text(
        "index, formula,dft_band_gap,formation_energy_per_atom,source\n0,NaCl,5.0,,HSE06\n1,Si,0,-0.1,\n2,Cu,nan,,PBE\n"
    )
    found = read_properties(path)
    assert found.sha256 == sha256(path.read_bytes()).hexdigest()
    file = f"dft.csv (sha256 {found.sha256[:12]})"
    assert found.find(0) == {"dft_band_gap": {"value": 5.0, "source": f"HSE06, {file}"}}
    assert found.find(1, "abc") == {
        "dft_band_gap": {"value": 0.0, "source": file},
        "formation_energy_per_atom": {"value": -0.1, "source": file},
    }
    assert found.find(2) == found.find(3) == {}


def test_columns_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "dft.csv"
    path.write_text("index,my_hardness,my_phase,note\n0,20.5, wurtzite ,7\n1,,,\n")
    own = own_properties(["my_hardness"], [{"my_phase": "rocksalt", "dos": {"curve": 1}, "dft_band_gap": 1.0}])
    assert own == {"my_hardness": "number", "my_phase": "category"}
    found = read_properties(path, own)
    assert {name: item["value"] for name, item in found.find(0).items()} == {
        "my_hardness": 20.5,
        "my_phase": "wurtzite",
    }
    assert found.find(1) == {} and found.has("my_phase") and not found.has("note")
    path.write_text("index,my_hardness\n0,hard\n")
    with pytest.raises(UserError, match="line 2: my_hardness is 'hard'"):
        read_properties(path, own)
    path.write_text("index,note\n0,1\n")
    with pytest.raises(UserError, match="or my_hardness, my_phase"):
        read_properties(path, own)


@pytest.mark.parametrize("packed", [False, True])
def test_json_lines_and_other_names(tmp_path: Path, packed: bool) -> None:
    lines = [
        {"id": "gen_4", "dft_band_gap": 1.5, "note": "a\u2028b"},
        {"key": "f" * 64, "properties": {"energy_above_hull": 0.02, "space_group": 225}},
        {"material_id": "mp-1", "dft_band_gap": None},
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    path = tmp_path / ("values.jsonl.gz" if packed else "values.jsonl")
    path.write_bytes(gzip.compress(text) if packed else text)
    found = read_properties(path)
    assert found.find(4)["dft_band_gap"]["value"] == 1.5
    assert {k: v["value"] for k, v in found.find(7, "f" * 64).items()} == {"energy_above_hull": 0.02}
    assert found.find(None, "mp-1") == {}


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.csv", "index,dft_band_gap\n0,wide\n", "line 2: dft_band_gap is 'wide'"),
        ("a.csv", "index,dft_band_gap\n0,inf\n", "line 2: dft_band_gap is 'inf'"),
        ("a.csv", "index,dft_band_gap\n0,1\n0,2\n", "line 3: 0 occurs twice"),
        ("a.csv", "formula,dft_band_gap\nNaCl,1\n", "line 2: the row has no name"),
        ("a.csv", "index,gap\n0,1\n", "holds no property"),
        ("a.csv", "", "holds no property"),
        ("a.jsonl", '{"index": 0, "dft_band_gap": true}\n', "dft_band_gap is True"),
        ("a.jsonl", '{"index": 0\n', "line 1 is not JSON"),
        ("a.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("a.pkl", "x", "unknown format"),
        ("a.csv.gz", "not packed", "cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_properties(tmp_path / name)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_properties(tmp_path / "none.csv")


def test_an_unknown_predictor() -> None:
    with pytest.raises(UserError, match="unknown"):
        make_predictor("oracle")
