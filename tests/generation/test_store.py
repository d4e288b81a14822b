"""The store of a run: what is written can be read by all, and survives whatever ends the process."""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import io
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from kills import kills
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifFile

from mattergen_e import files as folder_module
from mattergen_e.errors import UserError
from mattergen_e.generation import store as store_module
from mattergen_e.generation.formats import batch_files, plain
from mattergen_e.generation.store import Generated, RunStore, load_record, read_crystals

EXTXYZ, CIFS, JSONL = "generated_crystals.extxyz", "generated_crystals_cif.zip", "generated_crystals.jsonl"
OUTPUTS = (EXTXYZ, CIFS, JSONL)
WRITTEN = (*OUTPUTS, "generated_crystals_symmetrized_cif.zip")  # where there are crystals
SETTINGS = {"num_batches": 4, "batch_size": 3, "guidance": 2.0, "conditions": {"dft_band_gap": 1.5}, "seed": None}
PROVENANCE = {"versions": {"mattergen": "1.0.3"}, "checkpoint": {"sha256": "0" * 64}, "cpu_count": 2}


@functools.cache
def real_crystals() -> list[Structure]:
    make, cubic, hexagonal = Structure.from_spacegroup, Lattice.cubic, Lattice.hexagonal
    return [
        make("Fm-3m", cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        make("P6_3mc", hexagonal(3.82, 6.26), ["Zn", "S"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.375]]),
        make("P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]),
        make("Fd-3m", cubic(5.43), ["Si"], [[0.125, 0.125, 0.125]]),
        Structure(Lattice.from_parameters(2.5, 3.5, 4.5, 75, 95, 110), ["Xe"], [[0.1, 0.2, 0.3]]),
    ]


def crystal(index: int, batch: int, *, dim: int = 0, **fields: Any) -> Generated:
    """A real crystal, moved and strained at random, with random charges; `dim` adds a vector per site."""
    rng = np.random.default_rng(index)
    structure = real_crystals()[index % 5].copy()
    structure.perturb(0.05)
    structure.apply_strain(rng.uniform(-0.02, 0.02, 3))
    structure.add_site_property("bader_charge", np.round(rng.normal(size=len(structure)), 6).tolist())
    if dim:
        structure.add_site_property("density", np.round(rng.normal(size=(len(structure), dim)), 6).tolist())
    fields = {"conditions": {"dft_band_gap": 1.5}, "seed": 7, **fields}
    return Generated(index=index, batch=batch, structure=structure, **fields)


def crystals_of(batch: int, size: int = 3, **fields: Any) -> list[Generated]:
    return [crystal(batch * size + i, batch, **fields) for i in range(size)]


def open_store(folder: Path, existing: Any = "refuse", **settings: Any) -> RunStore:
    return RunStore.open(folder, existing=existing, settings={**SETTINGS, **settings}, provenance=PROVENANCE)


def write(store: RunStore, batch: int, crystals: list[Generated] | None = None) -> list[Generated]:
    crystals = crystals_of(batch) if crystals is None else crystals
    store.write_batch(batch, crystals, seconds=1.5, dropped=2, failed=1)
    return crystals


def frames_in(folder: Path) -> list[Any]:
    return ase.io.read(folder / EXTXYZ, ":")  # type: ignore[return-value]


def indices_in(folder: Path) -> dict[str, list[int]]:
    """Which crystals each output file holds, each read whole by another program than ours."""
    frames = frames_in(folder) if (folder / EXTXYZ).stat().st_size else []
    with zipfile.ZipFile(folder / CIFS) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    return {
        EXTXYZ: [int(atoms.info["index"]) for atoms in frames],
        CIFS: [int(name.removeprefix("gen_").removesuffix(".cif")) for name in names],
        JSONL: [json.loads(line)["index"] for line in (folder / JSONL).read_text().splitlines()],
    }


def alike(indices: list[int]) -> dict[str, list[int]]:
    """What `indices_in` gives if every file holds the same crystals."""
    return dict.fromkeys(OUTPUTS, indices)


def interrupt(store: RunStore) -> None:
    with store:
        raise KeyboardInterrupt


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def assert_same(read: list[Generated], written: list[Generated]) -> None:
    assert [c.index for c in read] == [c.index for c in written]
    for got, expected in zip(read, written, strict=True):
        assert (got.batch, got.seed, got.redraws) == (expected.batch, expected.seed, expected.redraws)
        assert got.conditions == plain(expected.conditions)
        assert got.structure.species == expected.structure.species
        np.testing.assert_allclose(got.structure.lattice.matrix, expected.structure.lattice.matrix, atol=1e-12)
        np.testing.assert_allclose(got.structure.frac_coords, expected.structure.frac_coords, atol=1e-12)
        assert got.structure.site_properties == plain(expected.structure.site_properties)


# -- reading back -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Generated]]:
    """A finished run of three batches with a charge and a vector of 30 per site."""
    folder = tmp_path_factory.mktemp("finished")
    with open_store(folder) as store:
        written = [c for batch in range(3) for c in write(store, batch, crystals_of(batch, dim=30, redraws=batch))]
        store.finish()
    return folder, written


def test_read_gives_what_was_written(finished: tuple[Path, list[Generated]]) -> None:
    folder, written = finished
    assert_same(read_crystals(folder), written)
    assert_same(read_crystals(folder / JSONL), written)
    with open_store(folder, "resume") as store:
        assert store.done == {0, 1, 2}
        assert_same(store.read(), written)


def test_ase_reads_columns_and_info(finished: tuple[Path, list[Generated]]) -> None:
    folder, written = finished
    header = (folder / EXTXYZ).read_text().splitlines()[1]
    assert "bader_charge:R:1:density:R:30" in header
    frames = frames_in(folder)
    for atoms, expected in zip(frames, written, strict=True):
        assert atoms.info == {"index": expected.index, "dft_band_gap": 1.5}
        assert atoms.get_chemical_symbols() == [site.specie.symbol for site in expected.structure]
        np.testing.assert_allclose(atoms.positions, expected.structure.cart_coords, atol=1e-7)
        np.testing.assert_allclose(atoms.cell.array, expected.structure.lattice.matrix, atol=1e-9)
        for name in ("bader_charge", "density"):
            np.testing.assert_allclose(atoms.arrays[name], expected.structure.site_properties[name], atol=1e-8)


def test_pymatgen_reads_cifs_and_their_charges(finished: tuple[Path, list[Generated]]) -> None:
    folder, written = finished
    with zipfile.ZipFile(folder / CIFS) as archive:
        assert archive.namelist() == [f"gen_{c.index}.cif" for c in written]
        texts = [archive.read(name).decode() for name in archive.namelist()]
    for text, expected in zip(texts, written, strict=True):
        structure = Structure.from_str(text, fmt="cif")
        assert structure.composition == expected.structure.composition
        np.testing.assert_allclose(structure.lattice.parameters, expected.structure.lattice.parameters, atol=1e-6)
        columns = next(iter(CifFile.from_str(text).data.values())).data
        assert "_atom_site_density" not in columns
        charges = np.array(columns["_atom_site_bader_charge"], dtype=float)
        np.testing.assert_allclose(charges, expected.structure.site_properties["bader_charge"], atol=1e-8)
        fractional = np.array([columns[f"_atom_site_fract_{axis}"] for axis in "xyz"], dtype=float).T
        np.testing.assert_allclose(fractional, expected.structure.frac_coords, atol=1e-7)


def test_mattergen_loads_both(finished: tuple[Path, list[Generated]]) -> None:
    from mattergen.common.utils.eval_utils import load_structures

    folder, written = finished
    from_extxyz = load_structures(folder / EXTXYZ)
    for structure, expected in zip(from_extxyz, written, strict=True):
        assert structure.species == expected.structure.species
        for name in ("bader_charge", "density"):
            np.testing.assert_allclose(
                structure.site_properties[name], expected.structure.site_properties[name], atol=1e-8
            )
    volumes = sorted((s.formula, round(s.volume, 3)) for s in load_structures(folder / CIFS))
    assert volumes == sorted((c.structure.formula, round(c.structure.volume, 3)) for c in written)


def test_run_json(finished: tuple[Path, list[Generated]]) -> None:
    folder, written = finished
    record = load_record(folder)
    assert record.status == "finished"
    assert record.finished is not None and record.finished >= record.started
    assert record.command == sys.argv
    assert record.provenance == PROVENANCE
    assert record.settings == {key: value for key, value in SETTINGS.items() if key != "seed"}
    assert (record.crystals, record.dropped, record.failed) == (len(written), 6, 3)
    assert [(b.batch, b.crystals, b.seconds) for b in record.batches] == [(i, 3, 1.5) for i in range(3)]
    assert record.outputs == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in WRITTEN}
    assert files_in(folder) == {*WRITTEN, "run.json", *(f"batches/batch_00000{i}.zip" for i in range(3))}


def test_outputs_are_readable_by_others_of_the_group(finished: tuple[Path, list[Generated]]) -> None:
    folder, _ = finished
    umask = os.umask(0)
    os.umask(umask)
    for name in files_in(folder):
        assert (folder / name).stat().st_mode & 0o777 == 0o666 & ~umask, name


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"chemical_system": "F", "space_group": 225, "energy_above_hull": 0.05},
        {"chemical_system": "Li-O", "energy": -1.5, "index": "mine", "flag": True, "missing": None},
        {"text": 'a "quoted" {text} = [x]', "number_like": "1", "list": [1, 2.5], "map": {"Na": 1, "Cl": 2}},
        {"numpy": np.float32(0.5), "vector": np.array([1, 2]), "accent": "é"},
    ],
)
def test_conditions_survive(tmp_path: Path, conditions: dict[str, Any]) -> None:
    with open_store(tmp_path) as store:
        write(store, 0, [crystal(0, 0, conditions=conditions)])
        assert store.read()[0].conditions == plain(conditions)
    info = plain(frames_in(tmp_path)[0].info)
    renamed = {f"condition_{k}" if k in ("energy", "index") else k: v for k, v in plain(conditions).items()}
    assert info == {"index": 0, **renamed}


def test_condition_with_a_line_break_does_not_break_the_frame(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        write(store, 0, [crystal(0, 0, conditions={"text": "two\nlines"})])
        assert store.read()[0].conditions == {"text": "two\nlines"}
    assert plain(frames_in(tmp_path)[0].info) == {"index": 0}


def test_site_properties_with_names_of_ase_and_cif(tmp_path: Path) -> None:
    made = crystal(0, 0)
    n = len(made.structure)
    values = np.arange(n, dtype=float)
    for name in ("magmom", "forces", "label", "tags"):
        made.structure.add_site_property(name, (values + 0.5).tolist())
    with open_store(tmp_path) as store:
        write(store, 0, [made])
        assert_same(store.read(), [made])
    atoms = frames_in(tmp_path)[0]
    np.testing.assert_allclose(atoms.get_initial_magnetic_moments(), values + 0.5)
    np.testing.assert_allclose(atoms.arrays["site_forces"], values + 0.5)
    np.testing.assert_allclose(atoms.arrays["site_tags"], values + 0.5)
    with zipfile.ZipFile(tmp_path / CIFS) as archive:
        text = archive.read("gen_0.cif").decode()
    assert "_atom_site_site_label" in text and "_atom_site_magmom" in text
    assert Structure.from_str(text, fmt="cif").composition == made.structure.composition


@pytest.mark.parametrize("values", [[float("nan")] * 8, [None] * 8])
def test_values_that_are_not_numbers_are_not_written(tmp_path: Path, values: list[Any]) -> None:
    made = crystal(0, 0)
    made.structure.add_site_property("bader_charge", values)
    with open_store(tmp_path) as store:
        with pytest.raises(ValueError, match="bader_charge"):
            write(store, 0, [made])
        assert store.done == set()
    assert files_in(tmp_path) == {"run.json"}


def test_empty_batches_and_crystals_without_properties(tmp_path: Path) -> None:
    bare = Generated(index=4, batch=1, structure=real_crystals()[0], conditions={}, seed=0)
    with open_store(tmp_path) as store:
        write(store, 0, [])
        assert indices_in(tmp_path) == alike([])
        write(store, 1, [bare])
        assert indices_in(tmp_path) == alike([4])
        store.finish()
    assert_same(read_crystals(tmp_path), [bare])


def test_run_without_batches_can_finish(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.finish()
    assert load_record(tmp_path).status == "finished"
    assert indices_in(tmp_path) == alike([])


# -- beginning, resuming, overwriting ---------------------------------------------------------------------------------


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    written = [crystals_of(batch) for batch in range(4)]
    with open_store(tmp_path / "whole", seed=3) as store:
        for batch in range(4):
            write(store, batch, written[batch])
        store.finish()
    store = open_store(tmp_path / "parts", seed=3)
    for batch in (0, 2):
        write(store, batch, written[batch])
    with pytest.raises(KeyboardInterrupt):
        interrupt(store)
    assert load_record(tmp_path / "parts").status == "interrupted"
    with open_store(tmp_path / "parts", "resume", seed=3) as store:
        assert store.done == {0, 2}
        assert load_record(tmp_path / "parts").status == "running"
        for batch in (1, 3):
            write(store, batch, written[batch])
        store.finish()
    for name in OUTPUTS:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    record = load_record(tmp_path / "parts")
    assert len(record.resumes) == 1
    assert record.resumes[0].provenance == PROVENANCE
    assert record.outputs == load_record(tmp_path / "whole").outputs


def test_resume_of_a_finished_run_keeps_it_finished(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        write(store, 0)
        store.finish()
    before = load_record(tmp_path)
    with open_store(tmp_path, "resume") as store:
        store.finish()
    after = load_record(tmp_path)
    assert (after.status, after.finished, after.outputs) == ("finished", before.finished, before.outputs)


def test_seed_is_drawn_once(tmp_path: Path) -> None:
    with open_store(tmp_path / "a") as store:
        seed = store.seed
    assert load_record(tmp_path / "a").seed == seed
    with open_store(tmp_path / "a", "resume") as store:
        assert store.seed == seed
    with open_store(tmp_path / "a", "resume", seed=seed) as store:
        assert store.seed == seed
    with pytest.raises(UserError, match=f"'seed' was {seed} and is now {seed + 1}"):
        open_store(tmp_path / "a", "resume", seed=seed + 1)
    with open_store(tmp_path / "b") as store:
        assert store.seed != seed
    with open_store(tmp_path / "c", seed=5) as store:
        assert store.seed == 5
    with open_store(tmp_path / "c", "resume") as store:
        assert store.seed == 5


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_batches": 5}, "'num_batches' was 4 and is now 5"),
        ({"conditions": {"dft_band_gap": 2.0}}, "'conditions.dft_band_gap' was 1.5 and is now 2.0"),
        ({"conditions": {}}, "'conditions.dft_band_gap' was 1.5 and is now not set"),
        ({"guidance": 3, "added": "x"}, "'guidance' was 2.0 and is now 3"),
        ({"added": ["x"]}, "'added' was not set and is now [\"x\"]"),
    ],
)
def test_resume_with_other_settings_is_refused(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    with open_store(tmp_path) as store:
        write(store, 0)
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        open_store(tmp_path, "resume", **changed)
    assert_one_sentence(caught.value, "MATTERGEN_E_EXISTING=overwrite")
    with open_store(tmp_path, "resume") as store:
        assert store.done == {0}


def test_settings_of_numpy_paths_and_tuples_agree_with_themselves(tmp_path: Path) -> None:
    odd = {"path": tmp_path, "number": np.float64(0.1), "pair": (1, 2), "infinite": float("inf"), "names": {"b", "a"}}
    with open_store(tmp_path / "run", **odd) as store:
        write(store, 0)
    text = (tmp_path / "run/run.json").read_text()
    json.loads(text, parse_constant=lambda token: pytest.fail(token))
    with open_store(tmp_path / "run", "resume", **odd) as store:
        assert store.done == {0}


# -- the batches of a run and of others -------------------------------------------------------------------------------

SIZED = {"num_samples": 6, "batch_size": 3, "seed": 7}


def sized_run(folder: Path, batches: int = 2, **settings: Any) -> Path:
    with open_store(folder, **{**SIZED, "num_samples": 3 * batches, **settings}) as store:
        for batch in range(batches):
            write(store, batch, steady_crystals(batch, store.seed))
        store.finish()
    return folder / "batches"


@functools.cache
def steady_crystals(batch: int, seed: int) -> list[Generated]:
    """The same ones each time."""
    return [crystal(3 * batch + i, batch, seed=seed) for i in range(3)]


def without_record(path: Path) -> None:
    """A batch as earlier versions wrote it."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    told = json.loads(parts["batch.json"])
    assert told.pop("seed") == 7 and len(told.pop("settings_sha256")) == 64
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, json.dumps(told) if name == "batch.json" else content)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("other", "number", "words"),
    [
        ({}, 2, r"batch_000002\.zip is not of this run \(it is batch 1\)"),
        ({"seed": 8}, 1, r"batch_000001\.zip is not of this run \(its seed is 8, not 7\)"),
        ({"guidance": 3.0}, 1, r"batch_000001\.zip is not of this run \(it was made with other settings\)"),
    ],
)
def test_batches_of_other_runs_are_refused(
    tmp_path: Path, other: dict[str, Any], number: int, words: str, old: bool
) -> None:
    own, theirs = sized_run(tmp_path / "own"), sized_run(tmp_path / "theirs", **other)
    if old and other.get("seed") is None:
        without_record(theirs / "batch_000001.zip")
    (own / f"batch_{number:06d}.zip").write_bytes((theirs / "batch_000001.zip").read_bytes())
    before = files_in(tmp_path)
    if old and "guidance" in other:  # which earlier versions do not tell
        open_store(tmp_path / "own", "resume", **SIZED).close()
        return
    with pytest.raises(UserError, match=words) as caught:
        open_store(tmp_path / "own", "resume", **SIZED)
    assert_one_sentence(caught.value, "move this file away and resume")
    assert files_in(tmp_path) == before
    (own / f"batch_{number:06d}.zip").unlink()
    with open_store(tmp_path / "own", "resume", **SIZED) as store:
        assert store.done == {0, 1} - {number}


def test_batches_of_earlier_versions_tell_their_seed_by_their_crystals(tmp_path: Path) -> None:
    own = sized_run(tmp_path / "own")
    for batch in range(2):
        without_record(own / f"batch_00000{batch}.zip")
    open_store(tmp_path / "own", "resume", **SIZED).close()
    record = json.loads((tmp_path / "own" / "run.json").read_text())
    (tmp_path / "own" / "run.json").write_text(json.dumps({**record, "seed": 8}))
    with pytest.raises(UserError, match="its seed is 7, not 8"):
        open_store(tmp_path / "own", "resume", **{**SIZED, "seed": 8})


def test_a_crystal_that_stands_in_two_batches(tmp_path: Path) -> None:
    own = sized_run(tmp_path)
    with zipfile.ZipFile(own / "batch_000001.zip") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    told = json.loads(parts["batch.json"])
    with zipfile.ZipFile(own / "batch_000001.zip", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, json.dumps({**told, "indices": [2, 3, 4]}) if name == "batch.json" else content)
    with pytest.raises(UserError, match=r"\(crystal 2 stands in batch_000000\.zip too\)"):
        open_store(tmp_path, "resume", **SIZED)


def test_a_finished_run_becomes_longer(tmp_path: Path) -> None:
    sized_run(tmp_path / "whole", 3)
    sized_run(tmp_path / "parts", 2)
    with open_store(tmp_path / "parts", "resume", **{**SIZED, "num_samples": 9}) as store:
        assert store.done == {0, 1} and load_record(tmp_path / "parts").status == "running"
        write(store, 2, steady_crystals(2, 7))
        store.finish()
    for name in OUTPUTS:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    whole, parts = (load_record(tmp_path / name) for name in ("whole", "parts"))
    assert (parts.settings, parts.outputs, parts.status) == (whole.settings, whole.outputs, "finished")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_samples": 3}, "it is a run of 6 crystals, not of 3: ask for as many or more"),
        ({"num_samples": 12, "batch_size": 6}, "'batch_size' was 3 and is now 6"),
        ({"num_samples": 12, "guidance": 3.0}, "'guidance' was 2.0 and is now 3.0"),
        ({"num_samples": 12, "seed": 8}, "'seed' was 7 and is now 8"),
    ],
)
def test_what_a_run_cannot_become(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    sized_run(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        open_store(tmp_path, "resume", **{**SIZED, **changed})
    assert_one_sentence(caught.value, "MATTERGEN_E_EXISTING=overwrite")
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_last_batch_that_is_not_full_is_not_filled(tmp_path: Path) -> None:
    settings = {**SIZED, "num_samples": 4}
    with open_store(tmp_path, **settings) as store:
        write(store, 0)
    open_store(tmp_path, "resume", **{**settings, "num_samples": 5}).close()  # it is not made yet
    with open_store(tmp_path, "resume", **{**settings, "num_samples": 5}) as store:
        write(store, 1, [crystal(3, 1), crystal(4, 1)])
    with pytest.raises(UserError, match="its last batch holds 2 crystals instead of 3") as caught:
        open_store(tmp_path, "resume", **SIZED)
    assert_one_sentence(caught.value, "MATTERGEN_E_EXISTING=overwrite")


def test_numbers_that_no_run_has(tmp_path: Path) -> None:
    sized_run(tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**record, "crystals": 10**12}))
    with pytest.raises(UserError, match=r"run\.json is damaged \(crystals: ") as caught:
        open_store(tmp_path, "resume", **SIZED)
    assert_one_sentence(caught.value)


def assert_one_sentence(error: BaseException, *words: str) -> None:
    text = str(error)
    assert "\n" not in text and text.endswith(".") and ". " not in text.replace("...", "")
    for word in words:
        assert word in text


def test_refuse_names_both_ways_out(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        write(store, 0)
    before = files_in(tmp_path)
    with pytest.raises(UserError) as caught:
        open_store(tmp_path)
    assert_one_sentence(
        caught.value,
        str(tmp_path),
        "MATTERGEN_E_EXISTING=resume",
        "MATTERGEN_E_EXISTING=overwrite",
        "sampler_partial.output.existing=",
        "--sampling_config_overrides",
    )
    assert files_in(tmp_path) == before


def test_refuse_lets_pass_what_holds_no_results(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with open_store(tmp_path):
        pass
    with open_store(tmp_path) as store:  # ended before its first batch: nothing to lose
        write(store, 0)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert load_record(tmp_path).resumes == []


def test_foreign_run_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"mine": 1}')
    for existing in ("refuse", "resume"):
        with pytest.raises(UserError):
            open_store(tmp_path, existing)
    assert (tmp_path / "run.json").read_text() == '{"mine": 1}'


def test_results_of_mattergen_itself(tmp_path: Path) -> None:
    (tmp_path / EXTXYZ).write_text("theirs")
    with pytest.raises(UserError) as caught:
        open_store(tmp_path)
    assert_one_sentence(caught.value, "MATTERGEN_E_EXISTING=overwrite")
    with pytest.raises(UserError, match="cannot be resumed") as caught:
        open_store(tmp_path, "resume")
    assert_one_sentence(caught.value, "MATTERGEN_E_EXISTING=overwrite")
    assert files_in(tmp_path) == {EXTXYZ}
    with open_store(tmp_path, "overwrite") as store:
        write(store, 0)
    assert indices_in(tmp_path) == alike([0, 1, 2])


def test_overwrite_leaves_foreign_files(tmp_path: Path) -> None:
    with open_store(tmp_path, seed=1) as store:
        for batch in range(3):
            write(store, batch)
        store.finish()
    foreign = {"notes.txt", "batches/mine.zip", "generated_trajectories.zip", "cifs/gen_0.cif"}
    for name in foreign:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    with open_store(tmp_path, "overwrite", seed=2, num_batches=1) as store:
        assert (store.done, store.seed) == (set(), 2)
        assert files_in(tmp_path) == {"run.json", ".mattergen_e.lock", *foreign}
        write(store, 1)
    assert files_in(tmp_path) == {"run.json", "batches/batch_000001.zip", *WRITTEN, *foreign}
    assert indices_in(tmp_path) == alike([3, 4, 5])
    assert all((tmp_path / name).read_text() == name for name in foreign)


def test_resume_begins_where_there_is_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path / "new" / "deep", "resume") as store:
        write(store, 0)
    assert load_record(tmp_path / "new" / "deep").resumes == []


@pytest.mark.parametrize("text", ["", "{", '{"status": "running"}', "[]", '{"format_version": 2}'])
def test_damaged_run_json(tmp_path: Path, text: str) -> None:
    with open_store(tmp_path) as store:
        write(store, 0)
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json is damaged") as caught:
        open_store(tmp_path, "resume")
    assert_one_sentence(caught.value, "MATTERGEN_E_EXISTING=overwrite")
    with pytest.raises(UserError, match="already holds"):
        open_store(tmp_path)
    with open_store(tmp_path, "overwrite") as store:
        assert store.done == set()


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def damage_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_cut, damage_flip, damage_empty])
def test_damaged_batch_can_be_removed_and_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    with open_store(tmp_path) as store:
        write(store, 0)
        write(store, 1)
        store.finish()
    shard = tmp_path / "batches/batch_000000.zip"
    damage(shard)
    with pytest.raises(UserError, match="batch_000000") as caught:
        open_store(tmp_path, "resume")
    assert_one_sentence(caught.value, "remove this file and resume")
    shard.unlink()
    with open_store(tmp_path, "resume") as store:
        assert store.done == {1}
        assert load_record(tmp_path).status == "running"
        write(store, 0)
        store.finish()
    assert indices_in(tmp_path) == alike(list(range(6)))


def test_nothing_is_written_twice(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        write(store, 0)
        for batch, crystals in [
            (0, crystals_of(0)),
            (1, [crystal(2, 1)]),
            (1, [crystal(5, 1), crystal(5, 1)]),
            (1, [crystal(5, 2)]),
        ]:
            with pytest.raises(ValueError, match="batch"):
                write(store, batch, crystals)
        assert indices_in(tmp_path) == alike([0, 1, 2])


# -- locks ------------------------------------------------------------------------------------------------------------


def test_second_run_on_a_folder_is_refused(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        write(store, 0)
        for existing in ("refuse", "resume", "overwrite"):
            with pytest.raises(UserError, match=f"in use by another run .process {os.getpid()}.") as caught:
                open_store(tmp_path, existing)
            assert_one_sentence(caught.value)
        write(store, 1)
    with open_store(tmp_path, "resume") as store:
        assert store.done == {0, 1}


def test_lock_file_without_its_process_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".mattergen_e.lock").write_text("999999999")
    with open_store(tmp_path):
        assert (tmp_path / ".mattergen_e.lock").read_text() == str(os.getpid())
    assert files_in(tmp_path) == {"run.json"}


def test_a_refused_folder_is_not_left_locked(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        write(store, 0)
    with pytest.raises(UserError, match="already holds"):
        open_store(tmp_path)
    assert ".mattergen_e.lock" not in files_in(tmp_path)
    open_store(tmp_path, "resume").close()


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="without locks"), open_store(tmp_path) as store:
        write(store, 0)


# -- crashes ----------------------------------------------------------------------------------------------------------


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(UserError) as caught:
            open_store(folder)
        assert_one_sentence(caught.value, str(folder))


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_store(tmp_path) as store:
        write(store, 0)
        monkeypatch.setattr(folder_module.os, "fsync", fsync)
        with pytest.raises(UserError, match="No space left") as caught:
            write(store, 1)
    assert_one_sentence(caught.value, "MATTERGEN_E_EXISTING=resume")
    monkeypatch.undo()
    assert indices_in(tmp_path) == alike([0, 1, 2])
    with open_store(tmp_path, "resume") as store:
        write(store, 1)


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        write(store, 0)
    whole = files_in(tmp_path)
    (tmp_path / ".mattergen_e-0123.tmp").write_text("half")
    (tmp_path / "batches/.mattergen_e-4567.tmp").write_text("half")
    open_store(tmp_path, "resume").close()
    assert files_in(tmp_path) == whole


def test_killed_anywhere(tmp_path: Path) -> None:
    """Killed before each third file operation: finished batches are whole, and the JSON lines never run ahead."""
    batches = [[crystal(batch, batch)] for batch in range(2)]

    def run(folder: Path) -> None:
        with open_store(folder / "run", "resume") as store:
            for batch in sorted({0, 1} - store.done):
                write(store, batch, batches[batch])
                (folder / f"finished_{batch}").touch()
            store.finish()

    number = 0
    for place in kills(run, lambda at: None, tmp_path, every=3):
        number += 1
        finished = len(list(place.glob("finished_*")))
        if all((place / "run" / name).exists() for name in OUTPUTS):
            found = indices_in(place / "run")
            assert found[JSONL] == [0, 1][: len(found[JSONL])] and len(found[JSONL]) >= finished
            for name in OUTPUTS:
                assert found[name] in (found[JSONL], [0, 1][: len(found[JSONL]) + 1])
        run(place)
        assert indices_in(place / "run") == alike([0, 1])
        assert files_in(place / "run") == {"run.json", *(f"batches/batch_00000{i}.zip" for i in range(2)), *WRITTEN}
        assert load_record(place / "run").status == "finished"
    assert number > 12


WRITER = """
import os, pickle, sys
from pathlib import Path
from mattergen_e.generation.store import RunStore

folder, log, batches, settings, provenance = pickle.loads(Path(sys.argv[1]).read_bytes())
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        with RunStore.open(folder, existing="resume", settings=settings, provenance=provenance) as store:
            print("open", os.getpid(), flush=True)
            for batch in sorted(set(batches) - store.done):
                store.write_batch(batch, batches[batch], seconds=0.1, dropped=0, failed=0)
                with log.open("a") as lines:
                    lines.write(f"{batch}\\n")
            store.finish()
        os._exit(0)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that, for each line it is given, starts one that goes on with the run of 600 batches."""
    batches = {batch: crystals_of(batch) for batch in range(600)}  # more than a fast machine writes in all turns
    task = tmp_path / "task"
    task.write_bytes(pickle.dumps((tmp_path / "run", tmp_path / "log", batches, SETTINGS, PROVENANCE)))
    command = [sys.executable, "-c", WRITER, str(task)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    yield process
    process.kill()
    process.communicate()


def test_kill_at_any_moment(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    """Processes that write batches in a loop are killed at random times and go on where the last one was."""
    folder, log = tmp_path / "run", tmp_path / "log"
    log.touch()
    assert writer.stdin and writer.stdout
    assert writer.stdout.readline() == "ready\n"
    for turn in range(8):
        writer.stdin.write("go\n")
        writer.stdin.flush()
        child = int(writer.stdout.readline().split()[1])
        with pytest.raises(UserError, match=f"in use by another run .process {child}."):
            open_store(folder, "resume")
        deadline = time.monotonic() + 30
        while turn == 0 and not log.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.uniform(0.02, 0.25))
        os.kill(child, signal.SIGKILL)
        assert writer.stdout.readline() == "gone\n"
        finished = [int(line) for line in log.read_text().splitlines()]
        if finished:
            check_whole_batches(folder, finished)
        with open_store(folder, "resume") as store:
            assert store.done >= set(finished)
            assert not [name for name in files_in(folder) if name.endswith(".tmp")]
            expected = [batch * 3 + i for batch in sorted(store.done) for i in range(3)]
            assert indices_in(folder) == alike(expected)
            assert [c.index for c in store.read()] == expected
    assert expected


def check_whole_batches(folder: Path, finished: list[int]) -> None:
    """Each output file holds the first batches, each whole, with all finished ones among them."""
    for found in indices_in(folder).values():
        batches = found[::3]
        assert found == [first + i for first in batches for i in range(3)]
        assert batches == [3 * batch for batch in range(len(batches))]
        assert len(batches) > max(finished)


# -- output files -----------------------------------------------------------------------------------------------------


def as_npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def test_files_that_crystals_bring_are_joined_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store knows no names: what the crystals of a batch bring becomes an output file of the run."""

    def with_density(crystals: list[Generated]) -> dict[str, bytes]:
        arrays = {f"density_{c.index}": np.full(3, c.index) for c in crystals if c.index >= 2}
        return batch_files(crystals) | ({"generated_density.npz": as_npz(**arrays)} if arrays else {})

    monkeypatch.setattr(store_module, "batch_files", with_density)
    with open_store(tmp_path) as store:
        write(store, 1, crystals_of(1, 2))
        write(store, 0, crystals_of(0, 2))  # brings none
        write(store, 2, crystals_of(2, 2))
        store.finish()
    with np.load(tmp_path / "generated_density.npz") as arrays:
        assert {name: arrays[name].tolist() for name in arrays} == {f"density_{i}": [i] * 3 for i in range(2, 6)}
    assert set(load_record(tmp_path).outputs) == {*WRITTEN, "generated_density.npz"}
    whole = (tmp_path / "generated_density.npz").read_bytes()
    (tmp_path / "generated_density.npz").unlink()
    with open_store(tmp_path, "resume") as store:
        assert [c.index for c in store.read()] == list(range(6))
    assert (tmp_path / "generated_density.npz").read_bytes() == whole
    open_store(tmp_path, "overwrite").close()
    assert files_in(tmp_path) == {"run.json"}


@pytest.mark.parametrize("name", ["../stolen.npz", "run.json", "generated_x/../../stolen.npz", "notes.txt"])
def test_a_batch_writes_nothing_but_output_files(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    with open_store(folder) as store:
        write(store, 0)
    before = (folder / "run.json").read_bytes()
    with zipfile.ZipFile(folder / "batches/batch_000000.zip", "a") as archive:
        archive.writestr(name, b"foreign")
    with pytest.raises(UserError, match="is not the name of an output file") as caught:
        open_store(folder, "resume")
    assert_one_sentence(caught.value, "batch_000000")
    assert (folder / "run.json").read_bytes() == before
    assert files_in(tmp_path) == {"run/run.json", "run/batches/batch_000000.zip", *(f"run/{name}" for name in WRITTEN)}
    if name == "notes.txt":
        (folder / name).write_text("mine")
        open_store(folder, "overwrite").close()
        assert files_in(folder) == {"run.json", name}


FIELDS = {"moment": {"place": "crystal", "dim": 1, "unit": "mu_B", "probes": None, "label": "Moment"}}


def open_with(folder: Path, fields: dict[str, Any] | None) -> RunStore:
    return RunStore.open(folder, existing="resume", settings=SETTINGS, provenance=PROVENANCE, fields=fields)


def test_fields_are_written_down_and_must_be_the_same(tmp_path: Path) -> None:
    with open_with(tmp_path, FIELDS) as store:
        write(store, 0)
    assert load_record(tmp_path).fields == FIELDS
    named = {"moment": {**FIELDS["moment"], "label": "Magnetic moment"}}
    open_with(tmp_path, named).close()  # the words may change, what is generated may not
    assert load_record(tmp_path).fields == named
    with pytest.raises(UserError, match=r"'fields' was \[\"moment\"\] and is now \[\"charge\"\]"):
        open_with(tmp_path, {"charge": FIELDS["moment"]})


def test_a_run_of_a_version_without_fields_goes_on(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        write(store, 0)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record.pop("fields") == {}
    (tmp_path / "run.json").write_text(json.dumps(record))
    with open_with(tmp_path, FIELDS) as store:
        assert store.done == {0}
    assert load_record(tmp_path).fields == FIELDS
