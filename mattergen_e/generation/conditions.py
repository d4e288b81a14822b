"""What each crystal of a run is asked for: its number of sites and its properties, the same for the same seed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mattergen.common.data.collate import collate
from mattergen.common.data.dataset import NumAtomsCrystalDataset
from mattergen.common.data.num_atoms_distribution import NUM_ATOMS_DISTRIBUTIONS
from mattergen.common.data.transform import SetProperty

from mattergen_e.data.conditions import CACHED
from mattergen_e.errors import UserError
from mattergen_e.targets.targets import file_name, read_targets
from mattergen_e.upstream import exit_on_user_error


class SeededConditionLoader:
    """Batches of conditions for MatterGen's samplers; a batch depends on the seed and its number alone.

    The numbers of sites are drawn when they are first needed, so that a resumed run can set the seed it began with.

    Attributes:
        properties: Value of each conditioned property, the same for all crystals.
        targets: Conditions that are spectra, read from the files that the properties name; one curve per crystal.
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
    ) -> None:
        """Makes a loader.

        Args:
            num_samples: Number of crystals.
            batch_size: Crystals per batch; the last batch may be smaller.
            num_atoms_distribution: Name of one of MatterGen's distributions of the number of sites.
            properties: Conditions by name; for those that are spectra, a file or a `targets.Request`.
            num_atoms: Sites per crystal: one number, or several to choose from at random; overrules the distribution.
            seed: Seed of the run.

        Raises:
            UserError: If a number does not make sense, or a file holds no spectra.
        """
        if not isinstance(properties or {}, Mapping):
            raise UserError(
                "--properties_to_condition_on is no dictionary: write it with quotes, as \"{'dos': 'FILE'}\"."
            )
        if num_samples < 1 or batch_size < 1:
            raise UserError("--num_batches and --batch_size must be at least 1.")
        if num_atoms_distribution not in NUM_ATOMS_DISTRIBUTIONS:
            raise UserError(
                f"num_atoms_distribution is '{num_atoms_distribution}': "
                f"use one of {', '.join(NUM_ATOMS_DISTRIBUTIONS)}."
            )
        choices = [num_atoms] if isinstance(num_atoms, int) else list(num_atoms or [])
        if any(n < 1 for n in choices):
            raise UserError("condition_loader_partial.num_atoms must be 1 or more sites.")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.num_atoms_distribution = num_atoms_distribution
        self.choices = choices
        self.properties = dict(properties or {})
        self.targets = read_targets(self.properties)
        self.seed = seed
        for name, target in self.targets.items():
            if num_samples < target.request.per_curve * len(target.names):
                print(
                    f"mattergen-e: {num_samples} crystals are too few for the {len(target.names)} curves of '{name}' "
                    f"({target.request.per_curve} each): the first {target.curve_of(num_samples - 1) + 1} are used.",
                    file=sys.stderr,
                )

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self.num_samples // self.batch_size)

    def num_atoms(self) -> np.ndarray:
        """Number of sites of every crystal of the run, shape (num_samples,)."""
        rng = np.random.default_rng(self.seed)
        if self.choices:
            return rng.choice(self.choices, size=self.num_samples)
        distribution = NUM_ATOMS_DISTRIBUTIONS[self.num_atoms_distribution]
        sizes, weights = np.array(list(distribution)), np.array(list(distribution.values()))
        return rng.choice(sizes, size=self.num_samples, p=weights / weights.sum())

    def batch_num_atoms(self, batch: int) -> np.ndarray:
        """Number of sites of every crystal of one batch, shape (n_crystals,)."""
        return self.num_atoms()[batch * self.batch_size : (batch + 1) * self.batch_size]

    def make(self, num_atoms: np.ndarray, first: int = 0) -> Any:
        """The batch of conditions that a sampler takes.

        Args:
            num_atoms: Numbers of sites of its crystals, (n_crystals,).
            first: Number of its first crystal in the run, which decides on the curves.
        """
        same = {name: value for name, value in self.properties.items() if name not in self.targets}
        transforms: list[Any] = [SetProperty(name, value) for name, value in same.items()]
        dataset = NumAtomsCrystalDataset(num_atoms=np.asarray(num_atoms), transforms=transforms)
        graphs: list[Any] = [dataset[i] for i in range(len(dataset))]
        for name, target in self.targets.items():
            rows = [target.curve_of(first + i) for i in range(len(graphs))]
            values = torch.from_numpy(target.values[rows])
            graphs = [graph.replace(**{name: values[i : i + 1]}) for i, graph in enumerate(graphs)]
        return collate(graphs)

    def told(self, index: int) -> dict[str, Any]:
        """What is written down of the targets of one crystal, by name of the condition."""
        return {name: target.record(index) for name, target in self.targets.items()}

    def save_targets(self, folder: Path) -> None:
        """Writes the targets into a run's folder, in place of those of a run before."""
        for name in CACHED:
            if name in self.targets:
                self.targets[name].save(folder)
            else:
                (folder / file_name(name)).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[tuple[Any, None]]:
        """All batches, in MatterGen's form."""
        for batch in range(len(self)):
            yield self.make(self.batch_num_atoms(batch), batch * self.batch_size), None

    def settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the run it resumes."""
        return {
            "num_samples": self.num_samples,
            "batch_size": self.batch_size,
            "num_atoms": self.choices or self.num_atoms_distribution,
            "conditions": {**self.properties, **{name: t.settings() for name, t in self.targets.items()}},
            "seed": self.seed,
        }


def seed_batch(seed: int, batch: int, redraw: int = 0) -> None:
    """Seeds torch for one batch, so that it does not depend on the batches before it."""
    state = np.random.SeedSequence([seed, batch, redraw]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]) >> 1)
