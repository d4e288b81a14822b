"""MatterGen's own commands with the plugin, as a user types them: training, fine-tuning, generating, resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import yaml

pytestmark = pytest.mark.slow

Run = Callable[..., subprocess.CompletedProcess]

#: A model of one epoch makes wild cells: keep every draw that can be written.
SMALL = "--sampling_config_overrides=['condition_loader_partial.num_atoms=3']"


def crystals(folder: Path) -> list[dict[str, Any]]:
    """Entries of a run's JSON lines."""
    return [json.loads(line) for line in (folder / "generated_crystals.jsonl").read_text().splitlines()]


def generate(run: Run, out: Path, model: Path, *words: str, check: bool = True, **environment: str) -> Any:
    """mattergen-generate with the joint sampling settings."""
    settings = ["--sampling_config_name=joint", "--batch_size=4", "--num_batches=2", SMALL]
    return run("mattergen-generate", out, f"--model_path={model}", *settings, *words, check=check, **environment)


def check_neutral(entries: list[dict[str, Any]]) -> None:
    """Every crystal's charges sum to zero and are there for every site."""
    for entry in entries:
        sites = entry["structure"]["sites"]
        charges = np.array([site["properties"]["bader_charge"] for site in sites])
        assert np.isfinite(charges).all()
        assert abs(charges.sum()) < 1e-5 + 5e-7 * len(charges)  # files hold six decimals


def test_training_writes_what_generation_needs(base_model: Path, joint_model: Path) -> None:
    for folder in (base_model, joint_model):
        assert (folder / "config.yaml").is_file()
        assert (folder / "checkpoints" / "last.ckpt").is_file()
        assert (folder / "metrics.csv").is_file()
    config = yaml.safe_load((joint_model / "config.yaml").read_text())
    assert list(config["lightning_module"]["descriptors"]) == ["bader_charge", "dummy"]
    adapter = config["lightning_module"]["diffusion_module"]["model"]
    assert list(adapter["property_embeddings_adapt"]) == ["dft_band_gap"]
    assert config["data_module"]["properties"] == ["dft_band_gap"]


def test_checkpoint_is_safe_and_keeps_the_names_of_mattergen(base_model: Path, joint_model: Path) -> None:
    import torch

    base, joint = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")
        for folder in (base_model, joint_model)
    )
    assert set(base["state_dict"]) <= set(joint["state_dict"])
    assert joint["mattergen_e"]["seed"] == 0
    assert joint["mattergen_e"]["data"]["cache"] == "solids"


def test_generation_with_guidance(run_command: Run, joint_model: Path, tmp_path: Path) -> None:
    condition = "--properties_to_condition_on={'dft_band_gap': 2.0}"
    words = [condition, "--diffusion_guidance_factor=2.0"]
    generate(run_command, tmp_path / "a", joint_model, *words, MATTERGEN_E_SEED="3")
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    entries = crystals(tmp_path / "a")
    assert record["status"] == "finished"
    assert record["seed"] == 3
    assert len(entries) + record["failed"] == 8
    check_neutral(entries)
    assert all(entry["conditions"] == {"dft_band_gap": 2.0} for entry in entries)
    frames = ase.io.read(tmp_path / "a" / "generated_crystals.extxyz", ":") if entries else []
    assert [len(f.arrays["bader_charge"]) for f in frames] == [len(e["structure"]["sites"]) for e in entries]


def test_same_seed_same_crystals_with_and_without_a_kill(run_command: Run, joint_model: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    generate(run_command, whole, joint_model, MATTERGEN_E_SEED="5")
    command = [
        str(Path(sys.executable).parent / "mattergen-generate"),
        str(killed),
        f"--model_path={joint_model}",
        "--sampling_config_name=joint",
        "--batch_size=4",
        "--num_batches=2",
        SMALL,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MATTERGEN_E_SEED": "5"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (killed / "generated_crystals.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = crystals(killed)
    refused = generate(run_command, killed, joint_model, check=False, MATTERGEN_E_SEED="5")
    assert refused.returncode == 2
    message = refused.stderr.strip().splitlines()[-1]
    assert "MATTERGEN_E_EXISTING=resume" in message
    assert "MATTERGEN_E_EXISTING=overwrite" in message
    generate(run_command, killed, joint_model, MATTERGEN_E_SEED="5", MATTERGEN_E_EXISTING="resume")
    assert crystals(killed)[: len(first)] == first
    assert crystals(killed) == crystals(whole)


def test_default_sampling_settings_name_the_right_flag(run_command: Run, joint_model: Path, tmp_path: Path) -> None:
    steps = "--sampling_config_overrides=['sampler_partial.N=8']"
    result = run_command(
        "mattergen-generate", tmp_path / "x", f"--model_path={joint_model}", "--batch_size=2", steps, check=False
    )
    assert result.returncode == 2
    assert "--sampling_config_name=joint" in result.stderr.strip().splitlines()[-1]


def test_structure_only_model_with_mattergens_own_settings(run_command: Run, tmp_path: Path) -> None:
    model = Path(__file__).resolve().parents[2] / "checkpoints" / "base_small"
    words = ["--batch_size=2", "--record_trajectories=False"]
    steps = "--sampling_config_overrides=['sampler_partial.N=200']"  # as many as this model was trained with
    run_command("mattergen-generate", tmp_path / "x", f"--model_path={model}", *words, steps)
    assert len(ase.io.read(tmp_path / "x" / "generated_crystals.extxyz", ":")) == 2
    assert not (tmp_path / "x" / "run.json").exists()


def test_condition_that_the_model_does_not_know(run_command: Run, joint_model: Path, tmp_path: Path) -> None:
    words = "--properties_to_condition_on={'dft_bulk_modulus': 100}"
    result = generate(run_command, tmp_path / "x", joint_model, words, check=False)
    assert result.returncode == 2
    assert "dft_band_gap" in result.stderr.strip().splitlines()[-1]


def test_joint_model_from_scratch(run_command: Run, cache: Path, tiny: list[str], tmp_path: Path) -> None:
    words = ["--config-name=joint_scratch", "descriptors=bader", f"data_module.root_dir={cache}", *tiny]
    run_command("mattergen-train", *words, fresh=True, OUTPUT_DIR=str(tmp_path / "run"))
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_predict_keeps_the_order_of_sites(
    run_command: Run, joint_model: Path, conventional: dict[str, Any], tmp_path: Path
) -> None:
    given = conventional["TiO2"].copy()
    given.make_supercell([1, 1, 2])
    given.to(str(tmp_path / "rutile.cif"))
    out = tmp_path / "charges.jsonl"
    words = [tmp_path / "rutile.cif", f"--model_path={joint_model}", "--samples", "2", "--steps", "3", "--out", out]
    run_command("mattergen-e", "predict", *words)
    entry = json.loads(out.read_text())
    assert [site["species"][0]["element"] for site in entry["structure"]["sites"]] == [s.specie.symbol for s in given]
    assert len(entry["bader_charge"]) == len(entry["bader_charge_std"]) == len(given)
    assert abs(sum(entry["bader_charge"])) < 1e-4
    again = run_command("mattergen-e", "predict", *words, check=False)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


def test_accuracy_and_export(run_command: Run, joint_model: Path, cache: Path, labels: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    run_command("mattergen-e", "export", joint_model, "--out", model, "--cache", cache)
    assert "/" not in yaml.safe_load((model / "card.yaml").read_text())["training"]["data"]["cache"]
    assert str(cache) not in (model / "config.yaml").read_text()
    figures = tmp_path / "figures.json"
    words = ["--model_path", model, "--samples", "2", "--steps", "3"]
    run_command("mattergen-e", "accuracy", cache, *words, "--out", figures)
    result = json.loads(figures.read_text())[0]
    assert result["descriptor"] == "bader_charge"
    assert result["crystals"] == 8
    # in this cache an element's charge depends on its compound only through O: the mean is right for the others
    assert {e["element"]: e["baseline"] < 1e-6 for e in result["by_element"]}["Na"]
    assert {e["element"]: e["baseline"] > 0.1 for e in result["by_element"]}["O"]
    shown = run_command("mattergen-e", "accuracy", labels, *words)
    assert "element mean" in shown.stdout


def test_python_callers_get_site_properties(run_command: Run, joint_model: Path, tmp_path: Path) -> None:
    script = tmp_path / "caller.py"
    script.write_text(
        "from mattergen.common.utils.data_classes import MatterGenCheckpointInfo\n"
        "from mattergen.generator import CrystalGenerator\n"
        f"info = MatterGenCheckpointInfo({str(joint_model)!r}, load_epoch='last')\n"
        "generator = CrystalGenerator(checkpoint_info=info, batch_size=3, num_batches=1, record_trajectories=False,\n"
        "    sampling_config_name='joint', sampling_config_overrides=['condition_loader_partial.num_atoms=4'])\n"
        f"structures = generator.generate(output_dir={str(tmp_path / 'out')!r})\n"
        "assert structures, 'no crystal'\n"
        "assert all(len(s.site_properties['bader_charge']) == 4 for s in structures)\n"
        "print('crystals', len(structures))\n"
    )
    result = run_command(sys.executable, script, MATTERGEN_E_SEED="1")
    assert "crystals" in result.stdout
