"""Models that are right and wrong, and files that only look like models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mattergen_e.doctor.model import check_model, summarise
from mattergen_e.doctor.report import Finding, ModelSummary
from mattergen_e.quiet import quiet


def levels(findings: list[Finding]) -> dict[str, str]:
    """Level by subject."""
    return {finding.subject: finding.level for finding in findings}


def change(model: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edits the configuration of a run folder."""
    config = yaml.safe_load((model / "config.yaml").read_text())
    edit(config["lightning_module"])
    (model / "config.yaml").write_text(yaml.safe_dump(config))


def examine(model: Path) -> tuple[ModelSummary | None, list[Finding]]:
    """The doctor's check of a model, without what MatterGen prints."""
    with quiet():
        return check_model(model)


def test_healthy_model(model: Path) -> None:
    summary, findings = examine(model)
    assert levels(findings) == {"config.yaml": "ok", "checkpoint": "ok", "loading": "ok"}
    assert summary is not None
    assert set(summary.fields) == {"pos", "cell", "atomic_numbers", "bader_charge"}
    assert summary.descriptors == {"bader_charge": "mattergen_e.descriptors.bader.BaderCharge"}
    assert summary.properties == []
    assert (summary.hidden_dim, summary.blocks, summary.steps) == (16, 1, 10)
    assert (summary.epoch, summary.global_step) == (3, 40)
    assert summary.parameters is not None and 5_000 < summary.parameters < 100_000
    assert summary.versions["torch"] == "2.15.0"


def test_conditions_of_base_and_adapter_are_listed(model: Path) -> None:
    config = yaml.safe_load((model / "config.yaml").read_text())
    denoiser = config["lightning_module"]["diffusion_module"]["model"]
    denoiser["property_embeddings"] = {"space_group": {}}
    denoiser["property_embeddings_adapt"] = {"dft_band_gap": {}}
    assert summarise(model, config).properties == ["space_group", "dft_band_gap"]


@pytest.mark.parametrize("content", ["a: [", "[1, 2]", "lightning_module: {}", "trainer: {max_epochs: 3}", "\x00"])
def test_file_that_is_no_model(content: str, model: Path) -> None:
    (model / "config.yaml").write_text(content)
    summary, findings = examine(model)
    assert summary is None
    assert [finding.level for finding in findings] == ["problem"]
    assert "config.yaml" in findings[0].text


def test_folder_without_a_model(tmp_path: Path) -> None:
    summary, findings = examine(tmp_path / "nowhere")
    assert summary is None
    assert "has no config.yaml" in findings[0].text


def test_folder_without_weights(model: Path) -> None:
    (model / "checkpoints" / "last.ckpt").unlink()
    summary, findings = examine(model)
    assert summary is not None and summary.parameters is None
    assert levels(findings)["checkpoint"] == "problem"


def test_weights_that_do_not_fit(model: Path) -> None:
    change(model, lambda config: config["diffusion_module"]["model"].update(hidden_dim=24))
    summary, findings = examine(model)
    assert levels(findings) == {"config.yaml": "ok", "checkpoint": "ok", "loading": "problem"}
    assert summary is not None and summary.hidden_dim == 24


def test_class_that_this_installation_lacks(model: Path) -> None:
    wrong = "mattergen_e.descriptors.nowhere.Spin"
    change(model, lambda config: config["descriptors"]["bader_charge"].update(_target_=wrong))
    _, findings = examine(model)
    assert findings[-1].level == "problem"
    assert wrong in findings[-1].text
    assert "install the package" in findings[-1].remedy


@pytest.mark.parametrize(
    "poison",
    [
        {"_target_": "os.system", "command": "touch {}"},
        {"_target_": "evil_package.run", "path": "{}"},
        {"_target_": "mattergen_e.descriptors.bader.BaderCharge", "scale": '${{eval:\'open("{}", "w")\'}}'},
    ],
    ids=["system", "package", "eval"],
)
def test_configuration_with_foreign_code_is_not_built(
    poison: dict[str, str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = tmp_path / "proof"
    (tmp_path / "evil_package.py").write_text(f"open({str(proof)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    values = {key: value if key == "_target_" else value.format(proof) for key, value in poison.items()}
    change(model, lambda config: config["descriptors"].update(bader_charge=values))
    _, findings = examine(model)
    assert findings[-1].level == "problem"
    assert "Not built" in findings[-1].remedy or "is not arithmetic" in findings[-1].text
    assert not proof.exists()


class Malicious:
    """Runs a command when it is unpickled carelessly."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_unsafe_checkpoint_is_not_loaded(model: Path, tmp_path: Path) -> None:
    import torch

    proof = tmp_path / "proof"
    torch.save({"state_dict": {}, "gift": Malicious(f"touch {proof}")}, model / "checkpoints" / "last.ckpt")
    _, findings = examine(model)
    assert levels(findings) == {"config.yaml": "ok", "checkpoint": "problem"}
    assert not proof.exists()
