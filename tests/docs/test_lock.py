"""The locks name a hash of every file that is installed, and nothing else than the versions that are written down."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ["constraints.lock", "docs/constraints.lock"]


def pins(path: Path) -> dict[str, list[str]]:
    """Hashes by pin, of a file whose every line is a pin or a hash of it."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        entry = re.fullmatch(r"(\S+==\S+?)( \\)?|    --hash=sha256:([0-9a-f]{64})( \\)?", line)
        assert entry is not None, line
        if entry[1]:
            found[entry[1]] = []
        else:
            found[list(found)[-1]].append(entry[3])
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes(lock: str) -> None:
    found = pins(ROOT / lock)
    assert all(found.values())
    versions = (ROOT / lock).with_suffix(".txt").read_text().split()
    assert set(found) == set(versions), "run `make lock` after a change of versions"


def test_what_is_installed_is_what_is_locked() -> None:
    found = dict(pin.split("==") for pin in pins(ROOT / LOCKS[0]))
    for name in ("uv", "torch", "numpy", "mattergen", "pymatgen", "pytorch-lightning", "hydra-core"):
        assert version(name).split("+")[0] == found[name]


def test_installing_requires_hashes() -> None:
    lines = (ROOT / "Makefile").read_text().replace("\\\n", " ").splitlines()
    installs = [line for line in lines if "pip install" in line]
    assert len(installs) == 4
    for line in installs:
        assert "--no-deps" in line
        assert "--no-config" in line or "uv pip" not in line or "-r" not in line.split()  # pyproject.toml has no hashes
        assert "--require-hashes" in line or ("--editable ." in line and "--build-constraint constraints.lock" in line)


@pytest.mark.parametrize("name", [*LOCKS, "constraints.txt", "docs/constraints.txt", "Makefile", "pyproject.toml"])
def test_no_index_is_named(name: str) -> None:
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links", (ROOT / name).read_text())
