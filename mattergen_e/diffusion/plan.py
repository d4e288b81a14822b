"""The plan of a generation in any number of network calls: at which times, and how fast the noise is renewed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from omegaconf import OmegaConf

from mattergen_e.errors import UserError

#: Where `sampler_partial` does not say: chosen on a validation seed, see docs/sampling.md.
ETA = 16.0
POWER = 1.5
#: Smallest share of the diffusion time that a step may begin at: below, single precision does not tell noise from none.
LEAST = 1e-4
#: Key of `eta` for the fields that are not named.
DEFAULT = "default"
#: Settings of MatterGen's sampler that have no meaning beside a number of calls.
OTHERS = ("N", "eps_t")


@dataclass(frozen=True)
class Plan:
    """Times and renewal of the noise.

    Attributes:
        times: Shares of the diffusion time, descending from 1 to 0: one network call for each but the last.
        eta: How fast the noise is renewed, by field; `DEFAULT` stands for the others.
    """

    times: tuple[float, ...]
    eta: Mapping[str, float]

    @property
    def steps(self) -> int:
        """Number of network calls."""
        return len(self.times) - 1

    def eta_of(self, field: str) -> float:
        """How fast the noise of a field is renewed."""
        return self.eta.get(field, self.eta.get(DEFAULT, ETA))

    def since(self, share: float | None) -> tuple[float, ...]:
        """The times from a share of the diffusion time on, which comes first; None: all."""
        if share is None or share >= 1:
            return self.times
        return (share, *(t for t in self.times if t < share * (1 - 1e-6)))  # a template's share is far above `LEAST`

    def record(self) -> dict[str, Any]:
        """What a resumed run must have in common with the run that it resumes, as JSON."""
        eta = {name: "inf" if math.isinf(value) else value for name, value in sorted(self.eta.items())}
        return {"steps": self.steps, "eta": eta, "times": [round(t, 9) for t in self.times]}


def read_plan(sampler: Mapping[str, Any], fields: Collection[str]) -> Plan | None:
    """The plan that sampling settings ask for; None: MatterGen's sampler in as many steps as the model's training.

    Args:
        sampler: `sampler_partial`: `steps`, `eta`, `times`; None or missing has its default.
        fields: Names of what the model generates.

    Raises:
        UserError: If a value makes no sense, or settings of MatterGen's sampler are given as well.
    """
    steps = sampler.get("steps")
    if steps is None:
        return None
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise UserError(
            f"sampler_partial.steps is {steps}: give the number of network calls, 1 or more, or null for MatterGen's "
            "sampler."
        )
    for name in OTHERS:
        if sampler.get(name) is not None:
            raise UserError(f"sampler_partial.{name} is of MatterGen's sampler: leave it out, or set steps to null.")
    return Plan(_times(_plain(sampler.get("times")), steps), _eta(_plain(sampler.get("eta")), fields))


def times_by_power(steps: int, power: float) -> tuple[float, ...]:
    """Shares of the diffusion time from 1 to 0, the equal ones to a power; none but the last is below `LEAST`."""
    times = [(1 - i / steps) ** power for i in range(steps)]
    return (*(times if times[-1] >= LEAST else (LEAST + (1 - LEAST) * t for t in times)), 0.0)


def _plain(value: Any) -> Any:
    """A list or mapping of Hydra's as one of Python's."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _number(value: Any) -> float | None:
    """A value as a number, infinity included; None if it is none."""
    if isinstance(value, bool) or not (isinstance(value, int | float) or value == "inf"):
        return None
    return None if math.isnan(float(value)) else float(value)


def _times(asked: Any, steps: int) -> tuple[float, ...]:
    if not isinstance(asked, list | tuple):
        power = POWER if asked is None else _number(asked)
        if power is None or not 0 < power < math.inf:
            raise UserError(
                f"sampler_partial.times is {asked}: give a positive power (1: equal steps, above: shorter ones at the "
                "end), or a list of times that descend from 1 to 0."
            )
        times = times_by_power(steps, power)
        if any(first <= second * (1 + 1e-6) for first, second in pairwise(times)):
            raise UserError(f"sampler_partial.times is {asked}: {steps} such times fall together: give less.")
        return times
    given = [_number(t) for t in asked]
    numbers = [t for t in given if t is not None]
    descending = len(numbers) == len(given) and all(first > second for first, second in pairwise(numbers))
    if not descending or len(numbers) < 2 or numbers[0] != 1 or numbers[-1] != 0:
        raise UserError(f"sampler_partial.times is {[*asked]}: give times that descend from 1 to 0.")
    if numbers[-2] < LEAST:
        raise UserError(f"sampler_partial.times has {numbers[-2]:g} near the end: give no time below {LEAST:g} but 0.")
    if len(numbers) != steps + 1:
        raise UserError(
            f"sampler_partial.times has {len(numbers)} times, which is {len(numbers) - 1} steps, but "
            f"sampler_partial.steps is {steps}: set steps to {len(numbers) - 1}."
        )
    return tuple(numbers)


def _eta(asked: Any, fields: Collection[str]) -> dict[str, float]:
    given = asked if isinstance(asked, Mapping) else {DEFAULT: asked}
    found = {}
    for name, value in given.items():
        if name != DEFAULT and name not in fields:
            raise UserError(
                f"sampler_partial.eta names '{name}', which this model does not generate: it generates "
                f"{', '.join(sorted(fields))}."
            )
        number = ETA if value is None else _number(value)
        if number is None or number < 0:
            where = "sampler_partial.eta" if name == DEFAULT else f"sampler_partial.eta.{name}"
            raise UserError(
                f"{where} is {value}: give a number from 0 (the noise stays) over 1 (as in training's reverse) to inf "
                "(all of it is drawn anew)."
            )
        found[name] = number
    return found
