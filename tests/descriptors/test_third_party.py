"""Descriptors of another package, one file and one YAML each: nothing of this package knows them."""

from __future__ import annotations

import io
import sys
from zipfile import ZipFile

import ase.io
import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from mattergen_e.crystals.reading import NamedStructure
from mattergen_e.descriptors import Descriptor
from mattergen_e.diffusion.held import ClampedDescriptor
from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader, seed_batch
from mattergen_e.generation.constraints.apply import constrain
from mattergen_e.generation.fitting import sample_batch
from mattergen_e.generation.formats import Generated, batch_files, read_files
from mattergen_e.prediction.run import predict
from mattergen_e.testing import check_descriptor

CODE = {
    "toy_total": '''
from dataclasses import dataclass
from mattergen_e.descriptors import Descriptor

@dataclass(frozen=True, kw_only=True)
class Total(Descriptor):
    """A number per crystal."""
    name: str = "total"
    place: str = "crystal"
    unit: str = "eV"
''',
    "toy_rho": '''
from dataclasses import dataclass
import torch
from torch import nn
from mattergen_e.descriptors import Descriptor
from mattergen_e.descriptors.networks import Neighbourhood, zero_ended_mlp

class Messages(nn.Module):
    """Probes hear the sites after each block and answer; the answer starts at zero."""
    def __init__(self, descriptor, atom_dim):
        super().__init__()
        self.descriptor, self.hear = descriptor, nn.Linear(atom_dim + 1, 8)
        self.answer = zero_ended_mlp(8, 8, atom_dim, 1)

    def forward(self, block, features, noisy, times, batch):
        ways = Neighbourhood("grid", self.descriptor.probes, batch)
        heard = self.hear(torch.cat([ways.to_rows(features), noisy], dim=-1))
        times.memory["state"] = times.memory.get("state", 0) + heard.tanh()
        return self.answer(ways.to_sites(times.memory["state"]))

@dataclass(frozen=True, kw_only=True)
class Rho(Descriptor):
    """A number per probe of a grid, which trades messages with the sites."""
    name: str = "rho"
    place: str = "grid"
    probes: tuple = (4, 4, 4)

    def exchange(self, atom_dim, blocks):
        return Messages(self, atom_dim)
''',
}
YAML = {
    "toy_total": "total:\n  _target_: toy_total.Total\n  scale: 2.0\n",
    "toy_rho": "rho:\n  _target_: toy_rho.Rho\n  probes: [4, 4, 4]\n",
}
GRID = (np.arange(64.0).reshape(4, 4, 4) / 32 - 1).tolist()


@pytest.fixture(scope="module")
def descriptors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("third_party")
    made = {}
    for name, code in CODE.items():
        (folder / f"{name}.py").write_text(code)
        (folder / f"{name}.yaml").write_text(YAML[name])
    sys.path.insert(0, str(folder))
    for name in CODE:
        made |= instantiate(OmegaConf.load(folder / f"{name}.yaml"), _convert_="all")
    yield made
    sys.path.remove(str(folder))


def field(structure):
    """Electronegativity of the sites around each of 4 x 4 x 4 probes, less 2.3: (64, 1)."""
    axis = np.arange(4) / 4
    probes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    weight = np.exp(-(structure.lattice.get_all_distances(probes, structure.frac_coords) ** 2) / 2)
    values = np.array([site.specie.X for site in structure]) - 2.3
    return (weight @ values / weight.sum(axis=1))[:, None].astype(np.float32)


@pytest.fixture(scope="module")
def trained(descriptors, make_joint, to_batch, solids):
    model = make_joint(descriptors, fresh=True, shares={"predict": 0.5, "given": 0.3})
    crystals = list(solids.values())
    batch = to_batch(crystals, fields=()).replace(
        total=torch.full((len(crystals), 1), 3.0), rho=torch.from_numpy(np.concatenate([field(c) for c in crystals]))
    )
    optimizer = torch.optim.Adam(model.diffusion_module.joint_fields.parameters(), lr=0.01)
    torch.manual_seed(0)
    losses = []
    for _ in range(250):
        optimizer.zero_grad()
        _, parts = model.diffusion_module.calc_loss(batch)
        loss = parts["total"] + parts["rho"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:5])
    return model.eval()


@pytest.mark.parametrize("name", ["total", "rho"])
def test_they_keep_to_the_contract(descriptors, name):
    check_descriptor(descriptors[name])


def test_messages_start_at_zero_and_are_heard(descriptors, make_module, make_joint, to_batch, solids):
    batch = to_batch(list(solids.values()), fields=())
    base = make_module(num_blocks=2)
    model = make_joint({"rho": descriptors["rho"]}, fresh=True, num_blocks=2).diffusion_module
    noisy = batch.replace(rho=torch.randn(64 * 8, 1), rho_batch=torch.arange(8).repeat_interleave(64))
    t = torch.full((8,), 0.5)
    with torch.no_grad():
        before = base.model(batch, t)["pos"]
        assert torch.equal(before, model.model(noisy, t)["pos"])
        torch.nn.init.normal_(model.joint_fields.exchanges["rho"].answer[-1].weight)
        assert not torch.allclose(before, model.model(noisy, t)["pos"])


def test_predicted(trained, solids):
    (found,) = predict(trained, [NamedStructure("x", solids["MgO"])], samples=8, steps=20)
    assert found.mean["total"] == pytest.approx(np.array([[3.0]]), abs=1.0)
    assert found.mean["rho"].shape == (64, 1) and np.isfinite(found.mean["rho"]).all()
    assert "total" in found.as_line()["values"] and "rho" not in found.as_line()


def generated(sampler, seed=1):
    loader = ConditionLoader(num_samples=2, batch_size=2, num_atoms=[2, 3], seed=seed)
    (data, _), *_ = loader
    return sample_batch(sampler, data, seed, 0)


def test_generated_and_written(trained, make_sampler):
    result = generated(make_sampler(trained))
    crystals = [
        Generated(index=i, batch=0, conditions={}, seed=1, **vars(drawn))
        for i, drawn in enumerate(result.crystals)
        if drawn is not None
    ]
    files = batch_files(crystals)
    frames = ase.io.read(io.StringIO(files["generated_crystals.extxyz"].decode()), index=":", format="extxyz")
    total = [crystal.values["total"] for crystal in crystals]
    assert [frame.info["total"] for frame in frames] == pytest.approx(total)
    with ZipFile(io.BytesIO(files["generated_crystals_cif.zip"])) as archive:
        assert f"_mattergen_e_total   {total[0]}" in archive.read("gen_0.cif").decode()
    with np.load(io.BytesIO(files["generated_rho.npz"])) as arrays:
        assert arrays["rho_1"].shape == (4, 4, 4, 1)
    back = read_files(files.__getitem__)
    assert [crystal.values for crystal in back] == [{"total": value} for value in total]
    assert np.array_equal(back[1].artefacts["rho"].arrays["rho"], crystals[1].artefacts["rho"].arrays["rho"])


def test_the_same_seed_gives_the_same(trained, make_sampler):
    first, again = (generated(make_sampler(trained)).crystals for _ in range(2))
    assert [c.values for c in first if c] == [c.values for c in again if c]


@pytest.mark.parametrize("given", [0.0, 0.3], ids=["clamped", "given"])
def test_held(descriptors, make_joint, make_sampler, tmp_path, given):
    model = make_joint(descriptors, shares={"predict": 0.3, "given": given})
    np.save(tmp_path / "rho.npy", np.array(GRID))
    told = {"num_atoms": 2, "crystal": {"total": 4.5, "rho": {"file": "rho.npy"}}}
    (tmp_path / "held.yaml").write_text(yaml.safe_dump(told))
    held = constrain(tmp_path / "held.yaml", model)
    assert isinstance(held.clamped["rho"], ClampedDescriptor) and held.clamped["rho"].clean == (given > 0)
    for drawn in generated(make_sampler(model, constraints=held)).crystals:
        assert drawn is not None and drawn.values == {"total": 4.5}
        assert np.allclose(drawn.artefacts["rho"].arrays["rho"][..., 0], GRID, atol=1e-5)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"crystal": {"total": [1.0, 2.0]}}, "has 2 numbers: give one number in eV"),
        ({"crystal": {"rho": [[1.0]]}}, r"has the shape \(1, 1\): give 4 x 4 x 4 lists of one number"),
        ({"crystal": {"rho": {"file": "none.npy"}}}, "does not exist"),
        ({"crystal": {"other": 1.0}}, "of the crystal this model can take total, rho"),
        ({"sites": [{"site": 0, "total": 1.0}]}, "write it under 'crystal'"),
        ({"crystal": {"rho": "text"}}, "crystal"),
    ],
)
def test_what_cannot_be_held(descriptors, make_joint, tmp_path, told, words):
    (tmp_path / "held.yaml").write_text(yaml.safe_dump(told))
    with pytest.raises(UserError, match=words):
        constrain(tmp_path / "held.yaml", make_joint(descriptors))


def test_cartesian_components_are_refused():
    with pytest.raises(UserError, match="do not turn with the cell"):
        Descriptor(name="moment", dim=3, frame="cartesian")  # type: ignore[arg-type]


def test_terms_of_grids_do_not_weigh_by_their_probes(make_joint, to_batch, solids):
    """A fresh model's term is the square of the noise: of order one, whatever the number of probes."""
    found = []
    for probes in ((2, 2, 2), (8, 8, 8)):
        model = make_joint({"rho": Descriptor(name="rho", place="grid", probes=probes, weighting="noise")}, fresh=True)
        n = probes[0] ** 3 * len(solids)
        batch = to_batch(list(solids.values()), fields=()).replace(rho=torch.randn(n, 1))
        seed_batch(0, 0)
        _, parts = model.diffusion_module.calc_loss(batch)
        found.append(float(parts["rho"]))
    assert found[0] == pytest.approx(found[1], rel=0.5)
