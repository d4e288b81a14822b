"""Spectra of generated crystals: in every file of a run, whole after a kill, and back on the structures."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch

from mattergen_e.descriptors import BaderCharge
from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader
from mattergen_e.generation.draw import draw
from mattergen_e.generation.formats import Generated
from mattergen_e.generation.results import to_spectra
from mattergen_e.generation.store import RunStore, load_record, read_crystals
from mattergen_e.spectra.files import DOS_NAME, dos_file, read_dos
from mattergen_e.spectra.objects import CrystalSpectra, SiteDos


@pytest.fixture(scope="module")
def model(make_joint, make_dos):
    return make_joint({"bader_charge": BaderCharge(), "atomic_dos": make_dos()})


@pytest.fixture
def make_spectra(dos_processing):
    def make(n_sites: int, seed: int = 0) -> CrystalSpectra:
        rng = np.random.default_rng(seed)
        spectra = rng.uniform(0, 2, (n_sites, 64)).astype(np.float32)
        latents = rng.uniform(-1, 1, (n_sites, 4)).astype(np.float32)
        return CrystalSpectra(spectra, dos_processing.grid, latents, "f" * 64)

    return make


def loader(num_samples=5, seed=5):
    return ConditionLoader(num_samples, 2, num_atoms=[2, 3, 4], seed=seed)


def same(a: CrystalSpectra, b: CrystalSpectra) -> bool:
    return (
        np.array_equal(a.spectra, b.spectra)
        and np.array_equal(a.latents, b.latents)
        and (a.grid, a.fingerprint) == (b.grid, b.fingerprint)
    )


# -- the file


def test_file_there_and_back(make_spectra):
    items = {7: make_spectra(3), 12: make_spectra(5, seed=1)}
    content = dos_file(list(items.items()))
    assert content == dos_file(list(items.items()))  # the same numbers, the same bytes
    found = read_dos(io.BytesIO(content), [12, 7])
    assert same(found[0], items[12]) and same(found[1], items[7])
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        assert set(arrays.files) == {
            "energies", "window", "fingerprint", "spectra_7", "latents_7", "spectra_12", "latents_12",
        }  # fmt: skip
        assert arrays["energies"][[0, -1]].tolist() == [-15 + 20 / 128, 5 - 20 / 128]
        assert arrays["spectra_7"].dtype == np.float32


def test_files_that_are_none(make_spectra, tmp_path):
    (tmp_path / DOS_NAME).write_bytes(dos_file([(0, make_spectra(2))]))
    with pytest.raises(UserError, match="has no spectra of crystal 1"):
        read_dos(tmp_path, [1])
    (tmp_path / DOS_NAME).write_bytes(b"PK no zip")
    with pytest.raises(UserError, match="is damaged .* resume the run"):
        read_dos(tmp_path, [0])
    (tmp_path / DOS_NAME).unlink()
    with pytest.raises(UserError, match="does not exist: give the output folder"):
        read_dos(tmp_path / DOS_NAME, [0])


# -- the store


def open_store(folder, existing="refuse"):
    return RunStore.open(folder, existing=existing, settings={"seed": 1}, provenance={})


def crystal(solids, index, batch, spectra):
    structure = solids["NaCl"].copy()
    return Generated(index=index, batch=batch, structure=structure, conditions={}, seed=1, spectra=spectra)


def test_store_joins_batches_of_any_order(solids, make_spectra, tmp_path):
    made = {index: make_spectra(2, seed=index) for index in range(5)}
    with open_store(tmp_path) as store:
        store.write_batch(1, [crystal(solids, i, 1, made[i]) for i in (2, 3)], seconds=0, dropped=0, failed=0)
        store.write_batch(2, [], seconds=0, dropped=2, failed=2)  # no crystal, no spectra
        store.write_batch(0, [crystal(solids, i, 0, made[i]) for i in (0, 1)], seconds=0, dropped=0, failed=0)
        store.finish()
        assert all(same(c.spectra, made[c.index]) for c in store.read())
    assert [c.index for c in read_crystals(tmp_path)] == [0, 1, 2, 3]
    assert all(same(c.spectra, made[c.index]) for c in read_crystals(tmp_path))
    assert DOS_NAME in load_record(tmp_path).outputs
    line = json.loads((tmp_path / "generated_crystals.jsonl").read_text().splitlines()[1])
    assert line["dos"] == {"file": DOS_NAME, "spectra": "spectra_1", "latents": "latents_1"}
    with np.load(tmp_path / line["dos"]["file"]) as arrays:
        assert np.array_equal(arrays[line["dos"]["spectra"]], made[1].spectra)
        assert len(arrays.files) == len(set(arrays.files)) == 3 + 2 * 4


def test_store_makes_the_file_anew(solids, make_spectra, tmp_path):
    with open_store(tmp_path) as store:
        store.write_batch(0, [crystal(solids, 0, 0, make_spectra(2))], seconds=0, dropped=0, failed=0)
    whole = (tmp_path / DOS_NAME).read_bytes()
    (tmp_path / DOS_NAME).write_bytes(whole[:100])
    open_store(tmp_path, "resume").close()
    assert (tmp_path / DOS_NAME).read_bytes() == whole
    with pytest.raises(UserError, match="already holds"):
        open_store(tmp_path)
    open_store(tmp_path, "overwrite").close()
    assert not (tmp_path / DOS_NAME).exists()


def test_store_without_spectra_has_no_such_file(solids, tmp_path):
    with open_store(tmp_path) as store:
        store.write_batch(0, [crystal(solids, 0, 0, None)], seconds=0, dropped=0, failed=0)
        store.finish()
    assert not (tmp_path / DOS_NAME).exists()
    assert read_crystals(tmp_path)[0].spectra is None
    assert "dos" not in json.loads((tmp_path / "generated_crystals.jsonl").read_text())


def test_spectra_that_are_not_finite(solids, make_spectra, tmp_path):
    bad = make_spectra(2)
    bad.spectra[0, 0] = np.nan
    with open_store(tmp_path) as store, pytest.raises(ValueError, match="spectra must be finite"):
        store.write_batch(0, [crystal(solids, 0, 0, bad)], seconds=0, dropped=0, failed=0)


# -- a run


def test_run_writes_decoded_latents(model, make_sampler, tiny_autoencoder, tmp_path):
    structures = draw(make_sampler(model), loader(), output_path=tmp_path)
    crystals = read_crystals(tmp_path)
    assert len(structures) == len(crystals) == 5
    for structure, found in zip(structures, crystals, strict=True):
        item = found.spectra
        assert item.latents.shape == (len(structure), 4) and np.abs(item.latents).max() < 1
        assert np.allclose(item.spectra, tiny_autoencoder().decode(item.latents), atol=1e-6)
        assert item.fingerprint == tiny_autoencoder().fingerprint
        assert isinstance(structure.dos, SiteDos)
        assert np.allclose(structure.dos.get_densities(), item.spectra.sum(axis=0), atol=1e-5)
        assert set(structure.site_properties) == {"bader_charge"}
        json.dumps(structure.as_dict())  # an attribute does not end up in files
    assert np.std([c.spectra.latents.mean() for c in crystals]) > 0


def test_resumed_run_has_the_same_spectra(model, make_sampler, tmp_path):
    draw(make_sampler(model), loader(), output_path=tmp_path / "whole")
    sampler = make_sampler(model)
    original, calls = sampler.sample, []

    def sample(*arguments):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    sampler.sample = sample
    with pytest.raises(KeyboardInterrupt):
        draw(sampler, loader(), output_path=tmp_path / "cut")
    assert [c.index for c in read_crystals(tmp_path / "cut")] == [0, 1]
    draw(make_sampler(model, output={"existing": "resume"}), loader(), output_path=tmp_path / "cut")
    assert (tmp_path / "cut" / DOS_NAME).read_bytes() == (tmp_path / "whole" / DOS_NAME).read_bytes()


def test_without_a_folder(model, make_sampler):
    structures = draw(make_sampler(model), loader(2))
    assert all(isinstance(structure.dos, SiteDos) for structure in structures)


def test_degenerate_crystals_are_not_decoded(model, solids, to_batch):
    batch = to_batch([solids["NaCl"], solids["MgO"]], fields=("bader_charge",))
    latents = torch.full((4, 4), 0.1)
    latents[0, 0] = torch.nan
    found = to_spectra(batch.replace(atomic_dos=latents), model.descriptors, [False, True])
    assert found[0] is None and found[1].spectra.shape == (2, 64)


def test_model_without_its_autoencoder(make_joint, make_sampler):
    from mattergen_e.descriptors import AtomicDos

    with pytest.raises(UserError, match="this model holds no autoencoder for 'atomic_dos'"):
        make_sampler(make_joint({"atomic_dos": AtomicDos(dim=4)}))
