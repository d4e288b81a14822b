"""A descriptor from somebody else's package: registered, configured and trained with no line changed here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow

MODULE = '''
"""Löwdin charges."""
from dataclasses import dataclass

from mattergen_e.descriptors.base import Descriptor


@dataclass(frozen=True, kw_only=True)
class LoewdinCharge(Descriptor):
    name: str = "loewdin_charge"
    unit: str = "e"
'''

CONFIG = """
# @package lightning_module.descriptors
loewdin_charge:
  _target_: loewdin_for_mattergen.charges.LoewdinCharge
  scale: 0.5
"""

RECIPE = (
    "lightning_module.diffusion_module.model.hidden_dim=16",
    "lightning_module.diffusion_module.model.gemnet.emb_size_edge=16",
    "lightning_module.diffusion_module.model.gemnet.num_blocks=1",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
)


@pytest.fixture
def site_packages(tmp_path: Path) -> Path:
    """A folder with the installed third-party package: its modules, its configuration and its metadata."""
    folder = tmp_path / "site"
    package = folder / "loewdin_for_mattergen"
    (package / "configs" / "descriptors").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "charges.py").write_text(MODULE)
    (package / "configs" / "descriptors" / "loewdin.yaml").write_text(CONFIG.lstrip())
    metadata = folder / "loewdin_for_mattergen-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: loewdin-for-mattergen\nVersion: 0.1\n")
    points = "[mattergen_e.descriptors]\nloewdin = loewdin_for_mattergen.charges:LoewdinCharge\n"
    (metadata / "entry_points.txt").write_text(points)
    return folder


def run(warm: Any, site_packages: Path, folder: Path, *words: str, **environment: str) -> str:
    """A command of this environment that also sees the third-party package."""
    settings = os.environ | {"PYTHONPATH": str(site_packages), "OMP_NUM_THREADS": "1"} | environment
    result = warm.run(words, cwd=folder, environment=settings)
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def test_train_with_a_third_party_descriptor(
    warm: Any, site_packages: Path, solids: dict[str, Any], tmp_path: Path
) -> None:
    labels = tmp_path / "labels.jsonl"
    with open(labels, "w") as file:
        for copy, split in enumerate(("train", "val")):
            for name, structure in solids.items():
                charges = [0.6 * q for q in structure.site_properties["bader_charge"]]
                plain = structure.copy(site_properties={}).as_dict()
                entry = {"id": f"{name}{copy}", "structure": plain, "loewdin_charge": charges, "split": split}
                file.write(json.dumps(entry) + "\n")
    build = ["data", "build", str(labels), "--out", "cache", "--site-value", "loewdin_charge"]
    run(warm, site_packages, tmp_path, "mattergen-e", *build)
    words = ["--config-name=joint_scratch", "descriptors=[loewdin,dummy]", f"data_module.root_dir={tmp_path}/cache"]
    run(warm, site_packages, tmp_path, "mattergen-train", *words, *RECIPE, OUTPUT_DIR=str(tmp_path / "run"))
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert set(config["lightning_module"]["descriptors"]) == {"loewdin_charge", "dummy"}
    report = json.loads(run(warm, site_packages, tmp_path, "mattergen-e", "doctor", "--json"))
    assert "loewdin" in json.dumps(report)
