"""A trained model for the doctor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory, _recipe: Any) -> Path:
    """A run folder with a tiny joint model, as training leaves it."""
    import torch
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    folder = tmp_path_factory.mktemp("trained")
    (folder / "checkpoints").mkdir()
    config = OmegaConf.to_container(_recipe.lightning_module, resolve=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"lightning_module": config}))
    content = {
        "state_dict": instantiate(_recipe.lightning_module).state_dict(),
        "epoch": 3,
        "global_step": 40,
        "pytorch-lightning_version": "2.6.6",
        "mattergen_e": {"versions": {"torch": "2.15.0", "mattergen-e": "0.1.0"}},
    }
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    return folder


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run folder that may be spoilt."""
    return Path(shutil.copytree(trained, tmp_path / "model"))
