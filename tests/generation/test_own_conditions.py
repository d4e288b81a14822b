"""Values of a user's own properties against a model's configuration."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from mattergen.common.data.condition_factory import get_number_of_atoms_condition_loader
from omegaconf import OmegaConf

from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader
from mattergen_e.generation.own_conditions import as_field, read_own_conditions

OWN = "mattergen_e.diffusion.own_properties"


@pytest.fixture(scope="module")
def config() -> Any:
    """A model with three properties of one's own, and the band gap."""
    embeddings = {
        "hardness": {"_target_": "mattergen.diffusion.model_utils.NoiseLevelEncoding", "d_model": 8},
        "phase": {"_target_": f"{OWN}.CategoryEmbedding", "hidden_dim": 8, "categories": ["1", "rocksalt"]},
        "moduli": {"_target_": f"{OWN}.ListEmbedding", "hidden_dim": 8, "length": 2},
    }
    nodes: dict[str, Any] = {
        name: {"_target_": f"{OWN}.OwnPropertyEmbedding", "conditional_embedding_module": part}
        for name, part in embeddings.items()
    }
    nodes["dft_band_gap"] = {"_target_": "mattergen.property_embeddings.PropertyEmbedding"}
    model = {"property_embeddings": {}, "property_embeddings_adapt": nodes}
    return OmegaConf.create({"lightning_module": {"diffusion_module": {"model": model}}})


def test_values_as_the_model_takes_them(config: Any) -> None:
    asked: dict[str, Any] = {"hardness": "20", "phase": 1, "moduli": [3, "4.5"], "dft_band_gap": "left alone"}
    read = read_own_conditions(asked, config)
    assert json.loads(json.dumps(read)) == {
        "hardness": 20.0,
        "phase": "1",
        "moduli": [3.0, 4.5],
        "dft_band_gap": "left alone",
    }
    assert read_own_conditions(None, config) is None and read_own_conditions("text", config) == "text"
    assert read_own_conditions(asked, OmegaConf.create({})) == asked
    loader = ConditionLoader(3, 3, properties={k: v for k, v in read.items() if k != "dft_band_gap"}, num_atoms=2)
    loader.seed = 0
    (batch, _), *_ = loader
    assert batch["phase"] == ["1"] * 3
    torch.testing.assert_close(batch["hardness"], torch.full((3,), 20.0))
    torch.testing.assert_close(batch["moduli"], torch.tensor([[3.0, 4.5]] * 3))
    fields: Any = {name: as_field(read[name]) for name in ("phase", "moduli", "hardness")}
    theirs, _ = next(iter(get_number_of_atoms_condition_loader("ALEX_MP_20", 3, 3, properties=fields)))  # type: ignore
    assert theirs["phase"] == ["1"] * 3
    torch.testing.assert_close(theirs["moduli"], torch.tensor([[3.0, 4.5]] * 3))


def test_several_values_are_given_in_turn(config: Any) -> None:
    asked = {"hardness": [10, 20], "phase": ["rocksalt", "1"], "moduli": [[1, 2], [3, 4]]}
    loader = ConditionLoader(3, 3, properties=read_own_conditions(asked, config), num_atoms=2)
    loader.seed = 0
    (batch, _), *_ = loader
    assert batch["phase"] == ["rocksalt", "1", "rocksalt"] and batch["hardness"].tolist() == [10.0, 20.0, 10.0]
    assert batch["moduli"].tolist() == [[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]
    assert json.loads(json.dumps(loader.record(1))) == {"hardness": 20.0, "phase": "1", "moduli": [3.0, 4.0]}
    one = ConditionLoader(3, 3, properties=read_own_conditions({"moduli": [1, 2]}, config), num_atoms=2)
    assert one.settings()["conditions"] == {"moduli": [(1.0, 2.0)]}  # one value, which is a list


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"hardness": "hard"}, "'hardness' is 'hard': give a number"),
        ({"hardness": True}, "give a number"),
        ({"hardness": float("nan")}, "give a number"),
        ({"phase": "zinc blende"}, "'phase' is 'zinc blende', but this model has learned '1', 'rocksalt'"),
        ({"phase": ["rocksalt", "x"]}, "'phase' is 'x', but this model has learned"),
        ({"phase": []}, "this model has learned"),
        ({"moduli": 1.0}, "give a list of 2 numbers"),
        ({"moduli": [1, 2, 3]}, "give a list of 2 numbers"),
        ({"moduli": [1, "x"]}, "give a list of 2 numbers"),
    ],
)
def test_values_that_it_cannot_take(config: Any, asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_own_conditions(asked, config)
