"""What each crystal of a run is asked for: its number of sites, its conditions, constraints and guidance target."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mattergen.common.data.collate import collate
from mattergen.common.data.dataset import NumAtomsCrystalDataset
from mattergen.common.data.num_atoms_distribution import NUM_ATOMS_DISTRIBUTIONS
from mattergen.common.data.transform import SetProperty
from numpy.typing import NDArray

from mattergen_e.data.conditions import CACHED
from mattergen_e.diffusion.guidance_target import NAME, SITES, TARGET, GuidanceTarget, read_guidance, values_of
from mattergen_e.errors import UserError
from mattergen_e.generation.constraints.reading import Constraints, read_constraints
from mattergen_e.generation.own_conditions import as_field
from mattergen_e.generation.properties import SYSTEM, NumberList, Value, read_properties
from mattergen_e.targets.targets import Targets, file_name, read_targets
from mattergen_e.upstream import exit_on_user_error


@dataclass(frozen=True, eq=False)
class Sizes:
    """Numbers of sites to draw from.

    Attributes:
        values: Numbers of sites, (n,).
        weights: Share of each, (n,); None: the same for all.
        record: What the run's settings say of it.
    """

    values: NDArray[np.int64]
    weights: NDArray[np.float64] | None
    record: str | list[int]

    @classmethod
    def read(
        cls, distribution: str, num_atoms: int | str | Sequence[int] | None, constraints: Constraints | None = None
    ) -> Sizes:
        """Takes the numbers themselves, else the constraints, else MatterGen's distribution; its name is a number, too.

        Raises:
            UserError: If a number makes no sense, or the constraints contradict it.
        """
        if isinstance(num_atoms, str) and num_atoms in NUM_ATOMS_DISTRIBUTIONS:
            distribution, num_atoms = num_atoms, None
        if distribution not in NUM_ATOMS_DISTRIBUTIONS:
            raise UserError(
                f"num_atoms_distribution is '{distribution}': use one of {', '.join(NUM_ATOMS_DISTRIBUTIONS)}."
            )
        choices = _choices(num_atoms)
        if constraints is not None:
            _check_choices(choices, constraints)
            values, weights = constraints.sizes(distribution)
            if not choices:
                return cls(np.asarray(values), np.asarray(weights), distribution)
        if choices:
            return cls(np.array(choices), None, choices)
        table = NUM_ATOMS_DISTRIBUTIONS[distribution]
        weights = np.array(list(table.values()))
        return cls(np.array(list(table)), weights / weights.sum(), distribution)

    def draw(self, seed: int | None, n: int) -> NDArray[np.int64]:
        """Numbers of sites of n crystals, (n,)."""
        return np.random.default_rng(seed).choice(self.values, size=n, p=self.weights)


def _choices(num_atoms: Any) -> list[int]:
    """The numbers of sites that were asked for; none if the distribution is to tell them.

    Raises:
        UserError: If one is no whole number from 1 on.
    """
    if isinstance(num_atoms, Sequence) and not isinstance(num_atoms, str):
        asked: list[Any] = list(num_atoms)
    else:
        asked = [] if num_atoms is None else [num_atoms]
    found: list[int] = []
    for number in asked:
        whole = isinstance(number, int | float) and not isinstance(number, bool) and number == int(number)
        if not whole or number < 1:
            raise UserError(
                f"condition_loader_partial.num_atoms is {num_atoms!r}, but num_atoms must be 1 or more sites: give a "
                f"whole number, a list of them, or {', '.join(NUM_ATOMS_DISTRIBUTIONS)}."
            )
        found.append(int(number))
    return found


def _check_counts(num_samples: Any, batch_size: Any) -> None:
    """Refuses numbers of crystals that are no whole numbers from 1 on."""
    for number in (num_samples, batch_size):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise UserError(f"--num_batches and --batch_size must be at least 1, whole numbers, but one is {number!r}.")


def _check_choices(choices: Sequence[int], constraints: Constraints) -> None:
    """Refuses numbers of sites that a constraints file contradicts."""
    content = constraints.content
    if choices and (content.num_atoms is not None or constraints.template is not None):
        raise UserError(
            f"condition_loader_partial.num_atoms and {constraints.path} both tell the number of sites: leave the "
            "former out."
        )
    for n_sites in choices:
        try:
            constraints.check_size(n_sites, "condition_loader_partial.num_atoms")
        except ValueError as error:
            raise UserError(f"{constraints.path}: {error}.") from None


def _constraints(path: str | Path, systems: Sequence[Any]) -> Constraints:
    """The constraints for crystals of these chemical systems; with several, each of them has to allow the sites."""
    read = read_constraints(path)
    if len(systems) == 1:
        return read.within(str(systems[0]))
    found = read.within(None)
    for system in systems:
        read.within(str(system))
    return found


class ConditionLoader:
    """Batches of conditions for MatterGen's samplers; a batch depends on the seed and its number alone.

    All files of the request are read here, before a model is loaded. The numbers of sites are drawn when they are first
    needed, so that a resumed run can set the seed it began with.

    Attributes:
        sizes: Numbers of sites to draw from.
        values: Values of each conditioned property, one for all crystals or several in turn; without spectra.
        targets: Conditions that are spectra, read from the files that the properties name; one curve per crystal.
        constraints: What the constraints file asks for; None without a file.
        guidance: What a predictor guides to; None without one.
        seed: Seed of the run; None until one is set.
    """

    @exit_on_user_error
    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        num_atoms_distribution: str = "ALEX_MP_20",
        properties: Mapping[str, Any] | None = None,
        num_atoms: int | Sequence[int] | None = None,
        seed: int | None = None,
        constraints: str | Path | None = None,
        classifier: Mapping[str, Any] | None = None,
    ) -> None:
        """Makes a loader.

        Args:
            num_samples: Number of crystals.
            batch_size: Crystals per batch; the last batch may be smaller.
            num_atoms_distribution: Name of one of MatterGen's distributions of the number of sites.
            properties: Conditions by name: a value, or a list of several, which crystals are given in turn; for those
                that are spectra, a file or a `targets.Request`.
            num_atoms: Sites per crystal: one number, or several to choose from at random; overrules the distribution,
                whose name may stand here, too.
            seed: Seed of the run.
            constraints: The constraints file.
            classifier: `sampler_partial.classifier`.

        Raises:
            UserError: If a number does not make sense, a file cannot be taken, or two parts contradict each other.
        """
        self.values = read_properties(properties)
        _check_counts(num_samples, batch_size)
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.targets = read_targets(dict(properties or {}))
        self.constraints = None if constraints is None else _constraints(constraints, self.values.get(SYSTEM, ()))
        self.sizes = Sizes.read(num_atoms_distribution, num_atoms, self.constraints)
        self.guidance: GuidanceTarget | None = read_guidance(classifier)
        if self.guidance is not None:
            self.guidance.require_targets(self.constraints is not None and SITES in self.constraints.values)
        self._warn_of_few()

    def _warn_of_few(self) -> None:
        """Says if there are too few crystals for all that they are asked for."""
        for name, values in self.values.items():
            if self.num_samples < len(values):
                print(
                    f"mattergen-e: {self.num_samples} crystals are too few for the {len(values)} values of '{name}': "
                    f"the first {self.num_samples} are used.",
                    file=sys.stderr,
                )
        for name, target in self.targets.items():
            if self.num_samples < target.request.per_curve * len(target.names):
                print(
                    f"mattergen-e: {self.num_samples} crystals are too few for the {len(target.names)} curves of "
                    f"'{name}' ({target.request.per_curve} each): the first "
                    f"{target.curve_of(self.num_samples - 1) + 1} are used.",
                    file=sys.stderr,
                )

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self.num_samples // self.batch_size)

    def num_atoms(self) -> NDArray[np.int64]:
        """Number of sites of every crystal of the run, shape (num_samples,)."""
        return self.sizes.draw(self.seed, self.num_samples)

    def batch_num_atoms(self, batch: int) -> NDArray[np.int64]:
        """Number of sites of every crystal of one batch, shape (n_crystals,)."""
        return self.num_atoms()[batch * self.batch_size : (batch + 1) * self.batch_size]

    def make(self, num_atoms: NDArray[np.int64], first: int = 0) -> Any:
        """The batch of conditions that a sampler takes.

        Args:
            num_atoms: Numbers of sites of its crystals, (n_crystals,).
            first: Number of its first crystal in the run, which decides on the values and curves.
        """
        dataset = NumAtomsCrystalDataset(num_atoms=np.asarray(num_atoms), transforms=[])
        crystals = range(first, first + len(dataset))
        rows = {
            name: torch.from_numpy(target.values[[target.curve_of(i) for i in crystals]])
            for name, target in self.targets.items()
        }
        if self.guidance is not None and self.guidance.targets is not None:
            rows[TARGET] = values_of(self.guidance.targets, crystals)
        graphs: list[Any] = [self._tell(dataset[i], first + i) for i in range(len(dataset))]
        return collate([g.replace(**{name: v[i : i + 1] for name, v in rows.items()}) for i, g in enumerate(graphs)])

    def _tell(self, graph: Any, index: int) -> Any:
        """A crystal with the values that it is asked for."""
        for name in self.values:
            value: Any = self.value_of(name, index)
            graph = SetProperty(name, as_field(value))(graph)
        return graph

    def value_of(self, name: str, index: int) -> Value:
        """What one crystal is asked for: several values are given in turn."""
        values = self.values[name]
        return values[index % len(values)]

    def _all_targets(self) -> dict[str, Targets]:
        """Spectra of the request by name, the guidance target last."""
        guided = None if self.guidance is None else self.guidance.targets
        return {**self.targets, **({} if guided is None else {NAME: guided})}

    def record(self, index: int) -> dict[str, Any]:
        """What is written down of what one crystal was asked for, by name: values, and which spectra."""
        values = {name: self.value_of(name, index) for name in self.values}
        return values | {name: target.record(index) for name, target in self._all_targets().items()}

    def save_targets(self, folder: Path) -> None:
        """Writes the targets into a run's folder, in place of those of a run before."""
        targets = self._all_targets()
        for name in set(CACHED) - set(targets):
            (folder / file_name(name)).unlink(missing_ok=True)
        for target in targets.values():
            target.save(folder)

    def __iter__(self) -> Iterator[tuple[Any, None]]:
        """All batches, in MatterGen's form."""
        for batch in range(len(self)):
            yield self.make(self.batch_num_atoms(batch), batch * self.batch_size), None

    def settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the run it resumes."""
        own = {
            "num_samples": self.num_samples,
            "batch_size": self.batch_size,
            "num_atoms": self.sizes.record,
            "conditions": {
                **{name: _recorded(values) for name, values in self.values.items()},
                **{name: t.settings() for name, t in self.targets.items()},
            },
            "seed": self.seed,
        }
        if self.constraints is not None:
            own["constraints"] = self.constraints.settings()
        if self.guidance is not None:
            own[NAME] = self.guidance.record()
        return own


def _recorded(values: Sequence[Value]) -> Any:
    """The values of a condition in the settings of a run: one as it is, unless it is a list itself; or a list."""
    return list(values) if len(values) > 1 or isinstance(values[0], NumberList) else values[0]


def seed_batch(seed: int, batch: int, redraw: int = 0, first: int = 0) -> None:
    """Seeds torch for one batch, or the part of it that begins at a crystal, whatever was drawn before."""
    entropy = [seed, batch, redraw, *([first] if first else [])]
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]) >> 1)
