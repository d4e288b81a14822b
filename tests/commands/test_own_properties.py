"""A user's own properties, from a column of a file to a success rate, with nothing but commands."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Run = Callable[..., subprocess.CompletedProcess]

pytestmark = pytest.mark.slow

MODEL = Path(__file__).resolve().parents[2] / "checkpoints" / "base_small"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, solids: dict[str, Any]) -> Path:
    """A CSV of eight solids, three times each, with columns of a user's own."""
    from pymatgen.io.cif import CifWriter

    path = tmp_path_factory.mktemp("own") / "file.csv"
    rows = []
    for copy in range(3):
        for number, (name, structure) in enumerate(solids.items()):
            rows.append(
                {
                    "material_id": f"{name}-{copy}",
                    "cif": str(CifWriter(structure.copy(site_properties={}))),
                    "split": ("train", "train", "val")[copy],
                    "my_hardness": 2.0 + number + 0.1 * copy,
                    "Kind of phase": "rocksalt" if name in ("NaCl", "MgO") else "other",
                    "moduli": f"[{10 + number}, {20 - number}, 3.5]",
                }
            )
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def own_model(run_command: Run, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one epoch that can be told a number, a category and a list."""
    folder = tmp_path_factory.mktemp("model")
    words = ["--property=my_hardness", "--property=my_phase:category=Kind of phase", "--property=moduli:list"]
    run_command("mattergen-e", "data", "build", table, "--out", folder / "cache", *words)
    run_command(
        "mattergen-finetune",
        "--config-name=joint",
        "descriptors=[]",
        "adapter_property=[my_hardness,my_phase:category,moduli:list]",
        f"adapter.model_path={MODEL}",
        f"data_module.root_dir={folder / 'cache'}",
        "trainer.max_epochs=1",
        "trainer.enable_progress_bar=false",
        OUTPUT_DIR=str(folder / "run"),
    )
    return folder / "run"


def test_the_model_tells_its_properties_by_itself(own_model: Path) -> None:
    from mattergen_e.upstream.trust import check_folder

    check_folder(own_model)
    adapters = yaml.safe_load((own_model / "config.yaml").read_text())["lightning_module"]["diffusion_module"]["model"]
    own = adapters["property_embeddings_adapt"]
    assert {name: node["kind"] for name, node in own.items()} == {
        "my_hardness": "number",
        "my_phase": "category",
        "moduli": "list",
    }
    assert own["my_phase"]["conditional_embedding_module"]["categories"] == ["other", "rocksalt"]
    assert own["moduli"]["conditional_embedding_module"]["length"] == 3


def test_generation_and_success(run_command: Run, own_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = "{'my_hardness': 20.0, 'my_phase': 'rocksalt', 'moduli': [11, 19, 3.5]}"
    settings = "['condition_loader_partial.num_atoms=2','sampler_partial.N=4']"
    words = [f"--properties_to_condition_on={asked}", "--diffusion_guidance_factor=1.0"]
    generate = ["mattergen-generate", out, f"--model_path={own_model}", "--sampling_config_name=joint"]
    generate += ["--batch_size=4", "--num_batches=1", f"--sampling_config_overrides={settings}"]
    run_command(*generate, *words)
    entries = [json.loads(line) for line in (out / "generated_crystals.jsonl").read_text().splitlines()]
    assert entries
    print(entries[0]["conditions"])
