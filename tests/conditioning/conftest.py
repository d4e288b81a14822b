"""A tiny denoiser with an adapter for densities of states, with and without what it was pretrained as."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _list_of_conditions() -> Iterator[None]:
    """Gives MatterGen's list of conditions back as it was: elsewhere, `dos` is a generated field."""
    from mattergen.common.utils.globals import PROPERTY_SOURCE_IDS

    before = list(PROPERTY_SOURCE_IDS)
    yield
    PROPERTY_SOURCE_IDS[:] = before


@pytest.fixture
def make_dos_module(_recipe: Any) -> Callable[..., Any]:
    """Makes the module that `mattergen-finetune` makes of the tiny one with configs/adapter_property/dos.yaml.

    `mixed` draws the adapter's last layers at random: at zero, where they start, the condition has no effect.
    """
    import torch
    from hydra.utils import instantiate
    from omegaconf import OmegaConf, open_dict

    file = Path(__file__).resolve().parents[2] / "configs/adapter_property/dos.yaml"

    def make(*, mixed: bool = True, **settings: Any) -> Any:
        recipe = deepcopy(_recipe)
        model = recipe.lightning_module.diffusion_module.model
        with open_dict(recipe):
            model._target_ = "mattergen.adapter.GemNetTAdapter"
            model.property_embeddings_adapt = OmegaConf.load(file)
            model.property_embeddings_adapt.dos.conditional_embedding_module.update(settings)
            model.gemnet._target_ = "mattergen.common.gemnet.gemnet_ctrl.GemNetTCtrl"
            model.gemnet.condition_on_adapt = ["dos"]
        torch.manual_seed(0)
        module = instantiate(recipe.lightning_module.diffusion_module)
        if mixed:
            for layer in module.model.gemnet.cond_mixin_layers["dos"]:
                torch.nn.init.normal_(layer.weight, std=0.5)
        return module.eval()

    return make


@pytest.fixture
def spectra() -> np.ndarray:
    """Three made-up spectra on the grid of the condition, (3, 256) states/eV per atom: a peak on a floor of 0.1."""
    from mattergen_e.dos.grid import TOTAL_GRID

    centres = np.array([[-4.0], [-1.0], [3.0]])
    return (0.1 + 2 * np.exp(-0.5 * (TOTAL_GRID.energies - centres) ** 2)).astype(np.float32)
