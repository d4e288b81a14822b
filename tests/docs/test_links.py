"""What README and docs name is there: links and anchors, commands and options, configurations, modules."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
ADDING = ROOT / "docs/adding_a_descriptor.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OLD_ROOMS = (
    r"mattergen_e[./](?:dos|constraints|conditioning|density|upstream_data)\b|generation/seams|evaluation\.matching"
)


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub and Python-Markdown make it of plain words."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", plain.lower()).strip())


def anchors(page: Path) -> set[str]:
    return {anchor(h) for h in re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)}


def commands() -> list[tuple[str, list[str]]]:
    """Every command of a bash block as (page, words), continued lines joined and comments left out."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```bash\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                try:
                    words = shlex.split(line, comments=True)
                except ValueError:
                    continue
                for part in split_words(words):
                    found.append((page.name, part))
    return found


def split_words(words: list[str]) -> list[list[str]]:
    """Commands joined by && or ; apart."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word in ("&&", "|", ";"):
            parts.append([])
        elif word.endswith(";"):
            parts[-1].append(word[:-1])
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]


def has_name(dotted: str) -> bool:
    """Whether `mattergen_e.x.y.Z` is a module, or a name that a module defines or imports."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:n])
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if file.is_file():
            rest = parts[n:]
            return not rest or (len(rest) <= 2 and rest[0] in defined(file))
    return False


def defined(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Dict):  # lazily offered names
            names |= {k.value for k in node.keys if isinstance(k, ast.Constant) and isinstance(k.value, str)}
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, part = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (part and part not in anchors(file)):
            lost.append(target)
    assert lost == []


def test_readme_is_short() -> None:
    assert len(PAGES[0].read_text().splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_names_of_modules_and_files_exist(page: Path) -> None:
    text = page.read_text()
    assert re.findall(OLD_ROOMS, text) == []
    dotted = set(re.findall(r"\bmattergen_e(?:\.\w+)+", text))
    assert [name for name in sorted(dotted) if name != "mattergen_e.descriptors" and not has_name(name)] == []
    paths = set(re.findall(r"(?<![\w/])(?:mattergen_e|configs|hydra_plugins|benchmarks)/[\w/]+\.(?:py|yaml)", text))
    paths |= set(re.findall(r"(?<![\w/])checkpoints/\w+", text)) - {"checkpoints/last"}
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_configurations_exist() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    recipes = {*re.findall(r"--config-name=(\w+)", text)}
    assert recipes
    assert [name for name in sorted(recipes) if not (ROOT / f"configs/{name}.yaml").exists()] == []
    sampling = {*re.findall(r"--sampling_config_name=(\w+)", text)} - {"csp"}  # MatterGen's own
    assert [name for name in sorted(sampling) if not (ROOT / f"configs/sampling/{name}.yaml").exists()] == []
    adapters = {n for some in re.findall(r"adapter_property=\[([\w,]*)\]", text) for n in some.split(",") if n}
    adapters -= {name for name in adapters if name.startswith("my_")}  # a user's own
    assert [name for name in sorted(adapters) if not (ROOT / f"configs/adapter_property/{name}.yaml").exists()] == []


def test_commands_and_options_exist() -> None:
    import typer

    from mattergen_e.cli import app

    top: Any = typer.main.get_command(app)
    checked, wrong = 0, []
    for page, words in commands():
        if "mattergen-e" not in words:
            continue
        rest = words[words.index("mattergen-e") + 1 :]
        command = top
        while rest and hasattr(command, "commands"):
            sub = command.commands.get(rest[0])
            if sub is None:
                break
            command, rest = (sub.load() if hasattr(sub, "load") else sub), rest[1:]
        if hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            wrong.append((page, " ".join(words)))
            continue
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "--version"}
        given = [w.split("=")[0] for w in rest if re.match(r"--?[a-z]", w)]
        wrong += [(page, option, " ".join(words)) for option in given if option not in known]
        checked += 1
    assert checked > 30
    assert wrong == []


def written(folder: Path) -> dict[str, Path]:
    """The files of the page on adding a descriptor, each the first block below its name, by name."""
    files = {}
    for part in re.split(r"^(?=`my_descriptors/)", ADDING.read_text(), flags=re.MULTILINE)[1:]:
        name, (block, *_) = part.split("`")[1], blocks(part)
        files[name] = folder / name
        files[name].parent.mkdir(parents=True, exist_ok=True)
        files[name].write_text(block)
    return files


def blocks(text: str) -> list[str]:
    return re.findall(r"^```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The descriptors of that page, made from their YAML files."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    folder = tmp_path_factory.mktemp("example")
    files = written(folder)
    assert len(files) == 6
    sys.path.insert(0, str(folder))
    made: dict[str, Any] = {}
    for name, file in files.items():
        if name.endswith(".yaml"):
            assert file.read_text().startswith("# @package lightning_module.descriptors\n")
            made |= instantiate(OmegaConf.load(file), _convert_="all")
    yield made
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_descriptors"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["abs_magmom", "dielectric", "coarse_density"])
def test_examples_of_descriptors_keep_to_the_contract(example: dict[str, Any], name: str) -> None:
    from mattergen_e.testing import check_descriptor

    assert example[name].name == name
    check_descriptor(example[name])


def test_examples_of_descriptors_have_a_cache(example: dict[str, Any], tmp_path: Path) -> None:
    from mattergen_e.data.build import build_cache

    line = {
        "species": ["Na", "Cl"],
        "cell": [[0.0, 2.8, 2.8], [2.8, 0.0, 2.8], [2.8, 2.8, 0.0]],
        "positions": [[0.0, 0.0, 0.0], [2.8, 2.8, 2.8]],
        "split": "train",
        "abs_magmom": [0.0, 0.5],
        "coarse_density": np.full((4, 4, 4), 0.1).tolist(),
    }
    good = {**line, "material_id": "good", "dielectric": 2.3}
    bad = {**line, "material_id": "bad", "dielectric": 0.9}
    (tmp_path / "mine.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    quantities = [descriptor.quantity() for descriptor in example.values()]
    manifest = build_cache([tmp_path / "mine.jsonl"], tmp_path / "cache", quantities=quantities, jobs=1)
    assert [(entry.id, entry.sentence) for entry in manifest.dropped] == [
        ("bad", "dielectric is 0.9, but it is at least 1")
    ]
    shapes = {name: example[name].read_cache(tmp_path / "cache/train").shape for name in example}
    assert shapes == {"abs_magmom": (2, 1), "dielectric": (1, 1), "coarse_density": (64, 1)}
    for name, folder in (("abs_magmom", "sites"), ("dielectric", "crystals"), ("coarse_density", "grids")):
        assert (tmp_path / "cache/train" / folder / f"{name}.npy").is_file()


def test_examples_of_tests_pass(example: dict[str, Any]) -> None:
    """The tests that the page advises, but for that of an installed package."""
    space: dict[str, Any] = {}
    exec(compile(blocks(ADDING.read_text())[-1], ADDING.name, "exec", dont_inherit=True), space)
    space["test_constraint_is_weak_at_first_and_exact_at_the_end"]()
    space["test_schedule_means_the_same_for_any_number_of_steps"]()
    assert isinstance(example["abs_magmom"], space["AbsoluteMoment"])
