"""Embeddings of a user's own properties, and the recipes that name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf, open_dict

from mattergen_e.diffusion.own_properties import CategoryEmbedding, ListEmbedding, place_of
from mattergen_e.errors import UserError
from mattergen_e.upstream import known_properties, mattergens_properties


def test_a_word_has_its_own_vector() -> None:
    embedding = CategoryEmbedding(4, ["1", "alpha"])
    first, second, unknown = embedding(["1", "alpha", ""])
    torch.testing.assert_close(torch.stack([first, second]), embedding.embedding.weight)
    torch.testing.assert_close(unknown, torch.zeros(4))
    torch.testing.assert_close(embedding(torch.tensor([1.0]))[0], first)
    with pytest.raises(UserError, match="'beta', but this model has learned '1', 'alpha'"):
        embedding(["beta"])
    with pytest.raises(UserError, match="different words"):
        CategoryEmbedding(4, ["a", "a"])
    assert place_of(True, ["false", "true"]) == 1


def test_unknown_lists_leave_the_gradient_finite() -> None:
    embedding = ListEmbedding(4, 2)
    values = torch.tensor([[0.5, -1.0], [torch.nan, torch.nan]])
    found = embedding(values)
    torch.testing.assert_close(found[1], embedding(torch.zeros(1, 2))[0])
    found[0].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in embedding.parameters() if p.grad is not None)


@pytest.mark.usefixtures("list_of_conditions")
def test_a_number_is_embedded_as_mattergens_are(compose: Callable[..., Any]) -> None:
    """Every part but the name and the kind is that of MatterGen's own recipe of the band gap."""
    config = compose("bader_joint", "adapter_property=[my_hardness,dft_band_gap]", "data_module.root_dir=unused")
    adapter = config.adapter.adapter
    with open_dict(config):
        adapter.hidden_dim = 16
    raw: Any = OmegaConf.to_container(adapter.property_embeddings_adapt)
    own, gap = raw["my_hardness"], raw["dft_band_gap"]
    parts = ("unconditional_embedding_module", "conditional_embedding_module", "scaler")
    assert {part: own[part] for part in parts} == {part: gap[part] for part in parts}
    node = adapter.property_embeddings_adapt.my_hardness
    node.kind = "number"
    assert "my_hardness" not in known_properties()
    made = instantiate(node)
    assert made.name == "my_hardness" and "my_hardness" in known_properties()
    assert "my_hardness" not in mattergens_properties()


def test_files_win_over_names_of_ones_own(compose: Callable[..., Any]) -> None:
    from mattergen.common.utils.globals import PROPERTY_SOURCE_IDS

    names = list(mattergens_properties())
    assert len(names) == 10 and set(names) <= set(PROPERTY_SOURCE_IDS)
    config = compose("joint", f"adapter_property=[{','.join(names)},dos]", "data_module.root_dir=unused")
    own = "mattergen_e.diffusion.own_properties.OwnPropertyEmbedding"
    nodes = config.adapter.adapter.property_embeddings_adapt
    assert list(nodes) == [*names, "dos"] and all(node._target_ != own for node in nodes.values())


def test_adapters_of_mattergens_properties_are_mattergens(compose: Callable[..., Any]) -> None:
    """Those that MatterGen has settings for have the same parts here."""
    carried = Path(__file__).resolve().parents[2] / "mattergen_e/upstream/data/conf/lightning_module/diffusion_module"
    files = sorted((carried / "model/property_embeddings").glob("*.yaml"))
    assert len(files) >= 8
    config = compose("joint", f"adapter_property=[{','.join(f.stem for f in files)}]", "data_module.root_dir=unused")
    for file in files:
        theirs: Any = OmegaConf.to_container(OmegaConf.load(file))
        ours: Any = OmegaConf.to_container(config.adapter.adapter.property_embeddings_adapt[file.stem])
        for node in (theirs, ours):
            for part in ("unconditional_embedding_module", "conditional_embedding_module"):
                node[part] = {k: None if k in ("hidden_dim", "d_model") else v for k, v in node[part].items()}
        assert ours == theirs


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("bader_charge", "means something else"),
        ("pos", "means something else"),
        ("space_group:category", "means something else"),
        ("my_phase:word", "no kind of property"),
    ],
)
def test_words_that_no_recipe_can_take(compose: Callable[..., Any], word: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        compose("joint", f"adapter_property=[{word}]", "data_module.root_dir=unused")
