"""MatterGen's own samplers on crystals that its network cannot be evaluated on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from mattergen.common.data.condition_factory import get_composition_data_loader, get_number_of_atoms_condition_loader
from mattergen.diffusion.corruption.multi_corruption import MultiCorruption
from mattergen.diffusion.lightning_module import DiffusionLightningModule

from mattergen_e.generation import hooks

#: Cutoff 5: no two sites of a cube of this edge (Å) see each other.
EDGE = 30.0


@pytest.fixture
def make_own(compose: Callable[..., Any], make_module: Callable[..., Any]) -> Callable[..., Any]:
    """Makes MatterGen's sampler from its own settings, for a tiny model of structures or of structure prediction."""
    from omegaconf import OmegaConf

    hooks.prepare()

    def make(settings: str, **changes: Any) -> Any:
        module = make_module()
        if settings == "csp":  # as its recipe: no diffusion of atom types
            module.corruption = MultiCorruption(sdes=module.corruption.sdes)
        model = DiffusionLightningModule(diffusion_module=module)
        partial = compose(settings, "sampler_partial.N=10", sampling=True).sampler_partial
        return instantiate(OmegaConf.merge(partial, changes))(pl_module=model)

    return make


def conditions(settings: str) -> Any:
    """A batch of four crystals of two sites."""
    if settings == "csp":
        loader = get_composition_data_loader([{"Na": 1, "Cl": 1}], 4, 4)
    else:
        loader = get_number_of_atoms_condition_loader("ALEX_MP_20", 4, 4)
    return next(iter(loader))[0]  # type: ignore[call-overload]


@pytest.mark.parametrize("settings", ["default", "csp"])
def test_a_crystal_without_edges_does_not_end_the_run(
    make_own: Callable[..., Any], settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cells of an untrained network grow beyond all bounds: MatterGen's sampler alone raises."""
    bare, guarded = make_own(settings), make_own(settings)
    del bare._score_fn
    torch.manual_seed(3)
    with pytest.raises((IndexError, RuntimeError)):
        bare.sample(conditions(settings), None)
    torch.manual_seed(3)
    _, mean = guarded.sample(conditions(settings), None)
    assert mean["pos"].isfinite().all() and mean["cell"].isfinite().all()
    assert "crystals of a batch have no neighbouring sites" in capsys.readouterr().err


def test_healthy_batches_have_the_scores_of_mattergen(
    make_own: Callable[..., Any], solids: dict[str, Any], to_batch: Callable[..., Any]
) -> None:
    """To the last bit; and beside a crystal that is held, up to rounding."""
    bare, guarded = make_own("default"), make_own("default")
    del bare._score_fn
    batch = to_batch(list(solids.values()), [])
    t = torch.full((8,), 0.5)
    with torch.no_grad():
        expected, found = bare._score_fn(batch, t), guarded._score_fn(batch, t)
        assert all(torch.equal(expected[name], found[name]) for name in ("pos", "cell", "atomic_numbers"))
        cell = batch["cell"].clone()
        cell[3] = torch.eye(3) * EDGE
        beside = guarded._score_fn(batch.replace(cell=cell), t)
    sites = batch.get_batch_idx("pos")
    assert torch.allclose(beside["pos"][sites != 3], expected["pos"][sites != 3], rtol=1e-3, atol=1e-4)
    assert not beside["pos"][sites == 3].any() and not beside["cell"][3].any()


def test_other_errors_are_not_swallowed(
    make_own: Callable[..., Any], solids: dict[str, Any], to_batch: Callable[..., Any]
) -> None:
    sampler = make_own("default")

    def fails(*_: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    sampler.diffusion_module.score_fn = fails
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        sampler._score_fn(to_batch(list(solids.values()), []), torch.full((8,), 0.5))
