"""The order of the rooms: imports run downwards only, and no two rooms import each other.

Read from the text of every file, so imports inside functions, under TYPE_CHECKING, by name through importlib, and names
of classes in strings and in settings count as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "mattergen_e"

#: From bottom to top; rooms of one line do not import each other, but for the first, where each file is small.
ORDER = [
    ["errors", "files", "journal", "limits", "parallel", "progress", "provenance", "quiet", "types"],
    ["fallbacks"],
    ["upstream"],
    ["crystals"],
    ["spectra"],
    ["labels"],
    ["data"],
    ["networks"],
    ["targets"],
    ["descriptors"],
    ["diffusion"],
    ["doctor", "prediction"],
    ["training"],
    ["generation"],
    ["matching"],
    ["energies"],
    ["reference"],
    ["evaluation"],
    ["report"],
    ["screening"],
    ["testing"],
    ["cli"],
]
FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}
#: Old names of trained models, which their config.yaml holds; on top of everything, and nothing imports them.
OLD_NAMES = "conditioning"
#: Arrows that may run up, each with its reason: (file's module, room) -> reason.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("mattergen_e.upstream.trust", "descriptors"): "name of the entry point group, which hosts and packages spell out",
    ("mattergen_e.generation.outline", OLD_NAMES): "compares a name that an old config.yaml holds; imports nothing",
}
#: Settings by the room that reads them: recipes build models and data for training, sampling settings a generation.
SETTINGS = {"configs/sampling": "generation", "configs": "training"}

NAME = re.compile(r"^mattergen_e(\.[A-Za-z_]\w*)+(:\w+)?$")


def modules() -> dict[str, Path]:
    """All modules of the package."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room(name: str) -> str | None:
    """The room of a module or of something in it; None for the package itself."""
    parts = name.split(":")[0].split(".")
    return parts[1] if len(parts) > 1 else None


def arrows(path: Path, module: str) -> Iterator[tuple[str, int]]:
    """What a file names of the package, with the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                inside = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                base = ".".join([*inside[: len(inside) - node.level + 1], *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names] if base == PACKAGE else [base]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.match(node.value):
            names = [node.value]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name.split(".")[0] == PACKAGE)


def values(node: object) -> Iterator[str]:
    """All strings of a settings file."""
    if isinstance(node, dict):
        for value in node.values():
            yield from values(value)
    elif isinstance(node, list):
        for value in node:
            yield from values(value)
    elif isinstance(node, str):
        yield node


def upward(origin: str, target: str) -> bool:
    """Whether an arrow between two rooms does not run down."""
    if OLD_NAMES in (origin, target):
        return target == OLD_NAMES
    return (origin != target and FLOOR[target] >= FLOOR[origin] and FLOOR[origin] > 0) or FLOOR[target] > FLOOR[origin]


def test_every_room_has_its_place() -> None:
    assert {room(name) for name in MODULES} - {None, OLD_NAMES} <= set(FLOOR)


def all_arrows() -> list[tuple[str, str, str]]:
    """(module, room that it names, where) for every name of another room."""
    found = []
    for module, path in MODULES.items():
        for name, line in arrows(path, module):
            target, own = room(name), room(module)
            is_room = target in FLOOR or target == OLD_NAMES
            if own is not None and target is not None and is_room and target != own:
                found.append((module, target, f"{path.relative_to(ROOT)}:{line} names {name}"))
    return found


def test_imports_run_downwards() -> None:
    wrong = [
        where
        for module, target, where in all_arrows()
        if upward(str(room(module)), target) and (module, target) not in EXCEPTIONS
    ]
    assert not wrong, "\n".join(wrong)


def test_exceptions_are_needed() -> None:
    needed = {(module, target) for module, target, _ in all_arrows() if upward(str(room(module)), target)}
    assert set(EXCEPTIONS) <= needed


def test_rooms_import_each_other_in_one_direction() -> None:
    pairs = {(room(module), target) for module, target, _ in all_arrows() if (module, target) not in EXCEPTIONS}
    assert not {pair for pair in pairs if (pair[1], pair[0]) in pairs and FLOOR.get(str(pair[0]), 1) > 0}


@pytest.mark.parametrize("folder", ["configs", "mattergen_e"])
def test_settings_name_nothing_above_their_reader(folder: str) -> None:
    wrong, seen = [], 0
    for path in sorted((ROOT / folder).rglob("*.yaml")):
        own = path.relative_to(ROOT)
        reader = next((r for place, r in SETTINGS.items() if own.is_relative_to(place)), own.parts[1])
        for value in values(yaml.safe_load(path.read_text())):
            target = room(value) if NAME.match(value) else None
            seen += target is not None
            if target is not None and target != reader and upward(reader, target):
                wrong.append(f"{own} names {value}")
    assert not wrong and (seen > 0) == (folder == "configs"), wrong


def test_an_arrow_that_runs_up_is_seen(tmp_path: Path) -> None:
    """Each way to write one, in a file that is said to stand in `diffusion`."""
    path = tmp_path / "file.py"
    for text in (
        "import mattergen_e.generation.draw",
        "def f():\n    from mattergen_e.generation import draw",
        "def f():\n    from mattergen_e import generation",
        "from ..generation import draw",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mattergen_e.generation.draw import draw",
        "import importlib\nimportlib.import_module('mattergen_e.generation.draw')",
        "PATH = 'mattergen_e.generation.draw:draw'",
    ):
        path.write_text(text)
        found = [name for name, _ in arrows(path, f"{PACKAGE}.diffusion.file")]
        assert len(found) == 1 and upward("diffusion", str(room(found[0]))), text
    assert upward("doctor", "prediction") and upward("diffusion", OLD_NAMES) and not upward("generation", "diffusion")
