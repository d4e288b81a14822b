"""A cache and trained models, made once by the commands themselves, for the tests of the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: Overrides that make a recipe's model tiny; the model part is not there when mattergen-finetune brings it.
MODEL = "lightning_module.diffusion_module.model"
TINY_MODEL = (
    f"{MODEL}.hidden_dim=16",
    f"{MODEL}.gemnet.emb_size_edge=16",
    f"{MODEL}.gemnet.emb_size_trip=8",
    f"{MODEL}.gemnet.emb_size_bil_trip=8",
    f"{MODEL}.gemnet.num_radial=6",
    f"{MODEL}.gemnet.num_spherical=3",
    f"{MODEL}.gemnet.num_blocks=1",
    "lightning_module.diffusion_module.corruption.discrete_corruptions.atomic_numbers.d3pm.schedule.num_steps=8",
)
SHORT = ("trainer.max_epochs=1", "trainer.enable_progress_bar=false", "data_module.batch_size.train=8")


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Overrides for a tiny model and one short epoch."""
    return [*TINY_MODEL, *SHORT]


@pytest.fixture(scope="session")
def labels(tmp_path_factory: pytest.TempPathFactory, solids: dict[str, Any]) -> Path:
    """JSON lines of eight solids, four times each, with charges and band gaps."""
    path = tmp_path_factory.mktemp("labels") / "solids.jsonl"
    gaps = {"NaCl": 5.0, "CsCl": 5.4, "MgO": 4.7, "ZnS": 2.1, "TiO2": 1.9, "BaTiO3": 1.7, "Li2O": 5.1, "Mg2Si": 0.2}
    with open(path, "w") as file:
        for copy in range(4):
            for name, structure in solids.items():
                plain = structure.copy(site_properties={})
                entry = {
                    "id": f"{name}-{copy}",
                    "structure": plain.as_dict(),
                    "bader_charge": structure.site_properties["bader_charge"],
                    "dft_band_gap": gaps[name],
                    "split": ("train", "train", "val", "test")[copy],
                }
                file.write(json.dumps(entry) + "\n")
    return path


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory, run_command: Callable, labels: Path) -> Path:
    """The cache of `labels`, made by the command."""
    out = tmp_path_factory.mktemp("caches") / "solids"
    run_command("mattergen-e", "data", "build", labels, "--out", out)
    return out


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory, run_command: Callable, cache: Path) -> Path:
    """A tiny structure-only model, made by mattergen-train."""
    out = tmp_path_factory.mktemp("runs") / "base"
    words = ["--config-name=base_small", f"data_module.root_dir={cache}", *TINY_MODEL, *SHORT]
    run_command("mattergen-train", *words, OUTPUT_DIR=str(out))
    return out


@pytest.fixture(scope="session")
def joint_model(tmp_path_factory: pytest.TempPathFactory, run_command: Callable, cache: Path, base_model: Path) -> Path:
    """A tiny joint model with an adapter for the band gap, made by mattergen-finetune."""
    out = tmp_path_factory.mktemp("runs") / "joint"
    words = [
        "--config-name=bader_joint_band_gap",
        "descriptors=[bader,dummy]",
        f"adapter.model_path={base_model}",
        f"data_module.root_dir={cache}",
        *SHORT,
    ]
    run_command("mattergen-finetune", *words, OUTPUT_DIR=str(out))
    return out
