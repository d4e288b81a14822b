"""Everything that can be said against a request from the configuration of a model, before its weights are read."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial
from typing import Any

from mattergen_e.diffusion import settings
from mattergen_e.diffusion.dos_embedding import DosEmbedding, check_reliable
from mattergen_e.diffusion.sampler import OutputSettings
from mattergen_e.errors import UserError
from mattergen_e.generation.constraints.stored import stored_companion
from mattergen_e.generation.constraints.values import check_values
from mattergen_e.generation.outline import Outline, read_outline
from mattergen_e.networks.predictor.folder import describe, require_weights
from mattergen_e.networks.predictor.noise import describe_noise, require_same_noise
from mattergen_e.spectra.grid import TOTAL_GRID
from mattergen_e.upstream import load_checkpoint

_DOS = f"{DosEmbedding.__module__}.{DosEmbedding.__qualname__}"


def checked(generator: Any, sampler: Any, joint: bool, read: Callable[[], Any]) -> Any:
    """Reads what a run is asked for, and refuses what its model cannot take.

    Args:
        generator: MatterGen's `CrystalGenerator`.
        sampler: `sampler_partial` of the sampling settings.
        joint: Whether they are those of this package.
        read: Makes the loader of the conditions, which reads the files of the request.

    Returns:
        The loader.

    Raises:
        UserError: If the settings, the files or the checkpoint are of no use.
    """
    outline, info = read_outline(generator.cfg), generator.checkpoint_info
    if outline is None:  # what it can take is known when it is built
        return read()
    check_sampler(outline, sampler, joint)
    loader = read()
    check_loader(outline, loader, info)
    if joint:
        check_checkpoint(info)
    return loader


def check_sampler(outline: Outline, sampler: Any, joint: bool) -> None:
    """Checks the sampling settings of a run.

    Args:
        outline: Of the model.
        sampler: `sampler_partial` of the settings.
        joint: Whether they are those of this package.

    Raises:
        UserError: If the model cannot be sampled with them.
    """
    if not joint:
        settings.require_trained_steps(sampler.get("N"), outline.steps)
        settings.require_joint_settings(outline.descriptors)
        return
    settings.require_elements(outline.corruption.corrupted_fields)
    settings.reverse_steps(sampler.get("N"), outline.steps)
    settings.volume_bounds(sampler.get("volume_per_site") or (None, None))
    OutputSettings(**(sampler.get("output") or {}))
    omega = sampler.get("omega")
    guidance = settings.guidance_factor(sampler.get("guidance_scale", 0.0), omega)
    able = outline.embeddings or outline.site_conditions or (outline.descriptors and outline.given > 0)
    if omega is not None and guidance != 0 and not able:
        raise UserError(
            f"sampler_partial.omega is {omega:g}, but there is nothing that this model could be guided by: it was "
            "trained without conditions, of the crystal or of sites; leave omega out or take another model."
        )


def check_loader(outline: Outline, loader: Any, info: Any) -> None:
    """Checks what the files of a request ask for, once they are read.

    Args:
        outline: Of the model.
        loader: Of the conditions; one of this package's, or any that asks for nothing.
        info: MatterGen's, of the checkpoint; of that nothing but the description of an autoencoder is read, if needed.

    Raises:
        UserError: If the model cannot take it.
    """
    for name, targets in getattr(loader, "targets", {}).items():
        node = outline.embeddings.get(name)
        embedding = None if node is None else node.get("conditional_embedding_module")
        if embedding is not None and embedding.get("_target_") == _DOS:
            check_reliable(targets, embedding.get("reliable", (TOTAL_GRID.minimum, TOTAL_GRID.maximum)))
    constraints, wanted = getattr(loader, "constraints", None), getattr(loader, "wanted", None)
    if constraints is not None:
        conditions = dict(outline.site_conditions)
        if wanted is not None:
            conditions |= wanted.sites({*outline.descriptors, *conditions})
        check_values(constraints, outline.descriptors, conditions, partial(_stored, info))
    if wanted is not None:
        folder = wanted.settings.predictor
        require_weights(folder)
        require_same_noise(describe(folder).noise, describe_noise(outline.corruption), folder)


def check_checkpoint(info: Any) -> None:
    """Checks that there is a checkpoint, with weights and plain data; the weights themselves stay on the disk.

    Args:
        info: MatterGen's, of the checkpoint.

    Raises:
        UserError: If there is none, or it cannot be read.
    """
    path = _path(info)
    load_checkpoint(path, mapped=zipfile.is_zipfile(path))


def _path(info: Any) -> str:
    try:
        return info.checkpoint_path
    except AssertionError as error:
        raise UserError(f"{info.model_path} is of no use ({error}): did its training end?") from None


def _stored(info: Any, name: str) -> dict[str, Any]:
    """What the checkpoint holds of the companion of a descriptor."""
    return stored_companion(_path(info), name)
