"""Densities of states as a condition, through the commands: alone, with a gap and charges, from files, refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.spectra.grid import TOTAL_GRID

pytestmark = pytest.mark.slow

Run = Callable[..., subprocess.CompletedProcess]

SHORT = ("trainer.max_epochs=1", "trainer.enable_progress_bar=false", "data_module.batch_size.train=8")


@pytest.fixture(scope="module")
def dos_cache(tmp_path_factory: pytest.TempPathFactory, run_command: Run, labels: Path) -> Path:
    """A cache of the solids with made-up spectra: a peak below the Fermi energy at the gap; MgO has none."""
    folder = tmp_path_factory.mktemp("dos")
    lines = []
    for line in labels.read_text().splitlines():
        entry = json.loads(line)
        peak = np.exp(-((TOTAL_GRID.energies + entry["dft_band_gap"]) ** 2))
        lines.append(json.dumps(entry | ({} if "MgO" in entry["id"] else {"total_dos": peak.tolist()})))
    (folder / "labels.jsonl").write_text("\n".join(lines))
    run_command("mattergen-e", "data", "build", folder / "labels.jsonl", "--out", folder / "cache")
    return folder / "cache"


def finetune(run: Run, recipe: str, out: Path, start: Path, cache: Path, *words: str) -> Path:
    """mattergen-finetune with a recipe; returns the run's folder."""
    settings = [f"--config-name={recipe}", f"adapter.model_path={start}", f"data_module.root_dir={cache}", *SHORT]
    run("mattergen-finetune", *settings, *words, OUTPUT_DIR=str(out))
    return out


@pytest.fixture(scope="module")
def cdosgen(tmp_path_factory: pytest.TempPathFactory, run_command: Run, base_model: Path, dos_cache: Path) -> Path:
    """A tiny CDOSGen."""
    out = tmp_path_factory.mktemp("runs") / "cdosgen"
    return finetune(run_command, "cdosgen", out, base_model, dos_cache)


def generate(run: Run, out: Path, model: Path, conditions: dict[str, Any], check: bool = True) -> Any:
    """mattergen-generate with four crystals of three sites."""
    settings = ["--sampling_config_name=joint", "--batch_size=2", "--num_batches=2", "--diffusion_guidance_factor=2.0"]
    sizes = "--sampling_config_overrides=['condition_loader_partial.num_atoms=3']"
    words = [f"--model_path={model}", f"--properties_to_condition_on={conditions}", *settings, sizes]
    return run("mattergen-generate", out, *words, check=check, MATTERGEN_E_SEED="3")


@pytest.fixture
def curves(tmp_path: Path) -> Path:
    """Two curves on [-3, 3] eV."""
    path = tmp_path / "two.csv"
    rows = [f"{name},{e},{abs(e) + i}" for i, name in enumerate("ab") for e in np.linspace(-3, 3, 61).tolist()]
    path.write_text("name,energy,dos\n" + "\n".join(rows))
    return path


def test_generation_from_a_file(run_command: Run, cdosgen: Path, curves: Path, tmp_path: Path) -> None:
    generate(run_command, tmp_path / "out", cdosgen, {"dos": {"file": str(curves), "per_curve": 2, "window": [-2, 2]}})
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "out" / "generated_crystals.jsonl").read_text().splitlines()]
    assert record["status"] == "finished" and len(lines) + record["failed"] == 4 and lines
    assert [line["conditions"]["dos"]["name"] for line in lines] == ["ab"[line["index"] // 2] for line in lines]
    with np.load(tmp_path / "out" / "target_dos.npz") as kept:
        told = ~np.isnan(kept["dos"])
        assert (told == (abs(kept["energies"]) <= 2)).all() and kept["names"].tolist() == ["a", "b"]
        assert np.allclose(kept["dos"][1][told[1]], kept["dos"][0][told[0]] + 1, atol=1e-5)


@pytest.mark.parametrize(
    ("conditions", "sentence"),
    [
        ({"dos": "/nowhere.npz"}, "/nowhere.npz does not exist"),
        ({"dft_band_gap": 1.0}, "trained to be conditioned on dos"),
        ({"dos": {"file": "x", "window": [5, -5]}}, "is none of the grid"),
    ],
)
def test_refusals(run_command: Run, cdosgen: Path, tmp_path: Path, conditions: dict[str, Any], sentence: str) -> None:
    result = generate(run_command, tmp_path / "out", cdosgen, conditions, check=False)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 2 and last.startswith("mattergen-e: ") and sentence in last
    assert not list((tmp_path / "out").iterdir())


def test_model_without_spectra_and_mattergens_own_settings(
    run_command: Run, base_model: Path, cdosgen: Path, curves: Path, tmp_path: Path
) -> None:
    refused = generate(run_command, tmp_path / "a", base_model, {"dos": str(curves)}, check=False)
    assert refused.returncode == 2 and "conditioned on no property" in refused.stderr.splitlines()[-1]
    words = [f"--model_path={cdosgen}", "--properties_to_condition_on={'dos': 'x.csv'}", "--batch_size=2"]
    refused = run_command("mattergen-generate", tmp_path / "b", *words, check=False)
    assert refused.returncode == 2 and "--sampling_config_name=joint" in refused.stderr.splitlines()[-1]


def test_together_with_a_gap_and_charges(
    run_command: Run, base_model: Path, dos_cache: Path, curves: Path, tmp_path: Path
) -> None:
    words = ["descriptors=[bader]", "adapter_property=[dos,dft_band_gap]"]
    model = finetune(run_command, "joint", tmp_path / "run", base_model, dos_cache, *words)
    run_command("mattergen-e", "export", model, "--out", tmp_path / "model", "--cache", dos_cache)
    generate(run_command, tmp_path / "out", tmp_path / "model", {"dos": str(curves), "dft_band_gap": 3.0})
    lines = [json.loads(line) for line in (tmp_path / "out" / "generated_crystals.jsonl").read_text().splitlines()]
    assert lines and all(line["conditions"]["dft_band_gap"] == 3.0 for line in lines)
    assert [line["conditions"]["dos"]["curve"] for line in lines] == [line["index"] % 2 for line in lines]
    for line in lines:
        charges = [site["properties"]["bader_charge"] for site in line["structure"]["sites"]]
        assert abs(sum(charges)) < 1e-4


def test_export_of_the_condition_alone(run_command: Run, cdosgen: Path, tmp_path: Path) -> None:
    run_command("mattergen-e", "export", cdosgen, "--out", tmp_path / "model")
    shown = run_command("mattergen-e", "doctor", "--model_path", tmp_path / "model", check=False)
    assert "dos" in shown.stdout
