"""The whole loop in few network calls: with everything that the loop of MatterGen does."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from mattergen.common.utils.globals import SELECTED_ATOMIC_NUMBERS
from mattergen.diffusion.lightning_module import DiffusionLightningModule
from torch.utils._python_dispatch import TorchDispatchMode

import mattergen_e.diffusion.sampler as sampler_module
from mattergen_e.crystals.graphs import to_graph
from mattergen_e.descriptors import BaderCharge, Descriptor
from mattergen_e.diffusion.elements import ElementRules, Elements
from mattergen_e.diffusion.fast import FastSampler
from mattergen_e.diffusion.fields import time_key
from mattergen_e.diffusion.held import ClampedDescriptor, FixedTypes, Held, Template
from mattergen_e.diffusion.joint import CLEAN_TIME
from mattergen_e.diffusion.placed import HeldCell, HeldPositions
from mattergen_e.generation.conditions import ConditionLoader

SIZES = [2, 5, 3, 8]
FIRST = np.cumsum([0, *SIZES[:-1]])
FIELDS = ("pos", "cell", "atomic_numbers")


@pytest.fixture(scope="module")
def conditions():
    def make(sizes=SIZES, **properties):
        return ConditionLoader(len(sizes), len(sizes), properties=properties).make(np.array(sizes))

    return make


@pytest.fixture(scope="module")
def make_fast(make_sampler):
    def make(model, steps=12, **changes):
        sampler = make_sampler(model, steps=steps, **changes)
        assert isinstance(sampler, FastSampler)
        return sampler

    return make


@pytest.fixture(scope="module")
def model(make_joint):
    return make_joint()


@pytest.fixture(scope="module")
def adapter(make_joint):
    return make_joint(adapter=True)


def sample(sampler, conditions, seed=0):
    torch.manual_seed(seed)
    return sampler.sample(conditions)


def totals(batch):
    return np.bincount(batch.get_batch_idx("pos").numpy(), weights=batch["bader_charge"][:, 0].double().numpy())


def states(sampler, monkeypatch):
    """Every batch that the network is given, with its time."""
    module = sampler._diffusion_module
    seen, original = [], module.score_fn

    def watched(x, t):
        seen.append((x, float(t[0])))
        return original(x, t)

    monkeypatch.setattr(module, "score_fn", watched)
    return seen


@pytest.mark.parametrize("steps", [1, 2, 12, 30])
def test_one_network_call_a_step_and_neutral_charges_at_the_end(model, make_fast, conditions, monkeypatch, steps):
    """More calls than the ten steps of the training will do as well."""
    sampler = make_fast(model, steps)
    seen = states(sampler, monkeypatch)
    last, mean = sample(sampler, conditions())
    assert [t for _, t in seen] == pytest.approx([(1 - i / steps) ** 1.5 for i in range(steps)])
    for batch in (last, mean):
        assert np.abs(totals(batch)).max() < 1e-5
        assert all(batch[name].isfinite().all() for name in ("pos", "cell", "bader_charge"))
    assert mean["bader_charge"].std() > 0.01 and mean["num_atoms"].tolist() == SIZES
    assert set(mean["atomic_numbers"].tolist()) <= set(SELECTED_ATOMIC_NUMBERS)
    assert (mean["pos"] >= 0).all() and (mean["pos"] < 1).all()
    assert torch.allclose(mean["cell"], mean["cell"].mT, atol=1e-4)


def test_same_seed_same_crystals(model, make_fast, conditions):
    sampler = make_fast(model)
    first, again, other = (sample(sampler, conditions(), seed)[1] for seed in (1, 1, 2))
    for name in (*FIELDS, "bader_charge"):
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


def test_eta_by_field_reaches_its_field(model, make_fast, conditions):
    """Without new noise the rest of the randomness is the start; with it, other crystals come of the same seed."""
    plain, cell = (
        sample(make_fast(model, 3, eta=eta), conditions())[1] for eta in ({"default": 1.0}, {"default": 1.0, "cell": 0})
    )
    assert not torch.equal(plain["cell"], cell["cell"])
    assert make_fast(model, 3, eta={"default": 1.0, "cell": 0}).plan.eta_of("bader_charge") == 1.0


def test_model_without_descriptors(make_module, make_fast, conditions):
    sampler = make_fast(DiffusionLightningModule(diffusion_module=make_module()))
    _, mean = sample(sampler, conditions())
    assert mean["pos"].isfinite().all() and "bader_charge" not in mean


def test_recipe_and_switch(compose):
    joint, fast = (compose(name, sampling=True).sampler_partial for name in ("joint", "fast"))
    assert joint.steps is None and fast.steps == 50
    assert {k: v for k, v in joint.items() if k != "steps"} == {k: v for k, v in fast.items() if k != "steps"}


def test_trajectories_have_a_state_a_call(model, make_fast, conditions):
    sampler = make_fast(model, 4)
    _, mean, steps = sampler.sample_with_record(conditions())
    assert len(steps) == 4 and all(s["bader_charge"].shape == mean["bader_charge"].shape for s in steps)


# -- guidance ---------------------------------------------------------------------------------------------------------


def test_guidance(adapter, make_fast, conditions):
    found = {}
    for scale in (0.0, 1.0, 2.0):
        sampler = make_fast(adapter, guidance_scale=scale)
        low, high = (sample(sampler, conditions(dft_band_gap=gap))[1] for gap in (0.0, 5.0))
        assert np.abs(totals(low)).max() < 1e-5
        assert torch.equal(low["bader_charge"], high["bader_charge"]) is (scale == 0)
        found[scale] = low["pos"]
    assert not torch.equal(found[1.0], found[2.0])


def test_guidance_searches_for_neighbours_once(adapter, make_fast, conditions, monkeypatch):
    """And the crystals are those of two searches, to the last bit."""
    gemnet = adapter.diffusion_module.model.gemnet
    kind, calls = type(gemnet), []
    original = kind.generate_interaction_graph

    def counted(self, *arguments):
        calls.append(None)
        return original(self, *arguments)

    monkeypatch.setattr(kind, "generate_interaction_graph", counted)
    sampler = make_fast(adapter, 5, guidance_scale=2.0)
    _, found = sample(sampler, conditions(dft_band_gap=2.0))
    assert len(calls) == 5 and "generate_interaction_graph" not in vars(gemnet)
    monkeypatch.setattr(sampler_module, "shared_graph", lambda gemnet: nullcontext())
    _, expected = sample(sampler, conditions(dft_band_gap=2.0))
    assert len(calls) == 15
    for name in (*FIELDS, "bader_charge"):
        assert torch.equal(found[name], expected[name])


# -- what is held -----------------------------------------------------------------------------------------------------


def clamp(values, clean=False):
    return ClampedDescriptor(BaderCharge(), {site: torch.tensor([v]) for site, v in values.items()}, clean=clean)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_what_is_held_is_exact_at_twelve_steps(adapter, make_fast, conditions, monkeypatch, trained, guidance):
    held = Held(types=FixedTypes({1: 27}), clamped={"bader_charge": clamp({0: 1.25}, clean=trained)})
    sampler = make_fast(adapter, constraints=held, guidance_scale=guidance)
    seen = states(sampler, monkeypatch)
    for batch in (*sample(sampler, conditions(dft_band_gap=1.0)), *(x for x, _ in seen)):
        assert batch["atomic_numbers"][FIRST + 1].tolist() == [27] * 4
    for batch in sample(sampler, conditions(dft_band_gap=1.0)):
        assert batch["bader_charge"][FIRST, 0].tolist() == [1.25] * 4
        assert np.abs(totals(batch)).max() < 1e-5
    for x, t in seen:
        told = time_key("bader_charge") in x and float(x[time_key("bader_charge")][0]) < t
        assert (float(x["bader_charge"][0]) == 1.25) is told
        assert not told or float(x[time_key("bader_charge")][0]) == pytest.approx(CLEAN_TIME)


def test_clamped_charges_are_noised_to_the_time_of_the_step(model, make_fast, conditions, monkeypatch):
    """1,500 given sites: mean alpha q and deviation sigma at the time that the network is told."""
    held = Held(clamped={"bader_charge": clamp(dict.fromkeys(range(1500), 3.0))})
    sampler = make_fast(model, 3, times=1, constraints=held)
    seen = []

    def score(x, t):
        seen.append((x["bader_charge"][:1500, 0], float(t[0])))
        return x.replace(atomic_numbers=torch.zeros(len(x["pos"]), 101))

    monkeypatch.setattr(sampler, "_score_fn", score)
    sample(sampler, conditions([1501]))
    sde = BaderCharge().corruption()
    assert [t for _, t in seen] == pytest.approx([1, 2 / 3, 1 / 3])
    for x, t in seen[:1]:
        alpha, sigma = (float(v) for v in sde.mean_coeff_and_std(x=torch.zeros(1), t=torch.tensor([t])))
        assert float(x.mean()) == pytest.approx(3.0 * alpha, abs=5 * sigma / 1500**0.5)
        assert float(x.std()) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize(("share", "calls"), [(0.2, 9), (0.5, 16), (1.0, 24)])
def test_template_takes_the_last_times_of_the_plan(model, make_fast, conditions, solids, monkeypatch, share, calls):
    sampler = make_fast(model, 24, constraints=Held(template=Template(to_graph(solids["BaTiO3"]), share, model)))
    seen = states(sampler, monkeypatch)
    _, mean = sample(sampler, conditions([5, 5]))
    times = [t for x, t in seen if "structure_time" not in x]
    assert times[0] == pytest.approx(share) and len(times) == calls
    assert times[1:] == pytest.approx([(1 - i / 24) ** 1.5 for i in range(25 - calls, 24)])
    assert np.abs(totals(mean)).max() < 1e-5


def test_a_late_template_is_nearly_itself(make_joint, make_fast, conditions, solids):
    crystal, model = solids["BaTiO3"], make_joint(steps=1000)
    held = Held(template=Template(to_graph(crystal), 0.001, model))
    _, mean = sample(make_fast(model, constraints=held), conditions([5, 5]))
    assert mean["atomic_numbers"].tolist() == [*crystal.atomic_numbers] * 2
    moved = mean["pos"].numpy() - np.tile(crystal.frac_coords, (2, 1))
    assert np.abs(moved - moved.round()).max() < 0.1


# -- speed ------------------------------------------------------------------------------------------------------------


class Waits(TorchDispatchMode):
    """Collects the operations that make a host wait for its GPU: values that the host asks for, sizes by values."""

    NAMES = frozenset(
        ["_local_scalar_dense", "nonzero", "masked_select", "repeat_interleave", "bincount", "equal", "multinomial"]
    )

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").split(".")[0]
        masks = name.startswith(("index", "_index_put")) and any(
            i is not None and i.dtype == torch.bool for a in args[1:] if isinstance(a, list | tuple) for i in a
        )
        if name in self.NAMES or masks:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("constrained", [False, True])
def test_between_two_network_calls_the_host_waits_for_nothing(model, make_fast, conditions, constrained):
    held = Held(types=FixedTypes({1: 27}), clamped={"bader_charge": clamp({0: 1.25})}) if constrained else None
    sampler = make_fast(model, 4, constraints=held)
    kept = {}

    def caught(batch, score, rows, before, after):
        kept.update(batch=batch, score=score, rows=rows)
        return FastSampler._moved(sampler, batch, score, rows, before, after)

    sampler._moved = caught
    sample(sampler, conditions())
    with Waits() as waits:
        FastSampler._moved(sampler, **kept, before=0.5, after=0.25)
        sampler.guard.score(
            kept["score"], {n: sampler._rows(n, kept["batch"]) for n in ("pos", "cell", "bader_charge")}
        )
    assert waits.found == []
    with Waits() as waits:
        bool(kept["batch"]["pos"][kept["batch"]["pos"] > 0.5].any())
    assert {"index", "_local_scalar_dense"} <= set(waits.found)  # so such things are seen


# -- constraints of descriptors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1.0, 1.5])
def test_a_constraints_schedule_means_the_same_at_any_number_of_steps(model, make_fast, times):
    """What is left of a mean charge at a quarter of the way: exp(reference steps x integral of log(1 - s^4))."""
    rows, reached = torch.zeros(2, dtype=torch.long), 0.75**times
    s = np.linspace(0, 1 - reached, 10_001)
    left = math.exp(1000 * np.trapezoid(np.log1p(-(s**4)), s))
    for steps in (4, 12, 40, 200):
        sampler = make_fast(model, steps, times=times)
        x, plan = torch.ones(2, 1), sampler.plan.times
        for before, after in pairwise(plan):
            if after > reached - 1e-9:
                x = sampler._constrained("bader_charge", x, rows, before, after)
        assert float(x[0]) == pytest.approx(left, rel=0.05)


def test_latents_are_in_their_range(make_joint, make_dos, make_fast, conditions):
    descriptor = make_dos()
    _, mean = sample(make_fast(make_joint({"atomic_dos": descriptor})), conditions())
    latents = descriptor.decode(mean["atomic_dos"])
    assert latents.abs().max() < 1 and latents.std() > 0.01


# -- crystals that fall apart -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["cell", "pos", "bader_charge", "atomic_numbers"])
def test_a_network_that_fails_for_one_crystal_does_not_take_the_others_along(
    model, make_fast, conditions, field, monkeypatch
):
    module, calls = model.diffusion_module, []
    original = module.score_fn

    def broken(x, t):
        out = original(x, t)
        calls.append(None)
        if len(calls) != 4:
            return out
        sites, values = out.get_batch_idx(field), out[field].clone()
        values[1 if sites is None else sites == 1] = math.nan
        return out.replace(**{field: values})

    sampler = make_fast(model)
    _, healthy = sample(sampler, conditions())
    monkeypatch.setattr(module, "score_fn", broken)
    _, mean = sample(sampler, conditions())
    assert sampler.guard.parked.tolist() == [False, True, False, False]
    assert all(mean[name].isfinite().all() for name in ("pos", "cell", "bader_charge"))
    others = mean.get_batch_idx("pos") != 1
    assert torch.equal(mean["atomic_numbers"][others], healthy["atomic_numbers"][others])


def test_a_field_of_the_crystal(make_joint, make_fast, conditions):
    made = make_joint({"gap": Descriptor(name="gap", place="crystal")}, seed=2)
    _, mean = sample(make_fast(made), conditions())
    assert mean["gap"].shape == (4, 1) and mean["gap"].isfinite().all()


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize(
    "rules",
    [
        ElementRules(formula={11: 1, 17: 1}),
        ElementRules(allowed=frozenset({52, 56}), every=True),
        ElementRules(excluded=frozenset({8})),
    ],
    ids=["composition", "every", "excluded"],
)
def test_elements_positions_and_cells_hold_at_any_number_of_steps(
    make_joint: Callable[..., Any], make_sampler: Callable[..., Any], steps: int, rules: ElementRules
) -> None:
    model = make_joint()
    noise = model.diffusion_module.corruption.corruptions
    cell = [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 5.0]]
    placed = {"pos": HeldPositions({1: [0.25, 0.5, 0.75]}, noise["pos"]), "cell": HeldCell(cell, noise["cell"])}
    held = Held(elements=Elements(rules, noise["atomic_numbers"]), placed=placed)
    sampler = make_sampler(model, constraints=held, steps=steps)
    assert isinstance(sampler, FastSampler)
    torch.manual_seed(0)
    _, mean = sampler.sample(ConditionLoader(3, 3).make(np.array([2, 4, 8])))
    for part, n_sites in zip(mean["atomic_numbers"].split([2, 4, 8]), [2, 4, 8], strict=True):
        found = Counter(part.tolist())
        assert set(found) <= rules.possible
        assert not rules.formula or found == {11: n_sites // 2, 17: n_sites // 2}
        assert not rules.every or set(found) == {52, 56}
    assert mean["pos"][[1, 3, 7]].tolist() == [[0.25, 0.5, 0.75]] * 3
    torch.testing.assert_close(mean["cell"], torch.tensor(cell).expand(3, 3, 3), atol=1e-6, rtol=0)
