"""What is held while the rest of a crystal is generated: types, descriptors, a start and what sites are told.

Each constraint is an object of its own with the moments of a reverse pass that it cares for; `Held` is all of them.
Numbers of sites count within a crystal, from 0, and sites keep their order from the conditions to the output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.elements import Elements
from mattergen_e.diffusion.fields import time_key
from mattergen_e.diffusion.joint import CLEAN_TIME
from mattergen_e.diffusion.prediction import denoise_descriptors
from mattergen_e.diffusion.site_conditions import told_key, values_key
from mattergen_e.errors import UserError
from mattergen_e.types import Graphs

#: Reverse steps with which the descriptors of a template are predicted.
PREDICTION_STEPS = 20


def systems(conditions: Graphs) -> list[list[str]] | None:
    """The chemical system that each crystal of a batch of conditions is asked for, as symbols; None: none is."""
    given = conditions["chemical_system"] if "chemical_system" in conditions else None  # noqa: SIM401
    return None if given is None else [s.split("-") if isinstance(s, str) else list(s) for s in given]


class Rows:
    """Some rows of each crystal, such as sites: `index` counts within a crystal, `rows` in the batch at hand."""

    def __init__(self, index: list[int]) -> None:
        self.index = torch.tensor(index)
        self.rows = torch.empty(0, dtype=torch.long)

    def begin(self, counts: torch.Tensor) -> None:
        """Finds the rows in a batch of crystals with so many rows each, (n_crystals,).

        Raises:
            UserError: If a crystal has too few sites.
        """
        highest = int(self.index.max())
        if int(counts.min()) <= highest:
            raise UserError(
                f"site {highest} is constrained, but a crystal of {int(counts.min())} sites was asked for: ask for "
                f"{highest + 1} or more."
            )
        first = counts.cumsum(0) - counts
        self.rows = (first[:, None] + self.index.to(counts.device)).flatten()

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Values (n_chosen, ...) of the chosen rows of one crystal for all crystals of the batch."""
        n_crystals = len(self.rows) // len(self.index)
        return values.to(self.rows.device).repeat(n_crystals, *[1] * (values.dim() - 1))


class FixedTypes:
    """Sites whose element is given, at every time.

    In the diffusion of masks a site that shows its type among masked ones is an ordinary state, and its type at an
    earlier time is the same: nothing has to be noised.
    """

    def __init__(self, numbers: Mapping[int, int]) -> None:
        """Takes atomic numbers by site."""
        self.chosen = Rows(list(numbers))
        self.numbers = torch.tensor(list(numbers.values()))

    def hold(self, x: torch.Tensor, t: float = 0.0) -> torch.Tensor:
        """Atomic numbers (n_sites,) with the given ones in place."""
        return x.index_put((self.chosen.rows,), self.chosen.spread(self.numbers).to(x.dtype))


class ClampedDescriptor:
    """Rows whose values of a descriptor are given, in diffused units.

    On the way the values are noised to the time of the rest, which is the state that a joint network was trained on
    (as in RePaint, Lugmayr et al. 2022, without its resampling). A network that was trained with given descriptors is
    told instead that these rows are at time 0, and sees their values clean throughout.

    Attributes:
        clean: Whether the network is told so.
    """

    def __init__(self, descriptor: Descriptor, values: Mapping[int, torch.Tensor], *, clean: bool = False) -> None:
        """Takes values in diffused units, (dim,) each, by row of a crystal: site, or probe of a grid, from 0."""
        self.descriptor = descriptor
        self.corruption = descriptor.corruption()
        self.chosen = Rows(list(values))
        self.values = torch.stack(list(values.values()))
        self.clean = clean

    def begin(self, num_atoms: torch.Tensor) -> None:
        """Finds the rows in a batch of crystals with so many rows each, (n_crystals,).

        Raises:
            UserError: If a crystal has too few sites.
        """
        self.chosen.begin(self.descriptor.count(num_atoms))

    def hold(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """The variable (n_rows, dim) with the given values in place, as they are at time t; exact at 0."""
        values = self.chosen.spread(self.values).to(x)
        if not self.clean and t > 0:
            times = torch.full((len(values),), t, device=x.device, dtype=x.dtype)
            alpha, sigma = self.corruption.mean_coeff_and_std(x=values, t=times)
            values = alpha * values + sigma * torch.randn_like(values)
        return x.index_put((self.chosen.rows,), values)

    def told(self, batch: Graphs, t: torch.Tensor) -> dict[str, torch.Tensor]:
        """The descriptor's times at the rows of a batch: the crystals' t, (n_crystals,), but 0 where it is given."""
        name = self.descriptor.name
        return {time_key(name): t[self.descriptor.rows(batch)].index_fill(0, self.chosen.rows, CLEAN_TIME)}

    def hidden(self, batch: Graphs) -> dict[str, torch.Tensor]:
        """The descriptor and its times with full noise in place of what was `told`."""
        name, rows = self.descriptor.name, self.chosen.rows
        noise = torch.randn_like(batch[name][rows])
        times = batch[time_key(name)].index_fill(0, rows, float(self.corruption.T))
        return {name: batch[name].index_put((rows,), noise), time_key(name): times}

    def after_step(self, x: torch.Tensor, *, s: float, ds: float, batch_idx: torch.Tensor) -> torch.Tensor:
        """As the descriptor's, which then acts on the other rows alone."""
        t = 0.0 if s >= 1.0 else (1.0 - s) * float(self.corruption.T)
        free = torch.ones(len(x), dtype=torch.bool, device=x.device).index_fill(0, self.chosen.rows, False)
        return self.descriptor.after_step_free(self.hold(x, t), free, s=s, ds=ds, batch_idx=batch_idx)


class Template:
    """A crystal to start from, noised to a time by the model's own corruption (DOSMatGen, section 3.2.2).

    What a joint model generates beside the structure is predicted for it first, and noised along.
    """

    def __init__(self, crystal: Graphs, time: float, model: Any) -> None:
        """Takes a crystal.

        Args:
            crystal: Its `ChemGraph`: fractional positions, symmetric cell (Å), atomic numbers.
            time: Share of the diffusion time.
            model: The model.
        """
        self.crystal = crystal
        self.time = time
        self.module = model.diffusion_module
        self.descriptors = dict(getattr(model, "descriptors", {}))

    def noised(self, batch: Graphs, t: float, place: Callable[[Graphs], Graphs] | None = None) -> Graphs:
        """A batch with every crystal in place of this one at time t.

        Args:
            batch: The crystals that are asked for.
            t: The time.
            place: Puts what is given of the structure into the clean crystals.

        Raises:
            UserError: If the batch asks for crystals of another size.
        """
        n_sites, n_crystals = len(self.crystal["pos"]), len(batch["num_atoms"])
        if not bool((batch["num_atoms"] == n_sites).all()):
            raise UserError(f"the template has {n_sites} sites, but crystals of other sizes were asked for.")
        device = batch["pos"].device
        repeated = {
            name: self.crystal[name].to(device).repeat(n_crystals, *[1] * (self.crystal[name].dim() - 1))
            for name in ("pos", "cell", "atomic_numbers")
        }
        clean = batch.replace(**repeated)
        if place is not None:
            clean = place(clean)
        if self.descriptors:
            final = denoise_descriptors(self.module, clean, self.descriptors, PREDICTION_STEPS)
            clean = clean.replace(**{name: final[name] for name in self.descriptors})
        times = torch.full((n_crystals,), t, device=device)
        noisy = self.module.corruption.sample_marginal(clean, times)
        return batch.replace(**{name: noisy[name] for name in self.module.corruption.corrupted_fields})


class SiteTargets:
    """Sites that are told what they shall have: values of a `SiteCondition` of the model."""

    def __init__(self, name: str, values: Mapping[int, torch.Tensor]) -> None:
        """Takes values (dim,) by site."""
        self.name = name
        self.chosen = Rows(list(values))
        self.values = torch.stack(list(values.values()))

    def tell(self, batch: Graphs) -> Graphs:
        """The conditions with these targets, switched on and off as MatterGen's own conditions are."""
        n_sites, device = len(batch["pos"]), batch["pos"].device
        rows = (self.chosen.rows,)
        values = torch.zeros(n_sites, self.values.shape[1], device=device)
        told = torch.zeros(n_sites, dtype=torch.bool, device=device)
        fields = {
            values_key(self.name): values.index_put(rows, self.chosen.spread(self.values)),
            told_key(self.name): told.index_fill(0, self.chosen.rows, True),
            self.name: torch.ones(len(batch["num_atoms"]), 1, device=device),
        }
        return batch.replace(**fields)


class HeldStep:
    """A predictor or corrector of MatterGen whose results have the given values in place."""

    def __init__(self, step: Any, hold: Callable[[torch.Tensor, float], torch.Tensor]) -> None:
        self.step = step
        self.hold = hold

    def update_given_score(self, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The predictor's step, from t to t + dt."""
        sample, mean = self.step.update_given_score(**arguments)
        t, dt = float(arguments["t"][0]), float(arguments["dt"])
        after = 0.0 if t + dt <= 0.5 * abs(dt) else t + dt
        return self.hold(sample, after), self.hold(mean, after)

    def step_given_score(self, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The corrector's step, at t."""
        sample, mean = self.step.step_given_score(**arguments)
        t = float(arguments["t"][0])
        return self.hold(sample, t), self.hold(mean, t)


class SettledTypes:
    """A predictor or corrector of MatterGen for atom types whose results have elements that they may have."""

    def __init__(self, step: Any, elements: Elements) -> None:
        self.step = step
        self.elements = elements

    def update_given_score(self, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The predictor's step."""
        return self._settled(self.step.update_given_score(**arguments), arguments)

    def step_given_score(self, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The corrector's step."""
        return self._settled(self.step.step_given_score(**arguments), arguments)

    def _settled(self, results: tuple, arguments: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        sample, mean = results
        x, logits = arguments["x"], arguments["score"]
        settle = self.elements.settle
        return settle(x, sample, logits), settle(x, mean, logits, random=False)


class Placed(Protocol):
    """A part of the structure that is given, such as positions of sites or the cell."""

    def begin(self, conditions: Graphs) -> None:
        """Takes a batch of conditions.

        Raises:
            UserError: If its crystals cannot have it.
        """

    def hold(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """The field with the given values in place, as they are at time t; exact at 0."""
        ...


@dataclass
class Held:
    """All that is held in a run; with nothing given it does nothing.

    Attributes:
        types: Fixed elements of sites.
        elements: Elements that crystals may and must have.
        placed: Given parts of the structure by field: `pos`, `cell`.
        clamped: Given descriptors by name.
        template: What to start from.
        targets: What sites are told.
    """

    types: FixedTypes | None = None
    elements: Elements | None = None
    placed: dict[str, Placed] = field(default_factory=dict)
    clamped: dict[str, ClampedDescriptor] = field(default_factory=dict)
    template: Template | None = None
    targets: list[SiteTargets] = field(default_factory=list)

    @property
    def time(self) -> float | None:
        """Share of the diffusion time to start at; None: all of it."""
        return None if self.template is None else self.template.time

    def holds(self) -> dict[str, Callable[[torch.Tensor, float], torch.Tensor]]:
        """What puts the given values of a field in place as they are at a time, by field."""
        holds: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {n: c.hold for n, c in self.clamped.items()}
        holds |= {name: placed.hold for name, placed in self.placed.items()}
        if self.types is not None:
            holds["atomic_numbers"] = self.types.hold
        return holds

    def wrap(self, steps: Mapping[str, Any]) -> dict[str, Any]:
        """Predictors or correctors by field, those of fields with given values held, and elements settled."""
        holds, steps = self.holds(), dict(steps)
        if self.elements is not None and "atomic_numbers" in steps:
            steps["atomic_numbers"] = SettledTypes(steps["atomic_numbers"], self.elements)
        return {name: HeldStep(step, holds[name]) if name in holds else step for name, step in steps.items()}

    def restrict(self, score: Graphs) -> Graphs:
        """The network's score with the logits of elements that are not allowed ruled out."""
        if self.elements is None:
            return score
        return score.replace(atomic_numbers=self.elements.restrict(score["atomic_numbers"]))

    def settle(self, before: torch.Tensor, after: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Atom types after a step of a sampler that draws them itself; see `Elements.settle`."""
        return after if self.elements is None else self.elements.settle(before, after, logits)

    def after_step(self, descriptor: Descriptor) -> Callable[..., torch.Tensor]:
        """What takes the place of a descriptor's `after_step`."""
        clamp = self.clamped.get(descriptor.name)
        return descriptor.after_step if clamp is None else clamp.after_step

    def begin(self, conditions: Graphs) -> Graphs:
        """Takes a batch of conditions: finds its sites and tells its targets.

        Raises:
            UserError: If a crystal has too few sites.
        """
        num_atoms = conditions["num_atoms"]
        for clamp in self.clamped.values():
            clamp.begin(num_atoms)
        for part in (self.types, *self.targets):
            if part is not None:
                part.chosen.begin(num_atoms)
        for placed in self.placed.values():
            placed.begin(conditions)
        if self.elements is not None:
            self.elements.begin(num_atoms, systems(conditions))
        for target in self.targets:
            conditions = target.tell(conditions)
        return conditions

    def start(self, batch: Graphs, t: float) -> Graphs:
        """The state to start from at time t, out of one of pure noise."""
        if self.template is not None:
            batch = self.template.noised(batch, t, self._place)
        batch = self._place(batch, t)
        if self.elements is not None:
            fixed = torch.zeros(len(batch["atomic_numbers"]), dtype=torch.bool, device=batch["pos"].device)
            if self.types is not None:
                fixed = fixed.index_fill(0, self.types.chosen.rows, True)
            batch = batch.replace(atomic_numbers=self.elements.start(batch["atomic_numbers"], fixed))
        return batch.replace(**{name: clamp.hold(batch[name], t) for name, clamp in self.clamped.items()})

    def _place(self, batch: Graphs, t: float = 0.0) -> Graphs:
        """Crystals with what is given of their structures in place, as it is at time t."""
        holds = {name: placed.hold for name, placed in self.placed.items()}
        if self.types is not None:
            holds["atomic_numbers"] = self.types.hold
        return batch.replace(**{name: hold(batch[name], t) for name, hold in holds.items()})

    def finish(self, batch: Graphs) -> Graphs:
        """The result, with all that is given exactly in place, wherever the sampler's last step ends."""
        return batch.replace(**{name: hold(batch[name], 0.0) for name, hold in self.holds().items()})

    def before_score(self, batch: Graphs, t: torch.Tensor) -> Graphs:
        """The batch as the network gets it: told which values are given; t has shape (n_crystals,)."""
        return self._with(batch, lambda clamp: clamp.told(batch, t))

    def hide(self, batch: Graphs) -> Graphs:
        """That batch for the unconditional half of a guidance, in which nothing given shows."""
        return self._with(batch, lambda clamp: clamp.hidden(batch))

    def _with(self, batch: Graphs, fields: Callable[[ClampedDescriptor], dict[str, torch.Tensor]]) -> Graphs:
        changes = [fields(clamp) for clamp in self.clamped.values() if clamp.clean]
        return batch.replace(**{key: value for change in changes for key, value in change.items()})
