"""Guidance by a predictor towards the spectra of sites, where the model itself can be told none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml

from mattergen_e.diffusion.classifier import Classifier
from mattergen_e.diffusion.guidance_target import NAME, TARGET
from mattergen_e.diffusion.held import Held, SiteTargets
from mattergen_e.diffusion.joint import JointDiffusionLightningModule
from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader
from mattergen_e.generation.constraints.apply import constrain
from mattergen_e.networks.predictor.guidance import Target, energy
from mattergen_e.spectra.grid import EnergyGrid

SITES = EnergyGrid(minimum=-15, maximum=5, points=64)
TOTAL = EnergyGrid(minimum=-10, maximum=10, points=32)
SPECTRUM = (4 * np.exp(-0.5 * ((SITES.energies + 6.0) / 2) ** 2)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tiny_predictor, tmp_path_factory):
    from mattergen_e.networks.predictor.folder import save

    return save(tiny_predictor(SITES, TOTAL, noisy=True), tmp_path_factory.mktemp("predictor"))


@pytest.fixture
def constraints(tmp_path):
    """Sites 1 and 2 of three shall have the spectrum."""
    np.savez(tmp_path / "site.npz", energies=SITES.energies, dos=SPECTRUM)
    path = tmp_path / "constraints.yaml"
    sites = [{"site": i, "site_dos": {"file": "site.npz"}} for i in (1, 2)]
    path.write_text(yaml.safe_dump({"num_atoms": 3, "sites": sites}))
    return path


def wanted_sites(n_crystals, *sites):
    wanted = torch.full((n_crystals, 3, SITES.points), torch.nan)
    wanted[:, sites] = torch.from_numpy(SPECTRUM)
    return wanted.reshape(-1, SITES.points)


def test_sites_are_pulled_to_their_spectra(make_joint, make_sampler, folder, constraints):
    """The energy of the target, at the end, beside that of the same seed without guidance."""
    means, model = [], make_joint()
    for strength in (0.0, 10.0):
        settings = {"predictor": folder, "strength": strength}
        loader = ConditionLoader(12, 12, constraints=str(constraints), classifier=settings)
        sampler = make_sampler(model, constraints=constraints, classifier=settings)
        torch.manual_seed(0)
        found = sampler.sample(loader.make(loader.num_atoms()))[1]
        assert TARGET not in found
        predictor = sampler.classifier.predictor
        means.append(float(energy(predictor, found, torch.zeros(12), Target(sites=wanted_sites(12, 1, 2))).mean()))
    assert means[1] < 0.9 * means[0]


def test_only_the_sites_asked_for_count(make_joint, make_sampler, folder, solids, to_batch):
    """The gradient is that of the energy of these sites, as finite differences give it."""
    classifier = Classifier.load({"predictor": folder, "target": None}, torch.device("cpu"))
    held = Held(targets=[SiteTargets(NAME, {1: torch.from_numpy(SPECTRUM)})])
    crystal = solids["Li2O"].copy()
    crystal.perturb(0.15, seed=1)
    batch = held.begin(to_batch([crystal, crystal], fields=()))
    t = torch.tensor([0.2, 0.6])
    found = classifier.gradients(batch, t)["pos"]
    wanted, step = Target(sites=wanted_sites(2, 1)), 1e-3

    def at(shift):
        pos = batch["pos"].clone()
        pos[2, 0] += shift
        return float(energy(classifier.predictor, batch.replace(pos=pos), t, wanted)[0])

    assert float(found[2, 0]) == pytest.approx(-(at(step) - at(-step)) / (2 * step), rel=0.05)
    assert float(found.abs().max()) > 0


def test_a_model_that_takes_the_spectra_itself_is_told_them(make_module, folder, constraints):
    from mattergen_e.diffusion.site_dos import SiteDosCondition

    condition = SiteDosCondition(grid=SITES, bins=16)
    model = JointDiffusionLightningModule(
        diffusion_module=make_module(), descriptors={}, site_conditions={"site_dos": condition}
    )
    wanted = Classifier.load({"predictor": folder}, torch.device("cpu")).guidance
    assert [target.name for target in constrain(constraints, model, wanted).targets] == ["site_dos"]


def test_a_predictor_needs_something_to_guide_to(make_joint, make_sampler, folder, constraints, tmp_path):
    words = "sampler_partial.classifier has a predictor and nothing to guide to: give target: FILE, or site_dos"
    with pytest.raises(UserError, match=words):
        ConditionLoader(2, 2, classifier={"predictor": folder})
    with pytest.raises(UserError, match=words):
        make_sampler(make_joint(), classifier={"predictor": folder})
    other = tmp_path / "elements.yaml"
    other.write_text("sites: [{site: 0, element: O}]")
    with pytest.raises(UserError, match=words):
        ConditionLoader(2, 2, constraints=str(other), classifier={"predictor": folder})
    loader = ConditionLoader(2, 2, constraints=str(constraints), classifier={"predictor": folder})
    assert loader.settings()["classifier"]["predictor"] == loader.guidance.fingerprint
    assert loader.record(0) == {}


def test_spectra_that_the_predictor_cannot_take(make_joint, folder, tmp_path):
    np.savez(tmp_path / "short.npz", energies=np.linspace(-3, 1, 9), dos=np.ones(9))
    path = tmp_path / "constraints.yaml"
    path.write_text(yaml.safe_dump({"sites": [{"site": 0, "site_dos": {"file": "short.npz"}}]}))
    wanted = Classifier.load({"predictor": folder}, torch.device("cpu")).guidance
    with pytest.raises(UserError, match=r"site 0, 'site_dos' is given from -3 to 1 eV, but all of .* is needed"):
        constrain(path, make_joint(), wanted)
