"""PyTorch can be imported whatever has become of the package."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import mattergen_e

(ENTRY,) = (entry for entry in entry_points(group="torch.backends") if entry.name == "mattergen_e")
COMMAND = "/usr/bin/mattergen-generate"


def test_what_torch_calls_does_not_stand_or_fall_with_the_package() -> None:
    spec = find_spec(ENTRY.module)
    assert spec is not None and spec.origin is not None
    assert Path(spec.origin).parent == Path(torch.__file__).parents[1]  # site-packages, not the checkout
    source = Path(mattergen_e.__file__).parent / "upstream" / f"{ENTRY.module}.py"
    assert Path(spec.origin).read_bytes() == source.read_bytes()


@pytest.mark.parametrize("module", ["mattergen_e", "mattergen_e.upstream", "mattergen_e.upstream.startup"])
def test_torch_loads_without_the_package(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mattergen_e"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # importing it is then an ImportError
    for argv in (["python"], [COMMAND], []):
        monkeypatch.setattr(sys, "argv", argv)
        torch._import_device_backends()
        said = capsys.readouterr().err
        assert said.count("\n") == (argv == [COMMAND]) and ("install it anew" in said) == (argv == [COMMAND])
    monkeypatch.setattr(sys, "argv", [COMMAND])
    monkeypatch.setattr(sys, "stderr", None)
    torch._import_device_backends()


def test_another_program_imports_nothing_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mattergen_e"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/jupyter"])
    ENTRY.load()()
    assert "mattergen_e" not in sys.modules


def test_mattergens_commands_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [COMMAND])
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    ENTRY.load()()
    assert sys.excepthook is not sys.__excepthook__
