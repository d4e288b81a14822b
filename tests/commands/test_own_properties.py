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
def own_model(run_command: Run, base_model: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one epoch that can be told a number, a category and a list."""
    folder = tmp_path_factory.mktemp("model")
    words = ["--property=my_hardness", "--property=my_phase:category=Kind of phase", "--property=moduli:list"]
    run_command("mattergen-e", "data", "build", table, "--out", folder / "cache", *words)
    run_command(
        "mattergen-finetune",
        "--config-name=joint",
        "descriptors=[]",
        "adapter_property=[my_hardness,my_phase:category,moduli:list]",
        f"adapter.model_path={base_model}",
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


@pytest.fixture(scope="module")
def bare_reference(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The solids as known crystals, without energies."""
    from mattergen_e.reference.build import BuildSettings, build

    folder = tmp_path_factory.mktemp("reference") / "built"
    build([table], folder, BuildSettings(calculator=None), jobs=1)
    return folder


def test_generation_and_success(run_command: Run, own_model: Path, tmp_path: Path, bare_reference: Path) -> None:
    out = tmp_path / "out"
    words = [f"--model_path={own_model}", "--sampling_config_name=joint", "--batch_size=4", "--num_batches=1"]
    words += ["--sampling_config_overrides=['condition_loader_partial.num_atoms=2']", "--diffusion_guidance_factor=1.0"]
    condition = "{'my_hardness': 20.0, 'my_phase': 'rocksalt', 'moduli': [11, 19, 3.5]}"
    run_command("mattergen-generate", out, *words, f"--properties_to_condition_on={condition}")
    entries = [json.loads(line) for line in (out / "generated_crystals.jsonl").read_text().splitlines()]
    asked = {"my_hardness": 20.0, "my_phase": "rocksalt", "moduli": [11.0, 19.0, 3.5]}
    assert entries and all(entry["conditions"] == asked for entry in entries)
    # 19.5 and 22 lie within 2 of 20, 22.1 does not; the last is not known
    found = {0: (19.5, "rocksalt"), 1: (22.0, "other"), 2: (22.1, "rocksalt"), 3: ("", "")}
    rows = [f"{entry['index']},{found[entry['index']][0]},{found[entry['index']][1]}" for entry in entries]
    (tmp_path / "dft.csv").write_text("\n".join(["index,my_hardness,my_phase", *rows]) + "\n")
    judged = ["--no-relax", "--predictor", "none", "--properties", tmp_path / "dft.csv", "--tolerance", "my_hardness=2"]
    run_command("mattergen-e", "evaluate", out, "--reference", bare_reference, "--jobs", "1", *judged)
    table = [json.loads(line) for line in (out / "evaluation" / "crystals.jsonl").read_text().splitlines()]
    verdicts = {
        row["index"]: tuple(row["properties"][name]["within"] for name in ("my_hardness", "my_phase"))
        for row in table
        if row["readable"]
    }
    expected = {0: (True, True), 1: (True, False), 2: (False, True), 3: (None, None)}
    assert verdicts == {entry["index"]: expected[entry["index"]] for entry in entries}
    summary = json.loads((out / "evaluation" / "evaluation.json").read_text())
    assert summary["success"]["my_hardness"]["target"] == 20.0 and summary["success"]["my_hardness"]["tolerance"] == 2
    assert summary["success"]["my_phase"]["target"] == "rocksalt"
