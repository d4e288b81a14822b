"""Preflight: everything that can be said against a request, each thing in one place.

From a model's configuration alone before its weights are read, by `before_loading`; for Python callers, and for models
that are not configured as MatterGen's are, from the built model, by `check_sampler` and `check_conditions`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch

from mattergen_e.diffusion import settings
from mattergen_e.diffusion.dos_embedding import check_reliable
from mattergen_e.diffusion.sampler import OutputSettings
from mattergen_e.errors import UserError
from mattergen_e.generation.constraints.stored import stored_companion
from mattergen_e.generation.constraints.values import check_values
from mattergen_e.generation.outline import Outline, configured_conditions, read_outline
from mattergen_e.networks.predictor.folder import describe, require_weights
from mattergen_e.networks.predictor.noise import describe_noise, require_same_noise
from mattergen_e.upstream import ARRAY_CONDITIONS, COMPOSITIONS, check_known, load_checkpoint


def before_loading(
    generator: Any, sampler: Mapping[str, Any], joint: bool, compositions: Any, read: Callable[[], Any]
) -> Any:
    """Reads what a run is asked for, and refuses what its model cannot take, without the model's weights.

    Args:
        generator: MatterGen's `CrystalGenerator`.
        sampler: `sampler_partial` of the sampling settings.
        joint: Whether they are those of this package.
        compositions: `target_compositions_dict` of the call.
        read: Makes the loader of the conditions, which reads the files of the request.

    Returns:
        The loader.

    Raises:
        UserError: If the settings, the files or the checkpoint are of no use.
    """
    if joint and compositions:
        raise UserError(COMPOSITIONS)
    conditions = generator.properties_to_condition_on or {}
    if joint and isinstance(conditions, dict):
        check_known(list(conditions), configured_conditions(generator.cfg))
    elif set(conditions) & ARRAY_CONDITIONS:
        raise UserError("a condition that is a spectrum needs --sampling_config_name=joint: add it to the command.")
    outline, info = read_outline(generator.cfg), generator.checkpoint_info
    if outline is None:  # what it can take is known when it is built
        return read()
    if joint:
        check_sampler(outline, sampler)
    else:
        check_steps(sampler.get("N"), outline.steps)
        require_joint_settings(outline.descriptors)
    loader = read()
    check_conditions(outline, loader, partial(_stored, info))
    if joint:
        check_checkpoint(info)
    return loader


# -- sampling settings ------------------------------------------------------------------------------------------------


def check_steps(asked: int | None, trained: Collection[int]) -> None:
    """Refuses another number of steps in MatterGen's own sampling settings than the model was trained with.

    Raises:
        UserError: If they differ.
    """
    if asked is not None and trained and set(trained) != {asked}:
        raise UserError(
            f"this model was trained with {min(trained)} steps, but the sampling settings take {asked}: add "
            "--sampling_config_name=joint to the command, which takes as many as the model."
        )


def require_joint_settings(descriptors: Collection[str]) -> None:
    """Refuses sampling settings that know no descriptors for a model that has some.

    Raises:
        UserError: If it has.
    """
    if descriptors:
        raise UserError(
            f"this model generates {', '.join(descriptors)} together with the structure: add "
            "--sampling_config_name=joint to the command."
        )


def check_sampler(outline: Outline, sampler: Mapping[str, Any]) -> None:
    """Checks the settings of a joint sampler.

    Args:
        outline: Of the model.
        sampler: The settings by name, `sampler_partial`; those that are missing have their defaults.

    Raises:
        UserError: If the model cannot be sampled with them.
    """
    if "atomic_numbers" not in outline.corruption.corrupted_fields:
        raise UserError(
            "this model was trained for crystal structure prediction, without diffusion of atom types: generate "
            "with MatterGen's --sampling_config_name=csp and --target_compositions."
        )
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


# -- conditions, constraints, guidance target -------------------------------------------------------------------------


def check_conditions(outline: Outline, loader: Any, stored: Callable[[str], Mapping[str, Any]] | None = None) -> None:
    """Checks what each crystal is asked for, once the files of the request are read.

    Args:
        outline: Of the model.
        loader: Of the conditions; one of this package's, or any that asks for nothing.
        stored: Gives what a checkpoint holds of the companion of a descriptor; without it the constraints are not
            checked, which the built model does when it takes them.

    Raises:
        UserError: If the model cannot take it.
    """
    _check_compositions(outline, loader)
    for name, targets in getattr(loader, "targets", {}).items():
        reliable = outline.embeddings.get(name)
        if reliable is not None:
            check_reliable(targets, reliable)
    constraints, guidance = getattr(loader, "constraints", None), getattr(loader, "guidance", None)
    if constraints is not None and stored is not None:
        conditions = dict(outline.site_conditions)
        if guidance is not None:
            conditions |= guidance.sites({*outline.descriptors, *conditions})
        check_values(constraints, outline.descriptors, conditions, stored)
    if guidance is not None:
        folder = guidance.settings.predictor
        require_weights(folder)
        require_same_noise(describe(folder).noise, describe_noise(outline.corruption), folder)


def _check_compositions(outline: Outline, loader: Any) -> None:
    """Refuses MatterGen's loader of compositions: the sampler would replace the given elements and not say so."""
    conditions = getattr(loader, "dataset", None) or [{}]
    given = conditions[0]["atomic_numbers"] if "atomic_numbers" in conditions[0] else torch.empty(0)
    if "atomic_numbers" in outline.corruption.corrupted_fields and bool((given > 0).any()):
        raise UserError(f"{COMPOSITIONS.rstrip('.')}: this model generates the elements itself.")


# -- the checkpoint ---------------------------------------------------------------------------------------------------


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
