"""Spectra through the commands: training, generation without the autoencoder's folder, prediction, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mattergen_e.networks.autoencoder.folder import save

pytestmark = pytest.mark.slow

Run = Callable[..., subprocess.CompletedProcess]

SHORT = ("trainer.max_epochs=1", "trainer.enable_progress_bar=false", "data_module.batch_size.train=8")
DESCRIPTOR = "lightning_module.descriptors.atomic_dos"
ENTRY = "diffusion_module.joint_fields.companions.atomic_dos.autoencoder"


@pytest.fixture(scope="module")
def dos_cache(tmp_path_factory: pytest.TempPathFactory, write_dos_cache: Callable[..., Path]) -> Path:
    """A cache of spectra, charges and gaps; one crystal of the training split has no spectra."""

    def forget(split: str, spectra: np.ndarray) -> None:
        if split == "train":
            spectra[:2] = np.nan

    return write_dos_cache(tmp_path_factory.mktemp("caches") / "dos", change=forget)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory, tiny_autoencoder: Callable[..., Any]) -> Path:
    """A folder as `mattergen-e autoencoder train` writes it."""
    return save(tiny_autoencoder(), tmp_path_factory.mktemp("autoencoders") / "one")


def finetune(run: Run, recipe: str, out: Path, start: Path, cache: Path, *words: str, check: bool = True) -> Any:
    """mattergen-finetune with a recipe."""
    settings = [f"--config-name={recipe}", f"adapter.model_path={start}", f"data_module.root_dir={cache}", *SHORT]
    return run("mattergen-finetune", *settings, *words, check=check, OUTPUT_DIR=str(out))


def with_autoencoder(folder: Path) -> list[str]:
    """Overrides that name an autoencoder of four latents."""
    return [f"{DESCRIPTOR}.autoencoder={folder}", f"{DESCRIPTOR}.dim=4"]


def generate(run: Run, out: Path, model: Path, *words: str) -> list[dict[str, Any]]:
    """Lines of four crystals of three sites."""
    sizes = "--sampling_config_overrides=['condition_loader_partial.num_atoms=3']"
    settings = ["--sampling_config_name=joint", "--batch_size=2", "--num_batches=2", sizes]
    run("mattergen-generate", out, f"--model_path={model}", *settings, *words, MATTERGEN_E_SEED="3")
    return [json.loads(line) for line in (out / "generated_crystals.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def dos_model(
    tmp_path_factory: pytest.TempPathFactory, run_command: Run, base_model: Path, dos_cache: Path, autoencoder: Path
) -> Path:
    """A joint model of spectra, whose autoencoder's folder is gone since its training."""
    folder = tmp_path_factory.mktemp("runs")
    gone = shutil.copytree(autoencoder, folder / "gone")
    finetune(run_command, "dos_joint", folder / "dos", base_model, dos_cache, *with_autoencoder(gone))
    shutil.rmtree(gone)
    return folder / "dos"


def test_checkpoint_holds_the_autoencoder(dos_model: Path, tiny_autoencoder: Callable[..., Any]) -> None:
    from mattergen_e.upstream.models import load_model

    checkpoint = torch.load(dos_model / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"][ENTRY].dtype == torch.uint8  # the moving average has it too
    model = load_model(dos_model, device="cpu")
    assert model.descriptors["atomic_dos"].of_model().fingerprint == tiny_autoencoder().fingerprint


def test_generation_decodes_by_itself(
    run_command: Run, dos_model: Path, tiny_autoencoder: Callable[..., Any], tmp_path: Path
) -> None:
    lines = generate(run_command, tmp_path / "out", dos_model)
    assert lines
    with np.load(tmp_path / "out" / "generated_dos.npz") as arrays:
        assert str(arrays["fingerprint"]) == tiny_autoencoder().fingerprint
        for line in lines:
            spectra, latents = (arrays[line["dos"][kind]] for kind in ("spectra", "latents"))
            assert spectra.shape == (3, 64) and (np.abs(latents) < 1).all()
            assert np.allclose(spectra, tiny_autoencoder().decode(latents), atol=1e-5)


def test_prediction_accuracy_and_export(run_command: Run, dos_model: Path, dos_cache: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    run_command("mattergen-e", "export", dos_model, "--out", model, "--cache", dos_cache)
    words = ["--model_path", model, "--samples", "2", "--steps", "3"]
    figures = tmp_path / "figures.json"
    shown = run_command("mattergen-e", "accuracy", dos_cache, *words, "--out", figures)
    assert "Wasserstein distance (eV)" in shown.stdout
    found = json.loads(figures.read_text())[0]["spectra"]["all"]
    assert found["model"]["median"] > 0 and found["element_mean"]["median"] > 0
    cif = tmp_path / "out" / "x.jsonl"
    lines = generate(run_command, tmp_path / "out", model)
    cif.write_text(json.dumps({"id": "a", "structure": lines[0]["structure"]}) + "\n")
    run_command("mattergen-e", "predict", cif, *words, "--out", tmp_path / "p.jsonl")
    names = json.loads((tmp_path / "p.jsonl").read_text())["atomic_dos"]
    assert np.load(tmp_path / names["file"])[names["mean"]].shape == (3, 64)
    again = run_command("mattergen-e", "predict", cif, *words, "--out", tmp_path / "p.json", check=False)
    assert again.returncode == 2 and "p.npz exists, where spectra and grids go" in again.stderr


def test_one_line_swaps_descriptors(
    run_command: Run, base_model: Path, dos_cache: Path, autoencoder: Path, tmp_path: Path
) -> None:
    gap = "adapter_property=[dft_band_gap]"
    words = [*with_autoencoder(autoencoder), gap]
    finetune(run_command, "bader_dos_joint", tmp_path / "both", base_model, dos_cache, *words)
    condition = ["--properties_to_condition_on={'dft_band_gap': 2.0}", "--diffusion_guidance_factor=2.0"]
    for line in generate(run_command, tmp_path / "out", tmp_path / "both", *condition):
        charges = [site["properties"]["bader_charge"] for site in line["structure"]["sites"]]
        assert abs(sum(charges)) < 1e-5 and "dos" in line
    finetune(run_command, "dummy_joint", tmp_path / "dummy", base_model, dos_cache, gap)
    lines = generate(run_command, tmp_path / "control", tmp_path / "dummy", *condition)
    assert all("dummy" in line["structure"]["sites"][0]["properties"] and "dos" not in line for line in lines)


def test_training_goes_on_from_a_model_of_spectra(
    run_command: Run, dos_model: Path, dos_cache: Path, tiny_autoencoder: Callable[..., Any], tmp_path: Path
) -> None:
    words = with_autoencoder(dos_model)  # the model's folder is as good as the autoencoder's own
    finetune(run_command, "dos_joint", tmp_path / "more", dos_model, dos_cache, *words)
    before, after = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"][ENTRY]
        for folder in (dos_model, tmp_path / "more")
    )
    assert torch.equal(before, after)
    other = save(tiny_autoencoder(seed=1), tmp_path / "other")
    words = with_autoencoder(other)
    refused = finetune(run_command, "dos_joint", tmp_path / "x", dos_model, dos_cache, *words, check=False)
    assert refused.returncode == 2
    assert "but the model was made with" in refused.stderr.strip().splitlines()[-1]


def test_what_training_refuses(
    run_command: Run, base_model: Path, dos_cache: Path, autoencoder: Path, tmp_path: Path, write_dos_cache: Any
) -> None:
    def last_line(cache: Path, *words: str) -> str:
        result = finetune(run_command, "dos_joint", tmp_path / "x", base_model, cache, *words, check=False)
        assert result.returncode == 2
        return result.stderr.strip().splitlines()[-1]

    assert "needs an autoencoder: add lightning_module.descriptors.atomic_dos.autoencoder=DIR" in last_line(dos_cache)
    processing = json.loads((dos_cache / "manifest.json").read_text())["processing"]["atomic_dos"]
    other = write_dos_cache(tmp_path / "cache", processing={**processing, "smearing": 0.1})
    assert "made with smearing 0.1, but 0.5 is needed" in last_line(other, *with_autoencoder(autoencoder))


def test_checkpoint_with_another_autoencoder(
    run_command: Run, dos_model: Path, tiny_autoencoder: Callable[..., Any], tmp_path: Path
) -> None:
    """Exchanging it takes intent; half of an exchange is noticed."""
    model = shutil.copytree(dos_model, tmp_path / "model")
    path = model / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    content = checkpoint["state_dict"][ENTRY]
    for state, sentence in ((content[: len(content) // 2], "damaged autoencoder"), (None, "no entry")):
        if state is None:
            del checkpoint["state_dict"][ENTRY]
        else:
            checkpoint["state_dict"][ENTRY] = state
        torch.save(checkpoint, path)
        words = [tmp_path / "out", f"--model_path={model}", "--sampling_config_name=joint", "--batch_size=2"]
        result = run_command("mattergen-generate", *words, check=False)
        assert result.returncode == 2
        assert sentence in result.stderr.strip().splitlines()[-1]
