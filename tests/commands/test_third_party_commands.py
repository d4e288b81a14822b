"""Descriptors of somebody else's package, from data to report by the commands, with no line changed here.

One file and one YAML each: a number per site, components of a vector per site, a number per crystal, a grid.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import ase.io
import numpy as np
import pytest
import yaml

pytestmark = pytest.mark.slow

PACKAGE = "toys_for_mattergen"
FIELDS = {
    "loewdin_charge": {"unit": "e"},
    "moment": {"unit": "mu_B", "dim": 3, "frame": "crystal"},
    "work_function": {"unit": "eV", "place": "crystal"},
    "rho": {"unit": "e/Å^3", "place": "grid", "probes": (4, 4, 4)},
}
MODULE = '''
"""A toy."""
from dataclasses import dataclass

from mattergen_e.descriptors import Descriptor


@dataclass(frozen=True, kw_only=True)
class Toy(Descriptor):
    name: str = {name!r}
'''
RECIPE = (
    "lightning_module.diffusion_module.model.hidden_dim=16",
    "lightning_module.diffusion_module.model.gemnet.emb_size_edge=16",
    "lightning_module.diffusion_module.model.gemnet.num_blocks=1",
    "lightning_module.diffusion_module.corruption.discrete_corruptions.atomic_numbers.d3pm.schedule.num_steps=8",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("third_party")


@pytest.fixture(scope="module")
def command(folder: Path, warm: Any) -> Callable[..., str]:
    """A command of this environment that also sees the third-party package; gives what it prints."""
    package = folder / "site" / PACKAGE
    (package / "configs" / "descriptors").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    points = ["[mattergen_e.descriptors]"]
    for name, fields in FIELDS.items():
        settings = "".join(f"    {key}: {type(value).__name__} = {value!r}\n" for key, value in fields.items())
        (package / f"{name}.py").write_text(MODULE.format(name=name) + settings)
        content = f"# @package lightning_module.descriptors\n{name}:\n  _target_: {PACKAGE}.{name}.Toy\n  scale: 0.5\n"
        (package / "configs" / "descriptors" / f"{name}.yaml").write_text(content)
        points.append(f"{name} = {PACKAGE}.{name}:Toy")
    metadata = folder / "site" / f"{PACKAGE}-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 0.1\n")
    (metadata / "entry_points.txt").write_text("\n".join(points) + "\n")

    def run(*words: str | Path, **environment: str) -> str:
        settings = os.environ | {"PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"} | environment
        result = warm.run(words, cwd=folder, environment=settings)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
        return result.stdout

    return run


@pytest.fixture(scope="module")
def model(folder: Path, command: Callable[..., str], solids: dict[str, Any]) -> Path:
    """Trained on eight solids: every number known by a formula."""
    lines = []
    for copy, split in enumerate(("train", "val")):
        for name, structure in solids.items():
            charges = [0.6 * q for q in structure.site_properties["bader_charge"]]
            lines.append({
                "id": f"{name}{copy}", "structure": structure.copy(site_properties={}).as_dict(), "split": split,
                "loewdin_charge": charges, "moment": [[q, 0.0, -q] for q in charges],
                "work_function": 4.0 + max(charges), "rho": np.full((4, 4, 4), len(structure) / 10).tolist(),
            })  # fmt: skip
    (folder / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command("mattergen-e", "data", "build", "labels.jsonl", "--out", "cache")
    words = [f"descriptors=[{','.join(FIELDS)}]", f"data_module.root_dir={folder}/cache", *RECIPE]
    command("mattergen-train", "--config-name=joint_scratch", *words, OUTPUT_DIR=str(folder / "run"))
    return folder / "run"


def test_the_cache_and_what_is_shown_of_it(folder: Path, command: Callable[..., str], model: Path) -> None:
    train = folder / "cache" / "train"
    n_sites = len(np.load(train / "pos.npy"))
    assert np.load(train / "sites" / "moment.npy").shape == (n_sites, 3)
    assert np.load(train / "crystals" / "work_function.npy").shape == (8, 1)
    assert np.load(train / "grids" / "rho.npy").shape == (8, 4, 4, 4, 1)
    shown = command("mattergen-e", "data", "show", "cache", "--html", "cache.html")
    assert all(name in shown for name in FIELDS)
    page = (folder / "cache.html").read_text()
    assert all(name in page for name in FIELDS) and "spectrum" not in shown.lower()
    config = yaml.safe_load((model / "config.yaml").read_text())
    assert set(config["lightning_module"]["descriptors"]) == set(FIELDS)
    report = json.dumps(json.loads(command("mattergen-e", "doctor", "--json")))
    assert all(name in report for name in FIELDS)


@pytest.fixture(scope="module")
def out(folder: Path, command: Callable[..., str], model: Path) -> Path:
    """Eight crystals for a given work function and a given moment of the first site."""
    held = {"crystal": {"work_function": 5.5}, "sites": [{"site": 0, "moment": [0.5, 0.0, -0.25]}]}
    (folder / "held.yaml").write_text(yaml.safe_dump(held))
    words = [f"--model_path={model}", "--sampling_config_name=joint", "--batch_size=4", "--num_batches=2"]
    asked = [f"sampler_partial.constraints={folder}/held.yaml", "condition_loader_partial.num_atoms=3"]
    command("mattergen-generate", folder / "out", *words, f"--sampling_config_overrides={asked}", MATTERGEN_E_SEED="1")
    return folder / "out"


def entries(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "generated_crystals.jsonl").read_text().splitlines()]


def test_what_is_generated_and_written(out: Path) -> None:
    lines, frames = entries(out), ase.io.read(out / "generated_crystals.extxyz", ":")
    assert lines and len(lines) == len(frames)
    with np.load(out / "generated_rho.npz") as grids, ZipFile(out / "generated_crystals_cif.zip") as cifs:
        for line, frame in zip(lines, frames, strict=True):
            sites = [site["properties"] for site in line["structure"]["sites"]]
            assert sites[0]["moment"] == [0.5, 0.0, -0.25]
            assert line["values"] == {"work_function": 5.5} and frame.info["work_function"] == 5.5
            assert frame.arrays["moment"].shape == (3, 3) and frame.arrays["loewdin_charge"].shape == (3,)
            assert grids[line["arrays"]["rho"]["keys"]["rho"]].shape == (4, 4, 4, 1)
            cif = cifs.read(f"gen_{line['index']}.cif").decode()
            assert "_atom_site_moment_1" in cif and "_mattergen_e_work_function" in cif
    fields = json.loads((out / "run.json").read_text())["fields"]
    assert {name: (f["place"], f["dim"]) for name, f in fields.items()} == {
        "loewdin_charge": ("site", 1), "moment": ("site", 3), "work_function": ("crystal", 1), "rho": ("grid", 1)
    }  # fmt: skip


def test_prediction_for_the_runs_own_crystals(
    folder: Path, command: Callable[..., str], model: Path, out: Path
) -> None:
    words = [out / "generated_crystals.extxyz", f"--model_path={model}", "--samples", "2", "--steps", "3"]
    command("mattergen-e", "predict", *words, "--out", "predicted.jsonl")
    predicted = [json.loads(line) for line in (folder / "predicted.jsonl").read_text().splitlines()]
    assert len(predicted) == len(entries(out))
    for line in predicted:
        assert np.shape(line["moment"]) == (3, 3) and np.isfinite(line["values"]["work_function"])
        with np.load(folder / line["rho"]["file"]) as grids:
            assert grids[line["rho"]["mean"]].shape == (4, 4, 4, 1)


def test_judged_and_reported(folder: Path, command: Callable[..., str], out: Path) -> None:
    """Labels are the generated values and a known error."""
    labels = []
    with np.load(out / "generated_rho.npz") as grids:
        for line in entries(out):
            sites = [site["properties"] for site in line["structure"]["sites"]]
            labels.append({
                "index": line["index"],
                "loewdin_charge": [site["loewdin_charge"] + 0.1 for site in sites],
                "moment": [[x + 0.3, y, z] for x, y, z in (site["moment"] for site in sites)],
                "work_function": line["values"]["work_function"] - 0.2,
                "rho": (grids[f"rho_{line['index']}"] + 0.05).tolist(),
            })  # fmt: skip
    (folder / "computed.jsonl").write_text("".join(json.dumps(label) + "\n" for label in labels))
    command("mattergen-e", "reference", "build", "cache", "--out", "reference", "--no-energies", "--jobs", "1")
    words = [
        "--reference",
        "reference",
        "--labels",
        "computed.jsonl",
        "--no-relax",
        "--predictor",
        "none",
        "--jobs",
        "1",
    ]
    shown = command("mattergen-e", "evaluate", out, *words)
    found = json.loads((out / "evaluation" / "evaluation.json").read_text())["descriptors"]
    errors = {name: found[name]["all"]["mae"] for name in FIELDS}
    expected = {"loewdin_charge": 0.1, "moment": 0.1, "work_function": 0.2, "rho": 0.05}
    assert errors == pytest.approx(expected, abs=1e-4)
    header = (out / "evaluation" / "crystals.csv").read_text().splitlines()[0]
    assert all(f"{name}_mae" in header for name in FIELDS)
    assert "moment" in shown.lower()
    command("mattergen-e", "report", out, "--out", "report.html")
    page = (folder / "report.html").read_text()
    assert all(title in page for title in ("Loewdin charge", "Moment", "Work function", "Rho"))
