"""Training: modes of the crystals, labels that are missing, and losses against formulas worked out by hand."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from mattergen.diffusion.lightning_module import DiffusionLightningModule
from scipy.integrate import trapezoid

from mattergen_e.descriptors import AtomicDos, BaderCharge, Descriptor, Dummy
from mattergen_e.diffusion.fields import STRUCTURE_TIME, time_key
from mattergen_e.diffusion.joint import (
    CLEAN_TIME,
    GIVEN,
    JOINT,
    MODE,
    PREDICT,
    JointDiffusionLightningModule,
    Shares,
    attach,
    given_key,
    known_key,
    per_crystal_all,
)
from mattergen_e.errors import UserError

STRUCTURE = ("pos", "cell", "atomic_numbers")


def signal_and_noise(t: np.ndarray, beta_min: float = 0.1, beta_max: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of eq. 2 and 3: alpha = exp(-1/2 integral of beta), the integral done numerically."""
    alpha = []
    for end in np.atleast_1d(t):
        s = np.linspace(0.0, float(end), 4001)
        alpha.append(math.exp(-0.5 * trapezoid(beta_min + s * (beta_max - beta_min), s)))
    alpha = np.array(alpha)
    return alpha, np.sqrt(1 - alpha**2)


@pytest.fixture
def watched():
    """Runs the training loss and tells what the denoiser was given and what it gave back.

    Returns (loss, metrics, noisy batch, times handed to the joint model, time told to MatterGen's network, output).
    """

    def run(module, batch, seed=0):
        seen = {}
        hooks = [
            module.model.register_forward_pre_hook(lambda _, args: seen.update(noisy=args[0], t=args[1]), prepend=True),
            module.model.register_forward_hook(lambda _, args, out: seen.update(out=out)),
            module.model.noise_level_encoding.register_forward_pre_hook(lambda _, args: seen.update(told=args[0])),
        ]
        torch.manual_seed(seed)
        loss, metrics = module.calc_loss(batch)
        for hook in hooks:
            hook.remove()
        return loss, metrics, seen["noisy"], seen["t"], seen["told"], seen["out"]

    return run


def in_mode(monkeypatch, *modes):
    """Makes the draw of the modes a matter of choice."""
    monkeypatch.setattr(Shares, "draw", lambda self, n, device: torch.tensor(modes[:n], device=device))


def always_shown(monkeypatch):
    """Hides nothing that is given."""
    monkeypatch.setattr("mattergen_e.diffusion.joint.P_HIDDEN", 0.0)


#: All sites of a crystal in the mode `given` have their descriptors given.
WHOLE = {"predict": 0.3, "given": 0.3, "whole": 1.0}


# -- shares -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [{"predict": -0.1}, {"given": -1e-9}, {"predict": 0.7, "given": 0.4}])
def test_impossible_shares(shares):
    with pytest.raises(UserError, match="shares 'predict' and 'given' must be at least 0 and add up to at most 1"):
        Shares(**shares)


@pytest.mark.parametrize("whole", [-0.01, 1.01])
def test_impossible_share_of_whole_crystals(whole):
    with pytest.raises(UserError, match="the share 'whole' is .*: give one from 0 to 1"):
        Shares(whole=whole)


@pytest.mark.parametrize(
    ("predict", "given"), [(0.3, 0.0), (0.25, 0.5), (0.0, 0.0), (1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]
)
def test_modes_come_in_the_shares_asked_for(predict, given):
    torch.manual_seed(0)
    n = 40_000
    mode = Shares(predict=predict, given=given).draw(n, torch.device("cpu"))
    for kind, share in ((PREDICT, predict), (GIVEN, given), (JOINT, 1 - predict - given)):
        assert abs(float((mode == kind).float().mean()) - share) <= 4 * math.sqrt(share * (1 - share) / n)


def test_condition_at_every_site_of_a_crystal():
    sites = torch.tensor([0, 0, 1, 3, 3, 3])
    condition = torch.tensor([True, True, False, True, False, True])
    # a crystal without sites has no site that misses it
    assert per_crystal_all(condition, sites, 5).tolist() == [True, False, True, False, True]


# -- what each mode does ----------------------------------------------------------------------------------------------


def test_modes(monkeypatch, make_joint, solids, to_batch, watched):
    """Crystals in all three modes side by side."""
    modes = [JOINT, PREDICT, GIVEN] * 3
    in_mode(monkeypatch, *modes)
    always_shown(monkeypatch)
    batch = to_batch(list(solids.values()))
    _, _, noisy, t, told, _ = watched(make_joint(shares=WHOLE).diffusion_module, batch)
    mode = torch.tensor(modes[: len(solids)])
    sites = batch.get_batch_idx("pos")
    kept = {
        "pos": torch.isclose(noisy["pos"], batch["pos"]).all(dim=1),
        "atomic_numbers": noisy["atomic_numbers"] == batch["atomic_numbers"],
        "bader_charge": (noisy["bader_charge"] == batch["bader_charge"]).all(dim=1),
    }
    assert kept["pos"][mode[sites] == PREDICT].all() and not kept["pos"][mode[sites] != PREDICT].any()
    assert torch.equal(noisy["pos"][mode[sites] == PREDICT], batch["pos"][mode[sites] == PREDICT])
    assert kept["atomic_numbers"][mode[sites] == PREDICT].all()
    assert not kept["atomic_numbers"][mode[sites] != PREDICT].all()
    assert torch.equal(kept["bader_charge"], mode[sites] == GIVEN)
    same_cell = (noisy["cell"] == batch["cell"]).flatten(1).all(dim=1)
    assert torch.equal(same_cell, mode == PREDICT)

    clean = torch.tensor(CLEAN_TIME)
    assert torch.equal(told, torch.where(mode == PREDICT, clean, t))
    assert torch.equal(noisy[STRUCTURE_TIME], told)
    assert torch.equal(noisy[time_key("bader_charge")], torch.where(mode == GIVEN, clean, t)[sites])
    assert t.min() > CLEAN_TIME and t.unique().numel() == len(t)


def test_predict_mode_trains_the_descriptor_alone(monkeypatch, make_joint, solids, to_batch, watched):
    in_mode(monkeypatch, *[PREDICT] * 8)
    _, metrics, *_ = watched(make_joint().diffusion_module, to_batch(list(solids.values())))
    assert all(metrics[name] == 0 for name in STRUCTURE)
    assert metrics["bader_charge"] > 0


def test_given_mode_trains_the_structure_alone(monkeypatch, make_joint, solids, to_batch, watched):
    in_mode(monkeypatch, *[GIVEN] * 8)
    _, metrics, *_ = watched(make_joint(shares=WHOLE).diffusion_module, to_batch(list(solids.values())))
    assert metrics["bader_charge"] == 0
    assert all(metrics[name] > 0 for name in STRUCTURE)


@pytest.mark.parametrize("hidden", [False, True])
def test_sites_are_given_one_by_one(monkeypatch, make_joint, solids, to_batch, watched, hidden):
    """Given sites are clean at time 0 or, hidden, noise at time 1; the others are noised like the structure."""
    in_mode(monkeypatch, *[GIVEN] * 8)
    monkeypatch.setattr("mattergen_e.diffusion.joint.P_HIDDEN", 1.0 if hidden else 0.0)
    module = make_joint(shares={"predict": 0.0, "given": 1.0, "whole": 0.0}).diffusion_module
    batch = to_batch(list(solids.values()))
    sites = batch.get_batch_idx("pos")
    shares = []
    for seed in range(20):
        _, _, noisy, t, _, _ = watched(module, batch, seed)
        given = noisy[given_key("bader_charge")]
        same = (noisy["bader_charge"] == batch["bader_charge"]).all(dim=1)
        assert torch.equal(same, torch.zeros_like(given) if hidden else given)
        expected = torch.where(given, torch.tensor(1.0 if hidden else CLEAN_TIME), t[sites])
        assert torch.equal(noisy[time_key("bader_charge")], expected)
        assert torch.equal(noisy[STRUCTURE_TIME], t)
        shares.append(float(given.float().mean()))
    assert 0.4 < np.mean(shares) < 0.6  # a share between 0 and 1 is drawn for each crystal


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_free_sites_of_a_crystal_teach_the_descriptor(monkeypatch, make_joint, solids, to_batch, watched, reduce):
    """The loss, of the noise itself, by hand: squares over the sites that are not given, averaged over crystals."""
    in_mode(monkeypatch, *[GIVEN] * 8)
    always_shown(monkeypatch)
    shares = {"predict": 0.0, "given": 1.0, "whole": 0.5}
    charge = BaderCharge(weighting="noise", scale=1.0)
    module = make_joint({"bader_charge": charge}, shares=shares).diffusion_module
    module.loss_fn.loss_fns["bader_charge"].loss.keywords["reduce"] = reduce
    batch = to_batch(list(solids.values()))
    loss, metrics, noisy, t, _, out = watched(module, batch)
    sites, free = batch.get_batch_idx("pos"), ~noisy[given_key("bader_charge")]
    assert 0 < int(free.sum()) < len(free)
    alpha, sigma = (torch.from_numpy(c)[sites, None] for c in signal_and_noise(t.numpy()))
    noise = (noisy["bader_charge"] - alpha * batch["bader_charge"]) / sigma
    squares = (out["bader_charge"] + noise).square()[:, 0] * free
    sums, counts = (torch.zeros(8, dtype=torch.double).index_add_(0, sites, x.double()) for x in (squares, free))
    per_crystal = sums[counts > 0] / (counts[counts > 0] if reduce == "mean" else 1.0)
    assert float(metrics["bader_charge"]) == pytest.approx(float(per_crystal.mean()), rel=1e-3)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_nothing_is_drawn_where_no_share_is_given(make_joint, solids, to_batch, watched):
    noisy = watched(make_joint().diffusion_module, to_batch(list(solids.values())))[2]
    assert given_key("bader_charge") not in noisy


def test_losses_are_averages_over_the_crystals_that_count(monkeypatch, make_joint, solids, to_batch, watched):
    """Half of the batch in predict mode must not halve the loss of the structure."""
    in_mode(monkeypatch, *[PREDICT, JOINT] * 4)
    module = make_joint({"dummy": Dummy(weighting="noise")}).diffusion_module
    base_losses = {name: fn.loss for name, fn in module.loss_fn.loss_fns.items()}
    batch = to_batch(list(solids.values()))
    _, metrics, noisy, t, _, out = watched(module, batch)
    counted = torch.tensor([False, True] * 4)
    for name in STRUCTURE:
        per_crystal = base_losses[name](
            corruption=module.corruption.corruptions[name],
            score_model_output=out[name],
            t=t,
            batch_idx=batch.get_batch_idx(name),
            batch_size=8,
            x=batch[name],
            noisy_x=noisy[name],
            batch=batch,
        )
        assert float(metrics[name]) == pytest.approx(float(per_crystal[counted].mean()), rel=1e-5)


# -- labels that are missing ------------------------------------------------------------------------------------------


def unlabelled(solids, to_batch, *names):
    structures = []
    for name, structure in solids.items():
        copy = structure.copy()
        if name in names:  # one missing site is enough
            copy.add_site_property("bader_charge", [math.nan, *copy.site_properties["bader_charge"][1:]])
        structures.append(copy)
    return to_batch(structures)


def test_crystals_without_labels_are_generated_without(monkeypatch, make_joint, solids, to_batch, watched):
    in_mode(monkeypatch, JOINT, PREDICT, GIVEN, JOINT, JOINT, PREDICT, GIVEN, JOINT)
    batch = unlabelled(solids, to_batch, "CsCl", "MgO", "ZnS")
    module = make_joint().train().diffusion_module
    loss, metrics, noisy, t, told, _ = watched(module, batch)
    known, sites = torch.tensor([True, False, False, False, True, True, True, True]), batch.get_batch_idx("pos")
    assert torch.equal(noisy[known_key("bader_charge")], known)
    assert noisy[MODE].tolist() == [JOINT, JOINT, JOINT, JOINT, JOINT, PREDICT, GIVEN, JOINT]
    assert torch.equal(noisy[time_key("bader_charge")], torch.where(known, t, 1.0)[sites])
    assert torch.equal(told[~known], t[~known])
    assert loss.isfinite() and all(value.isfinite() for value in metrics.values())
    loss.backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), key
    assert module.joint_fields.heads["bader_charge"][-1].weight.grad.abs().sum() > 0


def test_full_noise_of_missing_labels_is_standard_normal(make_joint, solids, to_batch, watched):
    batch = unlabelled(solids, to_batch, *solids)
    module = make_joint().diffusion_module
    values = torch.cat([watched(module, batch, seed)[2]["bader_charge"] for seed in range(60)])
    n = len(values)
    assert abs(values.mean()) < 4 / math.sqrt(n)
    assert abs(values.var() - 1) < 4 * math.sqrt(2 / n)


def test_batch_without_any_label_trains_the_structure(make_joint, solids, to_batch, watched):
    batch = unlabelled(solids, to_batch, *solids)
    model = make_joint(shares={"predict": 1.0}).train()
    loss, metrics, *_ = watched(model.diffusion_module, batch)
    assert metrics["bader_charge"] == 0 and loss.isfinite()
    assert all(metrics[name] > 0 for name in STRUCTURE)
    loss.backward()
    head = model.diffusion_module.joint_fields.heads["bader_charge"]
    assert all(p.grad is None or not p.grad.any() for p in head.parameters())


def test_one_descriptor_known_and_another_not(monkeypatch, make_joint, solids, to_batch, watched):
    in_mode(monkeypatch, *[PREDICT] * 8)
    batch = unlabelled(solids, to_batch, *solids)
    module = make_joint({"bader_charge": BaderCharge(), "dummy": Dummy()}).diffusion_module
    _, metrics, noisy, *_ = watched(module, batch)
    assert (noisy[MODE] == PREDICT).all()
    assert metrics["bader_charge"] == 0 and metrics["dummy"] > 0
    assert all(metrics[name] == 0 for name in STRUCTURE)


def test_data_without_the_field_is_a_sentence(make_joint, solids, to_batch):
    batch = to_batch(list(solids.values()), fields=())
    with pytest.raises(UserError, match="no site values 'bader_charge': build the cache"):
        make_joint().diffusion_module.calc_loss(batch)


# -- losses by hand ---------------------------------------------------------------------------------------------------


def by_hand(batch, noisy, out, t, name, scale, weighting):
    """Loss per crystal with numpy: squared error of the noise, or of the velocity alpha eps - sigma x0."""
    sites = batch.get_batch_idx("pos").numpy()
    alpha, sigma = (c[sites, None] for c in signal_and_noise(t.numpy().astype(float)))
    x0 = batch[name].numpy().astype(float) / scale
    xt = noisy[name].numpy().astype(float)
    predicted = -out[name].detach().numpy().astype(float)
    noise = (xt - alpha * x0) / sigma
    if weighting == "noise":
        errors = (predicted - noise) ** 2
    else:
        errors = ((predicted - sigma * xt) / alpha - (alpha * noise - sigma * x0)) ** 2
    return np.bincount(sites, weights=errors.mean(axis=1))  # mean over components, sum over sites


@pytest.mark.parametrize("weighting", ["noise", "velocity"])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_loss_of_the_descriptor(make_joint, solids, to_batch, watched, weighting, scale):
    descriptor = BaderCharge(weighting=weighting, scale=scale)
    module = make_joint({"bader_charge": descriptor}, shares={"predict": 0.5}).diffusion_module
    batch = to_batch(list(solids.values()))
    for seed in range(3):
        _, metrics, noisy, t, _, out = watched(module, batch, seed)
        expected = by_hand(batch, noisy, out, t, "bader_charge", scale, weighting)
        assert float(metrics["bader_charge"]) == pytest.approx(expected.mean(), rel=2e-3)


def test_noise_is_standard_normal(make_joint, solids, to_batch, watched):
    """What stands beside alpha x0 in the noisy charges, with alpha and sigma of eq. 2 and 3, is unit noise."""
    module = make_joint().diffusion_module
    batch = to_batch(list(solids.values()))
    sites = batch.get_batch_idx("pos").numpy()
    noise = []
    for seed in range(60):
        _, _, noisy, t, *_ = watched(module, batch, seed)
        alpha, sigma = (c[sites, None] for c in signal_and_noise(t.numpy().astype(float)))
        noise.append((noisy["bader_charge"].numpy() - alpha * batch["bader_charge"].numpy()) / sigma)
    noise = np.concatenate(noise)
    assert abs(noise.mean()) < 4 / math.sqrt(len(noise))
    assert abs(noise.var() - 1) < 4 * math.sqrt(2 / len(noise))


def test_several_components_are_averaged(make_joint, solids, to_batch, watched):
    structures = []
    rng = np.random.default_rng(0)
    for structure in solids.values():
        copy = structure.copy()
        copy.add_site_property("dos", rng.normal(size=(len(copy), 5)).tolist())
        structures.append(copy)
    batch = to_batch(structures, fields=("dos",))
    module = make_joint({"dos": Descriptor(name="dos", dim=5)}).diffusion_module
    _, metrics, noisy, t, _, out = watched(module, batch)
    assert noisy["dos"].shape == (len(batch["pos"]), 5)
    expected = by_hand(batch, noisy, out, t, "dos", 1.0, "velocity")
    assert float(metrics["dos"]) == pytest.approx(expected.mean(), rel=2e-3)


def test_weights_of_the_terms(make_joint, solids, to_batch, watched):
    """MatterGen's weights of the structure (cell 1, pos 0.1, types 1) and each descriptor's own (eq. 4 and 5)."""
    descriptors = {"bader_charge": BaderCharge(loss_weight=3.0), "dummy": Dummy(loss_weight=0.25)}
    loss, metrics, *_ = watched(make_joint(descriptors).diffusion_module, to_batch(list(solids.values())))
    weights = {"cell": 1.0, "pos": 0.1, "atomic_numbers": 1.0, "bader_charge": 3.0, "dummy": 0.25}
    assert set(metrics) == set(weights)
    assert float(loss) == pytest.approx(sum(weights[name] * float(metrics[name]) for name in weights), rel=1e-5)


def test_descriptor_without_weight_leaves_mattergens_loss(monkeypatch, make_module, make_joint, solids, to_batch):
    """Bit by bit, where the same random numbers reach the structure: the descriptor draws its own after them."""
    in_mode(monkeypatch, *[JOINT] * 8)  # the modes need no random numbers then
    structures = [s.copy() for s in solids.values()]
    for structure in structures:
        structure.add_site_property("zz", [1.0] * len(structure))
    batch = to_batch(structures, fields=("zz",))
    base = make_module()
    joint = make_joint(
        {"zz": Descriptor(name="zz", loss_weight=0.0)}, fresh=True, shares={"predict": 0.0}
    ).diffusion_module
    for seed in range(3):
        torch.manual_seed(seed)
        expected, parts = base.calc_loss(batch)
        torch.manual_seed(seed)
        found, metrics = joint.calc_loss(batch)
        assert torch.equal(found, expected)
        assert all(torch.equal(metrics[name], parts[name]) for name in STRUCTURE)


# -- attaching --------------------------------------------------------------------------------------------------------


def test_without_descriptors_it_trains_as_mattergen_does(make_module, solids, to_batch):
    """Nothing is attached: the same loss for the same random numbers, and one step of it changes the weights."""
    batch, losses = to_batch(list(solids.values()), ()), []
    for make in (DiffusionLightningModule, JointDiffusionLightningModule):
        extra = {"descriptors": {}} if make is JointDiffusionLightningModule else {}
        model = make(diffusion_module=make_module(), optimizer_partial=partial(torch.optim.SGD, lr=1e-3), **extra)
        torch.manual_seed(0)
        losses.append(model.diffusion_module.calc_loss(batch)[0])
    assert torch.equal(*losses)
    assert not hasattr(model.diffusion_module, "joint_fields") and MODE not in batch
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = model.configure_optimizers()
    losses[1].backward()
    optimizer.step()
    assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", STRUCTURE)
def test_name_of_the_structure_is_taken(make_module, name):
    with pytest.raises(UserError, match=f"descriptor name '{name}' is taken"):
        JointDiffusionLightningModule(diffusion_module=make_module(), descriptors={name: Descriptor(name=name)})


def test_attach_only_once(make_joint):
    module = make_joint().diffusion_module
    with pytest.raises(UserError, match="has descriptors already"):
        attach(module, {"dummy": Dummy()}, Shares())


def test_impossible_shares_in_a_recipe(make_module):
    with pytest.raises(UserError, match="add up to at most 1"):
        JointDiffusionLightningModule(
            diffusion_module=make_module(), descriptors={"dummy": Dummy()}, shares={"predict": 2.0}
        )


def test_key_is_the_name(make_module):
    model = JointDiffusionLightningModule(diffusion_module=make_module(), descriptors={"mine": BaderCharge()})
    assert model.descriptors["mine"].name == "mine"
    assert "mine" in model.diffusion_module.corruption.sdes
    assert "mine" in model.diffusion_module.model_targets


def test_recipes_make_the_same_model(compose, make_joint):
    """Composed and built by Hydra from configs/joint_scratch.yaml, with MatterGen's settings."""
    from hydra.utils import instantiate

    recipe = compose("joint_scratch", "data_module.root_dir=unused", "descriptors=[bader,dummy]")
    small = recipe.lightning_module.diffusion_module.model
    small.hidden_dim = 16
    small.gemnet.num_blocks = 1
    model = instantiate(recipe.lightning_module)
    assert isinstance(model, JointDiffusionLightningModule)
    assert model.descriptors == {"bader_charge": BaderCharge(), "dummy": Dummy()}
    weights = model.diffusion_module.loss_fn.loss_weights
    assert weights == {"cell": 1.0, "pos": 0.1, "atomic_numbers": 1.0, "bader_charge": 1.0, "dummy": 1.0}
    assert model.diffusion_module.pre_corruption_fn.shares == Shares(predict=0.3, given=0.0)
    optimizers, schedulers = model.configure_optimizers()
    trained = {id(p) for group in optimizers[0].param_groups for p in group["params"]}
    assert {id(p) for p in model.parameters()} == trained
    assert len(schedulers) == 1
    assert dict(model.hparams) == {}  # nothing in a checkpoint but weights and plain data


# -- recipes of spectra


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("dos_joint", ["atomic_dos"]),
        ("bader_dos_joint", ["bader_charge", "atomic_dos"]),
        ("dummy_joint", ["dummy"]),
    ],
)
@pytest.mark.parametrize("properties", [[], ["dft_band_gap"], ["dft_band_gap", "formation_energy_per_atom"]])
def test_recipes_differ_in_their_descriptors_only(compose, name, fields, properties):
    words = ["data_module.root_dir=unused", f"adapter_property=[{','.join(properties)}]"]
    recipe, other = compose(name, *words), compose("bader_joint", *words)
    assert list(recipe.lightning_module.descriptors) == fields
    assert list(recipe.adapter.adapter.property_embeddings_adapt) == list(recipe.data_module.properties) == properties
    for config in (recipe, other):
        del config.lightning_module.descriptors
        del config.data_module.train_dataset.descriptors
        del config.data_module.val_dataset.descriptors
    assert recipe == other


def test_recipe_has_the_descriptor_of_the_class(compose):
    from hydra.utils import instantiate

    descriptors = compose("dos_joint", "data_module.root_dir=unused").lightning_module.descriptors
    (made,) = instantiate(descriptors, _convert_="all").values()
    assert made == AtomicDos()


# -- an autoencoder in the model


def test_weights_of_mattergen_keep_their_names(make_joint, make_module, make_dos):
    plain, joint = make_module().state_dict(), make_joint({"atomic_dos": make_dos()}).diffusion_module.state_dict()
    assert set(plain) <= set(joint)
    added = {name for name in joint if not name.startswith("joint_fields.")} - set(plain)
    assert not added
    assert [name for name in joint if name.endswith(".autoencoder")] == [
        "joint_fields.companions.atomic_dos.autoencoder"
    ]


def test_models_without_spectra_have_the_state_that_they_had(make_joint):
    assert not any("companions" in name for name in make_joint().state_dict())


def test_checkpoint_brings_the_autoencoder(make_joint, make_dos):
    trained, fresh = make_joint({"atomic_dos": make_dos()}), make_joint({"atomic_dos": AtomicDos(dim=4)})
    fresh.load_state_dict(trained.state_dict(), strict=True)
    found = fresh.descriptors["atomic_dos"].of_model()
    assert found.fingerprint == trained.descriptors["atomic_dos"].of_model().fingerprint


def test_autoencoder_is_not_trained(make_joint, make_dos):
    with_one, without = make_joint({"atomic_dos": make_dos()}), make_joint({"atomic_dos": AtomicDos(dim=4)})
    assert [name for name, _ in with_one.named_parameters()] == [name for name, _ in without.named_parameters()]


def test_sites_without_spectra_leave_their_crystal_unlabelled(make_joint, make_dos, solids, to_batch):
    model = make_joint({"atomic_dos": make_dos(scale=0.5)})
    batch = to_batch([solids["NaCl"], solids["MgO"]], fields=())
    latents = torch.tensor([[0.1, -0.2, 0.3, 0.4]]).repeat(4, 1)
    latents[1] = torch.nan
    prepared = model.diffusion_module.pre_corruption_fn(batch.replace(atomic_dos=latents))
    assert prepared["atomic_dos_known"].tolist() == [False, True]
    assert torch.allclose(prepared["atomic_dos"][2:], 2 * latents[2:])
    assert not prepared["atomic_dos"][:2].any()
