"""What generation does inside MatterGen's generator: its preflight, its sampler and its drawing."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from omegaconf import DictConfig, open_dict

from mattergen_e.diffusion.sampler import JointSampler
from mattergen_e.generation import preflight
from mattergen_e.generation.draw import draw
from mattergen_e.generation.guarded import guard
from mattergen_e.upstream import generator

#: Names in sampling settings of before, which users have copied, and what stands in their place.
OLD_TARGETS = {
    "sampler_partial": {
        "mattergen_e.diffusion.sampler.JointSampler.from_pl_module": "mattergen_e.generation.sampling.joint_sampler",
    },
    "condition_loader_partial": {
        "mattergen_e.diffusion.classifier_target.GuidedConditionLoader": "mattergen_e.generation.conditions.ConditionLoader",  # noqa: E501
    },
}
#: Keys of before, which named what runs the batches and what reads the constraints; accepted and ignored.
OLD_KEYS = ("draw", "constrain")


class Hooks:
    """See `GeneratorHooks`."""

    def check_steps(self, asked: int | None, trained: Collection[int]) -> None:
        """Refuses settings with other steps than those of the training."""
        preflight.check_steps(asked, trained)

    def guard(self, sampler: Any) -> None:
        """Keeps a crystal without neighbours from ending the run."""
        guard(sampler)

    def read_conditions(
        self, generator: Any, sampling_config: DictConfig, compositions: Any, read: Callable[[], Any]
    ) -> Any:
        """The loader of conditions, after the preflight."""
        joint = modernize(sampling_config)
        return preflight.before_loading(generator, sampling_config.sampler_partial, joint, compositions, read)

    def drawing(self, sampler: Any) -> Callable[..., Any] | None:
        """Our own for a joint sampler; a model with descriptors can be sampled by no other."""
        if isinstance(sampler, JointSampler):
            return draw
        fields = getattr(sampler.diffusion_module, "joint_fields", None)
        preflight.require_joint_settings(() if fields is None else fields.descriptors)
        return None


def modernize(sampling_config: DictConfig) -> bool:
    """Brings copied sampling settings of before up to date, in place; tells whether they are those of this package."""
    sampler = sampling_config.sampler_partial
    joint = "draw" in sampler or str(sampler.get("_target_")).startswith("mattergen_e.")
    with open_dict(sampling_config):
        for key in OLD_KEYS if joint else ():
            sampler.pop(key, None)
        for part, names in OLD_TARGETS.items():
            node = sampling_config.get(part)
            if node is not None and node.get("_target_") in names:
                node["_target_"] = names[node["_target_"]]
    return joint


def prepare() -> None:
    """Hooks generation into MatterGen's generator; does nothing the second time."""
    generator.install(Hooks())
