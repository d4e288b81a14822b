"""Guidance by a predictor: its gradient is that of finite differences in the variables of the scores, and it pulls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from mattergen_e.diffusion.classifier import Classifier, _limited, _shifted
from mattergen_e.diffusion.elements import ElementRules, Elements
from mattergen_e.diffusion.guidance_target import (
    TARGET,
    ClassifierSettings,
    GuidanceTarget,
    read_guidance,
    values_of,
)
from mattergen_e.diffusion.held import FixedTypes, Held
from mattergen_e.diffusion.predictors import CrystalGuard
from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader
from mattergen_e.networks.predictor.guidance import Target, energy
from mattergen_e.networks.predictor.neighbours import neighbours
from mattergen_e.networks.predictor.network import MASKED
from mattergen_e.spectra.grid import EnergyGrid

SIZES = [2, 5, 3, 8]
TOTAL = EnergyGrid(minimum=-10, maximum=10, points=32)
SITES = EnergyGrid(minimum=-15, maximum=5, points=64)


@pytest.fixture(scope="module")
def make_predictor(tiny_predictor):
    return lambda noisy=True: tiny_predictor(SITES, TOTAL, noisy)


@pytest.fixture(scope="module")
def folder(make_predictor, tmp_path_factory):
    from mattergen_e.networks.predictor.folder import save

    return save(make_predictor(), tmp_path_factory.mktemp("predictor"))


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """Two curves of different height, as a file."""
    path = tmp_path_factory.mktemp("curves") / "targets.npz"
    peaks = np.exp(-0.5 * ((TOTAL.energies - np.array([[-3.0], [1.0]])) / 2) ** 2)
    np.savez(path, energies=TOTAL.energies, dos=np.array([[1.0], [4.0]]) * peaks, names=np.array(["low", "high"]))
    return path


@pytest.fixture(scope="module")
def make_classifier(folder, curves):
    def make(**settings):
        classifier = Classifier.load({"predictor": folder, "target": curves, **settings}, torch.device("cpu"))
        assert classifier is not None
        return classifier

    return make


@pytest.fixture
def batch(solids, to_batch):
    """TiO2 and ZnS, off their symmetric places, with a target each."""
    crystals = []
    for name in ("TiO2", "ZnS"):
        crystal = solids[name].copy()
        crystal.perturb(0.15, seed=1)
        crystals.append(crystal)
    made = to_batch(crystals, fields=())
    generator = torch.Generator().manual_seed(0)
    return made.replace(**{TARGET: 3 * torch.rand(2, TOTAL.points, generator=generator)})


def sample(sampler, loader, seed=0):
    torch.manual_seed(seed)
    return sampler.sample(loader.make(np.array(SIZES)))[1]


def scores(batch, seed=0):
    """Made-up scores of the size 1, with all but ten elements ruled out."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(batch["pos"]), MASKED, generator=generator)
    logits[:, 10:] = -1e10
    return batch.replace(
        pos=torch.randn(batch["pos"].shape, generator=generator),
        cell=torch.randn(batch["cell"].shape, generator=generator),
        atomic_numbers=logits,
    )


def guard_of(batch):
    guard = CrystalGuard(7.0)
    guard.begin(batch["num_atoms"])
    return guard


# -- the gradient -----------------------------------------------------------------------------------------------------


def test_gradients_are_finite_differences_in_the_variables_of_the_scores(make_classifier, batch):
    classifier, t = make_classifier(), torch.tensor([0.2, 0.6])
    predictor = classifier.predictor
    edges = neighbours(batch, predictor.settings.encoder)
    shares = torch.nn.functional.one_hot(batch["atomic_numbers"] - 1, MASKED).float()

    def log_p(pos: Any = 0.0, cell: Any = 0.0, types: Any = 0.0) -> float:
        moved = batch.replace(pos=batch["pos"] + pos, cell=batch["cell"] + cell)
        target = Target(total=batch[TARGET])
        return -float(energy(predictor, moved, t, target, edges=edges, shares=shares + types).sum())

    found = classifier.gradients(batch, t)
    generator = torch.Generator().manual_seed(1)
    step = 1e-3  # single precision
    for name, key in (("pos", "pos"), ("types", "atomic_numbers")):
        direction = torch.randn(found[key].shape, generator=generator)
        slope = (log_p(**{name: step * direction}) - log_p(**{name: -step * direction})) / (2 * step)
        assert float((found[key] * direction).sum()) == pytest.approx(slope, rel=0.05, abs=1e-3)
    assert torch.equal(found["cell"], found["cell"].mT)
    for i, j in ((0, 0), (1, 1), (0, 1), (1, 2)):  # the noise moves both places of an element off the diagonal at once
        direction = torch.zeros(2, 3, 3)
        direction[1, i, j] = direction[1, j, i] = 1.0
        slope = (log_p(cell=step * direction) - log_p(cell=-step * direction)) / (2 * step)
        assert float(found["cell"][1, i, j]) == pytest.approx(slope, rel=0.05, abs=2e-3)


def test_a_small_step_along_the_gradient_makes_the_target_likelier(make_classifier, batch):
    classifier, t = make_classifier(), torch.tensor([0.2, 0.2])
    target = Target(total=batch[TARGET])
    before = energy(classifier.predictor, batch, t, target)
    found = classifier.gradients(batch, t)
    for name in ("pos", "cell"):
        after = energy(classifier.predictor, batch.replace(**{name: batch[name] + 1e-3 * found[name]}), t, target)
        assert (after < before).all()


def test_mattergens_scores_of_the_cell_are_of_the_same_six_numbers(make_joint, batch):
    """Against the density of six independent normal numbers, written down here."""
    sde = make_joint().diffusion_module.corruption.sdes["cell"]
    t = torch.full((4000,), 0.5)
    many = batch.replace(num_atoms=torch.full((4000,), 2))
    mean, std = sde.marginal_prob(torch.eye(3).repeat(4000, 1, 1), t, batch=many)
    torch.manual_seed(0)
    noise = (sde.sample_marginal(torch.eye(3).repeat(4000, 1, 1), t, batch=many) - mean) / std
    assert torch.equal(noise, noise.mT)
    # -noise / std, which the network learns, is the gradient per number if each has the variance std^2, on and off
    assert noise.var(dim=0).flatten().tolist() == pytest.approx([1.0] * 9, abs=0.1)


# -- how much of it is added ------------------------------------------------------------------------------------------


def test_addition_is_strength_times_gradient_until_it_is_clipped(make_classifier, batch):
    t, score = torch.tensor([0.2, 0.6]), scores(batch)
    classifier = make_classifier(strength=1e-6)
    gradients = classifier.gradients(batch, t)
    found = classifier.guide(score, batch, t, guard_of(batch))
    for name in ("pos", "cell"):
        torch.testing.assert_close(found[name] - score[name], 1e-6 * gradients[name], rtol=0, atol=2e-7)
    found = make_classifier(strength=1e9, clip=0.5).guide(score, batch, t, guard_of(batch))
    sites = batch.get_batch_idx("pos")
    for crystal in (0, 1):
        added = found["pos"] - score["pos"]
        assert float(added[sites == crystal].norm()) == pytest.approx(
            0.5 * float(score["pos"][sites == crystal].norm()), rel=1e-4
        )
        cosine = torch.cosine_similarity(
            added[sites == crystal].flatten(), gradients["pos"][sites == crystal].flatten(), dim=0
        )
        assert float(cosine) == pytest.approx(1.0, abs=1e-4)
        added = found["cell"][crystal] - score["cell"][crystal]
        assert float(added.norm()) == pytest.approx(0.5 * float(score["cell"][crystal].norm()), rel=1e-4)


def test_clip_by_hand():
    """Crystals of two sites and one: (3, 4) has length 5 and may have 1, (0.1, 0) may stay; not finite: nothing."""
    added = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.1, 0.0]])
    score = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.2]])
    sites, free = torch.tensor([0, 0, 1]), torch.tensor([False, False])
    found = _limited(added, score, 1.0, sites, free)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.0], [0.0, 0.8], [0.1, 0.0]]))
    added[0, 0] = torch.nan
    found = _limited(added, score, 1.0, sites, free)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.1, 0.0]]))
    assert torch.equal(_limited(added, score, 1.0, sites, torch.tensor([True, True])), torch.zeros(3, 2))


def test_logits_by_hand():
    """Three elements, one ruled out: 5 and 1 are +-2 around their mean; the logits +-1, so half of it is added."""
    logits, added = torch.full((1, MASKED), -1e10), torch.zeros(1, MASKED)
    logits[0, :2], added[0, :3], added[0, -1] = torch.tensor([1.0, -1.0]), torch.tensor([5.0, 1.0, 99.0]), 99.0
    found = _shifted(logits, added, 1.0, torch.tensor([0]), torch.tensor([False]))
    assert found[0, :2].tolist() == pytest.approx([2.0, -2.0]) and (found[0, 2:] == -1e10).all()
    logits[0, -1] = 3.0  # a mask is no clean element, whatever the network says of it
    assert float(_shifted(logits, added, 1.0, torch.tensor([0]), torch.tensor([False]))[0, -1]) == 3.0


def test_parked_crystals_are_left_alone_and_do_not_matter_to_others(make_classifier, batch):
    classifier, t, score = make_classifier(), torch.tensor([0.2, 0.6]), scores(batch)
    plain = classifier.guide(score, batch, t, guard_of(batch))
    guard = guard_of(batch)
    guard.park(torch.tensor([True, False]))
    found = classifier.guide(score, batch, t, guard)
    first = batch.get_batch_idx("pos") == 0
    assert torch.equal(found["pos"][first], score["pos"][first])
    assert torch.equal(found["atomic_numbers"][first], score["atomic_numbers"][first])
    assert torch.equal(found["pos"][~first], plain["pos"][~first]) and not torch.equal(plain["pos"], score["pos"])


def test_a_batch_without_neighbours_is_not_guided(make_classifier, batch):
    far, score = batch.replace(cell=20 * batch["cell"]), scores(batch)
    assert make_classifier().guide(score, far, torch.tensor([0.5, 0.5]), guard_of(batch)) is score


# -- in a generation --------------------------------------------------------------------------------------------------


@pytest.fixture
def loader(folder, curves):
    return ConditionLoader(4, 4, classifier={"predictor": folder, "target": curves})


def test_strength_zero_is_no_guidance_to_the_last_bit(make_joint, make_sampler, make_classifier, loader, monkeypatch):
    model, classifier = make_joint(), make_classifier(strength=0.0)
    monkeypatch.setattr(classifier.predictor, "network", None)  # not even asked
    expected = sample(make_sampler(model), loader)
    found = sample(make_sampler(model, classifier=classifier), loader)
    for name in ("pos", "cell", "atomic_numbers", "bader_charge"):
        assert torch.equal(found[name], expected[name])


@pytest.mark.parametrize(("guidance", "plan"), [(0.0, {}), (2.0, {}), (0.0, {"steps": 60})])
def test_guided_crystals_have_a_lower_energy_than_those_of_the_same_seed(
    make_joint, make_sampler, make_classifier, loader, guidance, plan
):
    model = make_joint(adapter=True)
    means = []
    for strength in (0.0, 100.0):
        classifier = make_classifier(strength=strength, clip=3.0)
        found = sample(make_sampler(model, classifier=classifier, guidance_scale=guidance, **plan), loader)
        target = Target(total=values_of(classifier.guidance.targets, range(4)))
        means.append(float(energy(classifier.predictor, found, torch.zeros(4), target).mean()))
        assert found["pos"].isfinite().all() and torch.allclose(found["cell"], found["cell"].mT, atol=1e-4)
    assert means[1] < 0.9 * means[0]


def test_with_fixed_types_and_a_crystal_that_is_parked(make_joint, make_sampler, make_classifier, loader, collapse):
    held = Held(types=FixedTypes({0: 8}))
    sampler = make_sampler(make_joint(), constraints=held, classifier=make_classifier(strength=5.0))
    collapse(sampler)
    found = sample(sampler, loader)
    assert sampler.guard.parked.tolist() == [False, True, False, False]
    assert found["atomic_numbers"][np.cumsum([0, *SIZES[:-1]])].tolist() == [8] * 4


def test_conditions_of_ones_own_get_the_curves_in_turn(make_classifier, make_joint, make_sampler):
    classifier = make_classifier(per_curve=2)
    told = classifier.tell(ConditionLoader(5, 5).make(np.array([2] * 5)))[TARGET]
    low, high = values_of(classifier.guidance.targets, [0, 2])
    assert torch.equal(told, torch.stack([low, low, high, high, low]))
    sampler = make_sampler(make_joint(), classifier=classifier)
    _, mean = sampler.sample(ConditionLoader(2, 2).make(np.array([2, 2])))
    assert torch.equal(mean[TARGET], torch.stack([low, low]))


# -- what is asked for ------------------------------------------------------------------------------------------------


def test_loader_gives_each_crystal_its_curve(folder, curves, tmp_path):
    settings = {"predictor": folder, "target": curves, "per_curve": 2, "window": [-4, 0]}
    loader = ConditionLoader(6, 4, classifier=settings, num_atoms=3)
    assert loader.guidance is not None
    known = (TOTAL.energies >= -4) & (TOTAL.energies <= 0)
    rows = torch.cat([batch[TARGET] for batch, _ in loader])
    assert torch.equal(rows.isfinite(), torch.from_numpy(known).expand(6, -1))
    with np.load(curves) as archive:
        expected = archive["dos"][[0, 0, 1, 1, 0, 0]][:, known]
    np.testing.assert_allclose(rows.numpy()[:, known], expected, rtol=1e-6)
    assert loader.record(3) == {"classifier": {"curve": 1, "name": "high", "file": "target_classifier.npz"}}
    loader.save_targets(tmp_path)
    again = read_guidance({"predictor": folder, "target": tmp_path / "target_classifier.npz"})
    assert again is not None
    np.testing.assert_array_equal(again.targets.values, loader.guidance.targets.values)
    assert json.loads(json.dumps(loader.settings()))["classifier"]["predictor"] == loader.guidance.fingerprint
    other = ConditionLoader(6, 4, classifier={**settings, "strength": 2.0}, num_atoms=3)
    assert other.settings() != loader.settings()


def test_sampling_settings(compose, folder, curves):
    """The overrides of mattergen-generate, whole or key by key; without any the loader is as it was."""
    whole = f"sampler_partial.classifier={{predictor: {folder}, target: {curves}, window: [-2, 2]}}"
    parts = [f"sampler_partial.classifier.{k}={v}" for k, v in (("predictor", folder), ("target", curves))]
    for overrides in ([whole], [*parts, "sampler_partial.classifier.window=[-2,2]"]):
        config = compose("joint", *overrides, sampling=True)
        loader = instantiate(config.condition_loader_partial)(2, 2)
        assert loader.guidance.settings == ClassifierSettings(predictor=folder, target=curves, window=(-2, 2))
    loader = instantiate(compose("joint", sampling=True).condition_loader_partial)(2, 2)
    assert loader.guidance is None and TARGET not in loader.make(np.array([2, 2]))
    assert "classifier" not in loader.settings() and loader.record(0) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"predictor": "nowhere"}, "nowhere/predictor.yaml does not exist: give the folder of a predictor"),
        ({"predictor": None}, "sampler_partial.classifier.predictor: Field required; give {predictor: FOLDER"),
        ({"target": "nowhere.npz"}, "nowhere.npz does not exist: give a file with a density of states"),
        (
            {"window": [8, 12]},
            r"the window \[8, 12\] eV is none of the grid: give two ascending energies from -10 to 10",
        ),
        ({"strength": -1}, "sampler_partial.classifier.strength: Input should be greater than or equal to 0"),
        ({"strenght": 1}, "sampler_partial.classifier.strenght: Extra inputs are not permitted"),
    ],
)
def test_refusals(folder, curves, changes, words):
    with pytest.raises(UserError, match=words):
        ConditionLoader(2, 2, classifier={"predictor": folder, "target": curves, **changes})


def test_refusals_of_files(make_predictor, folder, curves, tmp_path):
    from mattergen_e.networks.predictor.folder import save

    clean = save(make_predictor(noisy=False), tmp_path / "clean")
    with pytest.raises(
        UserError, match="clean knows clean crystals only: give a predictor that was trained with --noisy"
    ):
        read_guidance({"predictor": clean, "target": curves})
    path: Path = tmp_path / "far.csv"
    path.write_text("energy,dos\n2,1\n3,1\n4,1\n")
    with pytest.raises(UserError, match="given from 2 to 4 eV, which leaves nothing between -5 and 0 eV"):
        read_guidance({"predictor": folder, "target": path, "window": [-5, 0]})
    with pytest.raises(UserError, match="sampler_partial.classifier: Input should be a valid dictionary"):
        read_guidance("predictor")  # type: ignore[arg-type]
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "predictor.yaml").write_bytes((Path(folder) / "predictor.yaml").read_bytes())
    wanted = read_guidance({"predictor": tmp_path / "half", "target": curves})
    assert isinstance(wanted, GuidanceTarget)
    with pytest.raises(UserError, match="the folder holds only a part of a predictor"):
        Classifier.load(wanted, torch.device("cpu"))


def test_a_composition_holds_under_guidance(make_joint, make_sampler, make_classifier):
    """However strongly the predictor pulls towards other elements."""
    model = make_joint()
    corruption = model.diffusion_module.corruption.corruptions["atomic_numbers"]
    held = Held(elements=Elements(ElementRules(formula={12: 1, 8: 1}), corruption))
    sampler = make_sampler(model, constraints=held, classifier=make_classifier(strength=50.0))
    torch.manual_seed(0)
    _, mean = sampler.sample(ConditionLoader(2, 2).make(np.array([2, 6])))
    assert [sorted(part.tolist()) for part in mean["atomic_numbers"].split([2, 6])] == [[8, 12], [8] * 3 + [12] * 3]
