"""The whole sampling loop of MatterGen with the descriptors that the model brings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mattergen.common.data.collate import collate
from mattergen.common.utils.globals import SELECTED_ATOMIC_NUMBERS
from mattergen.diffusion.corruption.multi_corruption import MultiCorruption
from mattergen.diffusion.lightning_module import DiffusionLightningModule
from mattergen.diffusion.sampling.classifier_free_guidance import GuidedPredictorCorrector
from mattergen.diffusion.sampling.pc_sampler import PredictorCorrector

from mattergen_e.descriptors import BaderCharge, Descriptor, Dummy
from mattergen_e.diffusion.predictors import DescriptorPredictor
from mattergen_e.diffusion.sampler import JointSampler, OutputSettings
from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader

FIELDS = ("pos", "cell", "atomic_numbers")
SIZES = [2, 5, 3, 8]


@pytest.fixture(scope="module")
def conditions():
    def make(sizes=SIZES, **properties):
        return ConditionLoader(len(sizes), len(sizes), properties=properties).make(np.array(sizes))

    return make


def sample(sampler, conditions, seed=0):
    torch.manual_seed(seed)
    return sampler.sample(conditions)


def totals(batch, name="bader_charge"):
    sites = batch.get_batch_idx("pos").numpy()
    return np.bincount(sites, weights=batch[name][:, 0].double().numpy())


@pytest.mark.parametrize("steps", [10, 20])
def test_charges_are_neutral_at_the_end(make_joint, make_sampler, conditions, steps):
    model = make_joint(steps=steps)
    sampler = make_sampler(model)
    assert isinstance(sampler, JointSampler) and steps == sampler.N
    last, mean = sample(sampler, conditions())
    for batch in (last, mean):
        assert np.abs(totals(batch)).max() < 1e-5
        assert batch["bader_charge"].shape == (sum(SIZES), 1)
        assert batch["bader_charge"].isfinite().all() and batch["bader_charge"].std() > 0.01
        assert batch["pos"].isfinite().all() and batch["cell"].isfinite().all()
    assert mean["num_atoms"].tolist() == SIZES
    # no site is left masked or is an element that MatterGen leaves out, though nobody asked for a mask here
    assert set(mean["atomic_numbers"].tolist()) <= set(SELECTED_ATOMIC_NUMBERS)


def test_without_its_constraint_the_sum_is_anything(make_joint, make_sampler, conditions):
    """So that the test above is one of the constraint."""
    model = make_joint({"bader_charge": Descriptor(name="bader_charge")})
    _, mean = sample(make_sampler(model), conditions())
    assert np.abs(totals(mean)).min() > 1e-3


def test_same_seed_same_crystals(make_joint, make_sampler, conditions):
    sampler = make_sampler(make_joint({"bader_charge": BaderCharge(), "dummy": Dummy()}))
    first, again, other = (sample(sampler, conditions(), seed)[1] for seed in (1, 1, 2))
    for name in (*FIELDS, "bader_charge", "dummy"):
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


def test_descriptor_steps_are_ours_and_guarded(make_joint, make_sampler):
    sampler = make_sampler(make_joint({"bader_charge": BaderCharge(), "dos": Descriptor(name="dos", dim=4)}))
    assert set(sampler._predictors) == {*FIELDS, "bader_charge", "dos"}
    assert set(sampler._correctors) == {"pos", "cell"}
    for name in ("bader_charge", "dos"):
        step = sampler._predictors[name].step
        assert isinstance(step, DescriptorPredictor) and step.descriptor.name == name
    assert sampler._eps_t == pytest.approx(0.1)


def test_number_of_steps_must_be_the_models(make_joint, make_sampler):
    with pytest.raises(UserError, match="N is 7, but this model's atom types were trained with 10 steps"):
        make_sampler(make_joint(), N=7)
    assert make_sampler(make_joint(), N=10).N == 10


def test_model_for_crystal_structure_prediction_is_sent_to_mattergens_settings(make_module, make_sampler):
    module = make_module()
    module.corruption = MultiCorruption(sdes=module.corruption.sdes)
    with pytest.raises(UserError, match="without diffusion of atom types.*sampling_config_name=csp"):
        make_sampler(DiffusionLightningModule(diffusion_module=module))


def test_cells_are_held_to_the_bounds_of_the_settings(make_joint, make_sampler, conditions):
    """`make_sampler`'s models end near 17.3 cubic angstrom per site: narrow bounds above that are felt."""
    sampler = make_sampler(make_joint())
    assert (sampler.guard.least_volume, sampler.guard.largest_volume) == (2.0, 60.0)
    free = make_sampler(make_joint(), volume_per_site=[0.5, None])
    assert (free.guard.least_volume, free.guard.largest_volume) == (0.5, pytest.approx(5.0**3 / math.sqrt(2)))
    narrow = make_sampler(make_joint(), volume_per_site=[18.5, 20.0])
    cells = {name: sample(s, conditions())[1] for name, s in (("free", free), ("narrow", narrow))}
    volumes = {name: torch.linalg.det(b["cell"]).abs() / b["num_atoms"] for name, b in cells.items()}
    assert (volumes["free"] < 18.4).any()
    assert (volumes["narrow"] > 18.49).all() and (volumes["narrow"] < 20.01).all()


def test_unknown_way_with_existing_results(make_joint, make_sampler):
    with pytest.raises(UserError, match="existing is 'append': use 'refuse', 'resume' or 'overwrite'"):
        make_sampler(make_joint(), output={"existing": "append"})
    assert make_sampler(make_joint(), output=None).output == OutputSettings()


def test_model_without_descriptors(make_module, make_sampler, conditions):
    sampler = make_sampler(DiffusionLightningModule(diffusion_module=make_module()))
    assert sampler.descriptors == {}
    _, mean = sample(sampler, conditions())
    assert mean["pos"].shape == (sum(SIZES), 3) and mean["pos"].isfinite().all()
    assert "bader_charge" not in mean


def test_structure_of_a_fresh_joint_model_is_that_of_its_base(make_module, make_joint, make_sampler, conditions):
    """With a descriptor that comes last, and so draws its numbers last, the first network call sees the same noise."""
    base = make_sampler(DiffusionLightningModule(diffusion_module=make_module()))
    joint = make_sampler(make_joint({"zz": Dummy()}, fresh=True))
    (given, expected), (same, found) = (first_call(sampler, conditions()) for sampler in (base, joint))
    for name in FIELDS:
        assert torch.equal(given[name], same[name])
        assert torch.equal(expected[name], found[name])


def first_call(sampler, conditions):
    """What the network is given first in a run, and what it answers."""
    original, calls = sampler.diffusion_module.score_fn, []

    def watch(x, t):
        calls.append((x, original(x, t)))
        return calls[-1][1]

    sampler.diffusion_module.score_fn = watch
    sample(sampler, conditions)
    return calls[0]


def test_trajectories_hold_the_descriptors(make_joint, make_sampler, conditions):
    sampler = make_sampler(make_joint())
    torch.manual_seed(0)
    _, mean, steps = sampler.sample_with_record(conditions())
    assert len(steps) == 20  # ten steps of a corrector and a predictor each
    assert all(step["bader_charge"].shape == mean["bader_charge"].shape for step in steps)


def test_fields_of_the_conditions_are_made(make_joint, make_sampler, conditions):
    sampler = make_sampler(make_joint({"bader_charge": BaderCharge(), "dos": Descriptor(name="dos", dim=4)}))
    batch = sampler.with_fields(conditions())
    assert batch["dos"].shape == (sum(SIZES), 4) and not batch["dos"].any()
    assert torch.equal(batch.get_batch_idx("bader_charge"), batch.get_batch_idx("pos"))
    given = batch.replace(bader_charge=torch.ones(sum(SIZES), 1))
    assert torch.equal(sampler.with_fields(given)["bader_charge"], torch.ones(sum(SIZES), 1))


# -- guidance ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(make_joint):
    return make_joint(adapter=True)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_guided_sampling_runs(adapter, make_sampler, conditions, scale):
    _, mean = sample(make_sampler(adapter, guidance_scale=scale), conditions(dft_band_gap=2.5))
    assert np.abs(totals(mean)).max() < 1e-5
    assert all(mean[name].isfinite().all() for name in ("pos", "cell", "bader_charge"))


def test_guidance_extrapolates_from_the_unconditional_score(adapter, make_sampler, solids, to_batch):
    """s = (1 - w) s(x) + w s(x | y), for the descriptor as for the structure."""
    batch = to_batch(list(solids.values()), dft_band_gap=[3.0] * 8)
    t = torch.full((8,), 0.5)
    scores = {}
    for scale in (0.0, 1.0, 2.0):
        sampler = make_sampler(adapter, guidance_scale=scale)
        sampler.guard.begin(batch["num_atoms"])
        with torch.no_grad():
            scores[scale] = sampler._score_fn(batch, t)
    for name in ("bader_charge", "pos", "cell"):
        if name != "cell":
            assert not torch.allclose(scores[0.0][name], scores[1.0][name], atol=1e-4)
        expected = 2 * scores[1.0][name] - scores[0.0][name]
        assert torch.allclose(scores[2.0][name], expected, rtol=1e-3, atol=1e-4)


def test_guidance_that_evaluates_a_joined_batch(adapter, make_sampler, solids, to_batch, conditions, monkeypatch):
    """MatterGen after 1.0.3 cuts both scores out of one evaluation; they come without the index of the crystals."""
    batch = to_batch(list(solids.values()), dft_band_gap=[3.0] * 8)
    t = torch.full((8,), 0.5)
    sampler = make_sampler(adapter, guidance_scale=2.0)
    sampler.guard.begin(batch["num_atoms"])
    with torch.no_grad():
        expected = sampler._score_fn(batch, t)

    def joined(self, x, t):
        both = collate([self._remove_conditioning_fn(x), self._keep_conditioning_fn(x)])
        score = PredictorCorrector._score_fn(self, both, torch.cat([t, t]))
        first, second = score[0], score[1]
        fields = self._multi_corruption.corrupted_fields
        return first.replace(**{k: torch.lerp(first[k], second[k], self._guidance_scale) for k in fields})

    monkeypatch.setattr(GuidedPredictorCorrector, "_score_fn", joined)
    with torch.no_grad():
        found = sampler._score_fn(batch, t)
    for name in (*FIELDS, "bader_charge"):
        assert torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-4)
    _, mean = sample(sampler, conditions(dft_band_gap=3.0))
    assert np.abs(totals(mean)).max() < 1e-5


def test_the_condition_matters_only_with_guidance(adapter, make_sampler, conditions):
    for scale, matters in ((0.0, False), (2.0, True)):
        sampler = make_sampler(adapter, guidance_scale=scale)
        low, high = (sample(sampler, conditions(dft_band_gap=gap))[1] for gap in (0.0, 5.0))
        assert torch.equal(low["bader_charge"], high["bader_charge"]) is not matters


# -- crystals that fall apart -----------------------------------------------------------------------------------------


def break_crystal(sampler, index, field, value, kind="predictor", at=3):
    """Makes one crystal's part of a field take a value after the given step of a predictor or corrector."""
    step = (sampler._predictors if kind == "predictor" else sampler._correctors)[field].step
    name = "update_given_score" if kind == "predictor" else "step_given_score"
    original, calls = getattr(step, name), []

    def broken(**arguments):
        sample, mean = original(**arguments)
        calls.append(None)
        if len(calls) == at:
            rows = arguments["batch_idx"] == index if arguments["batch_idx"] is not None else index
            sample, mean = sample.clone(), mean.clone()
            sample[rows] = value
            mean[rows] = value
        return sample, mean

    setattr(step, name, broken)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("predictor", "cell", math.nan),
        ("predictor", "cell", 0.0),
        ("predictor", "cell", math.inf),
        ("predictor", "pos", math.nan),
        ("predictor", "bader_charge", math.inf),
        ("corrector", "cell", math.nan),
        ("corrector", "cell", 0.0),
        ("corrector", "pos", math.nan),
    ],
)
def test_one_degenerate_crystal_does_not_take_the_others_along(
    make_joint, make_sampler, conditions, kind, field, value
):
    sampler = make_sampler(make_joint())
    break_crystal(sampler, 1, field, value, kind)
    _, mean = sample(sampler, conditions())
    assert sampler.guard.parked.tolist() == [False, True, False, False]
    assert all(mean[name].isfinite().all() for name in ("pos", "cell", "bader_charge"))
    assert np.abs(totals(mean)).max() < 1e-5


def test_healthy_crystals_are_not_parked(make_joint, make_sampler, conditions):
    sampler = make_sampler(make_joint())
    sample(sampler, conditions())
    assert not sampler.guard.parked.any()


def test_huge_cell_goes_on(make_joint, make_sampler, conditions):
    sampler = make_sampler(make_joint())
    break_crystal(sampler, 1, "cell", 1e4 * torch.eye(3))
    _, mean = sample(sampler, conditions())
    assert not sampler.guard.parked[[0, 2, 3]].any()
    volume = torch.linalg.det(mean["cell"]) / mean["num_atoms"]
    assert (volume > 1.0).all() and (volume < sampler.guard.largest_volume).all()


@pytest.mark.parametrize("field", ["cell", "pos", "bader_charge", "atomic_numbers"])
def test_network_that_fails_for_one_crystal_does_not_take_the_others_along(make_joint, make_sampler, conditions, field):
    """Langevin steps are scaled with the average over the batch: one NaN would reach every crystal."""
    model = make_joint()
    sampler = make_sampler(model)
    original, calls = model.diffusion_module.score_fn, []

    def broken(x, t):
        out = original(x, t)
        calls.append(None)
        if len(calls) != 7:  # a corrector's call
            return out
        sites = out.get_batch_idx(field)
        values = out[field].clone()
        values[1 if sites is None else sites == 1] = math.nan
        return out.replace(**{field: values})

    model.diffusion_module.score_fn = broken
    _, mean = sample(sampler, conditions())
    assert sampler.guard.parked.tolist() == [False, True, False, False]
    assert all(mean[name].isfinite().all() for name in ("pos", "cell", "bader_charge"))


def lonely(sampler, conditions, pos, edge):
    """A batch of one crystal of two sites in a cube."""
    batch = sampler.with_fields(conditions([2]))
    sampler.guard.begin(batch["num_atoms"])
    return batch.replace(pos=torch.tensor(pos), cell=torch.eye(3)[None] * edge, atomic_numbers=torch.tensor([11, 17]))


#: Cutoff 5: no two sites see each other; one pair does, so that there are edges but no triplet of sites.
LONELY = {"no pair": ([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], 12.0), "one pair": ([[0.0, 0.0, 0.0], [0.05, 0.0, 0.0]], 5.5)}


@pytest.mark.parametrize("kind", LONELY)
def test_mattergens_network_raises_without_neighbours(make_joint, make_sampler, conditions, kind):
    """The reason for all this: should a later version not raise, the guard's part of it can go."""
    sampler = make_sampler(make_joint())
    batch = lonely(sampler, conditions, *LONELY[kind])
    with pytest.raises((IndexError, RuntimeError)), torch.no_grad():
        sampler._diffusion_module.score_fn(batch, torch.full((1,), 0.5))


@pytest.mark.parametrize("kind", LONELY)
def test_batch_of_crystals_without_neighbours_goes_on(make_joint, make_sampler, conditions, kind):
    sampler = make_sampler(make_joint())
    batch = lonely(sampler, conditions, *LONELY[kind])
    with torch.no_grad():
        score = sampler._score_fn(batch, torch.full((1,), 0.5))
    assert sampler.guard.parked.tolist() == [True]
    assert all(score[name].isfinite().all() for name in ("pos", "cell", "bader_charge"))


def test_one_crystal_without_neighbours_among_others(make_joint, make_sampler, solids, to_batch):
    """The others' scores are those that they have among their like."""
    sampler = make_sampler(make_joint())
    batch = to_batch(list(solids.values()))
    t = torch.full((8,), 0.5)
    sites = batch.get_batch_idx("pos")
    cell = batch["cell"].clone()
    cell[3] = torch.eye(3) * 30.0
    sampler.guard.begin(batch["num_atoms"])
    assert sampler._without_neighbours(batch.replace(cell=cell)).tolist() == [i == 3 for i in range(8)]
    with torch.no_grad():
        expected, found = sampler._score_fn(batch, t), sampler._score_fn(batch.replace(cell=cell), t)
    for name in ("pos", "bader_charge", "atomic_numbers"):
        assert torch.allclose(found[name][sites != 3], expected[name][sites != 3], rtol=1e-3, atol=1e-4)


def test_other_errors_are_not_swallowed(make_joint, make_sampler, solids, to_batch):
    model = make_joint()
    sampler = make_sampler(model)

    def fails(x, t):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    model.diffusion_module.score_fn = fails
    batch = to_batch(list(solids.values()))
    sampler.guard.begin(batch["num_atoms"])
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        sampler._score_fn(batch, torch.full((8,), 0.5))


def test_bounds_of_the_volume_in_the_wrong_order(make_joint, make_sampler):
    with pytest.raises(UserError, match="give the smaller volume first"):
        make_sampler(make_joint(), volume_per_site=[60.0, 2.0])
