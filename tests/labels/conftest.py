"""Real VASP calculations and changed copies of them for the tests of the label room."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def vasp_data(real_data: Path) -> Path:
    """The folder with the real VASP calculations, or a skip."""
    return real_data / "vasp"


@pytest.fixture(scope="session")
def unpacked(vasp_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same calculations, unpacked and writable."""
    root = tmp_path_factory.mktemp("vasp")
    for path in sorted(vasp_data.glob("*/*.gz")):
        target = root / path.parent.name / path.stem
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(gzip.decompress(path.read_bytes()))
    return root


@pytest.fixture
def copy(unpacked: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a copy of a calculation by the beginning of its folder's name."""

    def make(name: str) -> Path:
        (source,) = unpacked.glob(f"{name}_*")
        return shutil.copytree(source, tmp_path / name, dirs_exist_ok=True)

    return make
