"""Spectra as a condition of sites: unchanged at the start, switched with MatterGen's conditions, trained on subsets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from mattergen.property_embeddings import SetConditionalEmbeddingType, SetUnconditionalEmbeddingType

from mattergen_e.descriptors import BaderCharge
from mattergen_e.diffusion.held import Held, SiteTargets
from mattergen_e.diffusion.joint import JointDiffusionLightningModule
from mattergen_e.diffusion.site_conditions import Telling, told_key, values_key
from mattergen_e.diffusion.site_dos import SiteDosCondition, dataset_from_cache
from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader
from mattergen_e.spectra.grid import EnergyGrid

pytestmark = pytest.mark.usefixtures("list_of_conditions")

GRID = EnergyGrid(minimum=-15, maximum=5, points=64)
DOS = SiteDosCondition(grid=GRID, bins=16, width=8)
FIELDS = ("pos", "cell", "atomic_numbers")


@pytest.fixture(scope="module")
def make(make_module):
    def make(descriptors=None, *, fresh=False, condition=DOS, **module):
        model = JointDiffusionLightningModule(
            diffusion_module=make_module(**module),
            descriptors=descriptors or {},
            site_conditions={"site_dos": condition},
        )
        if not fresh:
            with torch.random.fork_rng():
                torch.manual_seed(3)
                torch.nn.init.normal_(model.diffusion_module.site_conditions.projections["site_dos"][-1].weight, std=2)
        return model.eval()

    return make


@pytest.fixture(scope="module")
def told(solids, to_batch):
    """The solids with a spectrum at their first site."""
    batch = to_batch(list(solids.values()), ())
    return Held(targets=[SiteTargets("site_dos", {0: spectrum()})]).begin(batch)


def spectrum(centre=-3.0):
    return torch.tensor(2 * np.exp(-0.5 * (GRID.energies - centre) ** 2), dtype=torch.float32)


def forward(model, batch, t=0.4):
    with torch.no_grad():
        return model.diffusion_module.model(batch, torch.full((len(batch["num_atoms"]),), t))


@pytest.mark.parametrize("adapter", [False, True])
def test_fresh_condition_changes_nothing(make, make_module, told, adapter):
    model = make(fresh=True, adapter=adapter)
    batch = SetConditionalEmbeddingType()(told)
    with torch.no_grad():
        expected = make_module(adapter=adapter).model(batch, torch.full((8,), 0.4))
    found = forward(model, batch)
    assert all(torch.equal(found[name], expected[name]) for name in FIELDS)


def test_what_is_added_and_where(make, told):
    """The projection of the pooled logarithm, at told sites only: by hand."""
    model = make()
    attached = model.diffusion_module.site_conditions
    batch = SetConditionalEmbeddingType()(told)
    attached._begin(model.diffusion_module.model, (batch,), {})
    with torch.no_grad():
        added = attached._embed(None, (), torch.zeros(len(batch["pos"]), 16))
        first, _, last = attached.projections["site_dos"]
        pooled = torch.log1p(spectrum().reshape(16, 4).mean(dim=1))
        expected = torch.nn.functional.silu(pooled @ first.weight.T + first.bias) @ last.weight.T + last.bias
    rows = batch[told_key("site_dos")]
    assert int(rows.sum()) == 8 and float(expected.abs().max()) > 0.1
    assert torch.allclose(added[rows], expected.expand(8, 16), atol=1e-5) and (added[~rows] == 0).all()


def test_switched_off_it_is_as_if_nothing_was_told(make, told, solids, to_batch):
    model = make()
    without = forward(model, to_batch(list(solids.values()), ()))
    off = forward(model, SetUnconditionalEmbeddingType()(told))
    on = forward(model, SetConditionalEmbeddingType()(told))
    for name in FIELDS:
        assert torch.equal(off[name], without[name])
        assert not torch.allclose(on[name], without[name], atol=1e-4)


def scores(model, make_sampler, batch, **guidance):
    sampler = make_sampler(model, **guidance)
    sampler.guard.begin(batch["num_atoms"])
    with torch.no_grad():
        return sampler._score_fn(batch, torch.full((len(batch["num_atoms"]),), 0.4))


@pytest.mark.parametrize("crystal_level", [False, True])
def test_strength_0_is_unconditional_and_1_conditional(make, make_sampler, told, crystal_level):
    """To floating-point equality, alone and together with a condition of the crystal."""
    model = make(adapter=True)
    batch = told.replace(dft_band_gap=torch.full((8,), 2.0)) if crystal_level else told
    module, t = model.diffusion_module, torch.full((8,), 0.4)
    off, on = scores(model, make_sampler, batch, guidance_scale=0.0), scores(model, make_sampler, batch, omega=0.0)
    with torch.no_grad():
        plain = module.score_fn(SetUnconditionalEmbeddingType()(batch), t)
        conditional = module.score_fn(SetConditionalEmbeddingType()(batch), t)
    for name in FIELDS:
        assert torch.equal(off[name], plain[name]) and torch.equal(on[name], conditional[name])


@pytest.mark.parametrize("omega", [-1.0, 0.5, 1.0])
def test_omega_of_the_paper(make, make_sampler, told, omega):
    """(1 + omega) s(x, y) - omega s(x), DOSMatGen section 2.4; MatterGen's factor is 1 + omega."""
    model = make()
    off, on = (scores(model, make_sampler, told, guidance_scale=scale) for scale in (0.0, 1.0))
    mixed = scores(model, make_sampler, told, omega=omega)
    for name in ("pos", "cell"):
        expected = (1 + omega) * on[name] - omega * off[name]
        assert torch.allclose(mixed[name], expected, rtol=1e-3, atol=1e-4)
    same = scores(model, make_sampler, told, guidance_scale=1 + omega)
    assert all(torch.equal(mixed[name], same[name]) for name in FIELDS)


def test_two_strengths(make, make_sampler):
    with pytest.raises(UserError, match=r"omega 1 and a guidance factor of 2 are both given"):
        make_sampler(make(), omega=1.0, guidance_scale=2.0)


def test_whole_runs(make, make_sampler, capsys):
    """Strength 0 gives the crystals of a run without targets, bit by bit; another strength gives others."""
    model = make({"bader_charge": BaderCharge()})
    held = Held(targets=[SiteTargets("site_dos", {0: spectrum()})])
    found = {}
    for key, settings in {"plain": {}, "off": {"constraints": held}, "on": {"constraints": held, "omega": 1.0}}.items():
        torch.manual_seed(0)
        sampler = make_sampler(model, **settings)
        found[key] = sampler.sample(ConditionLoader(3, 3).make(np.array([2, 4, 3])))[1]
    for name in (*FIELDS, "bader_charge"):
        assert torch.equal(found["off"][name], found["plain"][name])
    assert not torch.allclose(found["on"]["pos"], found["plain"]["pos"], atol=1e-3)
    assert capsys.readouterr().err.count("as if no site was told anything") == 1


# -- training ---------------------------------------------------------------------------------------------------------


def test_told_sites_are_random_known_and_at_least_one():
    torch.manual_seed(0)
    n, size = 20_000, 4
    sites = torch.arange(n).repeat_interleave(size)
    known = torch.ones(n * size, dtype=torch.bool)
    known[:: size * 2] = False  # the first site of every other crystal
    chosen = replace(DOS, whole=0.25).draw_told(known, sites, n)
    assert not chosen[~known].any()
    counts = chosen.reshape(n, size).sum(1)[1::2]  # of the crystals that are known whole
    assert int(counts.min()) == 1
    # u uniform: each count 0..4 has 1/5, none becomes one, and a quarter of the crystals is told whole
    expected = {1: 0.75 * 0.4, 2: 0.75 * 0.2, 3: 0.75 * 0.2, 4: 0.75 * 0.2 + 0.25}
    for count, share in expected.items():
        assert float((counts == count).float().mean()) == pytest.approx(share, abs=0.02)
    nothing = DOS.draw_told(torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.long), 1)
    assert not nothing.any()


def test_a_fifth_of_the_crystals_is_told_nothing(make, solids, to_batch):
    """By MatterGen's own switch: the dropout is the one of its conditions."""
    model = make()
    batch = to_batch([solids["NaCl"]] * 2000, ())
    values = spectrum().repeat(4000, 1)
    values[:200] = torch.nan  # the first hundred crystals are not known
    torch.manual_seed(0)
    prepared = model.diffusion_module.pre_corruption_fn(batch.replace(**{values_key("site_dos"): values}))
    unused = prepared["_USE_UNCONDITIONAL_EMBEDDING"]["site_dos"][:, 0]
    assert unused[:100].all() and not prepared[told_key("site_dos")][:200].any()
    assert float(unused[100:].float().mean()) == pytest.approx(0.2, abs=0.03)
    assert prepared[values_key("site_dos")].isfinite().all()


def test_without_labels(make, solids, to_batch):
    with pytest.raises(UserError, match="the training data has no site values of 'site_dos'"):
        make().diffusion_module.pre_corruption_fn(to_batch([solids["NaCl"]], ()))


def test_it_learns_from_the_spectra(make, solids, to_batch):
    """Eight copies of a crystal with all types masked, whose spectra alone tell what they are made of."""
    batch = to_batch([solids["NaCl"]] * 8, ())
    types = torch.arange(20, 28).repeat_interleave(2)
    values = torch.stack([spectrum(-13.0 + 2 * float(i - 20)) for i in types])
    torch.manual_seed(0)
    model = make(fresh=True, condition=replace(DOS, whole=1.0))
    module, optimizer = model.diffusion_module, torch.optim.Adam(model.parameters(), lr=1e-2)
    hidden = module.pre_corruption_fn(batch.replace(**{values_key("site_dos"): values}))
    hidden = hidden.replace(atomic_numbers=torch.full_like(types, 101))

    def loss(switch):
        logits = module.model(switch(hidden), torch.full((8,), 0.9))["atomic_numbers"]
        return torch.nn.functional.cross_entropy(logits, types - 1)

    conditional, unconditional = SetConditionalEmbeddingType(), SetUnconditionalEmbeddingType()
    assert torch.equal(loss(conditional), loss(unconditional))
    for _ in range(80):
        optimizer.zero_grad()
        (loss(conditional) + loss(unconditional)).backward()
        optimizer.step()
    assert float(loss(conditional)) < 1.0
    assert float(loss(unconditional)) > 0.95 * np.log(8)  # as good as it gets without a word


def test_data_set_with_and_without_descriptors(write_dos_cache, tmp_path):
    cache = write_dos_cache(tmp_path)
    spectra = np.load(cache / "val" / "sites" / "atomic_dos.npy")
    for descriptors in ({}, ["bader_charge"]):
        data = dataset_from_cache(str(cache / "val"), {"site_dos": DOS}, descriptors=descriptors)
        item = data[1]
        first = int(data.num_atoms[0])
        assert np.array_equal(item[values_key("site_dos")], spectra[first : first + len(item["pos"])])
        assert ("bader_charge" in item) is bool(descriptors)
    with pytest.raises(UserError, match="512 points from -15 to 5 eV are needed"):
        dataset_from_cache(str(cache / "val"), {"site_dos": SiteDosCondition()})


def test_recipe(compose):
    recipe = compose("site_dos", "data_module.root_dir=unused", "adapter.model_path=unused", "descriptors=[bader]")
    assert list(recipe.lightning_module.descriptors) == ["bader_charge"]
    section = recipe.data_module.train_dataset
    assert section.site_conditions.site_dos.bins == 128 and list(section.descriptors) == ["bader_charge"]
    assert (
        list(compose("site_dos", "data_module.root_dir=x", "adapter.model_path=x").lightning_module.descriptors) == []
    )


def test_bad_settings(make_module):
    with pytest.raises(UserError, match="bins is 7, but it must divide"):
        SiteDosCondition(bins=7)
    with pytest.raises(UserError, match="a share from 0 to 1"):
        SiteDosCondition(whole=1.5)
    with pytest.raises(UserError, match="site condition 'pos' has the name of a field"):
        JointDiffusionLightningModule(
            diffusion_module=make_module(), descriptors={}, site_conditions={"pos": replace(DOS, name="pos")}
        )


def test_dropout_of_a_model_without_conditions():
    """A module whose preparation is not MatterGen's dropout gets one of the paper's share."""
    telling = Telling(lambda batch: batch, {"site_dos": DOS})
    assert telling.drop.p_unconditional == 0.2 and telling.first is not None


def test_trajectories_of_a_run_with_targets(make, make_sampler):
    """The states of the way come apart into crystals, targets included."""
    held = Held(targets=[SiteTargets("site_dos", {0: spectrum()})])
    sampler = make_sampler(make(), constraints=held, omega=1.0)
    _, _, steps = sampler.sample_with_record(ConditionLoader(2, 2).make(np.array([2, 4])))
    assert [len(graph["pos"]) for graph in steps[-1].to_data_list()] == [2, 4]
