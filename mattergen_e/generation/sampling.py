"""A joint sampler for a request: preflight, constraints and guidance target brought together with a loaded model."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mattergen.diffusion.lightning_module import DiffusionLightningModule

from mattergen_e.diffusion.classifier import Classifier
from mattergen_e.diffusion.fast import FastSampler
from mattergen_e.diffusion.guidance_target import NAME
from mattergen_e.diffusion.held import Held
from mattergen_e.diffusion.plan import read_plan
from mattergen_e.diffusion.sampler import JointSampler
from mattergen_e.diffusion.settings import guidance_factor
from mattergen_e.generation.constraints.apply import constrain
from mattergen_e.generation.outline import outline_of
from mattergen_e.generation.preflight import check_sampler
from mattergen_e.networks.predictor.noise import describe_noise, require_same_noise
from mattergen_e.upstream import exit_on_user_error


@exit_on_user_error
def joint_sampler(
    pl_module: DiffusionLightningModule,
    *,
    constraints: str | Path | Held | None = None,
    classifier: Mapping[str, Any] | Classifier | None = None,
    omega: float | None = None,
    guidance_scale: float = 0.0,
    steps: int | None = None,
    eta: float | Mapping[str, float] | None = None,
    times: float | Sequence[float] | None = None,
    **arguments: Any,
) -> JointSampler:
    """Makes a sampler for a loaded model; `sampler_partial` of the sampling settings names it.

    Args:
        pl_module: The model; its descriptors are read from it.
        constraints: What is held in all crystals: a file, or a `Held`.
        classifier: Guidance by a predictor: fields of `ClassifierSettings`, or a `Classifier`.
        omega: Strength of the guidance as DOSMatGen counts it (section 2.4): MatterGen's factor less 1.
        guidance_scale: MatterGen's factor; 0 is unconditional, 1 conditional.
        steps: Number of network calls of a `FastSampler`; None: MatterGen's sampler in the steps of the training.
        eta: How fast noise is renewed, of all fields or by field, with `default` for the others; for `steps` only.
        times: Power of equal steps in the diffusion time, or shares of it from 1 to 0; for `steps` only.
        **arguments: As of `JointSampler.from_pl_module`.

    Raises:
        UserError: If the settings contradict the model, the constraints or the predictor cannot be taken, or the model
            lacks what its descriptors' results need.
    """
    for descriptor in getattr(pl_module, "descriptors", {}).values():
        descriptor.require_ready()
    asked_steps = {**arguments, "steps": steps, "eta": eta, "times": times}
    check_sampler(outline_of(pl_module), {**asked_steps, "omega": omega, "guidance_scale": guidance_scale})
    if not isinstance(classifier, Classifier):
        classifier = Classifier.load(classifier, pl_module.device)
    target = None if classifier is None else classifier.guidance
    if constraints is not None and not isinstance(constraints, Held):
        constraints = constrain(constraints, pl_module, target)
    asked = [] if constraints is None else [condition.name for condition in constraints.targets]
    if classifier is not None:
        classifier.guidance.require_targets(NAME in asked)
        noise = describe_noise(pl_module.diffusion_module.corruption)
        require_same_noise(classifier.predictor.noise, noise, classifier.guidance.settings.predictor)
    guidance = guidance_factor(guidance_scale, omega)
    if guidance == 0 and set(asked) - {NAME}:
        print(
            "mattergen-e: a guidance factor of 0 generates as if no site was told anything: add "
            "--diffusion_guidance_factor=2.0.",
            file=sys.stderr,
        )
    made = {"held": constraints, "classifier": classifier, "guidance_scale": guidance, **arguments}
    plan = read_plan(asked_steps, pl_module.diffusion_module.corruption.corrupted_fields)
    if plan is None:
        return JointSampler.from_pl_module(pl_module, **made)
    return FastSampler.from_pl_module(pl_module, plan=plan, **made)
