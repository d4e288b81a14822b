"""What a configuration tells is what the model built of it has."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mattergen_e.generation.outline import DOS_EMBEDDINGS, PARTS, read_outline
from mattergen_e.networks.predictor.noise import describe_noise
from mattergen_e.upstream.models import load_model

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"


def config_of(name: str) -> Any:
    return OmegaConf.load(CHECKPOINTS / name / "config.yaml")


@pytest.mark.parametrize("name", ["base_small", "bader_joint_small", "dos_joint_small", "site_dos_small"])
def test_it_agrees_with_the_model(name: str) -> None:
    outline, model = read_outline(config_of(name)), load_model(CHECKPOINTS / name, device="cpu")
    assert outline is not None
    assert outline.descriptors == getattr(model, "descriptors", {})
    assert outline.site_conditions == getattr(model, "site_conditions", {})
    module = model.diffusion_module
    assert describe_noise(outline.corruption) == describe_noise(module.corruption)
    assert outline.steps == {c.N for c in module.corruption.discrete_corruptions.values()} == {200}


def test_conditions_and_shares() -> None:
    outline = read_outline(config_of("cdosgen_small"))
    assert outline is not None and outline.embeddings == {"dos": (-10.0, 5.0)} and outline.given == 0
    config = config_of("cdosgen_small")
    embedding = next(
        item["dos"].conditional_embedding_module
        for part in PARTS
        if "dos" in (item := config.lightning_module.diffusion_module.model.get(part) or {})
    )
    for name in DOS_EMBEDDINGS:  # today's name, and that of models from before it moved
        embedding["_target_"] = name
        found = read_outline(config)
        assert found is not None and found.embeddings == {"dos": (-10.0, 5.0)}
    embedding["_target_"] = "other.Embedding"
    found = read_outline(config)
    assert found is not None and found.embeddings == {"dos": None}
    config = config_of("bader_joint_small")
    config.lightning_module.shares.given = 0.3
    outline = read_outline(config)
    assert outline is not None and outline.given == 0.3


def test_what_cannot_be_built_has_none() -> None:
    config = config_of("bader_joint_small")
    for key, value in (
        ("_target_", "somebody.else.Module"),
        ("descriptors", {"x": {"_target_": "nowhere.Class"}}),
        ("descriptors", {"x": {"_target_": "mattergen_e.descriptors.bader.BaderCharge", "scale": -1}}),
        ("diffusion_module", {"corruption": "${nothing}"}),
    ):
        changed = deepcopy(config)
        changed.lightning_module[key] = value
        assert read_outline(changed) is None
    assert read_outline(OmegaConf.create({})) is None
