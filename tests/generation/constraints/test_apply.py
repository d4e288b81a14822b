"""A constraints file with a model: in its units and on its grids, and exact in the crystals that are written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mattergen_e.descriptors import BaderCharge
from mattergen_e.diffusion.joint import JointDiffusionLightningModule
from mattergen_e.diffusion.site_dos import SiteDosCondition
from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader
from mattergen_e.generation.constraints.apply import constrain
from mattergen_e.generation.draw import draw
from mattergen_e.generation.store import read_crystals

REPOSITORY = Path(__file__).resolve().parents[3]
ENERGIES = np.linspace(-15, 5, 65)[:-1] + 10 / 64  # the centres of 64 bins


@pytest.fixture
def write(tmp_path):
    def write(**content):
        path = tmp_path / "constraints.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


@pytest.fixture
def spectrum(tmp_path):
    dos = 2 * np.exp(-0.5 * (ENERGIES + 3) ** 2)
    np.savez(tmp_path / "ni.npz", energies=ENERGIES, dos=dos)
    return dos.astype(np.float32)


def generate(sampler, path, output=None, n=4, seed=0):
    loader = ConditionLoader(n, 2, constraints=path, seed=seed)
    return draw(sampler, loader, {}, output_path=output)


def test_written_crystals_have_what_was_asked(make_joint, make_sampler, write, tmp_path):
    """In units of e, whatever the scale of the model's variable; the order of the sites is kept."""
    path = write(num_atoms=[3, 5], sites=[{"site": 2, "element": "Co", "bader_charge": 1.234567}])
    sampler = make_sampler(make_joint({"bader_charge": BaderCharge(scale=0.7)}), constraints=path)
    generate(sampler, path, tmp_path / "out")
    crystals = read_crystals(tmp_path / "out")
    assert len(crystals) == 4
    for crystal in crystals:
        structure = crystal.structure
        assert structure[2].specie.symbol == "Co" and structure[2].properties["bader_charge"] == 1.234567
        assert sum(structure.site_properties["bader_charge"]) == pytest.approx(0.0, abs=2e-5)


def test_resume_with_other_constraints_is_refused(make_joint, make_sampler, write, tmp_path):
    model = make_joint()
    path = write(num_atoms=3, sites=[{"site": 0, "element": "Co"}])
    generate(make_sampler(model, constraints=path), path, tmp_path / "out", n=2)
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]
    assert settings["constraints"]["content"]["sites"] == [{"site": 0, "element": "Co"}]
    resume = {"output": {"existing": "resume"}}
    generate(make_sampler(model, constraints=path, **resume), path, tmp_path / "out", n=2)
    path = write(num_atoms=3, sites=[{"site": 0, "element": "Ni"}])
    with pytest.raises(UserError, match="constraints"):
        generate(make_sampler(model, constraints=path, **resume), path, tmp_path / "out", n=2)


def test_redraws_keep_the_constraints(make_joint, make_sampler, write):
    path = write(num_atoms=3, sites=[{"site": 1, "element": "Co", "bader_charge": 0.5}])
    sampler = make_sampler(make_joint(), constraints=path)
    original, calls = sampler.sample, []

    def sample(data, mask):
        last, mean = original(data, mask)
        calls.append(data.get_batch_size())
        if len(calls) == 1:
            cell = mean["cell"].clone()
            cell[0] = torch.nan
            mean = mean.replace(cell=cell)
        return last, mean

    sampler.sample = sample
    structures = generate(sampler, path, n=2)
    assert calls == [2, 1]
    for structure in structures:
        assert structure[1].specie.symbol == "Co" and structure[1].properties["bader_charge"] == 0.5


def test_clamped_spectrum(make_joint, make_sampler, make_dos, write, spectrum):
    """The latents are those that the model's autoencoder makes of the spectrum, exactly."""
    descriptor = make_dos()
    path = write(num_atoms=2, sites=[{"site": 1, "atomic_dos": {"file": "ni.npz"}}])
    sampler = make_sampler(make_joint({"atomic_dos": descriptor}), constraints=path)
    latents = descriptor.of_model().encode(spectrum[None])[0]
    model = descriptor.of_model()
    (crystal,) = generate(sampler, path, n=1)
    written = sum(crystal.dos.get_site_dos(crystal[1]).densities.values())
    assert np.allclose(written, model.decode(latents[None])[0], atol=1e-4)
    torch.manual_seed(0)
    _, mean = sampler.sample(ConditionLoader(3, 3, constraints=path).make(np.array([2, 2, 2])))
    found = descriptor.decode(mean["atomic_dos"])[1::2]
    assert torch.equal(found, descriptor.decode(descriptor.encode(torch.from_numpy(latents))).expand(3, 4))
    assert np.allclose(found.numpy(), latents, atol=1e-6)


@pytest.mark.parametrize("given", [0.0, 0.3])
def test_mirror_of_prediction(make_joint, make_dos, write, spectrum, given):
    """A model that has learned to generate for clean descriptors is told that they are."""
    model = make_joint({"atomic_dos": make_dos()}, shares={"predict": 0.3, "given": given})
    held = constrain(write(num_atoms=2, sites=[{"site": 1, "atomic_dos": {"file": "ni.npz"}}]), model)
    assert held.clamped["atomic_dos"].clean is (given > 0)


def test_target_of_a_site(make_module, write, spectrum):
    model = JointDiffusionLightningModule(
        diffusion_module=make_module(),
        descriptors={},
        site_conditions={"site_dos": SiteDosCondition(grid={"minimum": -15, "maximum": 5, "points": 64}, bins=16)},
    )
    held = constrain(write(sites=[{"site": 2, "site_dos": {"file": "ni.npz"}}]), model)
    assert [t.name for t in held.targets] == ["site_dos"]
    assert np.allclose(held.targets[0].values[0], spectrum, atol=1e-6)


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"magmom": 1.0}, "names 'magmom', but of sites this model can take bader_charge, atomic_dos"),
        ({"site_dos": {"file": "ni.npz"}}, "names 'site_dos', but of sites this model can take"),
        ({"bader_charge": [1.0, 2.0]}, "'bader_charge' has 2 numbers: give one number in e"),
        ({"bader_charge": {"file": "ni.npz"}}, "'bader_charge' is a spectrum: give one number in e"),
        ({"atomic_dos": 1.0}, r"has 1 numbers: give a spectrum as \{file: FILE\}, or 64 points from -15 to 5 eV"),
        ({"atomic_dos": {"file": "short.npz"}}, "is given from -5 to 5 eV, but all of 64 points from -15 to 5 eV"),
        ({"atomic_dos": {"file": "far.npz"}}, "has no states between -15 and 5 eV"),
    ],
)
def test_what_a_model_cannot_take(make_joint, make_dos, write, spectrum, tmp_path, site, words):
    np.savez(tmp_path / "short.npz", energies=np.linspace(-5, 5, 50), dos=np.ones(50))
    far = np.linspace(-20, 20, 401)
    np.savez(tmp_path / "far.npz", energies=far, dos=np.where(far > 10, 1.0, 0.0))
    model = make_joint({"bader_charge": BaderCharge(), "atomic_dos": make_dos()})
    with pytest.raises(UserError, match=words):
        constrain(write(sites=[{"site": 0} | site]), model)


def test_sampling_settings_read_the_file_in_both_places(compose, write):
    path = write(num_atoms=3)
    settings = compose("joint", f"sampler_partial.constraints={path}", sampling=True)
    assert settings.condition_loader_partial.constraints == path
    assert compose("joint", sampling=True).condition_loader_partial.constraints is None


def command(warm, output, constraints):
    call = [
        "mattergen-generate",
        output,
        f"--model_path={REPOSITORY / 'checkpoints' / 'bader_joint_small'}",
        "--sampling_config_name=joint",
        "--batch_size=2",
        "--num_batches=1",
        f"--sampling_config_overrides=['sampler_partial.constraints={constraints}']",
    ]
    return warm.run(call)


@pytest.mark.slow
def test_command(warm, write, tmp_path, solids):
    """Template, fixed type and clamped charge with the trained model: 40 of its 200 steps."""
    solids["BaTiO3"].to(filename=str(tmp_path / "start.cif"), fmt="cif")
    order = [site.specie.symbol for site in solids["BaTiO3"]]
    site = order.index("Ba")
    path = write(
        sites=[{"site": site, "element": "Sr", "bader_charge": 1.55}],
        template={"structure": "start.cif", "time": 0.2},
    )
    done = command(warm, tmp_path / "out", path)
    assert done.returncode == 0, done.stderr[-2000:]
    crystals = read_crystals(tmp_path / "out")
    assert len(crystals) == 2
    for crystal in crystals:
        found = crystal.structure
        assert len(found) == 5 and found[site].specie.symbol == "Sr"
        assert found[site].properties["bader_charge"] == 1.55
        assert sum(found.site_properties["bader_charge"]) == pytest.approx(0.0, abs=2e-5)


@pytest.mark.slow
def test_command_says_what_is_wrong_before_it_loads_the_model(warm, write, tmp_path):
    done = command(warm, tmp_path / "out", write(num_atoms=1, sites=[{"site": 2, "element": "O"}]))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("mattergen-e: ") and "site 2 is constrained" in done.stderr
    assert "Traceback" not in done.stderr
