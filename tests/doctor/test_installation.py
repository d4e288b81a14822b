"""Each check of the installation, where it is right, doubtful and wrong."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from mattergen_e import upstream
from mattergen_e.descriptors import registry
from mattergen_e.doctor import installation
from mattergen_e.doctor.report import Finding
from mattergen_e.quiet import quiet


def levels(findings: list[Finding]) -> dict[str, str]:
    """Level by subject."""
    return {finding.subject: finding.level for finding in findings}


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
        ("xtalmet", None, "ok"),
        ("xtalmet", "1.5", "warning"),
        ("baderkit", None, "ok"),
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
    found = {finding.subject: finding for finding in installation.check_versions()}
    assert set(found) == set(installation.CHECKED)
    assert found[package].level == level
    if level != "ok":
        assert "pip install" in found[package].remedy


def test_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.2")
    found = installation.check_versions()[0]
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
    monkeypatch.setattr(installation, "_cuda_complaint", lambda: "the driver is too old")
    found = installation._no_gpu(present, cuda)
    assert found.level == level
    assert words in found.text


def test_gpus_are_listed_with_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    gpu = SimpleNamespace(name="NVIDIA H200", total_memory=141 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    found = installation.check_device()
    assert levels(found) == {"CPU": "ok", "GPU 0": "ok", "GPU 1": "ok"}
    assert "NVIDIA H200, 141 GiB" in found[1].text


# -- packages


def test_compiled_scatter_is_told_from_the_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, words in (("2.1.2", "compiled, 2.1.2"), ("2.1.2+fallback", "plain PyTorch")):
        module = ModuleType("torch_scatter")
        module.__version__ = version  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torch_scatter", module)
        assert words in installation._check_extension("torch_scatter").text


def test_compiled_scatter_that_does_not_fit_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch_scatter").mkdir()
    (tmp_path / "torch_scatter" / "__init__.py").write_text("raise OSError('undefined symbol: _ZN3c10')")
    monkeypatch.delitem(sys.modules, "torch_scatter", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    found = installation._check_extension("torch_scatter")
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
    found = installation.check_mattergen()
    assert [finding.level for finding in found] == ["ok", "ok", "problem"]
    assert "mattergen-e's copy is used" in found[1].text


def test_recipe_of_a_checkout_that_torch_cannot_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    (tmp_path / "lightning_module").mkdir()
    (tmp_path / "lightning_module" / "default.yaml").write_text("scheduler:\n  verbose: true\n")
    piece = upstream.PackageData("recipes (conf)", tmp_path, tmp_path)
    monkeypatch.setattr(upstream, "package_data", lambda: [piece])
    monkeypatch.setattr(torch, "__version__", "2.7.1+cpu")
    assert levels(installation.check_mattergen()) == {"MatterGen's recipes (conf)": "warning"}
    monkeypatch.setattr(torch, "__version__", "2.2.1")
    assert levels(installation.check_mattergen()) == {"MatterGen's recipes (conf)": "ok"}


def test_published_checkpoints_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file: None)
    assert "none on this machine" in installation.check_published()[0].text
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda repo, file: "here" if "/mp_20_base/" in file else None
    )
    assert installation.check_published()[0].text == "mp_20_base"


# -- recipes and descriptors


def test_recipes_are_listed() -> None:
    with quiet():
        recipes, sampling = installation.check_hydra()
    assert {"joint", "base_small", "bader_joint"} <= set(recipes.text.split(", "))
    assert "joint" in sampling.text


def test_hydra_without_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    found = Plugins.instance().plugin_type_to_subclass_list
    monkeypatch.setitem(found, SearchPathPlugin, [c for c in found[SearchPathPlugin] if "MatterGenE" not in c.__name__])
    with quiet():
        assert levels(installation.check_hydra()) == {"recipes": "problem", "sampling settings": "problem"}


def test_broken_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "spin": registry.Registration("spin", "spin.x:Spin", "spin-package", None, "ImportError: no module"),
        "bader": registry.Registration("bader", "mattergen_e.x:X", "mattergen-e", None, "ImportError: no module"),
        "dummy": registry.Registration("dummy", "mattergen_e.y:Y", "mattergen-e", int),
    }
    monkeypatch.setattr(installation, "registered", lambda: found)
    findings = installation.check_descriptors()
    assert levels(findings) == {"spin": "warning", "bader": "problem", "dummy": "ok"}
    assert "spin-package" in findings[0].remedy
    monkeypatch.setattr(installation, "registered", dict)
    assert levels(installation.check_descriptors()) == {"registered": "problem"}
