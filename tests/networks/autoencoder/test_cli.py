"""`mattergen-e autoencoder train` and `evaluate`, from files to files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from mattergen_e.cli.autoencoder import app
from mattergen_e.errors import UserError
from mattergen_e.networks.autoencoder.folder import load

SETTINGS = """
epochs: 7
batch_size: 16
network: {latents: 6, channels: [8, 8, 8], kernel: 3, groups: 2, reduced: 4, pooled: 8}
augmentation: {shift: 0.1}
"""


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(SETTINGS)
    return path


def test_train_and_evaluate(make_cache: Callable[..., Path], settings: Path, tmp_path: Path) -> None:
    cache, out = make_cache(), tmp_path / "ae"
    options = ("--settings", settings, "--epochs", 2, "--seed", 3, "--device", "cpu")
    result = run("train", cache, "--out", out, *options)
    assert result.exit_code == 0, result.output
    found = load(out)
    assert found.fingerprint[:12] in result.output
    assert found.record["settings"]["epochs"] == 2 and found.record["settings"]["seed"] == 3
    assert found.record["settings"]["augmentation"]["shift"] == 0.1
    result = run("evaluate", out, cache, "--split", "val", "--out", tmp_path / "e.json", "--figure", tmp_path / "e.png")
    assert result.exit_code == 0, result.output
    assert "48 sites of 12 val crystals" in result.output and "pca6_log1p" in result.output and "Ti" in result.output
    written = json.loads((tmp_path / "e.json").read_text())
    assert written["fingerprint"] == found.fingerprint and len(written["methods"]) == 4
    assert (tmp_path / "e.png").stat().st_size > 1000
    again = run("train", cache, "--out", out, *options)
    assert isinstance(again.exception, UserError) and "--resume" in str(again.exception)
    assert run("train", cache, "--out", out, *options, "--resume").exit_code == 0
    assert load(out).fingerprint == found.fingerprint


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("epoch: 3", (), "settings.yaml: epoch: "),
        ("network: {channels: [8]}", (), "settings.yaml: network: "),
        ("loss: {log: -1}", (), "loss.log"),
        ("[1, 2]", (), "does not hold settings"),
        ("a: [", (), "cannot be read as YAML"),
        ("{}", ("--precision", "8"), "the options: precision: "),
        ("{}", ("--settings", "missing.yaml"), "missing.yaml cannot be read"),
    ],
)
def test_refused_settings(
    make_cache: Callable[..., Path], tmp_path: Path, text: str, options: tuple, words: str
) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    result = run("train", make_cache(), "--out", tmp_path / "ae", "--settings", tmp_path / "settings.yaml", *options)
    assert isinstance(result.exception, UserError)
    assert words in str(result.exception) and not (tmp_path / "ae").exists()


def test_refused_figure_comes_first(tmp_path: Path) -> None:
    result = run("evaluate", tmp_path / "nothing", tmp_path / "nothing", "--figure", "figure.gif")
    assert isinstance(result.exception, UserError) and "figure.gif cannot be drawn" in str(result.exception)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda(make_cache: Callable[..., Path], tmp_path: Path) -> None:
    result = run("train", make_cache(), "--out", tmp_path / "ae", "--device", "cuda")
    assert isinstance(result.exception, UserError) and "no CUDA device" in str(result.exception)
