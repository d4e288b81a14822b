"""Each check of the doctor, on installations and models that are right, doubtful and wrong."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from mattergen_e import doctor, upstream
from mattergen_e.cli import main
from mattergen_e.descriptors import registry
from mattergen_e.doctor import Finding


def levels(findings: list[Finding]) -> dict[str, str]:
    """Level by subject."""
    return {finding.subject: finding.level for finding in findings}


def test_a_warning_without_a_remedy_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="names no remedy"):
        Finding("versions", "torch", "warning", "old")


def test_first_lines_of_an_error() -> None:
    assert doctor.first_lines(ValueError("one\n\n  two \nthree")) == "one two"
    assert doctor.first_lines(ValueError()) == "ValueError"


# -- versions


@pytest.mark.parametrize(
    ("package", "version", "level"),
    [
        ("numpy", "2.1.0", "problem"),
        ("numpy", "1.26.4", "ok"),
        ("torch", "2.20.0", "warning"),
        ("torch", "2.15.1+cu130", "ok"),
        ("torch", "1.13.0", "problem"),
        ("mattergen", "1.0.4", "warning"),
        ("mattergen", None, "problem"),
        ("xtalmet", None, "problem"),
    ],
)
def test_versions(package: str, version: str | None, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.metadata.version

    def pretend(name: str) -> str:
        if name != package:
            return original(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", pretend)
    found = {finding.subject: finding for finding in doctor.check_versions()}
    assert set(found) == set(doctor.CHECKED)
    assert found[package].level == level
    if level != "ok":
        assert "pip install" in found[package].remedy


def test_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.2")
    found = doctor.check_versions()[0]
    assert (found.subject, found.level) == ("python", "problem")
    assert "uv venv" in found.remedy


# -- device


@pytest.mark.parametrize(
    ("present", "cuda", "level", "words"),
    [
        (False, None, "ok", "built without CUDA"),
        (False, "13.2", "ok", "no NVIDIA driver"),
        (True, None, "warning", "built without CUDA"),
        (True, "13.2", "warning", "the driver is too old"),
    ],
)
def test_no_gpu(present: bool, cuda: str | None, level: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_cuda_complaint", lambda: "the driver is too old")
    found = doctor._no_gpu(present, cuda)
    assert found.level == level
    assert words in found.text


def test_gpus_are_listed_with_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    gpu = SimpleNamespace(name="NVIDIA H200", total_memory=141 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    found = doctor.check_device()
    assert levels(found) == {"CPU": "ok", "GPU 0": "ok", "GPU 1": "ok"}
    assert "NVIDIA H200, 141 GiB" in found[1].text


# -- packages


def test_compiled_scatter_is_told_from_the_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, words in (("2.1.2", "compiled, 2.1.2"), ("2.1.2+fallback", "plain PyTorch")):
        module = ModuleType("torch_scatter")
        module.__version__ = version  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torch_scatter", module)
        assert words in doctor._check_extension("torch_scatter").text


def test_compiled_scatter_that_does_not_fit_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch_scatter").mkdir()
    (tmp_path / "torch_scatter" / "__init__.py").write_text("raise OSError('undefined symbol: _ZN3c10')")
    monkeypatch.delitem(sys.modules, "torch_scatter", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    found = doctor._check_extension("torch_scatter")
    assert found.level == "problem"
    assert "undefined symbol" in found.text
    assert "pip uninstall torch-scatter" in found.remedy


def test_package_data_of_mattergen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "ours").mkdir()
    pieces = [
        upstream.PackageData("own", tmp_path / "own", tmp_path / "ours"),
        upstream.PackageData("repaired", tmp_path / "none", tmp_path / "ours"),
        upstream.PackageData("lost", tmp_path / "none", tmp_path / "none"),
    ]
    monkeypatch.setattr(upstream, "package_data", lambda: pieces)
    found = doctor.check_mattergen()
    assert [finding.level for finding in found] == ["ok", "ok", "problem"]
    assert "mattergen-e's copy is used" in found[1].text


def test_recipe_of_a_checkout_that_torch_cannot_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    (tmp_path / "lightning_module").mkdir()
    (tmp_path / "lightning_module" / "default.yaml").write_text("scheduler:\n  verbose: true\n")
    piece = upstream.PackageData("recipes (conf)", tmp_path, tmp_path)
    monkeypatch.setattr(upstream, "package_data", lambda: [piece])
    monkeypatch.setattr(torch, "__version__", "2.7.1+cpu")
    assert levels(doctor.check_mattergen()) == {"MatterGen's recipes (conf)": "warning"}
    monkeypatch.setattr(torch, "__version__", "2.2.1")
    assert levels(doctor.check_mattergen()) == {"MatterGen's recipes (conf)": "ok"}


def test_published_checkpoints_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file: None)
    assert "none on this machine" in doctor.check_published()[0].text
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda repo, file: "here" if "/mp_20_base/" in file else None
    )
    assert doctor.check_published()[0].text == "mp_20_base"


# -- recipes and descriptors


def test_recipes_are_listed() -> None:
    with doctor.quiet():
        recipes, sampling = doctor.check_hydra()
    assert {"joint", "base_small", "bader_joint"} <= set(recipes.text.split(", "))
    assert "joint" in sampling.text


def test_hydra_without_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    found = Plugins.instance().plugin_type_to_subclass_list
    monkeypatch.setitem(found, SearchPathPlugin, [c for c in found[SearchPathPlugin] if "MatterGenE" not in c.__name__])
    with doctor.quiet():
        assert levels(doctor.check_hydra()) == {"recipes": "problem", "sampling settings": "problem"}


def test_broken_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "spin": registry.Registration("spin", "spin.x:Spin", "spin-package", None, "ImportError: no module"),
        "bader": registry.Registration("bader", "mattergen_e.x:X", "mattergen-e", None, "ImportError: no module"),
        "dummy": registry.Registration("dummy", "mattergen_e.y:Y", "mattergen-e", int),
    }
    monkeypatch.setattr(registry, "registered", lambda: found)
    findings = doctor.check_descriptors()
    assert levels(findings) == {"spin": "warning", "bader": "problem", "dummy": "ok"}
    assert "spin-package" in findings[0].remedy
    monkeypatch.setattr(registry, "registered", dict)
    assert levels(doctor.check_descriptors()) == {"registered": "problem"}


def test_a_failing_check_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_moon() -> list[Finding]:
        raise OSError("no moon")

    monkeypatch.setattr(doctor, "CHECKS", (check_moon, doctor.check_device))
    report = doctor.examine()
    assert not report.healthy
    assert levels(report.findings)["moon"] == "problem"
    assert levels(report.findings)["CPU"] == "ok"


# -- a trained model


@pytest.fixture(scope="module")
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


def change(model: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edits the configuration of a run folder."""
    config = yaml.safe_load((model / "config.yaml").read_text())
    edit(config["lightning_module"])
    (model / "config.yaml").write_text(yaml.safe_dump(config))


def examine(model: Path) -> tuple[doctor.ModelSummary | None, list[Finding]]:
    """The doctor's check of a model, without what MatterGen prints."""
    with doctor.quiet():
        return doctor.check_model(model)


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
    assert doctor.summarise(model, config).properties == ["space_group", "dft_band_gap"]


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
    assert "Install the package" in findings[-1].remedy


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
    assert "Not built" in findings[-1].remedy
    assert not proof.exists()


def test_registered_descriptors_of_other_packages_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"lightning_module": {"descriptors": {"spin": {"_target_": "spin_package.x.Spin"}}}}
    assert doctor.foreign_code(config) == ["spin_package.x.Spin"]
    spin = registry.Registration("spin", "spin_package.x:Spin", "spin-package", int)
    monkeypatch.setattr(registry, "registered", lambda: {"spin": spin})
    assert doctor.foreign_code(config) == []


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


# -- the command


def run(*words: str) -> int:
    """Exit code of `mattergen-e doctor`."""
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *words])
    return int(ended.value.code or 0)


def test_command_prints_json(model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "check_versions", list)  # not about the versions of the day
    assert run("--json", "--model-path", str(model)) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is True
    assert report["model"]["epoch"] == 3
    assert {"section", "subject", "level", "text", "remedy"} == set(report["findings"][0])


def test_command_ends_with_1_at_a_problem_and_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", ())
    monkeypatch.setenv("COLUMNS", "200")
    assert run("--model_path", str(tmp_path)) == 1
    shown = capsys.readouterr().out
    assert "problem" in shown
    assert "Give the folder that holds config.yaml" in shown
    assert "1 problem," in shown


def test_command_ends_with_0_at_a_warning(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    doubtful = Finding("device", "GPU", "warning", "[not] used", "Update the driver.")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: [doubtful],))
    monkeypatch.setattr(doctor, "check_versions", list)
    monkeypatch.setenv("COLUMNS", "200")
    assert run("--model_path", str(model)) == 0
    shown = capsys.readouterr().out
    assert "GPU: [not] used" in shown
    assert "no problems, 1 warning." in shown
    assert "bader_charge (mattergen_e.descriptors.bader.BaderCharge)" in shown
