"""The embedding of spectra by hand, and what MatterGen's adapter makes of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mattergen.diffusion.lightning_module import DiffusionLightningModule
from mattergen.property_embeddings import (
    SetConditionalEmbeddingType,
    SetEmbeddingType,
    SetUnconditionalEmbeddingType,
    get_use_unconditional_embedding,
)

from mattergen_e.diffusion.dos_embedding import DosEmbedding, check_reliable
from mattergen_e.errors import UserError
from mattergen_e.spectra.curves import NOT_GIVEN
from mattergen_e.spectra.grid import TOTAL_GRID
from mattergen_e.targets.targets import read_target

pytestmark = pytest.mark.usefixtures("list_of_conditions")


def gelu(x):
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def by_hand(embedding, row):
    """Eq. 2 in plain numbers, for one spectrum (points,) with nothing hidden but negative bins."""
    weights = {name: p.detach().double().numpy() for name, p in embedding.named_parameters()}
    mask = (row >= 0).astype(float)
    x = np.concatenate([np.log(1 + np.where(mask > 0, row, 0)), mask])
    h = weights["first.weight"] @ x + weights["first.bias"]
    h = (h - h.mean()) / np.sqrt(h.var() + 1e-5) * weights["norm.weight"] + weights["norm.bias"]
    h = weights["second.weight"] @ np.array([gelu(v) for v in h]) + weights["second.bias"]
    return np.array([gelu(v) for v in h])


def test_equation_2_by_hand(spectra):
    torch.manual_seed(1)
    embedding = DosEmbedding(8).eval()
    torch.nn.init.normal_(embedding.norm.weight)
    torch.nn.init.normal_(embedding.norm.bias)
    spectra[1, :100] = NOT_GIVEN
    spectra[2] *= 1500  # the paper's spectra reach 3000 states/eV
    found = embedding(torch.from_numpy(spectra)).detach().numpy()
    assert found.shape == (3, 8)
    assert np.allclose(found, [by_hand(embedding, row) for row in spectra], atol=2e-5)


def test_with_everything_given_the_mask_is_a_bias(spectra):
    """Then the equation is the paper's, of 256 inputs."""
    embedding = DosEmbedding(8).eval()
    given = embedding(torch.from_numpy(spectra))
    bias = embedding.first.bias + embedding.first.weight[:, 256:].sum(dim=1)
    h = torch.log1p(torch.from_numpy(spectra)) @ embedding.first.weight[:, :256].T + bias
    paper = torch.nn.functional.gelu(embedding.second(torch.nn.functional.gelu(embedding.norm(h))))
    assert torch.allclose(given, paper, atol=1e-5)


def test_hidden_bins_have_no_effect_and_zero_is_not_hidden(spectra):
    embedding = DosEmbedding(8, reliable=[-10, 5]).eval()
    row = torch.from_numpy(spectra[:1])
    hidden, zero, above = row.clone(), row.clone(), row.clone()
    hidden[:, 50:60], zero[:, 50:60] = NOT_GIVEN, 0.0
    above[:, torch.from_numpy(TOTAL_GRID.energies > 5)] = 77.0  # the labels of this model do not reach there
    assert not torch.allclose(embedding(hidden), embedding(row), atol=1e-4)
    assert not torch.allclose(embedding(hidden), embedding(zero), atol=1e-4)
    assert torch.equal(embedding(above), embedding(row))


def test_unknown_labels_leave_the_gradients_alone(spectra):
    """MatterGen embeds an unknown label and throws the result away; a NaN in it would reach the weights."""
    embedding = DosEmbedding(8)
    spectra[1] = np.nan
    (embedding(torch.from_numpy(spectra))[[0, 2]] ** 2).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in embedding.parameters())


def test_windows_are_of_the_training_alone(spectra):
    embedding = DosEmbedding(8, windows={"full": 0.0, "outside": 0.0})
    batch = torch.from_numpy(spectra)
    assert not torch.equal(embedding.train()(batch), embedding.train()(batch))
    assert torch.equal(embedding.eval()(batch), embedding.eval()(batch))
    everything = DosEmbedding(8, windows={"full": 1.0, "outside": 0.0})
    assert torch.equal(everything.train()(batch), everything.eval()(batch))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"grid": {"minimum": -10, "maximum": 10, "points": 128}}, "is on 128 points.*but 256 points"),
        ({"reliable": [-12, 5]}, "window \\[-12, 5\\] eV is none of the grid"),
        ({"windows": {"full": 0.8, "outside": 0.3}}, "add up to at most 1"),
        ({"windows": {"narrowest": 0.01}}, "narrowest is 0.01"),
    ],
)
def test_settings_that_make_no_sense(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        DosEmbedding(8, **settings)


def test_conditions_that_are_no_spectra():
    embedding = DosEmbedding(8)
    with pytest.raises(UserError, match="sampling_config_name=joint"):
        embedding(["spectrum.csv"])
    with pytest.raises(UserError, match=r"shape \(2, 100\)"):
        embedding(torch.zeros(2, 100))


# -- in the adapter ---------------------------------------------------------------------------------------------------


@pytest.fixture
def batch(to_batch, solids, spectra):
    some = [solids[name] for name in ("NaCl", "TiO2", "BaTiO3")]
    return to_batch(some, fields=()).replace(dos=torch.from_numpy(spectra))


def output(module, batch):
    t = torch.tensor([0.1, 0.5, 0.9])
    with torch.no_grad():
        noisy = module.model(batch, t)
    return {name: noisy[name] for name in ("pos", "cell", "atomic_numbers")}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_embedding_is_zero_where_the_condition_is_dropped(make_dos_module, batch):
    module = make_dos_module()
    embedding = module.model.property_embeddings_adapt["dos"]
    dropped = SetUnconditionalEmbeddingType()(batch)
    assert not embedding(dropped).any() and embedding(dropped).shape == (3, 16)
    asked = embedding(SetConditionalEmbeddingType()(batch))
    assert asked.abs().sum(dim=1).min() > 0


def test_adapter_that_was_not_trained_is_the_pretrained_model(make_module, make_dos_module, batch):
    base, adapter = make_module(), make_dos_module(mixed=False)
    missing = adapter.load_state_dict(base.state_dict(), strict=False)
    assert not missing.unexpected_keys
    expected = output(base, batch)
    assert equal(output(adapter, SetConditionalEmbeddingType()(batch)), expected)
    assert equal(output(adapter, SetUnconditionalEmbeddingType()(batch)), expected)


def test_dropped_condition_is_the_pretrained_model_after_training_too(make_module, make_dos_module, batch):
    base, adapter = make_module(), make_dos_module()
    adapter.load_state_dict(base.state_dict(), strict=False)
    expected = output(base, batch)
    assert equal(output(adapter, SetUnconditionalEmbeddingType()(batch)), expected)
    assert not equal(output(adapter, SetConditionalEmbeddingType()(batch)), expected)


def test_share_of_dropped_conditions(batch, make_dos_module):
    make_dos_module()
    torch.manual_seed(0)
    dropped = [get_use_unconditional_embedding(SetEmbeddingType(0.2, True)(batch), "dos") for _ in range(2000)]
    share = torch.stack(dropped).float().mean()
    assert abs(share - 0.2) < 5 * math.sqrt(0.2 * 0.8 / 6000)
    spectra = batch["dos"].clone()
    spectra[1] = math.nan  # no label: always dropped
    dropped = get_use_unconditional_embedding(SetEmbeddingType(0.0, True)(batch.replace(dos=spectra)), "dos")
    assert dropped.squeeze(1).tolist() == [False, True, False]


@pytest.fixture
def score(make_dos_module, make_sampler, batch):
    """The score that the sampler of a guidance factor takes, per field."""
    model = DiffusionLightningModule(diffusion_module=make_dos_module())

    def make(factor, data=batch):
        sampler = make_sampler(model, guidance_scale=factor)
        sampler.guard.begin(data["num_atoms"])
        with torch.no_grad():
            found = sampler._score_fn(sampler.with_fields(data), torch.full((3,), 0.5))
        return {name: found[name] for name in ("pos", "cell", "atomic_numbers")}

    return make


def test_guidance_0_is_unconditional_and_1_is_conditional(score, batch):
    without = batch.replace(dos=torch.full((3, 256), 9.0))
    assert equal(score(0.0), score(0.0, without))  # the condition is not looked at
    assert not equal(score(1.0), score(1.0, without))
    asked = score(1.0)
    assert not equal(asked, score(0.0))
    # towards both ends, the mixture becomes one of them
    assert torch.allclose(score(1e-6)["pos"], score(0.0)["pos"], atol=1e-4)


def test_guidance_in_the_convention_of_the_papers(score):
    """mixed = (1 + omega) conditional - omega unconditional, with MatterGen's factor = 1 + omega."""
    conditional, unconditional = score(1.0), score(0.0)
    for omega in (0.5, 1.0, 3.0):
        mixed = score(1 + omega)
        for name in mixed:
            expected = (1 + omega) * conditional[name] - omega * unconditional[name]
            assert torch.allclose(mixed[name], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_target_outside_of_what_the_model_has_learned(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("energy,dos\n6,1\n9,1\n")
    target = read_target("dos", str(file))
    check_reliable(target, DosEmbedding(8).reliable)
    with pytest.raises(UserError, match="curve 'x' is given nowhere between -10 and 5 eV"):
        check_reliable(target, DosEmbedding(8, reliable=[-10, 5]).reliable)
