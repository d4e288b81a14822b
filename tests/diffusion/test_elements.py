"""Elements that a crystal may and must have: exact at any number of steps, and drawn as the network says."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mattergen.diffusion.corruption.d3pm_corruption import D3PMCorruption
from mattergen.diffusion.d3pm.d3pm import MaskDiffusion, create_discrete_diffusion_schedule
from pymatgen.core import Element

from mattergen_e.diffusion.elements import ElementRules, Elements, rank
from mattergen_e.diffusion.held import FixedTypes, Held, Template
from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader

SIZES = [2, 4, 6, 8]
MASK = 101
CORRUPTION = D3PMCorruption(MaskDiffusion(101, create_discrete_diffusion_schedule("standard", num_steps=10)), offset=1)
B, C, N, OX, NA, CL, TE, BA = (Element(symbol).Z for symbol in ("B", "C", "N", "O", "Na", "Cl", "Te", "Ba"))


def rules(*, sizes, systems=None, **words):
    elements = Elements(ElementRules(**words), CORRUPTION)
    elements.begin(torch.tensor(sizes), systems)
    return elements


def logits(**shares):
    """Of sites, from the share of each element at each site; all others are possible, but hardly."""
    n = len(next(iter(shares.values())))
    found = torch.full((n, 101), 1e-12)
    for symbol, values in shares.items():
        found[:, Element(symbol).Z - 1] = torch.tensor(values)
    return found.log()


def crystals(numbers, sizes):
    return [Counter(part.tolist()) for part in numbers.split(list(sizes))]


def sample(sampler, conditions, seed=0):
    torch.manual_seed(seed)
    return sampler.sample(conditions)


def make_conditions(sizes=SIZES, **properties):
    return ConditionLoader(len(sizes), len(sizes), properties=properties).make(np.array(sizes))


# -- one step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 7, 60])
@pytest.mark.parametrize("words", [
    {"allowed": frozenset({B, C, N})},
    {"excluded": frozenset({OX})},
    {"formula": {NA: 1, CL: 1}},
    {"allowed": frozenset({TE, BA}), "every": True},
])  # fmt: skip
def test_exact_at_any_number_of_steps_whatever_the_network_says(words, steps):
    """A network that wants oxygen everywhere, with masks that fall at random."""
    torch.manual_seed(steps)
    elements = rules(sizes=SIZES, **words)
    network = logits(O=[1.0] * sum(SIZES))
    x = torch.full((sum(SIZES),), MASK)
    for step in range(steps):
        falls = torch.rand(len(x)) < 1 / (steps - step)
        drawn = torch.where(falls, OX, MASK)  # what a sampler would draw, also at sites that show their types
        new = elements.settle(x, drawn, network, random=step % 2 == 0)
        assert torch.equal(new[x != MASK], x[x != MASK])
        assert torch.equal(new == MASK, (x == MASK) & ~falls)
        x = new
    for n, counts in zip(SIZES, crystals(x, SIZES), strict=True):
        assert OX not in counts and sum(counts.values()) == n
        if "formula" in words:
            assert counts == {NA: n // 2, CL: n // 2}
        if "allowed" in words:
            assert set(counts) <= words["allowed"]
        if words.get("every"):
            assert set(counts) == words["allowed"]


def test_two_sites_get_their_elements_as_often_as_the_network_says():
    """P(first Na) = p(Na) q(Cl) / (p(Na) q(Cl) + p(Cl) q(Na)) of independent sites, given one of each."""
    torch.manual_seed(0)
    elements = rules(sizes=[2] * 5000, formula={NA: 1, CL: 1})
    network = logits(Na=[0.1, 0.02] * 5000, Cl=[0.9, 0.98] * 5000)
    masked = torch.full((10000,), MASK)
    first = elements.settle(masked, torch.full_like(masked, OX), network)[0::2]
    expected = 0.1 * 0.98 / (0.1 * 0.98 + 0.9 * 0.02)
    assert float((first == NA).float().mean()) == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 5000))


def test_alike_sites_get_every_arrangement_equally_often():
    torch.manual_seed(0)
    elements = rules(sizes=[3] * 3000, formula={NA: 1, CL: 2})
    found = elements.settle(torch.full((9000,), MASK), torch.full((9000,), OX), logits(Na=[0.999] * 9000))
    counted = Counter(tuple(row) for row in found.reshape(-1, 3).tolist())
    assert set(counted) == set(permutations([NA, CL, CL]))
    assert all(count / 3000 == pytest.approx(1 / 3, abs=0.035) for count in counted.values())


def test_every_element_at_least_once_is_the_networks_distribution_given_that():
    """Binomial with 2 % Te over four sites, given that neither element is missing."""
    torch.manual_seed(0)
    elements = rules(sizes=[4] * 5000, allowed=frozenset({BA, TE}), every=True)
    network = logits(Ba=[0.98] * 20000, Te=[0.02] * 20000)
    found = elements.settle(torch.full((20000,), MASK), torch.full((20000,), OX), network).reshape(-1, 4)
    number = (found == TE).sum(1)
    whole = 1 - 0.98**4 - 0.02**4
    for k in (0, 1, 2, 3, 4):
        expected = math.comb(4, k) * 0.02**k * 0.98 ** (4 - k) / whole if 0 < k < 4 else 0.0
        assert float((number == k).float().mean()) == pytest.approx(expected, abs=0.01)


def test_without_chance_the_surest_site_comes_first():
    elements = rules(sizes=[3], formula={NA: 1, CL: 2})
    network = logits(Na=[0.3, 0.9, 0.4], Cl=[0.7, 0.1, 0.6])
    found = elements.settle(torch.full((3,), MASK), torch.full((3,), OX), network, random=False)
    assert found.tolist() == [CL, NA, CL]


def test_what_the_model_draws_stays_where_it_may():
    elements = rules(sizes=[3], allowed=frozenset({B, C}))
    found = elements.settle(torch.tensor([MASK, MASK, C]), torch.tensor([B, MASK, B]), logits(C=[1.0] * 3))
    assert found.tolist() == [B, MASK, C]


def test_ranks_by_hand():
    groups, keys = torch.tensor([1, 0, 1, 1, 0]), torch.tensor([0.3, 0.9, 0.1, 0.2, 0.5])
    assert rank(groups, keys).tolist() == [2, 1, 0, 1, 0]


def test_mask_of_the_logits():
    elements = rules(sizes=[1, 2], allowed=frozenset({B, C}))
    found = elements.restrict(torch.zeros(3, 101))
    assert (found[:, [B - 1, C - 1]] == 0).all() and float(found.sum()) == pytest.approx(-3 * 99 * 1e10)


def test_systems_of_the_crystals():
    elements = rules(sizes=[2, 3], systems=[["Na", "Cl"], ["B", "N", "O"]], every=True)
    found = elements.settle(torch.full((5,), MASK), torch.full((5,), TE), logits(Te=[1.0] * 5))
    assert [set(counts) for counts in crystals(found, [2, 3])] == [{NA, CL}, {B, N, OX}]


# -- where it begins --------------------------------------------------------------------------------------------------


def test_a_start_keeps_what_fits_and_fixed_sites_first():
    elements = rules(sizes=[4, 4], formula={NA: 1, CL: 1})
    x = torch.tensor([NA, NA, NA, OX, CL, CL, NA, MASK])
    fixed = torch.zeros(8, dtype=torch.bool)
    fixed[2] = True
    for seed in range(5):
        torch.manual_seed(seed)
        found = elements.start(x, fixed)
        assert found[2] == NA and int((found[:4] == NA).sum()) == 2 and int((found[:4] == MASK).sum()) == 2
        assert found[4:].tolist() == [CL, CL, NA, MASK]


def test_a_start_makes_room_for_missing_elements():
    elements = rules(sizes=[4], allowed=frozenset({B, C, N}), every=True)
    found = elements.start(torch.tensor([B, B, B, C]), torch.zeros(4, dtype=torch.bool))
    assert sorted(found.tolist()) == [B, B, C, MASK]


def test_fixed_sites_that_leave_no_room():
    elements = rules(sizes=[2], formula={NA: 1, CL: 1})
    with pytest.raises(UserError, match="leave no room"):
        elements.start(torch.tensor([NA, NA]), torch.ones(2, dtype=torch.bool))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"sizes": [2, 3], "formula": {NA: 1, CL: 1}}, "Na1 Cl1 was asked for, but also a crystal of 3 sites"),
        ({"sizes": [2], "allowed": frozenset({B, C, N}), "every": True}, "all of 3 elements .* crystal of 2 sites"),
        ({"sizes": [2], "every": True}, "give elements, or a chemical_system"),
    ],
)
def test_what_no_crystal_can_have(words, sentence):
    with pytest.raises(UserError, match=sentence):
        rules(**words)


def test_types_without_masks_are_refused():
    with pytest.raises(UserError, match="SimpleNamespace, not that of masks"):
        Elements(ElementRules(), SimpleNamespace(d3pm=SimpleNamespace(), offset=1))


# -- with a model -----------------------------------------------------------------------------------------------------


def held(model, *, types=None, template=None, **words):
    corruption = model.diffusion_module.corruption.corruptions["atomic_numbers"]
    fixed = None if types is None else FixedTypes(types)
    return Held(types=fixed, elements=Elements(ElementRules(**words), corruption), template=template)


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_every_state_of_a_generation_keeps_to_the_elements(make_joint, make_sampler, guidance):
    model = make_joint(adapter=True)
    sampler = make_sampler(model, constraints=held(model, allowed=frozenset({B, C, N})), guidance_scale=guidance)
    seen, original = [], sampler._diffusion_module.score_fn
    sampler._diffusion_module.score_fn = lambda x, t: seen.append(x) or original(x, t)
    conditions = make_conditions(dft_band_gap=2.0) if guidance else make_conditions()
    last, mean = sample(sampler, conditions)
    sampler._diffusion_module.score_fn = original
    assert len(seen) >= 2 * sampler.N
    for batch in (last, mean, *seen):
        assert set(batch["atomic_numbers"].tolist()) <= {B, C, N, MASK}
    assert MASK not in mean["atomic_numbers"].tolist()


@pytest.mark.parametrize(("adapter", "guidance"), [(False, 0.0), (True, 2.0)])
def test_a_composition_with_a_fixed_site(make_joint, make_sampler, adapter, guidance):
    model = make_joint(adapter=adapter)
    sampler = make_sampler(
        model, constraints=held(model, types={1: CL}, formula={NA: 1, CL: 1}), guidance_scale=guidance
    )
    conditions = make_conditions(dft_band_gap=2.0) if guidance else make_conditions()
    for batch in sample(sampler, conditions):
        for n, part in zip(SIZES, batch["atomic_numbers"].split(SIZES), strict=True):
            assert part[1] == CL and Counter(part.tolist()) == {NA: n // 2, CL: n // 2}


def test_every_element_with_a_model_without_descriptors(make_module, make_sampler):
    model = SimpleNamespace(diffusion_module=make_module(), device=torch.device("cpu"))
    sampler = make_sampler(model, constraints=held(model, allowed=frozenset({BA, TE}), every=True))
    for batch in sample(sampler, make_conditions()):
        assert all(set(counts) == {BA, TE} for counts in crystals(batch["atomic_numbers"], SIZES))


def test_every_element_of_the_chemical_system_of_the_conditions(make_joint, make_sampler):
    model = make_joint()
    sampler = make_sampler(model, constraints=held(model, every=True))
    for system in ("Ba-Te", ["Ba", "Te"]):
        _, mean = sample(sampler, make_conditions(chemical_system=system))
        assert all(set(counts) == {BA, TE} for counts in crystals(mean["atomic_numbers"], SIZES))


def test_a_composition_from_a_template_of_other_elements(make_joint, make_sampler, solids, to_batch):
    from mattergen_e.crystals.graphs import to_graph

    model = make_joint()
    template = Template(to_graph(solids["MgO"]), 0.3, model)
    sampler = make_sampler(model, constraints=held(model, template=template, formula={NA: 1, OX: 1}))
    for batch in sample(sampler, make_conditions([2, 2, 2])):
        assert [dict(counts) for counts in crystals(batch["atomic_numbers"], [2, 2, 2])] == [{NA: 1, OX: 1}] * 3


def test_the_same_seed_gives_the_same_crystals(make_joint, make_sampler):
    model = make_joint()
    sampler = make_sampler(model, constraints=held(model, formula={NA: 1, CL: 1}))
    first, second, other = (sample(sampler, make_conditions(), seed)[1] for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in ("pos", "cell", "atomic_numbers", "bader_charge"))
    assert not torch.equal(first["pos"], other["pos"])
