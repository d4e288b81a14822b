"""What a recipe takes from the cache about a user's own properties."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mattergen_e.data.build import build_cache
from mattergen_e.errors import UserError
from mattergen_e.training.own_properties import what_is_known


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, solids: dict[str, Any]) -> Path:
    """A cache of one crystal with a category, a list and a band gap."""
    folder = tmp_path_factory.mktemp("own")
    structure = solids["NaCl"].copy(site_properties={}).as_dict()
    row = {"id": "a", "structure": structure, "phase": "rocksalt", "moduli": [1, 2, 3], "dft_band_gap": 5.0}
    (folder / "a.jsonl").write_text(json.dumps({**row, "split": "train"}) + "\n")
    properties = ["phase:category", "moduli:list", "dft_band_gap"]
    build_cache([folder / "a.jsonl"], folder / "cache", properties=properties, jobs=1)
    return folder / "cache"


def test_the_cache_fills_the_recipe(compose: Callable[..., Any], cache: Path) -> None:
    words = ["adapter_property=[phase:category,moduli:list]", f"data_module.root_dir={cache}"]
    config = compose("joint", *words, "+adapter.adapter.hidden_dim=8")
    nodes: Any = OmegaConf.to_container(config.adapter.adapter.property_embeddings_adapt, resolve=True)
    own = "mattergen_e.diffusion.own_properties"
    assert nodes["phase"]["conditional_embedding_module"] == {
        "_target_": f"{own}.CategoryEmbedding",
        "hidden_dim": 8,
        "categories": ["rocksalt"],
    }
    assert nodes["moduli"]["conditional_embedding_module"]["length"] == 3
    assert nodes["moduli"]["scaler"]["stats_dim"] == [3]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("phase", r"'phase' is a category in .*: write adapter_property=\[phase:category\]"),
        ("softness", "has no property 'softness': build it with --property softness"),
        ("dft_band_gap", "has no property 'dft_band_gap'"),
    ],
)
def test_what_the_cache_does_not_have(cache: Path, name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        what_is_known(str(cache), name, "number", "kind")
