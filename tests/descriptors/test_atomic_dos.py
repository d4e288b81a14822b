"""Latents of spectra as a descriptor: their range (eq. 7), where they come from, and what they are decoded with."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mattergen_e.descriptors import AtomicDos
from mattergen_e.descriptors.atomic_dos import read_autoencoder, soft_limit
from mattergen_e.diffusion.predictors import DescriptorPredictor
from mattergen_e.errors import UserError
from mattergen_e.networks.autoencoder.folder import save

SITES = torch.tensor([0, 0, 1, 1, 1])


# -- the range (eq. 7)


def test_limit_by_hand():
    values = torch.tensor([0.0, 0.3, -0.5, 1.0, -1.0, 100.0])
    expected = [0.0, 0.3, -0.5, 0.5 + 0.5 * math.tanh(1.0), -0.5 - 0.5 * math.tanh(1.0), 1.0]
    assert soft_limit(values, 0.5).tolist() == pytest.approx(expected)
    assert torch.allclose(soft_limit(values, 0.0), torch.tanh(values))


def test_limit_is_smooth_and_keeps_the_order():
    x = torch.linspace(-3, 3, 6001, dtype=torch.double)
    y = soft_limit(x, 0.9)
    slope = y.diff() / x.diff()
    assert bool((slope >= 0).all()) and float(slope.max()) < 1 + 1e-9
    assert float(slope.diff().abs().max()) < 0.02  # no kink at the knee
    assert torch.allclose(y, -y.flip(0))


def test_one_step_takes_the_hand_computed_share():
    x = torch.tensor([[1.0], [0.2], [-3.0]])
    descriptor = AtomicDos(scale=2.0, knee=0.0, range_power=2.0, reference_steps=10)
    out = descriptor.after_step(x, s=0.5, ds=0.1, batch_idx=SITES[:3])  # g = 0.25, latents 2, 0.4, -6
    expected = [[(2 + 0.25 * (math.tanh(2) - 2)) / 2], [(0.4 + 0.25 * (math.tanh(0.4) - 0.4)) / 2]]
    assert out[:2].tolist() == [pytest.approx(e) for e in expected]


def test_weak_at_first():
    x = 10 * torch.randn(5, 30)
    assert torch.allclose(AtomicDos().after_step(x, s=0.1, ds=0.001, batch_idx=SITES), x, rtol=2e-4)


def test_means_the_same_for_any_number_of_steps():
    def run(steps: int) -> float:
        x = torch.full((5, 1), 15.0)  # a latent of 3
        for i in range(1, 4 * steps // 10 + 1):
            x = AtomicDos().after_step(x, s=i / steps, ds=1 / steps, batch_idx=SITES)
        return float(AtomicDos().decode(x)[0, 0])

    assert 1.1 < run(1000) < 2.9  # felt, and not yet done
    assert run(200) == pytest.approx(run(1000), rel=0.1)


@pytest.mark.parametrize("steps", [5, 50, 400])
@pytest.mark.parametrize("scale", [0.2, 0.37, 3.0])
def test_reverse_process_ends_in_the_range(steps, scale):
    """A network that drives the latents away leaves all to the constraint."""
    torch.manual_seed(steps)
    descriptor = AtomicDos(scale=scale)
    predictor = DescriptorPredictor(descriptor.corruption(), descriptor)
    x, dt = torch.randn(5, 30), torch.tensor(-1.0 / steps)
    for i in range(steps):
        t = torch.full((2,), 1.0 - i / steps)
        x, mean = predictor.update_given_score(x=x, t=t, dt=dt, batch_idx=SITES, score=2 * x, batch=None)
    for result in (x, mean):
        latents = descriptor.decode(result)
        assert float(latents.abs().max()) < 1.0
        assert latents.std() > 0.05


@pytest.mark.parametrize("steps", [20, 300])
def test_latents_of_the_range_arrive_unchanged(steps):
    """With the exact score of known latents the reverse process ends on them: the constraint costs nothing."""
    torch.manual_seed(0)
    descriptor = AtomicDos()
    latents = torch.rand(5, 30) * 1.7 - 0.85
    known, sde = descriptor.encode(latents), descriptor.corruption()
    predictor = DescriptorPredictor(sde, descriptor)
    x, dt = torch.randn(5, 30), torch.tensor(-1.0 / steps)
    for i in range(steps):
        t = torch.full((2,), 1.0 - i / steps)
        alpha, sigma = sde.mean_coeff_and_std(x=x, t=t, batch_idx=SITES)
        score = -(x - alpha * known) / sigma**2
        x, mean = predictor.update_given_score(x=x, t=t, dt=dt, batch_idx=SITES, score=score, batch=None)
    assert torch.allclose(descriptor.decode(mean), latents, atol=1e-4)


def test_impossible_knee():
    with pytest.raises(UserError, match="knee is 1, give a number from 0 to below 1"):
        AtomicDos(knee=1.0)


# -- where latents come from


@pytest.fixture
def folder(tmp_path, tiny_autoencoder):
    return str(save(tiny_autoencoder(), tmp_path / "autoencoder"))


def test_latents_are_those_of_the_autoencoder(folder, tmp_path, write_dos_cache, tiny_autoencoder):
    def forget(split, spectra):
        spectra[[2, 5]] = np.nan

    cache = write_dos_cache(tmp_path / "cache", change=forget)
    values = AtomicDos(autoencoder=folder, dim=4).read_cache(cache / "train")
    spectra = np.load(cache / "train" / "sites" / "atomic_dos.npy")
    known = ~np.isnan(spectra).any(axis=1)
    assert np.flatnonzero(~known).tolist() == np.flatnonzero(np.isnan(values).all(axis=1)).tolist() == [2, 5]
    assert np.allclose(values[known], tiny_autoencoder().encode(spectra[known]))
    assert values.dtype == np.float32 and values.shape == (len(spectra), 4)


def test_cache_of_another_processing(folder, tmp_path, write_dos_cache, dos_processing):
    other = {**dos_processing.model_dump(mode="json"), "smearing": 0.1}
    cache = write_dos_cache(tmp_path / "cache", processing=other)
    with pytest.raises(UserError, match=r"'atomic_dos' was made with smearing 0\.1, but 0\.5 is needed"):
        AtomicDos(autoencoder=folder, dim=4).read_cache(cache / "train")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(0.0, "no states at site 3"), (math.inf, "not a finite number at site 3"), (-1.0, "negative at site 3")],
)
def test_spectra_that_are_none(folder, tmp_path, write_dos_cache, value, sentence):
    def spoil(split, spectra):
        spectra[3] = value

    cache = write_dos_cache(tmp_path / "cache", change=spoil)
    with pytest.raises(UserError, match=sentence):
        AtomicDos(autoencoder=folder, dim=4).read_cache(cache / "train")


def test_no_autoencoder(tmp_path):
    with pytest.raises(UserError, match=r"lightning_module\.descriptors\.atomic_dos\.autoencoder=DIR"):
        AtomicDos().begin_training()
    with pytest.raises(UserError, match="does not exist: give the folder of an autoencoder"):
        AtomicDos(autoencoder=str(tmp_path)).begin_training()


def test_another_number_of_latents(folder):
    with pytest.raises(UserError, match="has 4 latents per site, but descriptor 'atomic_dos' has dim 30: set dim to 4"):
        AtomicDos(autoencoder=folder).begin_training()


def test_training_begins_with_the_autoencoder(folder, tiny_autoencoder):
    descriptor = AtomicDos(autoencoder=folder, dim=4)
    with pytest.raises(UserError, match="holds no autoencoder for 'atomic_dos'"):
        descriptor.require_ready()
    descriptor.begin_training()
    descriptor.require_ready()
    assert descriptor.of_model().fingerprint == tiny_autoencoder().fingerprint


def test_training_goes_on_with_the_same_autoencoder(folder, make_dos):
    make_dos(autoencoder=folder).begin_training()
    with pytest.raises(UserError, match="but the model was made with"):
        make_dos(seed=1, autoencoder=folder).begin_training()


def test_folder_of_a_joint_model(tmp_path, make_dos, make_joint, tiny_autoencoder):
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save({"state_dict": make_joint({"atomic_dos": make_dos()}).state_dict()}, checkpoints / "last.ckpt")
    assert read_autoencoder(tmp_path / "run").fingerprint == tiny_autoencoder().fingerprint
    torch.save({"state_dict": make_joint().state_dict()}, checkpoints / "last.ckpt")
    with pytest.raises(UserError, match="is a model without an autoencoder"):
        read_autoencoder(tmp_path / "run")


def test_spectra_in_the_place_of_latents():
    with pytest.raises(UserError, match="has 512 numbers per site of 'atomic_dos', not 30 latents"):
        AtomicDos().training_values({"atomic_dos": torch.zeros(3, 512)})


# -- what they are decoded with


def test_results_are_spectra(make_dos, tiny_autoencoder, dos_processing):
    descriptor = make_dos(scale=0.5)
    latents = torch.rand(3, 4) - 0.5
    expected = tiny_autoencoder().decode(latents)
    assert descriptor.grid == dos_processing.grid and descriptor.result_dim == 64
    assert np.allclose(descriptor.result(descriptor.encode(latents)), expected, atol=1e-6)
    spectra = descriptor.spectra(latents.numpy())
    assert np.array_equal(spectra.spectra, expected) and np.array_equal(spectra.latents, latents.numpy())
    assert (spectra.grid, spectra.fingerprint) == (dos_processing.grid, tiny_autoencoder().fingerprint)
    assert descriptor.site_properties(latents.numpy()) == {}


def test_latents_out_of_range_are_refused(make_dos):
    with pytest.raises(UserError, match="latent 1 of site 0 is 1.5, but latents lie between -1 and 1"):
        make_dos().result(make_dos().encode(torch.tensor([[0.0, 1.5, 0.0, 0.0]])))


def test_cache_that_predictions_cannot_be_compared_with(make_dos, tmp_path, write_dos_cache, dos_processing):
    make_dos().check_cache(write_dos_cache(tmp_path / "same"))
    other = {**dos_processing.model_dump(mode="json"), "semicore_zero": 0.5}
    with pytest.raises(UserError, match="made with semicore_zero"):
        make_dos().check_cache(write_dos_cache(tmp_path / "other", processing=other))
