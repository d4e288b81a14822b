"""What users do with trainings besides letting them end: again, over two processes, with words that are wrong."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch

pytestmark = pytest.mark.slow

Run = Callable[..., CompletedProcess[str]]
SHORT = ("trainer.max_epochs=1", "trainer.enable_progress_bar=false", "data_module.batch_size.train=8")


def last_line(result: CompletedProcess[str]) -> str:
    """The sentence that a refused command ends with."""
    assert result.returncode == 2, result.stderr[-3000:]
    assert "Traceback" not in result.stderr and "HYDRA_FULL_ERROR" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def test_the_same_finetuning_again(run_command: Run, base_model: Path, cache: Path, tmp_path: Path) -> None:
    """Refused as it stands, gone on with on demand; places may be relative to where it is typed."""
    words = ["--config-name=bader_joint", f"adapter.model_path={base_model}", f"data_module.root_dir={cache}", *SHORT]
    run_command("mattergen-finetune", *words, OUTPUT_DIR=str(tmp_path))
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in kept}
    told = last_line(run_command("mattergen-finetune", *words, OUTPUT_DIR=str(tmp_path), check=False))
    assert "already holds a training" in told and "MATTERGEN_E_EXISTING=resume" in told
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    more = [word.replace("max_epochs=1", "max_epochs=2") for word in words]
    run_command("mattergen-finetune", *more, OUTPUT_DIR=str(tmp_path), MATTERGEN_E_EXISTING="resume")
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file) if row.get("loss_val")] == ["0", "1"]
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 1
    assert checkpoint["mattergen_e"]["ranges"]["num_atoms"] == [2, 6]  # CsCl and TiO2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trainer.max_epoch=3"], "trainer.max_epoch is no setting of this recipe"),
        (
            ["trainer.gradient_clip_val=abc"],
            "trainer.gradient_clip_val is 'abc', but it is 1.0 in the recipe: give a n",
        ),
        (["trainer.accelerator=abacus"], "trainer: "),
        (
            ["data_module.root_dir=nowhere"],
            "nowhere does not exist: give the folder that `mattergen-e data build` wrote",
        ),
    ],
)
def test_mistakes_are_one_sentence(
    run_command: Run, cache: Path, tmp_path: Path, words: list[str], sentence: str
) -> None:
    given = ["--config-name=base_small", f"data_module.root_dir={cache}", *words]
    given = [word for word in given if word.split("=")[0] not in [w.split("=")[0] for w in words]] + words
    result = run_command("mattergen-train", *given, OUTPUT_DIR=str(tmp_path / "run"), check=False)
    assert sentence in last_line(result)


def test_two_processes_on_the_processor(run_command: Run, tiny: list[str], cache: Path, tmp_path: Path) -> None:
    """`strategy: auto` of the recipes, over gloo."""
    words = ["--config-name=base_small", f"data_module.root_dir={cache}", *tiny]
    devices = ["trainer.accelerator=cpu", "trainer.devices=2"]
    run_command("mattergen-train", *words, *devices, OUTPUT_DIR=str(tmp_path))
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 1  # 16 crystals, 8 for each process
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values() if value.is_floating_point())
