"""Constraints as a model takes them: in its diffused units, on its grids, for the sites of its crystals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mattergen_e.conditioning.curves import Curve, on_grid
from mattergen_e.constraints.reading import Constraints, read_constraints
from mattergen_e.descriptors.atomic_dos import AtomicDos
from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.held import ClampedDescriptor, FixedTypes, Held, SiteTargets, Template
from mattergen_e.diffusion.joint import Preparation
from mattergen_e.diffusion.site_conditions import SiteCondition
from mattergen_e.dos.grid import EnergyGrid
from mattergen_e.errors import UserError


def constrain(constraints: str | Path | Constraints, model: Any) -> Held:
    """What is held in a run with a model.

    Args:
        constraints: The file, or what was read of it.
        model: A loaded model.

    Returns:
        The constraints in the model's terms.

    Raises:
        UserError: As `read_constraints`; or if the model has no such descriptor or condition, or cannot take a value.
    """
    read = constraints if isinstance(constraints, Constraints) else read_constraints(constraints)
    descriptors: dict[str, Descriptor] = getattr(model, "descriptors", {})
    conditions: dict[str, SiteCondition] = getattr(model, "site_conditions", {})
    unknown = sorted(set(read.values) - {*descriptors, *conditions})
    if unknown:
        known = ", ".join([*descriptors, *conditions]) or "the elements of sites"
        raise UserError(f"{read.path} names '{unknown[0]}', but of sites this model can take {known}.")
    clean = _trained_with_given(model)
    clamped = {
        name: ClampedDescriptor(
            d, {site: _clamp(value, d, _where(read, site, name)) for site, value in told.items()}, clean=clean
        )
        for name, d in descriptors.items()
        if (told := read.values.get(name))
    }
    targets = [
        SiteTargets(name, {site: _target(value, c, _where(read, site, name)) for site, value in told.items()})
        for name, c in conditions.items()
        if (told := read.values.get(name))
    ]
    return Held(
        types=FixedTypes(read.numbers) if read.numbers else None,
        clamped=clamped,
        template=_template(read, model),
        targets=targets,
    )


def _where(constraints: Constraints, site: int, name: str) -> str:
    return f"{constraints.path}, site {site}, '{name}'"


def _trained_with_given(model: Any) -> bool:
    """Whether a share of the training crystals had clean descriptors."""
    preparation = model.diffusion_module.pre_corruption_fn
    return isinstance(preparation, Preparation) and preparation.shares.given > 0


def _clamp(value: list[float] | Curve, descriptor: Descriptor, where: str) -> torch.Tensor:
    """A value of one site in diffused units, (dim,)."""
    if isinstance(descriptor, AtomicDos):
        autoencoder = descriptor.of_model()
        spectrum = _spectrum(value, autoencoder.grid, where)
        physical = torch.from_numpy(autoencoder.encode(spectrum[None], autoencoder.grid))
    elif isinstance(value, Curve):
        raise UserError(f"{where} is a spectrum: give {_numbers(descriptor)}.")
    else:
        if len(value) != descriptor.dim:
            raise UserError(f"{where} has {len(value)} numbers: give {_numbers(descriptor)}.")
        physical = torch.tensor([value], dtype=torch.float32)
    return descriptor.encode(physical)[0]


def _numbers(descriptor: Descriptor) -> str:
    count = "one number" if descriptor.dim == 1 else f"{descriptor.dim} numbers"
    return f"{count} in {descriptor.unit}" if descriptor.unit else count


def _target(value: list[float] | Curve, condition: SiteCondition, where: str) -> torch.Tensor:
    """A value of one site as the condition is told it, (dim,)."""
    grid = getattr(condition, "grid", None)
    if isinstance(grid, EnergyGrid):
        return torch.from_numpy(_spectrum(value, grid, where))
    if isinstance(value, Curve) or len(value) != condition.dim:
        raise UserError(f"{where}: give {condition.dim} numbers.")
    return torch.tensor(value, dtype=torch.float32)


def _spectrum(value: list[float] | Curve, grid: EnergyGrid, where: str) -> NDArray[np.float32]:
    """A spectrum on the whole of a grid, (points,) states/eV."""
    if not isinstance(value, Curve):
        if len(value) != grid.points:
            raise UserError(f"{where} has {len(value)} numbers: give a spectrum as {{file: FILE}}, or {grid}.")
        value = Curve(where, grid.energies, np.array(value, dtype=np.float64))
    spectrum = on_grid(value, grid)
    if (spectrum < 0).any():
        low, high = value.energies[0], value.energies[-1]
        raise UserError(
            f"{where} is given from {low:.4g} to {high:.4g} eV, but all of {grid} is needed: give zeros where there "
            "are no states."
        )
    if not (spectrum > 0).any():
        raise UserError(f"{where} has no states between {grid.minimum:g} and {grid.maximum:g} eV.")
    return spectrum


def _template(constraints: Constraints, model: Any) -> Template | None:
    from mattergen_e.prediction.run import to_graph

    source = constraints.content.template
    if constraints.template is None or source is None:
        return None
    return Template(to_graph(constraints.template), source.time, model)
