"""Sampling settings as numbers: what was asked for and what the model was trained with make one."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from mattergen_e.errors import UserError

#: Smallest volume per site (cubic angstrom) of a cell on the way where the settings have no word on it.
LEAST_VOLUME_ON_THE_WAY = 0.5


def guidance_factor(scale: Any, omega: Any) -> float:
    """MatterGen's factor gamma = 1 + omega; DOSMatGen's (1 + omega) s(x, y) - omega s(x) is the same mixture.

    Args:
        scale: The factor; 0 where nobody gave one.
        omega: Strength of DOSMatGen (section 2.4), if it is given.

    Raises:
        UserError: If both are given, or one is no number.
    """
    for name, value in (("--diffusion_guidance_factor", scale), ("sampler_partial.omega", omega)):
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not number:
            raise UserError(f"{name} is '{value}': give a number.")
    if omega is None:
        return scale
    if scale != 0:
        raise UserError(f"omega {omega:g} and a guidance factor of {scale:g} are both given: leave one out.")
    return 1.0 + omega


def reverse_steps(asked: Any, trained: Collection[int]) -> Any:
    """Number of reverse steps of a joint sampler.

    Args:
        asked: `sampler_partial.N`; None: as many as the model was trained with.
        trained: Steps that the diffusion of its atom types was trained with.

    Raises:
        UserError: If they contradict each other.
    """
    steps = min(trained, default=1000) if asked is None else asked
    if trained and set(trained) != {steps}:
        raise UserError(
            f"sampler_partial.N is {asked}, but this model's atom types were trained with {min(trained)} steps: "
            "leave N out or set it to that number."
        )
    return steps


def volume_bounds(bounds: Sequence[Any]) -> tuple[float, float | None]:
    """Least and largest volume per site in cubic angstrom; None: no largest.

    Raises:
        UserError: If they are not two ascending numbers.
    """
    named = f"sampler_partial.volume_per_site is {[*bounds]}".replace("None", "null")
    if len(bounds) != 2 or not all(v is None or isinstance(v, int | float) for v in bounds):
        raise UserError(f"{named}: give two volumes per site in cubic angstrom, or null in the place of one.")
    least, largest = bounds
    if least is not None and largest is not None and least >= largest:
        raise UserError(f"{named}: give the smaller volume first.")
    return LEAST_VOLUME_ON_THE_WAY if least is None else least, largest
