"""Checkpoints of others: plain data, whole, finite, and those that the card tells of."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mattergen_e.errors import UserError
from mattergen_e.upstream import load_checkpoint

MODEL = Path(__file__).resolve().parents[2] / "checkpoints" / "base_small"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of a shipped model that may be spoilt."""
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


@pytest.mark.parametrize("mapped", [False, True])
def test_a_whole_checkpoint(mapped: bool) -> None:
    assert load_checkpoint(MODEL / "checkpoints" / "last.ckpt", mapped)["state_dict"]


def test_configurations_become_plain_and_nothing_is_resolved(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    proof = tmp_path / "proof"
    config = OmegaConf.create({"a": {"b": f'${{eval:\'open("{proof}", "w")\'}}', "c": [1, "${a.b}"]}})
    torch.save({"hyper_parameters": {"config": config}}, tmp_path / "last.ckpt")
    found: Any = load_checkpoint(tmp_path / "last.ckpt")["hyper_parameters"]["config"]
    assert type(found) is dict and found["a"]["c"] == [1, "${a.b}"] and found["a"]["b"].startswith("${eval:")
    assert not proof.exists()


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits_are_seen(seed: int, model: Path) -> None:
    path = model / "checkpoints" / "last.ckpt"
    content = bytearray(path.read_bytes())
    place = random.Random(seed).randrange(len(content) // 4, len(content) * 3 // 4)
    content[place] ^= 1 << seed
    path.write_bytes(content)
    with pytest.raises(UserError, match="last.ckpt"):
        load_checkpoint(path, mapped=True)


def test_other_weights_than_the_card_tells_of(model: Path) -> None:
    path = model / "checkpoints" / "last.ckpt"
    content = load_checkpoint(path)
    name = next(name for name, value in content["state_dict"].items() if value.is_floating_point())
    content["state_dict"][name] += 1e-3
    torch.save(content, path)
    with pytest.raises(UserError, match=r"not hold the weights that card.yaml .*mattergen-e export"):
        load_checkpoint(path)
    (model / "card.yaml").unlink()  # a run folder tells nothing of its weights
    load_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(value: float, tmp_path: Path) -> None:
    state = {"steps": torch.tensor(3), "layer.weight": torch.tensor([1.0, value])}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"NaN or infinite \(layer.weight\)"):
        load_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize("card", ["a: [", "[1]", "\x00"])
def test_a_card_that_cannot_be_read(card: str, model: Path) -> None:
    (model / "card.yaml").write_text(card)
    with pytest.raises(UserError, match=r"card.yaml cannot be read"):
        load_checkpoint(model / "checkpoints" / "last.ckpt")


def test_a_card_without_a_hash_is_taken(model: Path) -> None:
    (model / "card.yaml").write_text(yaml.safe_dump({"name": "mine"}))
    load_checkpoint(model / "checkpoints" / "last.ckpt")


def test_a_file_that_holds_a_tensor(tmp_path: Path) -> None:
    torch.save(torch.zeros(2), tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="holds no checkpoint but a Tensor"):
        load_checkpoint(tmp_path / "last.ckpt")
