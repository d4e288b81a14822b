"""An autoencoder inside a model's weights: it goes wherever they go, and no other can take its place."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from mattergen_e.descriptors.autoencoder_slot import AutoencoderSlot, from_bytes, to_bytes
from mattergen_e.errors import UserError


@pytest.fixture
def autoencoder(tiny_autoencoder):
    return tiny_autoencoder()


class Model(nn.Module):
    """A model with a slot in its depth."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.parts = nn.ModuleDict({"atomic_dos": AutoencoderSlot()})

    @property
    def slot(self):
        return self.parts["atomic_dos"]


def test_bytes_hold_all(autoencoder):
    again = from_bytes(to_bytes(autoencoder), "it")
    assert again.fingerprint == autoencoder.fingerprint
    assert again.processing == autoencoder.processing
    assert again.record == autoencoder.record
    z = np.random.default_rng(0).uniform(-0.9, 0.9, (5, 4))
    assert np.array_equal(again.decode(z), autoencoder.decode(z))
    assert torch.equal(to_bytes(again), to_bytes(autoencoder))  # the hash over the weights stays the same


def test_reading_leaves_the_random_numbers_alone(autoencoder):
    content = to_bytes(autoencoder)
    torch.manual_seed(3)
    before = torch.rand(3)
    torch.manual_seed(3)
    from_bytes(content, "it")
    assert torch.equal(torch.rand(3), before)


def test_state_carries_it(autoencoder, tmp_path):
    model, other = Model(), Model()
    model.slot.put(autoencoder, "it")
    torch.save(model.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert set(state) == {"layer.weight", "layer.bias", "parts.atomic_dos.autoencoder"}
    other.load_state_dict(state, strict=True)
    assert other.slot.held.fingerprint == autoencoder.fingerprint
    assert torch.equal(other.layer.weight, model.layer.weight)
    assert torch.equal(other.state_dict()["parts.atomic_dos.autoencoder"], state["parts.atomic_dos.autoencoder"])


def test_neither_parameters_nor_buffers(autoencoder):
    model = Model()
    model.slot.put(autoencoder, "it")
    assert {name for name, _ in model.named_parameters()} == {"layer.weight", "layer.bias"}
    assert not list(model.buffers())


def test_model_that_is_yet_to_be_trained_has_none(autoencoder):
    model, pretrained = Model(), Model()
    pretrained.slot.put(autoencoder, "it")
    model.load_state_dict(Model().state_dict())
    assert model.slot.held is None
    model.load_state_dict(model.state_dict() | pretrained.state_dict())  # as mattergen-finetune does
    assert model.slot.held.fingerprint == autoencoder.fingerprint


def test_copies_share_it(autoencoder):
    model = Model()
    copy = deepcopy(model)  # the moving average is made before the training puts the autoencoder in
    model.slot.put(autoencoder, "it")
    assert copy.slot.held is autoencoder
    assert copy.layer.weight is not model.layer.weight


def test_another_one_is_refused(autoencoder, tiny_autoencoder):
    model, other = Model(), Model()
    model.slot.put(autoencoder, "it")
    model.slot.put(tiny_autoencoder(), "the same")
    other.slot.put(tiny_autoencoder(seed=1), "it")
    mine, strange = autoencoder.fingerprint[:12], other.slot.held.fingerprint[:12]
    for change in (lambda: model.slot.put(other.slot.held, "X"), lambda: model.load_state_dict(other.state_dict())):
        with pytest.raises(UserError, match=f"holds autoencoder {strange}, but the model was made with {mine}"):
            change()
    assert model.slot.held is autoencoder


def test_missing_entry_is_said(autoencoder):
    state = {name: value for name, value in Model().state_dict().items() if name.startswith("layer")}
    with pytest.raises(UserError, match=r"no entry 'parts\.atomic_dos\.autoencoder', the autoencoder of its spectra"):
        Model().load_state_dict(state, strict=False)


@pytest.mark.parametrize("damage", ["cut", "garbage", "other"])
def test_damage_is_said(autoencoder, damage):
    content = to_bytes(autoencoder)
    broken = {"cut": content[: len(content) // 2], "garbage": torch.arange(200, dtype=torch.uint8)}
    if damage == "other":
        import io

        buffer = io.BytesIO()
        np.savez(buffer, description=np.array("{}"))
        broken["other"] = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
    with pytest.raises(UserError, match="the checkpoint holds a damaged autoencoder"):
        from_bytes(broken[damage], "the checkpoint")


def test_changed_weights_are_noticed(autoencoder, tiny_autoencoder):
    import io

    with np.load(io.BytesIO(to_bytes(autoencoder).numpy().tobytes())) as archive:
        arrays = dict(archive)
    arrays["weight:encoder.reduce.bias"] = arrays["weight:encoder.reduce.bias"] + 1e-3
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with pytest.raises(UserError, match="holds an autoencoder that was changed"):
        from_bytes(torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8), "it")
