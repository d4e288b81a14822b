"""The files of an evaluation."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest

from mattergen_e.evaluation import output


def _row(index: int, key: str, **changes: Any) -> dict[str, Any]:
    names = ("energy_per_atom", "energy_above_hull", "converged", "rmsd")
    return {"index": index, "key": key, **dict.fromkeys(names), "properties": {}, "success": {}, **changes}


@pytest.fixture
def relaxation(solids: dict[str, Any]) -> dict[str, Any]:
    """NaCl relaxed, MgO not."""
    return {"a": {"ok": True, "structure": solids["NaCl"].as_dict()}, "b": {"ok": False, "reason": "raised"}}


def test_relaxed_frames_can_be_read_by_ase(relaxation: dict[str, Any], solids: dict[str, Any]) -> None:
    rows = [_row(0, "b"), _row(3, "a", energy_per_atom=-3.5, converged=True, rmsd=0.02), _row(4, "c")]
    frames: Any = ase.io.read(io.StringIO(output.relaxed_frames(rows, relaxation)), index=":", format="extxyz")
    assert [frame.info["index"] for frame in frames] == [3]
    assert frames[0].info["key"] == "a" and frames[0].info["energy_per_atom"] == -3.5 and frames[0].info["converged"]
    assert "energy_above_hull" not in frames[0].info
    assert np.allclose(frames[0].cell, solids["NaCl"].lattice.matrix)
    assert list(frames[0].numbers) == list(solids["NaCl"].atomic_numbers)


def test_all_files_are_replaced_and_arrays_need_no_pickle(tmp_path: Path, relaxation: dict[str, Any]) -> None:
    rows = [_row(0, "a")]
    output.write(tmp_path, {"format": 1}, rows, relaxation, {"charge_site": np.arange(3)})
    with np.load(tmp_path / output.SITES, allow_pickle=False) as arrays:
        assert arrays["charge_site"].tolist() == [0, 1, 2]
    assert json.loads((tmp_path / output.SUMMARY).read_text()) == {"format": 1}
    output.write(tmp_path, {"format": 1, "b": "Å"}, rows, {}, {})
    assert {file.name for file in tmp_path.iterdir()} == {output.SUMMARY, output.CSV, output.JSON_LINES}


def test_a_number_that_is_not_finite_leaves_the_old_file(tmp_path: Path) -> None:
    output.write(tmp_path, {"format": 1}, [], {}, {})
    with pytest.raises(ValueError, match="JSON"):
        output.write(tmp_path, {"rate": float("nan")}, [], {}, {})
    assert json.loads((tmp_path / output.SUMMARY).read_text()) == {"format": 1}
