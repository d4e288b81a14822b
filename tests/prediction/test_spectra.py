"""Predicted spectra: on the sites of the input, in a file beside the lines, and their distance to labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from mattergen_e.cli.console import accuracy_tables
from mattergen_e.crystals.reading import NamedStructure
from mattergen_e.descriptors import AtomicDos, BaderCharge
from mattergen_e.diffusion.prediction import predict_descriptors
from mattergen_e.errors import UserError
from mattergen_e.prediction.accuracy import ELEMENT_MEANS, measure, measure_file, save_means
from mattergen_e.prediction.run import predict, spectra_path, write_predictions


@pytest.fixture(scope="module")
def model(make_joint, make_dos):
    return make_joint({"bader_charge": BaderCharge(), "atomic_dos": make_dos()})


@pytest.fixture(scope="module")
def named(conventional):
    return [NamedStructure(name, conventional[name]) for name in ("TiO2", "NaCl")]


# -- prediction


def test_mean_and_spread_are_those_of_the_decoded_samples(model, solids, to_batch):
    batch = to_batch([solids["TiO2"], solids["MgO"]], fields=())
    torch.manual_seed(3)
    together = predict_descriptors(model, batch, samples=5, steps=4)["atomic_dos"]
    torch.manual_seed(3)
    single = [predict_descriptors(model, batch, samples=1, steps=4)["atomic_dos"].mean.numpy() for _ in range(5)]
    assert together.mean.shape == (len(batch["pos"]), 64)
    assert np.allclose(together.mean, np.mean(single, axis=0), atol=1e-5)
    assert np.allclose(together.std, np.std(single, axis=0, ddof=1), atol=1e-5)
    assert (together.mean >= 0).all() and together.std.max() > 0


def test_model_without_its_autoencoder(make_joint, solids, to_batch):
    model = make_joint({"atomic_dos": AtomicDos(dim=4)})
    with pytest.raises(UserError, match="this model holds no autoencoder for 'atomic_dos'"):
        predict_descriptors(model, to_batch([solids["MgO"]], fields=()))


def test_lines_name_their_arrays(model, named, tmp_path, dos_processing):
    out = tmp_path / "predicted.jsonl"
    predictions = list(predict(model, named, samples=2, steps=3))
    assert write_predictions(out, predictions) == 2
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert max(len(line) for line in out.read_text().splitlines()) < 10_000  # no spectra in there
    with np.load(spectra_path(out), allow_pickle=False) as arrays:
        for line, prediction in zip(lines, predictions, strict=True):
            names = line["atomic_dos"]
            assert names["file"] == "predicted.npz"
            assert arrays[names["mean"]].shape == (len(line["structure"]["sites"]), 64)
            assert np.allclose(arrays[names["mean"]], prediction.mean["atomic_dos"])
            assert np.allclose(arrays[names["std"]], prediction.std["atomic_dos"])
            assert np.array_equal(arrays[names["energies"]], dos_processing.grid.energies)
            assert len(line["bader_charge"]) == len(line["structure"]["sites"])
        assert len(arrays.files) == len(set(arrays.files)) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predicted.jsonl", "predicted.npz"]


def test_equal_sites_of_the_input_get_equal_spectra(model, named):
    """The conventional cell of NaCl holds every site of the primitive one four times."""
    prediction = list(predict(model, named, samples=2, steps=3))[1]
    symbols = np.array([site.specie.symbol for site in prediction.structure])
    for symbol in ("Na", "Cl"):
        assert np.ptp(prediction.mean["atomic_dos"][symbols == symbol], axis=0).max() == 0


def test_model_without_spectra_writes_no_such_file(make_joint, named, tmp_path):
    write_predictions(tmp_path / "x.jsonl", predict(make_joint(), named, samples=1, steps=2))
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


def test_failure_leaves_nothing(model, named, tmp_path):
    def failing():
        yield from predict(model, named[:1], samples=1, steps=1)
        raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        write_predictions(tmp_path / "x.jsonl", failing())
    assert not list(tmp_path.iterdir())


# -- accuracy


@pytest.fixture(scope="module")
def cache(tmp_path_factory, write_dos_cache):
    def forget(split, spectra):
        spectra[0] = np.nan

    return write_dos_cache(tmp_path_factory.mktemp("accuracy") / "cache", change=forget)


def test_distances_are_those_of_the_predictions(cache, model, dos_processing, tiny_autoencoder):
    charges, found = measure(model, cache, samples=2, steps=2, seed=4)
    assert charges.spectra is None and (found.descriptor, found.unit) == ("atomic_dos", "states/eV")

    # the same again with scipy, site by site
    from mattergen.common.data.collate import collate
    from mattergen.common.data.transform import symmetrize_lattice

    from mattergen_e.data.dataset import JointCrystalDataset

    dataset = JointCrystalDataset.from_cache_path(str(cache / "test"), transforms=[symmetrize_lattice])
    torch.manual_seed(4)
    batch = collate([dataset[i] for i in range(len(dataset))])
    predicted = predict_descriptors(model, batch, samples=2, steps=2)["atomic_dos"].mean.numpy()
    truth, train = (np.load(cache / split / "sites" / "atomic_dos.npy").astype(float) for split in ("test", "train"))
    numbers, centres = batch["atomic_numbers"].numpy(), dos_processing.grid.energies
    known = np.arange(1, len(truth))

    def distances(spectra):
        pairs = ((spectra[i], truth[i]) for i in known)
        return [wasserstein_distance(centres, centres, np.maximum(a, 0), b) for a, b in pairs]

    means = [np.nanmean(train[numbers == z], axis=0) for z in numbers]
    rebuilt = np.concatenate([np.zeros((1, 64)), tiny_autoencoder().reconstruct(truth[1:].astype(np.float32))])
    expected = {"model": predicted, "element_mean": means, "autoencoder": rebuilt}
    for kind, spectra in expected.items():
        summary = getattr(found.spectra.all, kind)
        assert summary.median == pytest.approx(np.median(distances(spectra)), rel=1e-3)
        assert summary.mean == pytest.approx(np.mean(distances(spectra)), rel=1e-3)
    assert found.sites == found.spectra.all.model.sites == len(known)
    assert found.mae == pytest.approx(np.abs(predicted - truth)[1:].mean(), rel=1e-3)
    oxygen = [d for d, i in zip(distances(predicted), known, strict=True) if numbers[i] == 8]
    assert found.spectra.by_element["O"].model.median == pytest.approx(np.median(oxygen), rel=1e-3)


def test_tables_show_the_distances(cache, model):
    results = measure(model, cache, samples=1, steps=1)
    tables = accuracy_tables(results)
    assert len(tables) == 3
    assert "Wasserstein distance (eV)" in str(tables[2].title)
    assert [column.header for column in tables[2].columns][2:] == ["model", "element mean", "autoencoder alone"]


def test_cache_of_another_processing(model, write_dos_cache, dos_processing, tmp_path):
    other = {**dos_processing.model_dump(mode="json"), "smearing": 0.1}
    with pytest.raises(UserError, match="made with smearing"):
        measure(model, write_dos_cache(tmp_path / "cache", processing=other))


def test_labelled_lines_are_compared_without_spectra(model, solids, tmp_path):
    """How spectra in somebody's lines were made is not known; those of predictions are names of arrays."""
    entry = {
        "id": "MgO",
        "structure": solids["MgO"].copy(site_properties={}).as_dict(),
        "bader_charge": solids["MgO"].site_properties["bader_charge"],
        "atomic_dos": {"file": "x.npz"},
    }
    (tmp_path / "x.jsonl").write_text(json.dumps(entry) + "\n")
    save_means(tmp_path / ELEMENT_MEANS, {"bader_charge": {0: np.array([0.0])}})
    found = measure_file(model, tmp_path / "x.jsonl", tmp_path, samples=1, steps=1)
    assert [r.descriptor for r in found] == ["bader_charge"]
