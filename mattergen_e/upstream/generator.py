"""MatterGen's generator: what is asked before a model is loaded, and who writes what it generates.

What this package does there is handed in by `mattergen_e.generation`, as `GeneratorHooks`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any, Protocol

from mattergen_e.upstream.commands import exit_on_user_error


class GeneratorHooks(Protocol):
    """What generation does at the points where MatterGen's generator is hooked."""

    def check_steps(self, asked: int | None, trained: Collection[int]) -> None:
        """Called before one of MatterGen's samplers is made, with the steps of its settings and of the training."""

    def guard(self, sampler: Any) -> None:
        """Called with each of MatterGen's samplers once it is made."""

    def read_conditions(self, generator: Any, sampling_config: Any, compositions: Any, read: Callable[[], Any]) -> Any:
        """Gives the loader of conditions, which `read` makes of the configuration, or refuses the request."""

    def drawing(self, sampler: Any) -> Callable[..., Any] | None:
        """What runs a sampler in place of MatterGen's `draw_samples_from_sampler`; None: that itself."""


def install(hooks: GeneratorHooks) -> None:
    """Hooks generation into MatterGen's generator; does nothing the second time."""
    _check_steps(hooks)
    _replace_draw_samples(hooks)
    _check_conditions(hooks)


def _check_steps(hooks: GeneratorHooks) -> None:
    """Sampling settings ask for a number of steps; the diffusion of atom types is tied to that of the training."""
    import mattergen.diffusion.sampling.pc_sampler as pc_sampler

    def wrap(original: Any) -> Any:
        def checked(self: Any, *args: Any, **kwargs: Any) -> None:
            module = kwargs.get("diffusion_module")
            discrete = getattr(getattr(module, "corruption", None), "discrete_corruptions", {})
            hooks.check_steps(kwargs.get("N"), {corruption.N for corruption in discrete.values()})
            original(self, *args, **kwargs)
            hooks.guard(self)

        return checked

    _wrap_once(pc_sampler.PredictorCorrector, "__init__", wrap)


def _replace_draw_samples(hooks: GeneratorHooks) -> None:
    """A sampler of this package generates with its own drawing; any other with MatterGen's."""
    import mattergen.generator as generator

    def wrap(original: Any) -> Any:
        def draw_samples_from_sampler(sampler: Any, *args: Any, **kwargs: Any) -> Any:
            return (hooks.drawing(sampler) or original)(sampler, *args, **kwargs)

        return draw_samples_from_sampler

    _wrap_once(generator, "draw_samples_from_sampler", wrap)


def _check_conditions(hooks: GeneratorHooks) -> None:
    """Refuses what the model cannot take, as soon as its configuration is known and the files of a request are read.

    `CrystalGenerator.generate(target_compositions_dict=...)` is not checked by MatterGen, unlike the constructor.
    """
    from mattergen.generator import CrystalGenerator

    def wrap(original: Any) -> Any:
        def get_condition_loader(self: Any, sampling_config: Any, target_compositions_dict: Any = None) -> Any:
            read = functools.partial(original, self, sampling_config, target_compositions_dict)
            return hooks.read_conditions(self, sampling_config, target_compositions_dict, read)

        return get_condition_loader

    _wrap_once(CrystalGenerator, "get_condition_loader", wrap)


def _wrap_once(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    """Replaces a function of MatterGen by one around it, unless it is replaced already."""
    original = getattr(owner, name)
    if getattr(original, "_mattergen_e", False):
        return
    wrapped: Any = functools.wraps(original)(exit_on_user_error(wrap(original)))
    wrapped._mattergen_e = True
    setattr(owner, name, wrapped)
