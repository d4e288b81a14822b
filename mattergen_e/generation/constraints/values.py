"""Values as a model takes them: what is said of those that it cannot take, before it is built and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.site_conditions import SiteCondition
from mattergen_e.errors import UserError
from mattergen_e.generation.constraints.reading import Constraints
from mattergen_e.spectra.curves import Curve, whole_spectrum
from mattergen_e.spectra.grid import EnergyGrid


def check_values(
    constraints: Constraints,
    descriptors: Mapping[str, Descriptor],
    conditions: Mapping[str, SiteCondition],
    stored: Callable[[str], Mapping[str, Any]],
) -> None:
    """Check that a model can take what a constraints file asks of sites and of the crystal.

    Args:
        constraints: As read.
        descriptors: Of the model, by name.
        conditions: Of its sites, by name.
        stored: Gives what the checkpoint holds of the companion of a descriptor, by its name.

    Raises:
        UserError: If it cannot.
    """
    check_names(constraints, descriptors, conditions)
    for name, by_site in constraints.values.items():
        for site, value in by_site.items():
            where = place(constraints, site, name)
            if name in descriptors:
                descriptors[name].check_clamp(value, where, partial(stored, name))
            else:
                told(value, conditions[name], where)
    for name, value in constraints.crystal.items():
        descriptors[name].check_clamp(value, of_crystal(constraints, name), partial(stored, name))


def check_names(
    constraints: Constraints, descriptors: Mapping[str, Descriptor], conditions: Mapping[str, SiteCondition]
) -> None:
    """Check that a model knows what a constraints file names, of sites and of the crystal.

    Raises:
        UserError: If it does not.
    """
    of_sites = [*(name for name, d in descriptors.items() if d.place == "site"), *conditions]
    others = [name for name, d in descriptors.items() if d.place != "site"]
    for name in sorted(set(constraints.values) - set(of_sites)):
        able = ", ".join(of_sites) or "the elements of sites"
        hint = ": write it under 'crystal'" if name in others else ""
        raise UserError(f"{constraints.path} names '{name}', but of sites this model can take {able}{hint}.")
    for name in sorted(set(constraints.crystal) - set(others)):
        able = ", ".join(others) or "nothing"
        hint = ": write it under 'sites'" if name in of_sites else ""
        raise UserError(f"{constraints.path} names '{name}', but of the crystal this model can take {able}{hint}.")


def place(constraints: Constraints, site: int, name: str) -> str:
    """Where a value of a site stands, as it begins a sentence."""
    return f"{constraints.path}, site {site}, '{name}'"


def of_crystal(constraints: Constraints, name: str) -> str:
    """Where a value of the crystal stands, as it begins a sentence."""
    return f"{constraints.path}, crystal, '{name}'"


def told(value: list[float] | Curve, condition: SiteCondition, where: str) -> NDArray[np.float32]:
    """What one site is told, (dim,), as the condition takes it.

    Raises:
        UserError: If it cannot be told that.
    """
    grid = getattr(condition, "grid", None)
    if isinstance(grid, EnergyGrid):
        return whole_spectrum(value, grid, where)
    if isinstance(value, Curve) or len(value) != condition.dim:
        raise UserError(f"{where}: give {condition.dim} numbers.")
    return np.array(value, dtype=np.float32)
