"""The hooks into MatterGen's generator; what they say and write is tested where it is made."""

from __future__ import annotations

from typing import Any

from mattergen_e.generation import hooks


def hooked() -> tuple[Any, ...]:
    import mattergen.generator as generator
    from mattergen.diffusion.sampling.pc_sampler import PredictorCorrector

    return (
        PredictorCorrector.__init__,
        generator.draw_samples_from_sampler,
        generator.CrystalGenerator.get_condition_loader,
    )


def test_hooks_are_set_once() -> None:
    hooks.prepare()
    first = hooked()
    assert all(function._mattergen_e for function in first)
    assert all(not hasattr(function.__wrapped__, "_mattergen_e") for function in first)
    hooks.prepare()
    assert hooked() == first


def test_a_configuration_of_the_generator_sets_them(compose: Any) -> None:
    """As Hydra's search path plugin does, in any process that has imported MatterGen's generator."""
    import mattergen.generator as generator

    generator.draw_samples_from_sampler = getattr(
        generator.draw_samples_from_sampler, "__wrapped__", generator.draw_samples_from_sampler
    )
    compose("joint", sampling=True)
    assert generator.draw_samples_from_sampler._mattergen_e
