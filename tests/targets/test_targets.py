"""Requests for spectra: which crystal gets which curve, and what is written down."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mattergen.diffusion.lightning_module import DiffusionLightningModule

from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader
from mattergen_e.generation.draw import draw
from mattergen_e.generation.store import load_record, read_crystals
from mattergen_e.spectra.curves import NOT_GIVEN
from mattergen_e.spectra.grid import TOTAL_GRID
from mattergen_e.targets.files import read_curves
from mattergen_e.targets.targets import read_target, read_targets

pytestmark = pytest.mark.usefixtures("list_of_conditions")


@pytest.fixture
def file(tmp_path, spectra):
    path = tmp_path / "three.npz"
    np.savez(path, energies=TOTAL_GRID.energies, dos=spectra, names=["a", "b", "c"])
    return path


def test_curves_go_round(file, spectra):
    target = read_target("dos", {"file": str(file), "per_curve": 2})
    assert [target.curve_of(i) for i in range(8)] == [0, 0, 1, 1, 2, 2, 0, 0]
    assert target.names == ("a", "b", "c") and np.array_equal(target.values, spectra)
    assert target.record(3) == {"curve": 1, "name": "b", "file": "target_dos.npz"}
    assert read_targets({"dft_band_gap": 2.0}) == {}


def test_window_hides_the_rest(file, spectra):
    target = read_target("dos", {"file": file, "window": [-2, 2]})
    told = abs(TOTAL_GRID.energies) <= 2
    assert np.array_equal(target.values[:, told], spectra[:, told]) and (target.values[:, ~told] == NOT_GIVEN).all()
    assert target.settings()["window"] == [-2, 2] and target.settings()["file"] == "three.npz"
    assert target.sha256 != read_target("dos", str(file)).sha256


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (2.0, "its value|file: "),
        (None, "file: "),
        ({"file": "x", "per_curve": 0}, "per_curve: "),
        ({"file": "x", "windows": [0, 1]}, "windows: "),
        ({"window": [0, 1]}, "file: Field required"),
        ({"file": "x", "window": [0]}, "window.1: "),
        ({"file": "x", "window": [-20, 1]}, "none of the grid"),
        ({"file": "x", "smearing": -1}, "smearing: "),
        ("/nowhere/x.npz", "does not exist"),
    ],
)
def test_requests_that_are_none(value, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        read_target("dos", value)
    assert "\n" not in str(error.value)


def test_a_curve_that_misses_the_window(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("energy,dos\n3,1\n5,1\n")
    with pytest.raises(UserError, match="given from 3 to 5 eV, which leaves nothing between -2 and 2 eV"):
        read_target("dos", {"file": path, "window": [-2, 2]})
    path.write_text("energy,dos\n30,1\n50,1\n")
    with pytest.raises(UserError, match="relative to the Fermi energy"):
        read_target("dos", str(path))


def test_one_bad_curve_of_many_is_named(tmp_path, spectra):
    spectra[1] = 0
    np.savez(tmp_path / "x.npz", dos=spectra, names=["a", "b", "c"])
    with pytest.raises(UserError, match="x.npz, curve 'b' is zero everywhere"):
        read_target("dos", str(tmp_path / "x.npz"))


def loader(file, **request):
    properties = {"dos": {"file": str(file), **request}, "dft_band_gap": 1.5}
    return ConditionLoader(5, 2, num_atoms=[2, 3], seed=4, properties=properties)


def test_batches_carry_the_curves(file, spectra, capsys):
    batches = [batch for batch, _ in loader(file)]
    assert [tuple(b["dos"].shape) for b in batches] == [(2, 256), (2, 256), (1, 256)]
    joined = torch.cat([b["dos"] for b in batches]).numpy()
    assert np.array_equal(joined, spectra[[0, 1, 2, 0, 1]])
    assert batches[0].to_data_list()[1]["dos"].shape == (1, 256)
    assert torch.equal(batches[0]["dft_band_gap"], torch.full((2,), 1.5))
    assert capsys.readouterr().err == ""


def test_too_few_crystals_are_said(file, capsys):
    loader(file, per_curve=3)
    assert "5 crystals are too few for the 3 curves of 'dos' (3 each): the first 2 are used" in capsys.readouterr().err


def test_dictionary_that_lost_its_quotes():
    with pytest.raises(UserError, match="is no dictionary: write it with quotes"):
        ConditionLoader(2, 2, properties="{dos:a/b.npz}")  # type: ignore[arg-type]


def test_run_records_what_each_crystal_was_asked_for(tmp_path, file, spectra, make_dos_module, make_sampler):
    model = DiffusionLightningModule(diffusion_module=make_dos_module())
    asked = {"dos": {"file": str(file), "per_curve": 2, "window": [-2, 2]}}

    def run(asked, **output):
        loader = ConditionLoader(4, 3, num_atoms=[2, 3], seed=4, properties=asked)
        draw(make_sampler(model, guidance_scale=2.0, output=output), loader, asked, tmp_path / "run")

    run(asked)
    crystals = read_crystals(tmp_path / "run")
    assert [c.conditions["dos"]["name"] for c in crystals] == ["ab"[c.index // 2] for c in crystals] and crystals
    told = load_record(tmp_path / "run").settings["conditions"]["dos"]
    assert told == json.loads(json.dumps(read_target("dos", asked["dos"]).settings()))
    kept = read_curves(tmp_path / "run" / "target_dos.npz")  # is itself a file of targets
    assert [c.name for c in kept] == ["a", "b", "c"]
    inside = abs(TOTAL_GRID.energies) <= 2
    assert np.array_equal(kept[1].dos[inside], spectra[1][inside]) and np.isnan(kept[1].dos[~inside]).all()
    with pytest.raises(UserError, match="'conditions.dos.window"):
        run({"dos": {**asked["dos"], "window": [-3, 2]}}, existing="resume")
    run({}, existing="overwrite")
    assert not (tmp_path / "run" / "target_dos.npz").exists()
    assert read_crystals(tmp_path / "run")[0].conditions == {}


def test_model_that_takes_no_spectra(file, make_module, make_sampler):
    sampler = make_sampler(DiffusionLightningModule(diffusion_module=make_module()))
    asked = {"dos": str(file)}
    with pytest.raises(UserError, match="names 'dos', but this model was trained to be conditioned on no property"):
        draw(sampler, ConditionLoader(1, 1, properties=asked), asked)
