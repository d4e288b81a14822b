"""Energies from files: every row counts once, and what is wrong is named with its line."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mattergen_e.energies.given import read_energies
from mattergen_e.errors import UserError


def test_csv_and_json_lines_give_the_same(tmp_path: Path) -> None:
    text = "material_id,energy_per_atom,comment\nmp-1,-3.25,a\nNa,-1.3,\n7,-2,\nmp-9,,not computed\n"
    (tmp_path / "e.csv").write_text(text)
    (tmp_path / "e.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "e.jsonl").write_text(
        '{"material_id": "mp-1", "energy_per_atom": -3.25}\n{"id": "Na", "energy_per_atom": -1.3}\n\n'
        '{"index": 7, "energy_per_atom": -2}\n{"key": "abc", "energy_per_atom": null}\n'
    )
    for name in ("e.csv", "e.csv.gz", "e.jsonl"):
        read = read_energies(tmp_path / name)
        assert read.values == {"mp-1": -3.25, "Na": -1.3, "7": -2.0}
        assert read.find("unknown key", 7) == -2.0 and math.isnan(read.find("mp-9"))
        assert read.source["kind"] == "file" and read.source["name"] == name and len(read.source["sha256"]) == 64


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("e.csv", "", "wrong columns"),
        ("e.csv", "material_id,energy\nmp-1,2\n", "wrong columns"),
        ("e.csv", "material_id,energy_per_atom\n", "holds no energy"),
        ("e.csv", "material_id,energy_per_atom\nmp-1,-1\nmp-2,low\n", "line 3: energy_per_atom of mp-2 is 'low'"),
        ("e.csv", "material_id,energy_per_atom\nmp-1,inf\n", "line 2"),
        ("e.csv", "material_id,energy_per_atom\nmp-1,-1\nmp-1,-2\n", "line 3: mp-1 has two different energies"),
        ("e.csv", "material_id,energy_per_atom\n,-1\n", "line 2: the row has no name"),
        ("e.jsonl", '{"index": 0, "energy_per_atom": -1}\n{"index": 1\n', "line 2 is not JSON"),
        ("e.jsonl", "[1, 2]\n", "line 1: the row has no name"),
        ("e.jsonl", '{"index": 0, "energy_per_atom": true}\n', "line 1: energy_per_atom of 0 is True"),
        ("e.txt", "mp-1 -1\n", "unknown format"),
        ("missing.csv", None, "cannot be read"),
    ],
)
def test_what_is_wrong_is_one_sentence(name: str, text: str | None, sentence: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        read_energies(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@given(content=st.binary(max_size=200), suffix=st.sampled_from([".csv", ".jsonl", ".csv.gz"]))
def test_any_file_is_energies_or_one_sentence(content: bytes, suffix: str, tmp_path_factory) -> None:
    file = tmp_path_factory.mktemp("energies") / f"e{suffix}"
    file.write_bytes(content)
    try:
        assert read_energies(file).values
    except UserError as error:
        assert "\n" not in str(error)
