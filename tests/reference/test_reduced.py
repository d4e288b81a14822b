"""Reduced cells in the reference: those of pymatgen, left out of its hash, added on a rerun, and never needed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.matching import Crystal, ReferenceIndex
from mattergen_e.matching.stored import StoredCrystal
from mattergen_e.reference import Reference, reduced
from mattergen_e.reference.build import BuildSettings, build
from mattergen_e.reference.folder import DERIVED, reducer
from tests.support.caches import rehash

SETTINGS = BuildSettings(calculator=None, splits=("train", "val"), chunk=5)


@pytest.fixture
def cache(write_dos_cache: Callable[..., Path], tmp_path: Path) -> Path:
    return write_dos_cache(tmp_path / "cache")


@pytest.fixture
def folder(cache: Path, tmp_path: Path) -> Path:
    """A reference of 16 crystals."""
    build([cache], tmp_path / "ref", SETTINGS, jobs=1)
    return tmp_path / "ref"


def _make_old(folder: Path) -> None:
    """As an earlier version wrote it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in DERIVED:
        del manifest["arrays"][f"{name}.npy"]
        (folder / f"{name}.npy").unlink()
    del manifest["provenance"]["reduced_cells"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _matches(folder: Path, solids: dict[str, Any]) -> list[list[str]]:
    return ReferenceIndex(Reference.open(folder)).find([*solids.values()], jobs=1, first_only=False)


def test_reduced_cells_are_pymatgens_to_the_last_bit(folder: Path) -> None:
    reference = Reference.open(folder)
    for i in range(len(reference)):
        expected = reference.structure(i).get_reduced_structure().get_primitive_structure()
        stored = reference.reduced(i)
        assert stored is not None
        np.testing.assert_array_equal(stored[0], expected.lattice.matrix)
        np.testing.assert_array_equal(stored[1], expected.frac_coords)
        assert stored[2].tolist() == [site.specie.Z for site in expected]
        crystal = StoredCrystal(reference.sites(i), stored, str(reference.formulas[i]))
        made = Crystal(reference.structure(i))
        assert crystal.structure == made.structure and crystal.cell.structure == made.cell.structure
        assert (crystal.formula, crystal.size, crystal.ordered) == (made.formula, made.size, made.ordered)
    assert reference.manifest.reducer == reducer()


def test_formulas_are_found_by_the_index_and_without_it(folder: Path) -> None:
    reference = Reference.open(folder)
    wanted = [*reference.formulas[:8].tolist(), "Xe", "NaClOFNBrISPSeTeHeNeArKr"]
    expected = {name: np.flatnonzero(reference.formulas == name).tolist() for name in wanted[:8]}
    assert reference.members(wanted) == expected and sum(map(len, expected.values())) == 16
    _make_old(folder)
    old = Reference.open(folder)
    assert old.members(wanted) == expected and old.members(["Xe"]) == {} and old.members([]) == {}


def test_an_old_reference_is_read_and_brought_up_to_date(cache: Path, folder: Path, solids: dict[str, Any]) -> None:
    new, matches = Reference.open(folder), _matches(folder, solids)
    assert all(matches)
    kept = {name: (folder / f"{name}.npy").read_bytes() for name in DERIVED}
    _make_old(folder)
    old = Reference.open(folder)
    assert old.reduced(0) is None and old.hash == new.hash and _matches(folder, solids) == matches
    untouched = (folder / "magpie.npy").stat().st_mtime_ns
    manifest, reused = build([cache], folder, SETTINGS, jobs=1)
    assert reused and manifest.hash == new.hash and not (folder / "parts").exists()
    assert {name: (folder / f"{name}.npy").read_bytes() for name in DERIVED} == kept
    assert (folder / "magpie.npy").stat().st_mtime_ns == untouched
    Reference.open(folder).verify()


def test_cells_of_another_pymatgen_are_not_used_and_replaced(cache: Path, folder: Path, solids: dict[str, Any]) -> None:
    matches, file = _matches(folder, solids), folder / "manifest.json"
    file.write_text(file.read_text().replace(f'"pymatgen": "{reducer()}"\n  }}', '"pymatgen": "2024.6.4"\n  }'))
    assert Reference.open(folder).manifest.reducer == "2024.6.4"
    assert Reference.open(folder).reduced(0) is None and _matches(folder, solids) == matches
    assert build([cache], folder, SETTINGS, jobs=1)[0].reducer == reducer()
    assert Reference.open(folder).reduced(0) is not None


def test_chunks_of_another_reference_are_not_taken_for_its_own(
    cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill while an old reference is brought up to date leaves chunks; replaced, it must not have their cells."""
    _make_old(folder)
    work = reduced._reduce

    def stop(task: Any) -> Any:
        if task.number == 2:
            raise KeyboardInterrupt
        return work(task)

    monkeypatch.setattr(reduced, "_reduce", stop)
    with pytest.raises(KeyboardInterrupt):
        build([cache], folder, SETTINGS, jobs=1)
    monkeypatch.undo()
    others = SETTINGS.model_copy(update={"splits": ("val", "test")})
    build([cache], folder, others, jobs=1, overwrite=True)
    reference = Reference.open(folder)
    for i in range(len(reference)):
        cell = reference.reduced(i)
        assert cell is not None
        assert sorted(set(cell[2])) == sorted(set(reference.sites(i)[2]))


def test_what_was_reduced_before_a_kill_is_not_reduced_again(
    cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_old(folder)
    work, done = reduced._reduce, []

    def stop(task: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task.number)
        return work(task)

    monkeypatch.setattr(reduced, "_reduce", stop)
    with pytest.raises(KeyboardInterrupt):
        build([cache], folder, SETTINGS, jobs=1)
    assert Reference.open(folder).reduced(0) is None and done == [0, 1]
    monkeypatch.setattr(reduced, "_reduce", lambda task: (done.append(task.number), work(task))[1])
    build([cache], folder, SETTINGS, jobs=1)
    assert done == [0, 1, 2, 3] and Reference.open(folder).reduced(15) is not None


def test_a_crystal_that_cannot_be_reduced_is_left_to_matching(folder: Path, solids: dict[str, Any]) -> None:
    cells = np.load(folder / "cell.npy")
    cells[0] = [[4, 0, 0], [0, 4, 0], [4, 4, 1e-12]]
    np.save(folder / "cell.npy", cells)
    rehash(folder)
    _make_old(folder)
    manifest = reduced.complete(folder, Reference.open(folder).manifest, folder / "parts", 5, 1, "loky")
    reference = Reference(folder, manifest)
    assert reference.reduced(0) is None and reference.reduced(1) is not None
    assert np.isnan(reference.array("reduced_cell")[0]).all() and reference.array("reduced_num_atoms")[0] == 0
    assert ReferenceIndex(reference).find([solids["NaCl"]], jobs=1) == [["val-NaCl"]]


def test_damage_is_one_sentence_and_a_crystal_travels(cache: Path, folder: Path) -> None:
    reference = Reference.open(folder)
    stored = reference.reduced(3)
    assert stored is not None
    crystal = StoredCrystal(reference.sites(3), stored, str(reference.formulas[3]))
    assert len(pickle.dumps(crystal)) < 20_000 and pickle.loads(pickle.dumps(crystal)).structure == crystal.structure
    _make_old(folder)
    (folder / "frac_coords.npy").write_bytes(b"")
    with pytest.raises(UserError, match="could not be reduced .*frac_coords.npy"):
        build([cache], folder, SETTINGS, jobs=1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", '{"name": "a page", "icons": []}'),
        ("manifest.json", '{"mattergen_e_version": "0", "splits": {}}'),  # of a cache
        ("manifest.json", "not json"),
        ("parts/mine.txt", "mine"),
        ("parts", "mine"),
        ("mine.txt", "mine"),
    ],
)
def test_folders_of_others_are_not_replaced(cache: Path, tmp_path: Path, name: str, content: str) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text(content)
    with pytest.raises(UserError, match="choose another --out"):
        build([cache], out, SETTINGS, jobs=1, overwrite=True)
    assert [path for path in out.rglob("*") if path.is_file()] == [out / name] and (out / name).read_text() == content
