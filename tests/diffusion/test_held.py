"""What is held while the rest is generated: every constraint is exact in the result, and the others are not touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mattergen_e.crystals.graphs import to_graph
from mattergen_e.descriptors import BaderCharge, Descriptor
from mattergen_e.diffusion.fields import time_key
from mattergen_e.diffusion.held import ClampedDescriptor, FixedTypes, Held, SiteTargets, Template
from mattergen_e.diffusion.joint import CLEAN_TIME
from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader

SIZES = [2, 5, 3, 8]
FIRST = np.cumsum([0, *SIZES[:-1]])


@pytest.fixture(scope="module")
def conditions():
    def make(sizes=SIZES):
        return ConditionLoader(len(sizes), len(sizes)).make(np.array(sizes))

    return make


def sample(sampler, conditions, seed=0):
    torch.manual_seed(seed)
    return sampler.sample(conditions)


def totals(batch, name="bader_charge"):
    return np.bincount(batch.get_batch_idx("pos").numpy(), weights=batch[name][:, 0].double().numpy())


def clamp(values, scale=1.0, clean=False):
    descriptor = BaderCharge(scale=scale)
    return ClampedDescriptor(descriptor, {site: torch.tensor([v]) / scale for site, v in values.items()}, clean=clean)


def states(sampler):
    """Every batch that the network is given, with its time."""
    seen, original = [], sampler._diffusion_module.score_fn

    def watched(x, t):
        seen.append((x, float(t[0])))
        return original(x, t)

    sampler._diffusion_module.score_fn = watched
    return seen


# -- types ------------------------------------------------------------------------------------------------------------


def test_fixed_types_are_there_at_every_step_and_at_the_end(make_joint, make_sampler, conditions):
    sampler = make_sampler(make_joint(), constraints=Held(types=FixedTypes({1: 27, 0: 8})))
    seen = states(sampler)
    last, mean = sample(sampler, conditions())
    assert len(seen) == 2 * sampler.N
    for batch in (last, mean, *(x for x, _ in seen)):
        assert batch["atomic_numbers"][FIRST].tolist() == [8] * 4
        assert batch["atomic_numbers"][FIRST + 1].tolist() == [27] * 4
    # the others start masked: type 101
    others = np.setdiff1d(np.arange(sum(SIZES)), [*FIRST, *FIRST + 1])
    assert (seen[0][0]["atomic_numbers"][others] == 101).all()


def test_with_nothing_held_the_crystals_are_the_same(make_joint, make_sampler, conditions):
    model = make_joint()
    _, expected = sample(make_sampler(model), conditions())
    _, found = sample(make_sampler(model, constraints=Held()), conditions())
    for name in ("pos", "cell", "atomic_numbers", "bader_charge"):
        assert torch.equal(found[name], expected[name])


def test_too_few_sites(make_joint, make_sampler, conditions):
    sampler = make_sampler(make_joint(), constraints=Held(types=FixedTypes({2: 8})))
    with pytest.raises(UserError, match="site 2 is constrained, but a crystal of 2 sites was asked for"):
        sample(sampler, conditions())


# -- descriptors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_clamped_charges_are_exact_and_the_free_sites_make_the_crystal_neutral(
    make_joint, make_sampler, conditions, guidance
):
    model = make_joint(adapter=True)
    sampler = make_sampler(model, constraints=Held(clamped={"bader_charge": clamp({0: 1.25})}), guidance_scale=guidance)
    for batch in sample(sampler, conditions()):
        assert batch["bader_charge"][FIRST, 0].tolist() == [1.25] * 4
        assert np.abs(totals(batch)).max() < 1e-5
        assert batch["bader_charge"].isfinite().all()


def test_the_same_after_a_crystal_was_parked(make_joint, make_sampler, conditions, collapse):
    held = Held(types=FixedTypes({0: 8}), clamped={"bader_charge": clamp({1: -0.5})})
    sampler = make_sampler(make_joint(), constraints=held)
    collapse(sampler)
    _, mean = sample(sampler, conditions())
    assert sampler.guard.parked.tolist() == [False, True, False, False]
    assert mean["bader_charge"][FIRST + 1, 0].tolist() == [-0.5] * 4
    assert mean["atomic_numbers"][FIRST].tolist() == [8] * 4


def test_clamped_values_are_on_the_way_as_the_training_has_them(make_joint, make_sampler, conditions):
    """Noised to the common time: mean alpha x and deviation sigma over many sites, as of the forward process."""
    values = dict.fromkeys(range(400), 3.0)
    held = Held(clamped={"bader_charge": clamp(values)})
    held.begin(conditions([401]))
    sde = BaderCharge().corruption()
    for t in (0.9, 0.5, 0.1):
        torch.manual_seed(1)
        x = held.clamped["bader_charge"].hold(torch.zeros(401, 1), t)[:400]
        alpha, sigma = (float(v) for v in sde.mean_coeff_and_std(x=torch.zeros(1), t=torch.tensor([t])))
        assert float(x.mean()) == pytest.approx(3.0 * alpha, abs=4 * sigma / 20)
        assert float(x.std()) == pytest.approx(sigma, rel=0.15)


def test_neutrality_by_hand():
    """Charges 1, 2 | 0.5, 0, -0.2; the first of each is clamped; half of the excess goes to the free ones."""
    x = torch.tensor([[1.0], [2.0], [0.5], [0.0], [-0.2]])
    sites, free = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([False, True, False, True, True])
    charge = BaderCharge(neutrality_power=1.0, reference_steps=10)
    half = charge.after_step_free(x, free, s=0.5, ds=0.1, batch_idx=sites)
    assert half[:, 0].tolist() == pytest.approx([1.0, 0.5, 0.5, -0.075, -0.275])
    whole = charge.after_step_free(x, free, s=1.0, ds=0.1, batch_idx=sites)
    assert whole[:, 0].tolist() == pytest.approx([1.0, -1.0, 0.5, -0.15, -0.35])


def test_other_descriptors_are_constrained_site_by_site(make_dos):
    x = torch.full((2, 4), 30.0)
    free = torch.tensor([True, False])
    after = make_dos().after_step_free(x, free, s=1.0, ds=0.1, batch_idx=torch.zeros(2, dtype=torch.long))
    assert torch.equal(after[1], x[1]) and (make_dos().decode(after[0]).abs() < 1).all()


def test_one_of_two_descriptors(make_joint, make_sampler, conditions):
    descriptors = {"bader_charge": BaderCharge(), "dos": Descriptor(name="dos", dim=3)}
    latents = torch.tensor([0.1, -0.2, 0.3])
    held = Held(clamped={"dos": ClampedDescriptor(descriptors["dos"], {1: latents}, clean=True)})
    _, mean = sample(make_sampler(make_joint(descriptors), constraints=held), conditions())
    assert torch.equal(mean["dos"][FIRST + 1], latents.expand(4, 3))
    assert not torch.equal(mean["dos"][FIRST], latents.expand(4, 3))
    assert np.abs(totals(mean)).max() < 1e-5


@pytest.mark.parametrize("trained", [False, True])
def test_given_sites(make_joint, make_sampler, conditions, trained):
    """A model that has learned it is told that the values of a site are clean; another one sees them noised."""
    held = Held(clamped={"bader_charge": clamp({1: -0.8}, clean=trained)})
    sampler = make_sampler(make_joint(), constraints=held)
    seen = states(sampler)
    _, mean = sample(sampler, conditions([2, 3]))
    assert mean["bader_charge"][:, 0].tolist()[1::2] == pytest.approx([-0.8, -0.8])
    assert np.abs(totals(mean)).max() < 1e-5
    for x, t in seen:
        clean = x["bader_charge"][[1, 3], 0].tolist() == pytest.approx([-0.8] * 2)
        assert clean is trained
        if trained:
            assert x[time_key("bader_charge")].tolist() == pytest.approx([t, CLEAN_TIME, t, CLEAN_TIME, t])
        else:
            assert time_key("bader_charge") not in x


def test_what_is_given_is_hidden_from_the_unconditional_half_of_a_guidance(make_joint, make_sampler, conditions):
    model = make_joint()
    for factor, halves in ((0.0, 1), (1.0, 1), (2.0, 2)):
        held = Held(clamped={"bader_charge": clamp({1: -0.8}, clean=True)})
        sampler = make_sampler(model, constraints=held, guidance_scale=factor)
        model.diffusion_module.__dict__.pop("score_fn", None)  # the last sampler's watch
        seen = states(sampler)
        sample(sampler, conditions([3]))
        assert len(seen) == 2 * sampler.N * halves
        shown = [float(x["bader_charge"][1]) == pytest.approx(-0.8) for x, _ in seen]
        assert shown == [True, False][:halves] * (2 * sampler.N)
        for (x, t), told in zip(seen, shown, strict=True):
            times = [t, CLEAN_TIME if told else 1.0, t]
            assert x[time_key("bader_charge")].tolist() == pytest.approx(times)


def test_guidance_of_what_is_given_is_that_mixture_of_scores(make_joint, make_sampler, conditions):
    """(1 + omega) s(x | given) - omega s(x), with one noise for what is hidden."""
    model = make_joint(shares={"given": 0.2})
    held = Held(clamped={"bader_charge": clamp({0: 0.7}, clean=True)})
    sampler = make_sampler(model, constraints=held, omega=1.5)
    batch = sampler.with_fields(held.begin(conditions([4, 4])))
    torch.manual_seed(3)
    batch = batch.replace(
        pos=torch.rand(8, 3), cell=4 * torch.eye(3).repeat(2, 1, 1), atomic_numbers=torch.full((8,), 8)
    )
    t = torch.full((2,), 0.5)
    sampler.guard.begin(batch["num_atoms"])
    with torch.no_grad():
        torch.manual_seed(4)
        mixed = sampler._score_fn(batch, t)
        told = held.before_score(batch, t)
        torch.manual_seed(4)
        given, free = (model.diffusion_module.score_fn(x, t) for x in (told, held.hide(told)))
    assert not torch.allclose(given["pos"], free["pos"], rtol=1e-3)
    for name in ("pos", "cell", "bader_charge"):
        assert torch.allclose(mixed[name], 2.5 * given[name] - 1.5 * free[name], rtol=1e-4, atol=1e-4)


# -- templates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "steps"), [(0.2, 4), (0.35, 7), (0.5, 10), (1.0, 20)])
def test_template_takes_the_last_steps_of_the_whole_pass(make_joint, make_sampler, conditions, solids, share, steps):
    """Of N = 20: the times are those of the whole pass from there on, and N is as before afterwards."""
    model = make_joint(steps=20)
    template = Template(to_graph(solids["BaTiO3"]), share, model)
    sampler = make_sampler(model, constraints=Held(template=template))
    seen = states(sampler)
    seen.clear()
    _, mean = sample(sampler, conditions([5, 5]))
    assert sampler.N == 20 and sampler._max_t == 1.0
    times = sorted({round(t, 5) for x, t in seen if "structure_time" not in x}, reverse=True)
    assert times == pytest.approx((1.0 - np.arange(20 - steps, 20) / 20).tolist(), abs=1e-4)
    assert np.abs(totals(mean)).max() < 1e-5


def test_template_is_noised_by_the_models_own_corruption(make_joint, make_sampler, conditions, solids):
    """At a small time positions and cell are nearly the template's, the sites in its order; at the end of time not."""
    model = make_joint(steps=100)
    crystal = solids["BaTiO3"]
    batch = conditions([5] * 60).replace(bader_charge=torch.zeros(300, 1))
    batch = batch.replace(bader_charge_batch=batch.get_batch_idx("pos"))
    clean = to_graph(crystal)
    shares = []
    for t in (0.01, 0.5, 1.0):
        torch.manual_seed(0)
        noisy = Template(clean, t, model).noised(batch, t)
        kept = noisy["atomic_numbers"].reshape(60, 5) == torch.tensor(crystal.atomic_numbers)
        shares.append(float(kept.float().mean()))
        near = float((noisy["cell"] - clean["cell"]).abs().max())
        assert (near < 0.5) == (t == 0.01)
    # a type survives to step k of N with probability 1 - k / N
    assert shares == pytest.approx([0.98, 0.5, 0.0], abs=0.1)


def test_fixed_types_and_clamped_charges_replace_those_of_the_template(make_joint, make_sampler, conditions, solids):
    model = make_joint(steps=20)
    held = Held(
        types=FixedTypes({4: 16}),
        clamped={"bader_charge": clamp({0: 1.5})},
        template=Template(to_graph(solids["BaTiO3"]), 0.3, model),
    )
    _, mean = sample(make_sampler(model, constraints=held), conditions([5, 5, 5]))
    assert mean["atomic_numbers"][4::5].tolist() == [16] * 3
    assert mean["bader_charge"][::5, 0].tolist() == [1.5] * 3
    assert np.abs(totals(mean)).max() < 1e-5


def test_template_of_another_size(make_joint, make_sampler, conditions, solids):
    model = make_joint()
    sampler = make_sampler(model, constraints=Held(template=Template(to_graph(solids["NaCl"]), 0.5, model)))
    with pytest.raises(UserError, match="the template has 2 sites, but crystals of other sizes were asked for"):
        sample(sampler, conditions())


# -- what sites are told ----------------------------------------------------------------------------------------------


def test_targets_reach_their_sites_only(conditions):
    held = Held(targets=[SiteTargets("tone", {1: torch.tensor([1.0, 2.0])})])
    batch = held.begin(conditions())
    assert torch.equal(batch["tone_values"][FIRST + 1], torch.tensor([[1.0, 2.0]] * 4))
    told = torch.zeros(sum(SIZES), dtype=torch.bool)
    told[FIRST + 1] = True
    assert torch.equal(batch["tone_told"], told) and batch["tone"].tolist() == [[1.0]] * 4
    assert (batch["tone_values"][~told] == 0).all()
