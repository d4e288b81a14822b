"""Results on disk: nothing twice, nothing torn."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mattergen_e.evaluation.stages import Stage, hash_settings


def test_results_are_there_again(tmp_path: Path) -> None:
    with Stage(tmp_path, "relax", {"fmax": 0.1}) as stage:
        assert stage.missing(["b", "a", "b"]) == ["b", "a"]
        stage.add("a", {"ok": True})
    with Stage(tmp_path, "relax", {"fmax": 0.1}) as again:
        assert again.missing(["a", "b"]) == ["b"] and again.results == {"a": {"ok": True}} and again.reused == 1
    with Stage(tmp_path, "relax", {"fmax": 0.2}) as other:
        assert other.results == {} and other.path != again.path
    assert Stage(tmp_path, "hull", {"fmax": 0.1}).path.name.startswith("hull-")


def test_reading_changes_no_file(tmp_path: Path) -> None:
    with Stage(tmp_path, "relax", {}) as stage, stage.timed():
        stage.add("a", 1)
    before = stage.path.read_bytes()
    with Stage(tmp_path, "relax", {}) as again, again.timed():
        pass
    assert again.path.read_bytes() == before and again.seconds == pytest.approx(stage.seconds, abs=1e-3)


@pytest.mark.parametrize("torn", [b'{"key": "b", "resu', b'{"key": "b", "result": 2}', b"\xff"])
def test_a_torn_line_is_cut_off(torn: bytes, tmp_path: Path) -> None:
    with Stage(tmp_path, "relax", {}) as stage:
        stage.add("a", 1)
    with stage.path.open("ab") as file:
        file.write(torn)
    with Stage(tmp_path, "relax", {}) as again:
        assert again.results == {"a": 1}
        again.add("c", 3)
    assert Stage(tmp_path, "relax", {}).results == {"a": 1, "c": 3}
    assert [json.loads(line)["key"] for line in stage.path.read_text().splitlines()] == ["a", "c"]


def test_a_damaged_line_costs_itself_only(tmp_path: Path) -> None:
    with Stage(tmp_path, "relax", {}) as stage:
        for key in "abc":
            stage.add(key, key)
    lines = stage.path.read_text().splitlines()
    stage.path.write_text("\n".join([lines[0], "[1]", lines[2]]) + "\n")
    assert Stage(tmp_path, "relax", {}).results == {"a": "a", "c": "c"}


def test_what_is_not_finite_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with Stage(tmp_path, "relax", {}) as stage:
        with pytest.raises(ValueError, match="JSON"):
            stage.add("a", float("nan"))
        assert stage.results == {}
    assert Stage(tmp_path, "relax", {}).results == {}


def test_a_kill_takes_no_result_away(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from mattergen_e.evaluation.stages import Stage
with Stage(Path(sys.argv[1]), "relax", {}) as stage:
    for number in range(1000):
        if number == 40:
            os.kill(os.getpid(), signal.SIGKILL)
        stage.add(str(number), "x" * 5000)
"""
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env={**os.environ}, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert list(Stage(tmp_path, "relax", {}).results) == [str(number) for number in range(40)]


def test_the_hash_knows_values_and_not_the_order() -> None:
    assert hash_settings({"a": 1, "b": [1, 2]}) == hash_settings({"b": [1, 2], "a": 1})
    assert hash_settings({"a": 1}) != hash_settings({"a": 1.5}) != hash_settings({"a": "1.5"})
    assert len(hash_settings({})) == 12
