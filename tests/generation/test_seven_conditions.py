"""Seven conditions of published models together: chemical system, space group, and five numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mattergen_e.generation.conditions import ConditionLoader
from mattergen_e.generation.draw import draw
from mattergen_e.generation.outline import outline_of
from mattergen_e.generation.preflight import check_conditions
from mattergen_e.generation.store import read_crystals
from mattergen_e.upstream import DATA

WANTED: dict[str, Any] = {
    "chemical_system": ["Na-Cl", "Mg-O"],
    "space_group": "Fm-3m",
    "dft_mag_density": 0.1,
    "dft_bulk_modulus": [40.0, 150.0],
    "dft_shear_modulus": 30.0,
    "hhi_score": 1500.0,
    "energy_above_hull": 0.0,
}


@pytest.fixture(scope="module")
def model(make_module: Callable[..., Any], _recipe: Any) -> Any:
    """A tiny structure-only model with adapters for all of them, as mattergen-finetune makes one."""
    from copy import deepcopy

    from hydra.utils import instantiate
    from mattergen.diffusion.lightning_module import DiffusionLightningModule
    from omegaconf import OmegaConf, open_dict

    folder = DATA / "conf/lightning_module/diffusion_module/model/property_embeddings"
    recipe = deepcopy(_recipe)
    section = recipe.lightning_module.diffusion_module
    with open_dict(recipe):
        section.model._target_ = "mattergen.adapter.GemNetTAdapter"
        section.model.gemnet._target_ = "mattergen.common.gemnet.gemnet_ctrl.GemNetTCtrl"
        section.model.gemnet.condition_on_adapt = list(WANTED)
        section.model.property_embeddings_adapt = {}
        for name in WANTED:
            like = name if (folder / f"{name}.yaml").is_file() else "dft_bulk_modulus"
            section.model.property_embeddings_adapt[name] = OmegaConf.load(folder / f"{like}.yaml")
            section.model.property_embeddings_adapt[name].name = name
    torch.manual_seed(0)
    optimizer = OmegaConf.create({"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-3})
    return DiffusionLightningModule(diffusion_module=instantiate(section), optimizer_partial=instantiate(optimizer))


def test_they_train(model: Any, solids: dict[str, Any], to_batch: Callable[..., Any]) -> None:
    """Steps of training, after which every condition has an effect on the scores."""
    numbers = {
        name: torch.linspace(1, 2, 8).tolist() for name in WANTED if name not in ("chemical_system", "space_group")
    }
    groups = [float(s.get_space_group_info()[1]) for s in (x.copy(site_properties={}) for x in solids.values())]
    batch = to_batch(list(solids.values()), [], **numbers, space_group=groups)
    batch = batch.replace(chemical_system=["-".join(sorted({x.specie.symbol for x in s})) for s in solids.values()])
    for name, embedding in model.diffusion_module.model.property_embeddings_adapt.items():
        if name in numbers:
            embedding.fit_scaler(batch[name])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(3):
        loss = model.diffusion_module.calc_loss(batch)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.isfinite()
    gemnet = model.diffusion_module.model.gemnet
    assert all(bool(layer.weight.abs().any()) for name in WANTED for layer in gemnet.cond_mixin_layers[name])


def test_they_generate(model: Any, make_sampler: Callable[..., Any], tmp_path: Path) -> None:
    model.eval()
    loader = ConditionLoader(4, 4, num_atoms=[2, 3], seed=1, properties=WANTED)
    check_conditions(outline_of(model), loader)
    sampler = make_sampler(model, guidance_scale=2.0)
    structures = draw(sampler, loader, WANTED, tmp_path / "run")
    assert len(structures) == 4
    for i, crystal in enumerate(read_crystals(tmp_path / "run")):
        system = WANTED["chemical_system"][i % 2]
        assert crystal.conditions == {
            **WANTED, "space_group": 225, "chemical_system": system, "dft_bulk_modulus": (40.0, 150.0)[i % 2],
        }  # fmt: skip
        assert {site.specie.symbol for site in crystal.structure} <= set(system.split("-"))
