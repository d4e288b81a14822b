"""Errors of predictions, and the baseline that knows the elements only, against numbers worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from mattergen.diffusion.lightning_module import DiffusionLightningModule
from pymatgen.core import Structure

from mattergen_e.crystals.element_means import element_means
from mattergen_e.data.build import build_cache
from mattergen_e.descriptors import BaderCharge, Descriptor, Dummy
from mattergen_e.diffusion.prediction import predict_descriptors
from mattergen_e.errors import UserError
from mattergen_e.prediction.accuracy import (
    ELEMENT_MEANS,
    load_means,
    measure,
    measure_file,
    measure_labelled,
    read_labelled,
    save_means,
    train_means,
)

# -- the baseline -----------------------------------------------------------------------------------------------------


def test_element_means_by_hand():
    numbers = np.array([11, 17, 11, 8, 17])
    values = np.array([[0.8], [-0.9], [1.0], [math.nan], [-0.7]])
    means = element_means(numbers, values)
    assert set(means) == {0, 11, 17}  # oxygen has no label
    assert means[11] == pytest.approx([0.9])
    assert means[17] == pytest.approx([-0.8])
    assert means[0] == pytest.approx([0.05])  # (0.8 - 0.9 + 1.0 - 0.7) / 4


def test_element_means_of_several_components():
    means = element_means(np.array([1, 1, 2]), np.array([[1.0, 10.0], [3.0, 20.0], [math.nan, 1.0]]))
    assert np.allclose(means[1], [2.0, 15.0])
    assert np.allclose(means[0], [2.0, 15.0])
    assert 2 not in means  # one unknown component is an unknown site


def test_means_on_disk(tmp_path):
    means = {"bader_charge": {0: np.array([0.0]), 11: np.array([0.861234567])}, "v": {0: np.array([1.0, 2.0])}}
    save_means(tmp_path / "means.json", means)
    assert json.loads((tmp_path / "means.json").read_text())["bader_charge"] == {"all": [0.0], "Na": [0.86123]}
    again = load_means(tmp_path / "means.json")
    assert again["bader_charge"][11] == pytest.approx([0.86123])
    assert again["v"][0] == pytest.approx([1.0, 2.0])


@pytest.mark.parametrize("content", ["", "[]", '{"q": 1}', '{"q": {"Xx": [1]}}', '{"q": {"Na": ["a"]}}', '{"q": {}}'])
def test_means_that_are_none(tmp_path, content):
    (tmp_path / "means.json").write_text(content)
    with pytest.raises(UserError, match=r"means\.json does not hold element means"):
        load_means(tmp_path / "means.json")


def test_means_that_are_missing(tmp_path):
    with pytest.raises(UserError, match=r"means\.json does not exist: compare on a cache"):
        load_means(tmp_path / "means.json")


# -- a cache ----------------------------------------------------------------------------------------------------------

#: What is in which split; the test split knows an element (Li) that the training split has not.
SPLITS = {
    "NaCl": "train", "MgO": "train", "TiO2": "train", "BaTiO3": "train", "ZnS": "val",
    "CsCl": "test", "Li2O": "test", "Mg2Si": "test",
}  # fmt: skip


def entry(name, structure, **fields):
    bare = Structure(structure.lattice, structure.species, structure.frac_coords)  # labels stand beside, not in it
    return {"id": name, "structure": bare.as_dict(), **fields}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, solids):
    folder = tmp_path_factory.mktemp("accuracy")
    with open(folder / "solids.jsonl", "w") as file:
        for name, structure in solids.items():
            charges = structure.site_properties["bader_charge"]
            labels = {} if name == "Mg2Si" else {"bader_charge": charges}  # one without labels
            file.write(json.dumps(entry(name, structure, split=SPLITS[name], **labels)) + "\n")
    build_cache([folder / "solids.jsonl"], folder / "cache", site_values=["bader_charge"], jobs=1, progress=False)
    return folder / "cache"


@pytest.fixture(scope="module")
def model(make_joint):
    return make_joint()


@pytest.mark.parametrize("batch_size", [1, 64])
def test_errors_are_those_of_the_predictions(cache, model, solids, to_batch, batch_size):
    (found,) = measure(model, cache, samples=3, steps=2, batch_size=batch_size, seed=5)

    # the same again, crystal by crystal with numpy; the cache keeps the order of the file
    chosen = [n for n in solids if SPLITS[n] == "test"]
    torch.manual_seed(5)
    mean, std = [], []
    for part in [[n] for n in chosen] if batch_size == 1 else [chosen]:
        predicted = predict_descriptors(model, to_batch([solids[n] for n in part], fields=()), samples=3, steps=2)[
            "bader_charge"
        ]
        mean.append(predicted.mean.numpy()[:, 0])
        std.append(predicted.std.numpy()[:, 0])
    symbols = np.array([s.specie.symbol for n in chosen for s in solids[n]])
    truth = np.array([q for n in chosen for q in solids[n].site_properties["bader_charge"]])
    known = np.array([n != "Mg2Si" for n in chosen for _ in solids[n]])
    error = np.concatenate(mean) - truth

    assert (found.descriptor, found.unit, found.split) == ("bader_charge", "e", "test")
    assert (found.crystals, found.sites) == (3, 5)
    assert found.mae == pytest.approx(np.abs(error[known]).mean(), rel=1e-4)
    assert found.rmse == pytest.approx(math.sqrt((error[known] ** 2).mean()), rel=1e-4)
    assert found.spread == pytest.approx(np.concatenate(std)[known].mean(), rel=1e-4)
    assert found.settings == {"samples": 3, "steps": 2, "seed": 5}

    # training charges: Cl -0.86; O of MgO -1.71, four of TiO2, three of BaTiO3; no Cs, no Li: the mean over all
    train = [(s.specie.symbol, q) for n in ("NaCl", "MgO", "TiO2", "BaTiO3")
             for s, q in zip(solids[n], solids[n].site_properties["bader_charge"], strict=True)]  # fmt: skip
    overall = np.mean([q for _, q in train])
    oxygen = np.mean([q for symbol, q in train if symbol == "O"])
    guess = {"Cs": overall, "Cl": -0.86, "Li": overall, "O": oxygen}
    expected = np.abs([guess[s] - q for s, q in zip(symbols[known], truth[known], strict=True)])
    assert found.baseline == pytest.approx(expected.mean(), abs=1e-5)

    by_element = {e.element: e for e in found.by_element}
    assert found.by_element[0].element == "Li" and {e: by_element[e].sites for e in by_element} == {
        "Li": 2, "Cs": 1, "Cl": 1, "O": 1,
    }  # fmt: skip
    for symbol, row in by_element.items():
        here = known & (symbols == symbol)
        assert row.mae == pytest.approx(np.abs(error[here]).mean(), rel=1e-4)
        assert row.baseline == pytest.approx(expected[symbols[known] == symbol].mean(), abs=1e-5)


def test_an_exact_model_has_no_error(cache, make_joint, solids):
    """A head that knows the labels: velocity alpha eps - sigma x0."""
    model = make_joint()
    labels = {s.specie.Z: q for n in ("CsCl", "Li2O") for s, q in
              zip(solids[n], solids[n].site_properties["bader_charge"], strict=True)}  # fmt: skip

    times = []

    def oracle(module, args, kwargs, output):
        x = args[0]
        truth = torch.tensor([[labels.get(int(z), 0.0)] for z in x["atomic_numbers"]])
        t = times[-1][x.get_batch_idx("pos"), None]
        alpha = torch.exp(-(19.9 * t**2 / 4 + 0.05 * t))
        return output.replace(bader_charge=-(x["bader_charge"] - alpha * truth) / (1 - alpha**2).sqrt())

    network = model.diffusion_module.model
    network.register_forward_pre_hook(lambda _, args: times.append(args[1]), prepend=True)
    network.register_forward_hook(oracle, with_kwargs=True)
    (found,) = measure(model, cache, samples=2, steps=4)
    assert found.mae < 2e-3 and found.rmse < 2e-3 and found.spread < 2e-3
    assert found.baseline > 0.1


def test_first_crystals_only(cache, model):
    (found,) = measure(model, cache, samples=1, steps=1, limit=1)
    assert (found.crystals, found.sites) == (1, 2)
    (found,) = measure(model, cache, samples=1, steps=1, limit=100)
    assert found.crystals == 3


def test_other_splits(cache, model):
    assert measure(model, cache, split="val", samples=1, steps=1)[0].by_element[0].element in ("Zn", "S")
    with pytest.raises(UserError, match="is not a split of a cache"):
        measure(model, cache, split="dev", samples=1, steps=1)


def test_folder_that_is_no_cache(tmp_path, model):
    with pytest.raises(UserError):
        measure(model, tmp_path, samples=1, steps=1)


def test_models_without_anything_to_compare(cache, make_joint, make_module):
    with pytest.raises(UserError, match="no descriptor that could be compared with labels"):
        measure(make_joint({"dummy": Dummy()}), cache)
    with pytest.raises(UserError, match="no descriptor that could be compared with labels"):
        measure(DiffusionLightningModule(diffusion_module=make_module()), cache)


def test_descriptor_that_the_cache_lacks(cache, make_joint):
    with pytest.raises(UserError, match="dos"):
        measure(make_joint({"dos": Descriptor(name="dos", dim=3)}), cache)


def test_dummies_beside_charges_are_left_out(cache, make_joint):
    found = measure(make_joint({"bader_charge": BaderCharge(), "dummy": Dummy()}), cache, samples=1, steps=1)
    assert [f.descriptor for f in found] == ["bader_charge"]


def test_split_without_a_label(tmp_path, model, solids):
    with open(tmp_path / "x.jsonl", "w") as file:
        for name, split, labelled in (("NaCl", "train", True), ("MgO", "val", True), ("CsCl", "test", False)):
            labels = {"bader_charge": solids[name].site_properties["bader_charge"]} if labelled else {}
            file.write(json.dumps(entry(name, solids[name], split=split, **labels)) + "\n")
    build_cache([tmp_path / "x.jsonl"], tmp_path / "cache", site_values=["bader_charge"], jobs=1, progress=False)
    with pytest.raises(UserError, match="the test crystals have no labels of bader_charge"):
        measure(model, tmp_path / "cache", samples=1, steps=1)


# -- labelled structures outside a cache ------------------------------------------------------------------------------


@pytest.fixture
def labelled(tmp_path, solids):
    path = tmp_path / "labelled.jsonl"
    with open(path, "w") as file:
        for name in ("CsCl", "Li2O"):
            charges = solids[name].site_properties["bader_charge"]
            file.write(json.dumps(entry(name, solids[name], bader_charge=charges), ensure_ascii=False) + "\n")
        file.write(json.dumps(entry("other\u2028line", solids["ZnS"]), ensure_ascii=False) + "\n")
    return path


def test_labelled_structures(labelled, solids):
    found = read_labelled(labelled, ["bader_charge", "dos"])
    assert [c.named.id for c in found] == ["CsCl", "Li2O", "other\u2028line"]
    assert found[1].labels["bader_charge"].shape == (3, 1)
    assert np.allclose(found[1].labels["bader_charge"][:, 0], solids["Li2O"].site_properties["bader_charge"])
    assert found[2].labels == {}


def test_file_against_a_models_means(tmp_path, labelled, model, cache, solids):
    save_means(tmp_path / ELEMENT_MEANS, {"bader_charge": train_means(cache, "bader_charge")})
    (found,) = measure_file(model, labelled, tmp_path, samples=2, steps=2, seed=1)
    assert (found.crystals, found.sites, found.split) == (2, 5, "labelled")
    (on_cache,) = measure(model, cache, samples=2, steps=2)
    assert found.baseline == pytest.approx(on_cache.baseline, abs=1e-4)  # the same crystals, the same training data
    (first,) = measure_file(model, labelled, tmp_path, samples=2, steps=2, limit=1)
    assert first.crystals == 1


def test_no_label_at_all(labelled, model):
    crystals = read_labelled(labelled, ["bader_charge"])[2:]
    with pytest.raises(UserError, match="none of the crystals has a label"):
        measure_labelled(model, crystals, {"bader_charge": {0: np.zeros(1)}}, samples=1, steps=1)


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        ([0.1], "bader_charge has 1 values for 2 sites"),
        ([], "bader_charge has 0 values for 2 sites"),
        (0.1, "bader_charge has 0 values for 2 sites"),
        (["a", "b"], "bader_charge is not a list of numbers"),
        ([[1.0, 2.0], [3.0]], "bader_charge is not a list of numbers"),
        ({"Na": 1}, "bader_charge is not a list of numbers"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, solids, label, sentence):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(entry("mine", solids["NaCl"], bader_charge=label)) + "\n")
    with pytest.raises(UserError, match=f"'mine': {sentence}"):
        read_labelled(path, ["bader_charge"])


def test_labels_of_another_dimension(tmp_path, solids, model):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(entry("mine", solids["NaCl"], bader_charge=[[1.0, 2.0, 3.0]] * 2)) + "\n")
    with pytest.raises(UserError, match="bader_charge"):
        measure_labelled(
            model, read_labelled(path, ["bader_charge"]), {"bader_charge": {0: np.zeros(1)}}, samples=1, steps=1
        )


def test_labels_stand_in_json_lines_only(tmp_path, solids):
    solids["NaCl"].to(filename=str(tmp_path / "POSCAR"), fmt="poscar")
    with pytest.raises(UserError, match="POSCAR"):
        read_labelled(tmp_path / "POSCAR", ["bader_charge"])
