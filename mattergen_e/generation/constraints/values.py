"""Values of sites as a model takes them: what is said of those that it cannot take, before it is built and after."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from mattergen_e.descriptors.atomic_dos import AtomicDos
from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.site_conditions import SiteCondition
from mattergen_e.errors import UserError
from mattergen_e.generation.constraints.reading import Constraints
from mattergen_e.spectra.curves import Curve, on_grid
from mattergen_e.spectra.grid import EnergyGrid

#: What is asked of a site.
Value = list[float] | Curve


def check_values(
    constraints: Constraints,
    descriptors: Mapping[str, Descriptor],
    conditions: Mapping[str, SiteCondition],
    grid_of: Callable[[str], EnergyGrid | None],
) -> None:
    """Check that a model can take what a constraints file asks of sites.

    Args:
        constraints: As read.
        descriptors: Of the model, by name.
        conditions: Of its sites, by name.
        grid_of: Gives the grid of the spectra of a descriptor; None where it is not known: they are not checked.

    Raises:
        UserError: If it cannot.
    """
    check_names(constraints, [*descriptors, *conditions])
    for name, by_site in constraints.values.items():
        descriptor = descriptors.get(name)
        grid = grid_of(name) if isinstance(descriptor, AtomicDos) else None
        for site, value in by_site.items():
            where = place(constraints, site, name)
            if descriptor is None:
                told(value, conditions[name], where)
            elif not isinstance(descriptor, AtomicDos):
                numbers(value, descriptor, where)
            elif grid is not None:
                spectrum(value, grid, where)


def check_names(constraints: Constraints, known: Collection[str]) -> None:
    """Check that a model knows what a constraints file names.

    Raises:
        UserError: If it does not.
    """
    unknown = sorted(set(constraints.values) - set(known))
    if unknown:
        able = ", ".join(known) or "the elements of sites"
        raise UserError(f"{constraints.path} names '{unknown[0]}', but of sites this model can take {able}.")


def place(constraints: Constraints, site: int, name: str) -> str:
    """Where a value stands, as it begins a sentence."""
    return f"{constraints.path}, site {site}, '{name}'"


def numbers(value: Value, descriptor: Descriptor, where: str) -> list[float]:
    """The numbers that a descriptor of one site is clamped to, in its unit.

    Raises:
        UserError: If it is a spectrum, or there are more or fewer.
    """
    count = "one number" if descriptor.dim == 1 else f"{descriptor.dim} numbers"
    wanted = f"{count} in {descriptor.unit}" if descriptor.unit else count
    if isinstance(value, Curve):
        raise UserError(f"{where} is a spectrum: give {wanted}.")
    if len(value) != descriptor.dim:
        raise UserError(f"{where} has {len(value)} numbers: give {wanted}.")
    return value


def told(value: Value, condition: SiteCondition, where: str) -> NDArray[np.float32]:
    """What one site is told, (dim,), as the condition takes it.

    Raises:
        UserError: If it cannot be told that.
    """
    grid = getattr(condition, "grid", None)
    if isinstance(grid, EnergyGrid):
        return spectrum(value, grid, where)
    if isinstance(value, Curve) or len(value) != condition.dim:
        raise UserError(f"{where}: give {condition.dim} numbers.")
    return np.array(value, dtype=np.float32)


def spectrum(value: Value, grid: EnergyGrid, where: str) -> NDArray[np.float32]:
    """A spectrum on the whole of a grid, (points,) states/eV.

    Raises:
        UserError: If it has another number of points, does not reach over the grid, or has no states on it.
    """
    if not isinstance(value, Curve):
        if len(value) != grid.points:
            raise UserError(f"{where} has {len(value)} numbers: give a spectrum as {{file: FILE}}, or {grid}.")
        value = Curve(where, grid.energies, np.array(value, dtype=np.float64))
    found = on_grid(value, grid)
    if (found < 0).any():
        low, high = value.energies[0], value.energies[-1]
        raise UserError(
            f"{where} is given from {low:.4g} to {high:.4g} eV, but all of {grid} is needed: give zeros where there "
            "are no states."
        )
    if not (found > 0).any():
        raise UserError(f"{where} has no states between {grid.minimum:g} and {grid.maximum:g} eV.")
    return found
