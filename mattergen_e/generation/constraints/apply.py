"""Constraints as a model takes them: in its diffused units, on its grids, for the sites of its crystals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mattergen_e.crystals.graphs import to_graph
from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.elements import Elements
from mattergen_e.diffusion.guidance_target import GuidanceTarget
from mattergen_e.diffusion.held import ClampedDescriptor, FixedTypes, Held, Placed, SiteTargets, Template
from mattergen_e.diffusion.joint import Preparation
from mattergen_e.diffusion.placed import HeldCell, HeldPositions
from mattergen_e.diffusion.site_conditions import SiteCondition
from mattergen_e.generation.constraints import values
from mattergen_e.generation.constraints.reading import Constraints, read_constraints
from mattergen_e.spectra.curves import Curve


def constrain(constraints: str | Path | Constraints, model: Any, guidance: GuidanceTarget | None = None) -> Held:
    """What is held in a run with a model.

    Args:
        constraints: The file, or what was read of it.
        model: A loaded model.
        guidance: What a predictor is asked for, which takes spectra of sites where the model does not.

    Returns:
        The constraints in the model's terms.

    Raises:
        UserError: As `read_constraints`; or if the model has no such descriptor or condition, or cannot take a value.
    """
    read = constraints if isinstance(constraints, Constraints) else read_constraints(constraints)
    descriptors: dict[str, Descriptor] = getattr(model, "descriptors", {})
    conditions: dict[str, SiteCondition] = dict(getattr(model, "site_conditions", {}))
    if guidance is not None:
        conditions |= guidance.sites({*descriptors, *conditions})
    values.check_names(read, descriptors, conditions)
    clean = _trained_with_given(model)
    clamped = {
        name: ClampedDescriptor(descriptor, rows, clean=clean)
        for name, descriptor in descriptors.items()
        if (rows := _clamped_rows(read, name, descriptor))
    }
    targets = [
        SiteTargets(c.name, {site: _target(value, c, values.place(read, site, name)) for site, value in told.items()})
        for name, c in conditions.items()
        if (told := read.values.get(name))
    ]
    corruptions = model.diffusion_module.corruption.corruptions
    return Held(
        types=FixedTypes(read.numbers) if read.numbers else None,
        elements=None if read.rules is None else Elements(read.rules, corruptions["atomic_numbers"]),
        placed=_placed(read, corruptions),
        clamped=clamped,
        template=_template(read, model),
        targets=targets,
    )


def _placed(read: Constraints, corruptions: Mapping[str, Any]) -> dict[str, Placed]:
    """Given parts of the structure by field."""
    placed: dict[str, Placed] = {}
    if read.positions:
        positions = {site: position.tolist() for site, position in read.positions.items()}
        placed["pos"] = HeldPositions(positions, corruptions["pos"])
    if read.cell is not None:
        placed["cell"] = HeldCell(read.cell.tolist(), corruptions["cell"])
    return placed


def _trained_with_given(model: Any) -> bool:
    """Whether a share of the training crystals had clean descriptors."""
    preparation = model.diffusion_module.pre_corruption_fn
    return isinstance(preparation, Preparation) and preparation.shares.given > 0


def _clamped_rows(read: Constraints, name: str, descriptor: Descriptor) -> dict[int, torch.Tensor]:
    """What is given of a descriptor, by row of a crystal, in diffused units, (dim,) each."""

    def diffused(value: Any, where: str) -> torch.Tensor:
        return descriptor.encode(torch.from_numpy(descriptor.clamp(value, where)))

    if descriptor.place == "site":
        told = read.values.get(name, {})
        return {site: diffused(value, values.place(read, site, name))[0] for site, value in told.items()}
    if name not in read.crystal:
        return {}
    rows = diffused(read.crystal[name], values.of_crystal(read, name))
    return {i: row for i, row in enumerate(rows) if bool(row.isfinite().all())}


def _target(value: list[float] | Curve, condition: SiteCondition, where: str) -> torch.Tensor:
    """A value of one site as the condition is told it, (dim,)."""
    return torch.from_numpy(values.told(value, condition, where))


def _template(constraints: Constraints, model: Any) -> Template | None:
    source = constraints.content.template
    if constraints.template is None or source is None:
        return None
    return Template(to_graph(constraints.template), source.time, model)
