"""Embeddings and heads: the structure is not touched, and the descriptors obey the crystal's symmetries."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch

from mattergen_e.descriptors import BaderCharge, Descriptor, Dummy
from mattergen_e.descriptors.networks import time_features
from mattergen_e.diffusion.fields import STRUCTURE_TIME, time_key

SETS = {
    "one": {"bader_charge": BaderCharge()},
    "two": {"bader_charge": BaderCharge(), "dummy": Dummy()},
    "three": {"bader_charge": BaderCharge(), "dummy": Dummy(), "dos": Descriptor(name="dos", dim=5)},
}
#: Enough neighbours and images for every pair within the cutoff: no shell of equal distances is cut in two.
WHOLE_SHELLS = {"cutoff": 4.2, "max_neighbors": 500, "max_cell_images_per_dim": 3}
PREFIX = "diffusion_module.joint_fields."


def with_fields(batch, descriptors, seed=3):
    """The batch with random noisy descriptors, as the sampler makes them."""
    generator = torch.Generator().manual_seed(seed)
    sites = batch.get_batch_idx("pos")
    fields = {n: torch.randn(len(sites), d.dim, generator=generator) for n, d in descriptors.items()}
    return batch.replace(**fields, **{f"{n}_batch": sites for n in descriptors})


@pytest.mark.parametrize("adapter", [False, True], ids=["base", "adapter"])
@pytest.mark.parametrize("names", SETS)
def test_fresh_fields_leave_the_structure_bit_equal(make_module, make_joint, solids, to_batch, names, adapter):
    base = make_module(adapter=adapter)
    joint = make_joint(SETS[names], fresh=True, adapter=adapter).diffusion_module
    batch = to_batch(list(solids.values()), fields=(), **({"dft_band_gap": [1.0] * 8} if adapter else {}))
    t = torch.linspace(0.01, 1.0, len(solids))
    with torch.no_grad():
        expected, found = base.model(batch, t), joint.model(with_fields(batch, SETS[names]), t)
    for name in ("pos", "cell", "atomic_numbers"):
        assert torch.equal(expected[name], found[name])
        assert expected[name].std() > 0
    for name, descriptor in SETS[names].items():
        assert found[name].shape == (len(batch["pos"]), descriptor.dim)


@pytest.mark.parametrize("adapter", [False, True], ids=["base", "adapter"])
def test_random_fields_change_the_structure(make_module, make_joint, solids, to_batch, adapter):
    base, joint = make_module(adapter=adapter), make_joint(adapter=adapter).diffusion_module
    batch = to_batch(list(solids.values()))
    t = torch.full((len(solids),), 0.5)
    with torch.no_grad():
        expected, found = base.model(batch, t), joint.model(batch, t)
    assert not torch.allclose(expected["pos"], found["pos"])


@pytest.mark.parametrize("adapter", [False, True], ids=["base", "adapter"])
def test_upstream_parameters_keep_their_names(make_module, make_joint, adapter):
    old = {f"diffusion_module.{key}": value for key, value in make_module(adapter=adapter).state_dict().items()}
    new = make_joint(SETS["three"], adapter=adapter).state_dict()
    assert set(old) <= set(new)
    assert {key for key in new if not key.startswith(PREFIX)} == set(old)
    for key, value in old.items():
        assert new[key].shape == value.shape
    heads = {key.split(".")[3] for key in new if key.startswith(f"{PREFIX}heads.")}
    assert heads == set(SETS["three"])


def test_fields_are_trained_with_the_rest(make_joint, solids, to_batch):
    model = make_joint(SETS["two"]).train()
    loss, _ = model.diffusion_module.calc_loss(to_batch(list(solids.values())))
    loss.backward()
    for key, parameter in model.diffusion_module.joint_fields.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key


# -- symmetries -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def symmetric(make_joint):
    """A joint model with random weights that sees whole shells of neighbours."""
    return make_joint(SETS["three"], **WHOLE_SHELLS).diffusion_module


@pytest.fixture(scope="module")
def distorted(solids):
    """Solids with every site displaced and the cell strained: no two distances agree, no symmetry is left."""
    generator = torch.Generator().manual_seed(11)
    found = []
    for name in ("TiO2", "BaTiO3", "ZnS"):
        structure = solids[name].copy()
        structure.apply_strain([0.01, -0.02, 0.015])
        shift = (0.03 * torch.randn(len(structure), 3, generator=generator)).numpy()
        for i in range(len(structure)):
            structure.translate_sites([i], shift[i], to_unit_cell=True)
        found.append(structure)
    return found


#: A time for each of the distorted crystals.
TIMES = torch.tensor([0.25, 0.4, 0.55])


def outputs(module, batch, t=TIMES):
    """Predicted velocities, the part of the prediction that is read off the network: of order one at any time."""
    with torch.no_grad():
        out = module.model(batch, t)
    alpha = torch.exp(-0.25 * t**2 * 19.9 - 0.5 * t * 0.1)[batch.get_batch_idx("pos"), None]
    return {name: -(out[name] + (1 - alpha**2).sqrt() * batch[name]) / alpha for name in SETS["three"]}


@pytest.fixture(scope="module")
def reference(symmetric, distorted, to_batch):
    batch = with_fields(to_batch(distorted, fields=()), SETS["three"])
    return batch, outputs(symmetric, batch)


def assert_same(found, expected, tolerance=5e-6):
    for name, values in expected.items():
        assert values.std() > 0.02  # the model tells sites apart, so that a mistake would be seen
        assert (found[name] - values).abs().max() < tolerance, name


def test_surroundings_matter(symmetric, reference):
    """Else the tests below would pass with a head that looks at its own noisy input only."""
    batch, expected = reference
    moved = batch["pos"].clone()
    moved[0] += 0.05
    found = outputs(symmetric, batch.replace(pos=moved % 1.0))
    first = batch.get_batch_idx("pos") == 0
    for name, values in expected.items():
        change = (found[name] - values).abs().amax(dim=1)
        assert (change[first] > 2e-5).all() and change[~first].max() < 1e-6


def test_order_of_the_sites(symmetric, reference):
    batch, expected = reference
    order = torch.cat(
        [(batch.get_batch_idx("pos") == i).nonzero()[:, 0].flip(0).roll(2) for i in range(batch.get_batch_size())]
    )
    fields = ("pos", "atomic_numbers", *SETS["three"])
    found = outputs(symmetric, batch.replace(**{name: batch[name][order] for name in fields}))
    assert_same(found, {name: values[order] for name, values in expected.items()})


def test_rotation_of_the_cell(symmetric, reference):
    batch, expected = reference
    q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.double, generator=torch.Generator().manual_seed(5)))
    rotation = q * torch.sign(torch.linalg.det(q))
    assert torch.linalg.det(rotation) == pytest.approx(1.0)
    assert_same(outputs(symmetric, batch.replace(cell=(batch["cell"].double() @ rotation).float())), expected)


def test_translation_of_all_sites(symmetric, reference):
    batch, expected = reference
    moved = (batch["pos"] + torch.tensor([0.31, -0.47, 0.83])) % 1.0
    assert_same(outputs(symmetric, batch.replace(pos=moved)), expected)


def test_supercell_repeats_the_values(symmetric, distorted, reference, to_batch):
    batch, expected = reference
    large = to_batch([s * (2, 1, 1) for s in distorted], fields=())
    # pymatgen puts the copies of a site one after another
    assert torch.equal(large["atomic_numbers"], batch["atomic_numbers"].repeat_interleave(2))
    repeated = {n: batch[n].repeat_interleave(2, dim=0) for n in SETS["three"]}
    sites = large.get_batch_idx("pos")
    found = outputs(symmetric, large.replace(**repeated, **{f"{n}_batch": sites for n in repeated}))
    assert_same(found, {n: v.repeat_interleave(2, dim=0) for n, v in expected.items()})


def test_crystals_of_a_batch_do_not_mix(symmetric, distorted, reference, to_batch):
    batch, expected = reference
    for i, structure in enumerate(distorted):
        own = batch.get_batch_idx("pos") == i
        alone = to_batch([structure], fields=())
        sites = {f"{n}_batch": alone.get_batch_idx("pos") for n in SETS["three"]}
        alone = alone.replace(**{n: batch[n][own] for n in SETS["three"]}, **sites)
        assert_same(outputs(symmetric, alone, TIMES[i : i + 1]), {n: v[own] for n, v in expected.items()})


# -- hooks ------------------------------------------------------------------------------------------------------------


def test_copy_is_independent(make_joint, solids, to_batch):
    model = make_joint(SETS["two"]).diffusion_module
    twin = deepcopy(model)
    batch = with_fields(to_batch(list(solids.values())), SETS["two"])
    t = torch.full((len(solids),), 0.5)
    with torch.no_grad():
        before, same = model.model(batch, t), twin.model(batch, t)
        for parameter in twin.joint_fields.parameters():
            parameter.mul_(-2.0)
        after, changed = model.model(batch, t), twin.model(batch, t)
    for name in ("bader_charge", "dummy", "pos"):
        assert torch.equal(before[name], same[name])
        assert torch.equal(before[name], after[name])
        assert not torch.allclose(changed[name], after[name])


def test_weights_travel_by_state_dict(make_joint, solids, to_batch):
    model, other = make_joint(), make_joint(fresh=True, seed=1)
    other.load_state_dict(model.state_dict(), strict=True)
    batch, t = to_batch(list(solids.values())), torch.full((len(solids),), 0.3)
    with torch.no_grad():
        a, b = model.diffusion_module.model(batch, t), other.diffusion_module.model(batch, t)
    for name in ("bader_charge", "pos", "cell", "atomic_numbers"):
        assert torch.equal(a[name], b[name])


def test_nothing_is_kept_between_calls(make_joint, solids, to_batch):
    module = make_joint().diffusion_module
    module.model(to_batch(list(solids.values())), torch.full((len(solids),), 0.3))
    fields = module.joint_fields
    assert fields._noisy is None and fields._times == {} and fields._features is None


def test_arguments_by_name_and_by_position(make_joint, solids, to_batch):
    module = make_joint().diffusion_module
    batch, t = to_batch(list(solids.values())), torch.full((len(solids),), 0.3)
    with torch.no_grad():
        a, b, c = module.model(batch, t), module.model(x=batch, t=t), module.model(batch, t=t)
    assert torch.equal(a["bader_charge"], b["bader_charge"]) and torch.equal(a["bader_charge"], c["bader_charge"])


# -- the noise that is predicted --------------------------------------------------------------------------------------


def test_at_full_noise_the_prediction_is_the_input(make_joint, solids, to_batch):
    model = make_joint(SETS["three"]).diffusion_module
    batch = with_fields(to_batch(list(solids.values())), SETS["three"])
    with torch.no_grad():
        found = model.model(batch, torch.ones(len(solids)))
    alpha = math.exp(-0.25 * 19.9 - 0.05)  # 0.0066: what is left of the signal
    for name in SETS["three"]:
        assert (found[name] + batch[name]).abs().max() < 20 * alpha
        assert torch.corrcoef(torch.stack([-found[name].flatten(), batch[name].flatten()]))[0, 1] > 0.99


def test_fresh_head_predicts_the_noise_of_a_vanishing_signal(make_joint, solids, to_batch):
    """Zero velocity: the prediction is -sigma x, with sigma from the integral of beta."""
    model = make_joint(fresh=True).diffusion_module
    batch = to_batch(list(solids.values()))
    t = torch.linspace(0.05, 1.0, len(solids))
    with torch.no_grad():
        found = model.model(batch, t)["bader_charge"]
    sigma = (1 - torch.exp(-(19.9 * t**2 / 2 + 0.1 * t))).sqrt()
    assert torch.allclose(found, -sigma[batch.get_batch_idx("pos"), None] * batch["bader_charge"], atol=1e-5)


def test_own_times_of_structure_and_descriptor(make_joint, solids, to_batch):
    module = make_joint().diffusion_module
    batch = to_batch(list(solids.values()))
    n = len(solids)
    common, early = torch.full((n,), 0.6), torch.full((n,), 0.1)
    sites = batch.get_batch_idx("pos")
    seen = []
    handle = module.model.noise_level_encoding.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        plain = module.model(batch, common)["bader_charge"]
        explicit = module.model(
            batch.replace(**{STRUCTURE_TIME: common, time_key("bader_charge"): common[sites]}), early
        )["bader_charge"]
        clean = module.model(batch.replace(**{STRUCTURE_TIME: early}), common)["bader_charge"]
        own = module.model(batch.replace(**{time_key("bader_charge"): early[sites]}), common)["bader_charge"]
    handle.remove()
    assert torch.equal(plain, explicit)
    assert not torch.allclose(plain, clean) and not torch.allclose(plain, own)
    assert [float(t[0]) for t in seen] == pytest.approx([0.6, 0.6, 0.1, 0.6])  # what MatterGen's network is told


def test_time_features_tell_nearby_times_apart():
    t = torch.linspace(0, 1, 1001)
    features = time_features(t)
    assert features.shape == (1001, 16)
    assert torch.allclose(features[:, 0], torch.sin(math.pi * t), atol=1e-6)
    assert torch.allclose(features[:, -1], torch.cos(math.pi * 128 * t), atol=1e-3)
    assert torch.pdist(features).min() > 1e-3
