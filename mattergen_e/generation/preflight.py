"""Preflight: everything that can be said against a request, each thing in one place.

From a model's configuration alone before its weights are read, by `before_loading`; for Python callers, and for models
that are not configured as MatterGen's are, from the built model, by `check_sampler` and `check_conditions`.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mattergen.common.data.num_atoms_distribution import NUM_ATOMS_DISTRIBUTIONS
from mattergen.denoiser import mask_disallowed_elements
from omegaconf import OmegaConf

from mattergen_e.diffusion import settings
from mattergen_e.diffusion.dos_embedding import check_reliable
from mattergen_e.diffusion.elements import require_masks
from mattergen_e.diffusion.placed import check_volume
from mattergen_e.diffusion.plan import read_plan
from mattergen_e.diffusion.predictors import CrystalGuard
from mattergen_e.diffusion.sampler import OutputSettings
from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import Sizes
from mattergen_e.generation.constraints.stored import stored_companion
from mattergen_e.generation.constraints.values import check_values
from mattergen_e.generation.outline import PARTS, Outline, configured_conditions, read_outline
from mattergen_e.generation.own_conditions import as_field, read_own_conditions
from mattergen_e.generation.properties import check_takes, outside_training, read_properties, usual_range
from mattergen_e.networks.callbacks import RECORD
from mattergen_e.networks.predictor.folder import describe, require_weights
from mattergen_e.networks.predictor.noise import describe_noise, require_same_noise
from mattergen_e.upstream import COMPOSITIONS, check_known, load_checkpoint

#: Numbers of sites that MatterGen's published models have learned; of models without a record of theirs, too.
LEARNED = NUM_ATOMS_DISTRIBUTIONS["ALEX_MP_20"]


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
    generator.properties_to_condition_on = read_own_conditions(generator.properties_to_condition_on, generator.cfg)
    values = read_properties(generator.properties_to_condition_on)
    check_known(list(generator.properties_to_condition_on or {}), configured_conditions(generator.cfg))
    outline, info = read_outline(generator.cfg), generator.checkpoint_info
    if not joint:
        if outline is not None:
            check_steps(sampler.get("N"), outline.steps)
            require_joint_settings(outline.descriptors)
            check_takes(values, outline.numbers, masked=_masks_elements(generator.cfg))
        generator.properties_to_condition_on = _single(generator.properties_to_condition_on or {}, values)
    if outline is None:  # what it can take is known when it is built
        return read()
    if joint:
        check_sampler(outline, sampler)
    loader = read()
    check_conditions(outline, loader, partial(_stored, info))
    if joint:
        cutoff = OmegaConf.select(generator.cfg, "lightning_module.diffusion_module.model.gemnet.cutoff")
        check_cell(loader, sampler, cutoff)
    checkpoint = check_checkpoint(info) if joint else _known_of(info)
    for sentence in outside_of_training(checkpoint, generator.cfg, values, getattr(loader, "sizes", None)):
        print(f"mattergen-e: {sentence}", file=sys.stderr)
    return loader


def _single(properties: Mapping[str, Any], values: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """What MatterGen's own sampling settings can take: one value of each condition, and no spectra."""
    if set(properties) - set(values):
        raise UserError("a condition that is a spectrum needs --sampling_config_name=joint: add it to the command.")
    several = [name for name, given in values.items() if len(given) > 1]
    if several:
        raise UserError(
            f"several values of '{several[0]}' need --sampling_config_name=joint: add it to the command, or give one."
        )
    return {name: as_field(given[0]) for name, given in values.items()}


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
    if read_plan(sampler, {*outline.corruption.corrupted_fields, *outline.descriptors}) is None:
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
    check_takes(getattr(loader, "values", {}), outline.numbers)
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
        if constraints.rules is not None:
            require_masks(outline.corruption.corruptions["atomic_numbers"])
    if guidance is not None:
        folder = guidance.settings.predictor
        require_weights(folder)
        require_same_noise(describe(folder).noise, describe_noise(outline.corruption), folder)


def check_cell(loader: Any, sampler: Mapping[str, Any], cutoff: float | None) -> None:
    """Refuses a given cell that the sampler would take for that of a degenerate crystal.

    Args:
        loader: Of the conditions.
        sampler: The settings by name, `sampler_partial`.
        cutoff: How far the model's network sees, Å; None: unknown.

    Raises:
        UserError: If it would.
    """
    constraints = getattr(loader, "constraints", None)
    if constraints is None or constraints.cell is None:
        return
    least, largest = settings.volume_bounds(sampler.get("volume_per_site") or (None, None))
    if cutoff is not None:
        largest = CrystalGuard(cutoff, least, largest).largest_volume
    for n_sites in loader.sizes.values.tolist():
        check_volume(constraints.volume, n_sites, least, largest)


def _check_compositions(outline: Outline, loader: Any) -> None:
    """Refuses MatterGen's loader of compositions: the sampler would replace the given elements and not say so."""
    conditions = getattr(loader, "dataset", None) or [{}]
    given = conditions[0]["atomic_numbers"] if "atomic_numbers" in conditions[0] else torch.empty(0)
    if "atomic_numbers" in outline.corruption.corrupted_fields and bool((given > 0).any()):
        raise UserError(f"{COMPOSITIONS.rstrip('.')}: this model generates the elements itself.")


# -- the checkpoint ---------------------------------------------------------------------------------------------------


def check_checkpoint(info: Any) -> dict[str, Any]:
    """Checks that there is a checkpoint, with weights and plain data; the weights themselves stay on the disk.

    Args:
        info: MatterGen's, of the checkpoint.

    Returns:
        Its content.

    Raises:
        UserError: If there is none, or it cannot be read.
    """
    path = _path(info)
    return load_checkpoint(path, mapped=zipfile.is_zipfile(path))


def _path(info: Any) -> str:
    try:
        return info.checkpoint_path
    except AssertionError as error:
        problem = f"{info.model_path} is of no use ({error})"
    except (ValueError, IndexError):  # no file is named by an epoch
        problem = f"{info.model_path} has no checkpoint '{info.load_epoch}'"
    found = sorted(path.stem for path in Path(info.model_path).rglob("*.ckpt"))
    if not found:
        raise UserError(f"{problem}: did its training end?")
    raise UserError(f"{problem}: it has {', '.join(found)}, and --checkpoint_epoch is 'last', 'best' or an epoch.")


def _known_of(info: Any) -> dict[str, Any]:
    """What a checkpoint tells that MatterGen itself will load; nothing where it cannot be read here."""
    try:
        return check_checkpoint(info)
    except UserError:
        return {}


def _stored(info: Any, name: str) -> dict[str, Any]:
    """What the checkpoint holds of the companion of a descriptor."""
    return stored_companion(_path(info), name)


# -- what the training crystals did not have --------------------------------------------------------------------------


def outside_of_training(
    checkpoint: Mapping[str, Any], config: Any, values: Mapping[str, Sequence[Any]], sizes: Sizes | None
) -> list[str]:
    """What is said of values and numbers of sites that the model has not seen; nothing of it is refused.

    Args:
        checkpoint: Content of the model's checkpoint, whose record has the ranges of the training data; older ones have
            the scalers of the conditions.
        config: The model's configuration.
        values: Of each condition.
        sizes: Numbers of sites that are drawn from; None: MatterGen's own.
    """
    ranges = dict((checkpoint.get(RECORD) or {}).get("ranges") or {})
    found = [
        outside_training(name, given, ranges.get(name), _usual(checkpoint.get("state_dict") or {}, config, name))
        for name, given in values.items()
    ]
    if sizes is not None:
        low, high = ranges.get("num_atoms") or (min(LEARNED), max(LEARNED))
        far = [int(n) for n in sizes.values if not low <= n <= high]
        if far:
            found.append(
                f"crystals of {', '.join(map(str, far))} sites are asked for, but the training crystals had {low:g} to "
                f"{high:g}: expect little of them."
            )
    return [sentence for sentence in found if sentence]


def _usual(state: Mapping[str, Any], config: Any, name: str) -> tuple[float, float] | None:
    """Where most training values of a condition lay, as its scaler has it; None without a scaler."""
    for part in PARTS:
        key = f"diffusion_module.model.{part}.{name}.scaler"
        if f"{key}.means" in state:
            log10 = bool(OmegaConf.select(config, f"lightning_module.{key}.log10_transform"))
            return usual_range(float(state[f"{key}.means"][0]), float(state[f"{key}.stds"][0]), log10)
    return None


def _masks_elements(config: Any) -> bool:
    """Whether the model is set to generate MatterGen's elements only, as the command sets it."""
    name = OmegaConf.select(config, "lightning_module.diffusion_module.model.element_mask_func._target_")
    return str(name) == f"{mask_disallowed_elements.__module__}.{mask_disallowed_elements.__qualname__}"
