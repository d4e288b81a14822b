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
    asked = {"hardness": "20", "phase": 1, "moduli": [3, "4.5"], "dft_band_gap": "left alone"}
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


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"hardness": "hard"}, "'hardness' is 'hard': give a number"),
        ({"hardness": True}, "give a number"),
        ({"hardness": float("nan")}, "give a number"),
        ({"phase": "zinc blende"}, "'phase' is 'zinc blende', but this model has learned '1', 'rocksalt'"),
        ({"phase": ["rocksalt"]}, "this model has learned"),
        ({"moduli": 1.0}, "give a list of 2 numbers"),
        ({"moduli": [1, 2, 3]}, "give a list of 2 numbers"),
        ({"moduli": [1, "x"]}, "give a list of 2 numbers"),
    ],
)
def test_values_that_it_cannot_take(config: Any, asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_own_conditions(asked, config)
