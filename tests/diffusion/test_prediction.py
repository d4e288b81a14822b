"""A joint model as a predictor of known structures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mattergen.diffusion.lightning_module import DiffusionLightningModule

from mattergen_e.descriptors import BaderCharge, Descriptor, Dummy
from mattergen_e.diffusion.fields import STRUCTURE_TIME, time_key
from mattergen_e.diffusion.joint import CLEAN_TIME
from mattergen_e.diffusion.prediction import predict_descriptors
from mattergen_e.errors import UserError


def totals(values, batch):
    return np.bincount(batch.get_batch_idx("pos").numpy(), weights=values[:, 0].double().numpy())


@pytest.fixture(scope="module")
def model(make_joint):
    return make_joint({"bader_charge": BaderCharge(scale=1.5), "dos": Descriptor(name="dos", dim=4)})


@pytest.fixture(scope="module")
def batch(solids, to_batch):
    return to_batch(list(solids.values()), fields=())


@pytest.mark.parametrize("steps", [1, 3, 20])
@pytest.mark.parametrize("samples", [1, 4])
def test_values_are_neutral(model, batch, samples, steps):
    torch.manual_seed(0)
    found = predict_descriptors(model, batch, samples=samples, steps=steps)
    assert set(found) == {"bader_charge", "dos"}
    assert found["bader_charge"].mean.shape == (len(batch["pos"]), 1)
    assert found["dos"].mean.shape == found["dos"].std.shape == (len(batch["pos"]), 4)
    assert np.abs(totals(found["bader_charge"].mean, batch)).max() < 1e-5
    assert found["bader_charge"].mean.std() > 0.01
    for prediction in found.values():
        assert prediction.mean.isfinite().all() and prediction.std.isfinite().all()
        assert bool((prediction.std == 0).all()) is (samples == 1)


def test_mean_and_spread_are_those_of_the_samples(model, batch):
    torch.manual_seed(3)
    together = predict_descriptors(model, batch, samples=5, steps=4)["bader_charge"]
    torch.manual_seed(3)
    single = [predict_descriptors(model, batch, samples=1, steps=4)["bader_charge"].mean.numpy() for _ in range(5)]
    assert np.allclose(together.mean, np.mean(single, axis=0), atol=1e-6)
    assert np.allclose(together.std, np.std(single, axis=0, ddof=1), atol=1e-6)


def test_same_seed_same_values(model, batch):
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(predict_descriptors(model, batch, samples=2, steps=3)["bader_charge"].mean)
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


def test_neither_structure_nor_weights_change(model, batch):
    before = {name: batch[name].clone() for name in ("pos", "cell", "atomic_numbers")}
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    keys = set(batch.keys())
    predict_descriptors(model, batch, samples=1, steps=2)
    assert set(batch.keys()) == keys
    assert all(torch.equal(batch[name], value) for name, value in before.items())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in weights.items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_network_is_told_that_the_structure_is_clean(model, batch):
    seen = []
    hook = model.diffusion_module.model.register_forward_pre_hook(lambda _, args: seen.append(args), prepend=True)
    predict_descriptors(model, batch, samples=1, steps=4)
    hook.remove()
    assert len(seen) == 4
    for x, _ in seen:
        assert torch.equal(x[STRUCTURE_TIME], torch.full((8,), CLEAN_TIME))
        assert time_key("bader_charge") not in x and time_key("dos") not in x  # those are at the common time
        assert torch.equal(x["pos"], batch["pos"]) and torch.equal(x["atomic_numbers"], batch["atomic_numbers"])
    assert [float(t[0]) for _, t in seen] == pytest.approx([1.0, 0.75**3, 0.5**3, 0.25**3])


@pytest.mark.usefixtures("no_noise")
def test_without_noise_a_crystals_values_are_its_own(make_joint, solids, to_batch):
    """Neither its place in the batch nor the others in it matter.

    The network sees whole shells of neighbours here. Where `max_neighbors` cuts a shell of equal distances, rounding
    decides which neighbours stay.
    """
    model = make_joint(
        {"bader_charge": BaderCharge(), "dos": Descriptor(name="dos", dim=4)},
        cutoff=4.2,
        max_neighbors=500,
        max_cell_images_per_dim=3,
    )
    names = list(solids)
    together = predict_descriptors(model, to_batch([solids[n] for n in names], fields=()), samples=1, steps=4)
    turned = predict_descriptors(model, to_batch([solids[n] for n in names[::-1]], fields=()), samples=1, steps=4)
    sizes = [len(solids[n]) for n in names]
    for field in ("bader_charge", "dos"):
        split = dict(zip(names, together[field].mean.split(sizes), strict=True))
        split_turned = dict(zip(names[::-1], turned[field].mean.split(sizes[::-1]), strict=True))
        for name in names:
            alone = predict_descriptors(model, to_batch([solids[name]], fields=()), samples=1, steps=4)[field].mean
            assert torch.allclose(split[name], alone, atol=2e-5)
            assert torch.allclose(split[name], split_turned[name], atol=2e-5)
    assert together["dos"].mean.std() > 0.01


def test_exact_network_gives_the_exact_answer(make_joint, solids, to_batch):
    """A head that knows the charges (velocity alpha eps - sigma x0) leads to them, in any number of steps."""
    model = make_joint()
    batch = to_batch(list(solids.values()))
    truth, times = batch["bader_charge"], []

    def oracle(module, args, kwargs, output):
        x, t = args[0], times[-1]
        alpha = torch.exp(-(19.9 * t**2 / 4 + 0.05 * t))[x.get_batch_idx("pos"), None]
        sigma = (1 - alpha**2).sqrt()
        return output.replace(bader_charge=-(x["bader_charge"] - alpha * truth) / sigma)

    network = model.diffusion_module.model
    network.register_forward_pre_hook(lambda _, args: times.append(args[1]), prepend=True)
    network.register_forward_hook(oracle, with_kwargs=True)
    for steps in (1, 2, 20):
        torch.manual_seed(0)
        found = predict_descriptors(model, batch, samples=3, steps=steps)["bader_charge"]
        assert (found.mean - truth).abs().max() < 2e-3
        assert found.std.max() < 2e-3


def test_scale_is_taken_back(make_joint, batch):
    values = {}
    for scale in (1.0, 2.0):
        torch.manual_seed(0)
        model = make_joint({"bader_charge": BaderCharge(scale=scale)})
        values[scale] = predict_descriptors(model, batch, samples=1, steps=3)["bader_charge"].mean
    assert torch.allclose(values[2.0], 2 * values[1.0], atol=1e-5)


def test_several_descriptors_do_not_share_their_noise(make_joint, batch):
    model = make_joint({"a": Dummy(), "b": Dummy()}, fresh=True)
    torch.manual_seed(0)
    found = predict_descriptors(model, batch, samples=1, steps=3)
    assert abs(float(torch.corrcoef(torch.stack([found["a"].mean[:, 0], found["b"].mean[:, 0]]))[0, 1])) < 0.9


def test_model_without_descriptors(make_module, batch):
    with pytest.raises(UserError, match="no descriptors to predict"):
        predict_descriptors(DiffusionLightningModule(diffusion_module=make_module()), batch)


@pytest.mark.parametrize("numbers", [{"samples": 0}, {"steps": 0}, {"samples": -1}])
def test_numbers_must_be_positive(model, batch, numbers):
    with pytest.raises(UserError, match="--samples and --steps must be at least 1"):
        predict_descriptors(model, batch, **numbers)


def test_fresh_head_predicts_the_prior(make_joint, solids, to_batch):
    """Zero velocity stands for data of unit variance: samples are standard normal, less the crystal's mean."""
    model = make_joint(fresh=True)
    batch = to_batch([solids["BaTiO3"]] * 150, fields=())
    torch.manual_seed(0)
    values = predict_descriptors(model, batch, samples=1, steps=60)["bader_charge"].mean.numpy()
    expected = math.sqrt(1 - 1 / 5)
    assert abs(values.mean()) < 1e-5
    assert values.std() == pytest.approx(expected, rel=0.15)
