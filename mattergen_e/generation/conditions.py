"""What each crystal of a run is asked for: its number of sites and its properties, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mattergen.common.data.collate import collate
from mattergen.common.data.dataset import NumAtomsCrystalDataset
from mattergen.common.data.num_atoms_distribution import NUM_ATOMS_DISTRIBUTIONS
from mattergen.common.data.transform import SetProperty

from mattergen_e.errors import UserError
from mattergen_e.upstream import exit_on_user_error


class SeededConditionLoader:
    """Batches of conditions for MatterGen's samplers; a batch depends on the seed and its number alone.

    The numbers of sites are drawn when they are first needed, so that a resumed run can set the seed it began with.

    Attributes:
        properties: Value of each conditioned property, the same for all crystals.
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
            properties: Conditions by name.
            num_atoms: Sites per crystal: one number, or several to choose from at random; overrules the distribution.
            seed: Seed of the run.

        Raises:
            UserError: If a number does not make sense.
        """
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
        self.seed = seed

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

    def make(self, num_atoms: np.ndarray) -> Any:
        """The batch of conditions that a sampler takes, for crystals of these numbers of sites."""
        transforms: list[Any] = [SetProperty(name, value) for name, value in self.properties.items()]
        dataset = NumAtomsCrystalDataset(num_atoms=np.asarray(num_atoms), transforms=transforms)
        return collate([dataset[i] for i in range(len(dataset))])

    def __iter__(self) -> Iterator[tuple[Any, None]]:
        """All batches, in MatterGen's form."""
        for batch in range(len(self)):
            yield self.make(self.batch_num_atoms(batch)), None

    def settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the run it resumes."""
        return {
            "num_samples": self.num_samples,
            "batch_size": self.batch_size,
            "num_atoms": self.choices or self.num_atoms_distribution,
            "conditions": self.properties,
            "seed": self.seed,
        }


def seed_batch(seed: int, batch: int, redraw: int = 0) -> None:
    """Seeds torch for one batch, so that it does not depend on the batches before it."""
    state = np.random.SeedSequence([seed, batch, redraw]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]) >> 1)
