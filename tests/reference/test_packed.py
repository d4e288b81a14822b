"""Packed references: the same as the original, unpacked once, never more than the manifest tells."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.reference import Reference
from mattergen_e.reference.build import BuildSettings, build
from mattergen_e.reference.packed import ARRAYS, VARIABLE, is_packed, pack

SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints" / "reference_mp"


@pytest.fixture(scope="module")
def built(write_dos_cache: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference of 24 crystals without energies."""
    place = tmp_path_factory.mktemp("reference")
    build([write_dos_cache(place / "cache")], place / "ref", BuildSettings(calculator=None), jobs=1)
    return place / "ref"


@pytest.fixture
def packed(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its packed copy, and an empty cache of the user."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "user"))
    size = pack(built, tmp_path / "packed", Reference.open(built).manifest.arrays)
    assert size == sum(path.stat().st_size for path in (tmp_path / "packed").iterdir())
    return tmp_path / "packed"


def test_it_is_the_original(built: Path, packed: Path, tmp_path: Path) -> None:
    original, copy = Reference.open(built), Reference.open(packed)
    assert is_packed(packed) and not is_packed(built)
    assert copy.hash == original.hash and copy.name == "packed" and len(copy) == 24
    for name in original.manifest.arrays:
        array = name.removesuffix(".npy")
        if not array.startswith("properties/"):
            np.testing.assert_array_equal(copy.array(array), original.array(array))
    worker = pickle.loads(pickle.dumps(copy))
    assert worker.name == "packed" and worker.hash == original.hash
    (place,) = (tmp_path / "user" / "references").iterdir()
    before = (place / "manifest.json").stat().st_mtime_ns
    Reference.open(packed)
    assert (place / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="is a packed reference"):
        build([built.parent / "cache"], packed, BuildSettings(calculator=None), jobs=1)


def test_the_unpacked_copy_is_compared_with_the_hashes(packed: Path, tmp_path: Path) -> None:
    Reference.open(packed)
    (place,) = (tmp_path / "user" / "references").iterdir()
    content = bytearray((place / "cell.npy").read_bytes())
    content[-1] ^= 1
    (place / "cell.npy").write_bytes(content)
    with pytest.raises(UserError, match="cell.npy is not what was built"):
        Reference.open(packed)


def _longer(archive: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        archive.writestr(name, content + b"\0" * (2**20 if name == "cell.npy" else 0))


def _less(archive: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
    for name in list(contents)[1:]:
        archive.writestr(name, contents[name])


@pytest.mark.parametrize("write", [_longer, _less])
def test_another_content_is_one_sentence(write: Callable[..., Any], packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed / ARRAYS) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(packed / ARRAYS, "w", zipfile.ZIP_LZMA) as archive:
        write(archive, contents)
    with pytest.raises(UserError, match=r"arrays.zip is damaged .* copy the reference anew"):
        Reference.open(packed)
    assert list((tmp_path / "user" / "references").iterdir()) == []


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bytes_are_one_sentence(seed: int, packed: Path) -> None:
    content = bytearray((packed / ARRAYS).read_bytes())
    place = np.random.default_rng(seed).integers(len(content) // 10, len(content) * 9 // 10)
    content[place] ^= 0xFF
    (packed / ARRAYS).write_bytes(content)
    with pytest.raises(UserError):
        Reference.open(packed)


def test_names_outside_of_the_folder(packed: Path, tmp_path: Path) -> None:
    manifest = json.loads((packed / "manifest.json").read_text())
    manifest["arrays"]["../../victim.npy"] = manifest["arrays"]["cell.npy"]
    (packed / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="outside of the folder"):
        Reference.open(packed)
    assert not (tmp_path / "user").exists()


def test_no_place_is_one_sentence(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    with pytest.raises(UserError, match=f"set {VARIABLE} to a folder"):
        Reference.open(packed)


def test_nothing_is_replaced(built: Path, packed: Path) -> None:
    with pytest.raises(UserError, match="packed exists"):
        pack(built, packed, [])


def test_the_shipped_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rock salt and lithium fluoride are known; sodium chloride lies on the hull, 1 eV/atom above it nothing does."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    reference = Reference.open(SHIPPED)
    assert len(reference) == 25_982 and reference.name == "reference_mp"
    assert reference.energy_source["name"] == "chgnet" and reference.manifest.without_energy == 0
    found = reference.members(["NaCl", "LiF"])
    assert found["NaCl"] and found["LiF"]
    hull = reference.hull()
    energies = [float(reference.energies[index]) for index in found["NaCl"]]
    assert hull.energy_above_hull("NaCl", min(energies)) == pytest.approx(0, abs=1e-6)
    assert hull.formation_energy("NaCl", min(energies)) == pytest.approx(-2.13, abs=0.15)  # experiment, -411 kJ/mol
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 16e6
    assert "CC BY 4.0" in (SHIPPED / "README.md").read_text()
