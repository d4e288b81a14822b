"""The door to MatterGen's generator: what is said before a model is loaded, and who writes what it generates.

`prepare()` is called by the Hydra search path plugin where MatterGen's generator looks for a configuration.

| item | reason |
| --- | --- |
| `_check_conditions` | what the model cannot take was refused after loading it, or by an assertion |
| `_check_conditions` | compositions that Python callers give to the joint sampling ended in a `TypeError` |
| `_check_steps` | a model trained with another number of steps than the sampling settings ended in a bare assertion |
| `_replace_draw_samples` | upstream writes structures only, at the very end, through fixed temporary names |
"""

from __future__ import annotations

import functools
from typing import Any

from mattergen_e.diffusion.settings import require_joint_settings, require_trained_steps
from mattergen_e.errors import UserError
from mattergen_e.upstream import ARRAY_CONDITIONS, COMPOSITIONS, check_known, exit_on_user_error


def prepare() -> None:
    """Hooks the plugin into MatterGen's generator; does nothing the second time."""
    _check_steps()
    _replace_draw_samples()
    _check_conditions()


def _check_steps() -> None:
    """Sampling settings ask for a number of steps; the diffusion of atom types is tied to that of the training."""
    import mattergen.diffusion.sampling.pc_sampler as pc_sampler

    sampler: Any = pc_sampler.PredictorCorrector
    original = sampler.__init__
    if getattr(original, "_mattergen_e", False):
        return

    @functools.wraps(original)
    @exit_on_user_error
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        module, steps = kwargs.get("diffusion_module"), kwargs.get("N")
        discrete = getattr(getattr(module, "corruption", None), "discrete_corruptions", {})
        trained = {corruption.N for corruption in discrete.values()}
        require_trained_steps(steps, trained)
        original(self, *args, **kwargs)

    checked._mattergen_e = True  # type: ignore[attr-defined]
    sampler.__init__ = checked


def _replace_draw_samples() -> None:
    """A sampler with a `draw` of its own, as `JointSampler`, generates with that; any other with MatterGen's."""
    import mattergen.generator as generator

    original: Any = generator.draw_samples_from_sampler
    if getattr(original, "_mattergen_e", False):
        return

    @functools.wraps(original)
    @exit_on_user_error
    def draw_samples_from_sampler(sampler: Any, *args: Any, **kwargs: Any) -> Any:
        own = getattr(sampler, "draw", None)
        if own is not None:
            return own(sampler, *args, **kwargs)
        fields = getattr(sampler.diffusion_module, "joint_fields", None)
        require_joint_settings(() if fields is None else fields.descriptors)
        return original(sampler, *args, **kwargs)

    draw_samples_from_sampler._mattergen_e = True  # type: ignore[attr-defined]
    generator.draw_samples_from_sampler = draw_samples_from_sampler


def _check_conditions() -> None:
    """Refuses what the model cannot take, as soon as its configuration is known and the files of a request are read.

    `CrystalGenerator.generate(target_compositions_dict=...)` is not checked by MatterGen, unlike the constructor.
    """
    from mattergen.generator import CrystalGenerator

    generator: Any = CrystalGenerator
    original = generator.get_condition_loader
    if getattr(original, "_mattergen_e", False):
        return

    @functools.wraps(original)
    @exit_on_user_error
    def get_condition_loader(self: Any, sampling_config: Any, target_compositions_dict: Any = None) -> Any:
        own = "draw" in sampling_config.sampler_partial
        if target_compositions_dict and own:
            raise UserError(COMPOSITIONS)
        conditions = self.properties_to_condition_on or {}
        if own and isinstance(conditions, dict):
            check_known(list(conditions), _conditions_of(self.cfg))
        elif set(conditions) & ARRAY_CONDITIONS:
            raise UserError("a condition that is a spectrum needs --sampling_config_name=joint: add it to the command.")
        from mattergen_e.generation.early import checked  # after the checks above, which need none of it

        read = functools.partial(original, self, sampling_config, target_compositions_dict)
        return checked(self, sampling_config.sampler_partial, own, read)

    get_condition_loader._mattergen_e = True  # type: ignore[attr-defined]
    generator.get_condition_loader = get_condition_loader


def _conditions_of(config: Any) -> list[str] | None:
    """Names of the conditions in a model's configuration; None if it is not built as MatterGen's are."""
    from omegaconf import OmegaConf

    model = OmegaConf.select(config, "lightning_module.diffusion_module.model")
    if model is None:
        return None
    return [name for part in ("property_embeddings", "property_embeddings_adapt") for name in model.get(part) or ()]
