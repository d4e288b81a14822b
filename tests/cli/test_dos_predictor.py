"""`mattergen-e dos-predictor train`, `evaluate` and `predict`, from files to files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mattergen_e.cli.dos_predictor import app
from mattergen_e.errors import UserError

BASE = Path(__file__).resolve().parents[2] / "checkpoints" / "base_small"


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def cache(write_dos_cache: Any, dos_processing: Any, tmp_path: Path) -> Path:
    """The cache of made-up spectra of sites, with the sums as spectra of the crystals."""
    folder = write_dos_cache(tmp_path / "cache")
    manifest = json.loads((folder / "manifest.json").read_text())
    grid = {"minimum": -10.0, "maximum": 5.0, "points": 48}
    manifest["processing"]["total_dos"] = {"grid": grid, "smearing": 0.5}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for split in ("train", "val", "test"):
        sites, counts = (np.load(folder / split / name) for name in ("sites/atomic_dos.npy", "num_atoms.npy"))
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        (folder / split / "crystals").mkdir()
        total = np.add.reduceat(sites[:, 16:], starts) / counts[:, None]
        np.save(folder / split / "crystals" / "total_dos.npy", total.astype(np.float32))
    return folder


def test_from_files_to_files(cache: Path, conventional: dict[str, Any], tmp_path: Path) -> None:
    out, settings = tmp_path / "predictor", tmp_path / "settings.yaml"
    settings.write_text("{epochs: 9, width: 32, layers: 1, loss: {total: 2}}")
    options = ("--settings", settings, "--epochs", 2, "--seed", 3, "--device", "cpu", "--encoder", BASE)
    result = run("train", cache, "--out", out, *options)
    assert result.exit_code == 0, result.output
    from mattergen_e.networks.predictor.folder import load

    found = load(out)
    assert found.fingerprint[:12] in result.output and found.record["encoder"]["model"] == "base_small"
    chosen = found.record["settings"]
    assert (chosen["epochs"], chosen["seed"], chosen["width"], chosen["loss"]["total"]) == (2, 3, 32, 2)
    again = run("train", cache, "--out", out, *options)
    assert isinstance(again.exception, UserError) and "--resume" in str(again.exception)

    result = run("evaluate", out, cache, "--split", "val", "--device", "cpu", "--out", tmp_path / "e.json")
    assert result.exit_code == 0, result.output
    assert "27 sites of 8 val crystals" in result.output and "random pairing" in result.output
    assert json.loads((tmp_path / "e.json").read_text())["fingerprint"] == found.fingerprint

    for name in ("NaCl", "TiO2"):
        conventional[name].to(filename=str(tmp_path / f"{name}.cif"))
    files = [tmp_path / "NaCl.cif", tmp_path / "TiO2.cif"]
    result = run("predict", out, *files, "--out", tmp_path / "p.npz", "--device", "cpu")
    assert result.exit_code == 0 and "Spectra of 2 structures" in result.output, result.output
    with np.load(tmp_path / "p.npz", allow_pickle=False) as arrays:
        assert arrays["ids"].tolist() == ["NaCl", "TiO2"] and arrays["total"].shape == (2, 48)
        assert arrays["spectra_0"].shape == (8, 64) and arrays["spectra_1"].shape == (6, 64)
    (tmp_path / "broken.cif").write_text("data_x\n")
    result = run("predict", out, *files, tmp_path / "broken.cif", "--out", tmp_path / "q.npz", "--device", "cpu")
    assert result.exit_code == 0 and "Spectra of 2 structures" in result.output, result.output
    assert "1 left out" in result.output and "broken.cif cannot be read" in result.output
    again = run("predict", out, *files, "--out", tmp_path / "p.npz")
    assert isinstance(again.exception, UserError) and "--overwrite" in str(again.exception)


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("epoch: 3", (), "settings.yaml: epoch: "),
        ("loss: {total: -1}", (), "loss.total"),
        ("[1, 2]", (), "does not hold settings"),
        ("a: [", (), "cannot be read as YAML"),
        ("{}", ("--precision", "8"), "the options: precision: "),
        ("{}", ("--noisy",), "add --encoder"),
    ],
)
def test_refused_settings(cache: Path, tmp_path: Path, text: str, options: tuple, words: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    result = run("train", cache, "--out", tmp_path / "p", "--settings", path, *options)
    assert isinstance(result.exception, UserError) and words in str(result.exception)
    assert not (tmp_path / "p").exists()


def test_missing_files(cache: Path, tmp_path: Path) -> None:
    for arguments in (("evaluate", tmp_path, cache), ("predict", tmp_path, cache, "--out", tmp_path / "x.npz")):
        result = run(*arguments, "--device", "cpu")
        assert isinstance(result.exception, UserError) and "predictor.yaml does not exist" in str(result.exception)


def test_help_is_immediate() -> None:
    code = "from mattergen_e.cli.dos_predictor import app; import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "train" in run("--help").output
