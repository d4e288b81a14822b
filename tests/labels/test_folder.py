"""The folder of labels: what is written is read back, other settings are refused, and nothing half-written counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.crystals.findings import Finding
from mattergen_e.errors import UserError
from mattergen_e.labels.folder import Outcome, open_store, read_settings
from mattergen_e.labels.record import Label
from mattergen_e.labels.settings import BaderSettings, LabelSettings


def a_label(structure: Any, name: str = "x") -> Label:
    rng = np.random.default_rng(0)
    return Label(
        name,
        "somewhere",
        structure,
        site_values={"bader_charge": np.array([[0.8612345], [-0.86]]), "atomic_dos": rng.random((2, 512))},
        crystal_values={"total_dos": rng.random(256)},
        properties={"dft_band_gap": 5.0},
        findings=[Finding("bader", "density", "made of CHG")],
    )


def test_label_is_read_back(solids: dict[str, Any], tmp_path: Path) -> None:
    made = a_label(solids["NaCl"])
    outcome = Outcome("x", "somewhere", None, "", "s")
    with open_store(tmp_path / "labels", LabelSettings()) as opened:
        opened.write(outcome, made)
        assert opened.done("x", "s") == outcome
        assert opened.done("x", "another stamp") is None
        opened.finish([outcome])
    line = json.loads((tmp_path / "labels" / "labels.jsonl").read_text())
    assert line["bader_charge"] == [0.861234, -0.86] or line["bader_charge"] == [0.861235, -0.86]
    assert line["findings"] == [{"part": "bader", "reason": "density", "sentence": "made of CHG", "refused": False}]
    with np.load(tmp_path / "labels" / line["arrays"], allow_pickle=False) as arrays:
        assert set(arrays.files) == {"atomic_dos", "total_dos"}
        np.testing.assert_allclose(arrays["atomic_dos"], made.site_values["atomic_dos"], rtol=1e-6)


def test_outcome_whose_arrays_are_gone_is_made_anew(solids: dict[str, Any], tmp_path: Path) -> None:
    outcome = Outcome("x", "somewhere", None, "", "s")
    with open_store(tmp_path, LabelSettings()) as opened:
        opened.write(outcome, a_label(solids["NaCl"]))
        (tmp_path / "arrays" / "x.npz").unlink()
        assert opened.done("x", "s") is None


def test_damaged_outcome_is_made_anew(tmp_path: Path) -> None:
    with open_store(tmp_path, LabelSettings()) as opened:
        opened.write(Outcome("x", "somewhere", "window", "too short", "s"), None)
        item = tmp_path / "items" / "x.json"
        item.write_text(item.read_text()[:20])
        assert opened.done("x", "s") is None


def test_other_settings_are_refused_or_replaced(tmp_path: Path) -> None:
    outcome = Outcome("x", "somewhere", "window", "too short", "s")
    with open_store(tmp_path, LabelSettings()) as opened:
        opened.write(outcome, None)
    other = LabelSettings(bader=BaderSettings(equivalent_tolerance=0.2))
    sentence = r"other settings \('bader.equivalent_tolerance' was [0-9.]+ and is now 0.2\)"
    with pytest.raises(UserError, match=sentence), open_store(tmp_path, other):
        pass
    with open_store(tmp_path, other, overwrite=True) as opened:
        assert opened.done("x", "s") is None
        opened.finish([])
    assert read_settings(tmp_path) == other


def test_folder_with_other_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds no labels"), open_store(tmp_path, LabelSettings(), overwrite=True):
        pass
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith(".")] == ["thesis.tex"]


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        open_store(tmp_path, LabelSettings()),
        pytest.raises(UserError, match="in use by another run"),
        open_store(tmp_path, LabelSettings()),
    ):
        pass


def test_unfinished_labels_are_not_read(tmp_path: Path) -> None:
    with open_store(tmp_path, LabelSettings()):
        pass
    with pytest.raises(UserError, match="not finished"):
        read_settings(tmp_path)
