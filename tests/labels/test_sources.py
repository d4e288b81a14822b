"""Finding calculations: a folder is what its files say, whatever lies beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from vasprun import insulator

from mattergen_e.errors import UserError
from mattergen_e.labels.run import label
from mattergen_e.labels.sources import find_tasks


def run(folder: Path, gap: float = 3.0, **parameters: object) -> None:
    made = insulator(("He",), {"He": 2}, (-5.0, gap - 5.0 + 0.006, 8.0), 1, efermi=-4.5, sigma=0.1)
    made.parameters = parameters
    made.write(folder)


def crystal(path: Path, **more: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    structure = {"numbers": np.array([55, 17]), "cell": 4.12 * np.eye(3), "frac": np.array([[0.0] * 3, [0.5] * 3])}
    np.savez(path, **structure, **({"bader": np.array([0.83, -0.83])} | more))


def found(*sources: Path) -> list[tuple[str, str]]:
    return [(task.kind, task.id) for task in find_tasks(list(sources))]


@pytest.mark.parametrize("place", ["notes.npz", "a/kpoints.npz", "a/b/data.npz", "elsewhere/x.npz"])
def test_a_foreign_npz_ends_no_search(tmp_path: Path, place: str) -> None:
    run(tmp_path / "a" / "b")
    run(tmp_path / "c")
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    np.savez(tmp_path / place, energies=np.arange(3))
    assert found(tmp_path) == [("vasp", "a_b"), ("vasp", "c")]


def test_a_damaged_npz_is_one_failure(tmp_path: Path) -> None:
    run(tmp_path / "a")
    (tmp_path / "x.npz").write_bytes(b"nothing")
    summary = label([tmp_path], tmp_path.parent / "labels", jobs=1, progress=False)
    assert summary.labelled == 1 and [o.id for o in summary.failed["damaged_file"]] == ["x"]


def test_mixed_trees(tmp_path: Path) -> None:
    """Runs, labels of others, a download and labels made before, side by side and in each other."""
    run(tmp_path / "runs" / "si")
    crystal(tmp_path / "runs" / "CsCl.npz")
    crystal(tmp_path / "others" / "deep" / "CsBr.npz")
    download = tmp_path / "runs" / "mp"
    (download / "mp-1").mkdir(parents=True)
    (download / "materials_project.json").write_text("{}")
    (download / "mp-1" / "material.json").write_text("{}")
    crystal(download / "mp-1" / "dos.npz")  # of the download, not a label
    (tmp_path / "others" / "labels" / "items").mkdir(parents=True)
    (tmp_path / "others" / "labels" / "settings.json").write_text("{}")
    crystal(tmp_path / "others" / "labels" / "arrays" / "CsCl.npz")
    expected = {("vasp", "runs_si"), ("npz", "CsCl"), ("npz", "CsBr"), ("materials_project", "mp-1")}
    assert set(found(tmp_path)) == expected and len(found(tmp_path)) == 4


def test_a_tree_of_foreign_files_holds_no_calculation(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", energies=np.arange(3))
    with pytest.raises(UserError, match="holds no calculation"):
        find_tasks([tmp_path])
    (task,) = find_tasks([tmp_path / "x.npz"])  # named itself, it is told what it lacks
    assert task.kind == "npz"


def test_one_crystal_of_two_functionals_is_no_duplicate(tmp_path: Path) -> None:
    run(tmp_path / "runs" / "pbe", 3.0)
    run(tmp_path / "runs" / "again", 3.0)
    run(tmp_path / "runs" / "hse", 5.0, LHFCALC=True, AEXX=0.25, HFSCREEN=0.2)
    summary = label([tmp_path / "runs"], tmp_path / "labels", jobs=1, progress=False)
    assert summary.labelled == 2 and list(summary.failed) == ["duplicate"]
    assert summary.functionals == {"PBE": 1, "HSE06": 1} and summary.spin_polarised == 0
    lines = (tmp_path / "labels" / "labels.jsonl").read_text().splitlines()
    assert {json.loads(line)["record"]["method"]["functional"] for line in lines} == {"PBE", "HSE06"}
