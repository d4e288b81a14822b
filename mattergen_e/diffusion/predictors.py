"""Reverse steps: a descriptor's own, and a guard that keeps degenerate crystals from ending a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mattergen.diffusion.corruption.sde_lib import SDE
from mattergen.diffusion.sampling.predictors import AncestralSamplingPredictor

from mattergen_e.descriptors.base import Descriptor
from mattergen_e.descriptors.rows import any_of_crystal
from mattergen_e.diffusion.settings import LEAST_VOLUME_ON_THE_WAY
from mattergen_e.types import Graphs


class DescriptorPredictor(AncestralSamplingPredictor):
    """Ancestral sampling followed by the descriptor's own constraint, on the sample and on the mean."""

    def __init__(
        self, corruption: SDE, descriptor: Descriptor, after_step: Callable[..., torch.Tensor] | None = None
    ) -> None:
        """Makes a predictor; `after_step` takes the place of the descriptor's own."""
        super().__init__(corruption, score_fn=None)
        self.descriptor = descriptor
        self.after_step = after_step or descriptor.after_step

    def update_given_score(
        self,
        *,
        x: torch.Tensor,
        t: torch.Tensor,
        dt: torch.Tensor,
        batch_idx: Any,
        score: torch.Tensor,
        batch: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One reverse step of a field (n_rows, dim); returns the sample and its mean, both constrained."""
        sample, mean = super().update_given_score(x=x, t=t, dt=dt, batch_idx=batch_idx, score=score, batch=batch)
        s, ds = reverse_time(float(t[0]), float(dt), float(self.corruption.T))
        constrain = self.after_step
        return constrain(sample, s=s, ds=ds, batch_idx=batch_idx), constrain(mean, s=s, ds=ds, batch_idx=batch_idx)


def reverse_time(t: float, dt: float, end: float) -> tuple[float, float]:
    """Normalised reverse time after a step from t to t + dt, and the step's length in it.

    The last step lands on time 0 up to rounding; it counts as exactly 1.
    """
    after = t + dt
    s = 1.0 if after <= 0.5 * abs(dt) else 1.0 - after / end
    return s, abs(dt) / end


class CrystalGuard:
    """Keeps every crystal of a batch in a state that the network can be evaluated on.

    A cell whose volume per site leaves the bounds is scaled back to them and goes on: where no two sites see each other
    the network cannot lead it back. A crystal with non-finite numbers or without neighbours is parked: from then
    on its cell is a cube of ordinary density, and it is reported at the end. The other crystals of the batch are not
    touched.
    """

    #: Atoms per cubic angstrom of a parked crystal; an ordinary solid.
    parking_density = 0.0577

    def __init__(
        self, cutoff: float, least_volume: float = LEAST_VOLUME_ON_THE_WAY, largest_volume: float | None = None
    ) -> None:
        """Makes a guard for a network that sees neighbours within `cutoff` angstrom.

        In a crystal whose shortest distance between sites is d, a site takes at least d**3 / sqrt(2) (close packing).
        A volume per site below cutoff**3 / sqrt(2) therefore means that some pair of sites sees each other.

        Args:
            cutoff: Of the network, in angstrom.
            least_volume: Smallest volume per site in cubic angstrom.
            largest_volume: Largest volume per site in cubic angstrom; at most, and by default, what the cutoff allows.
        """
        allowed = cutoff**3 / 2**0.5
        self.least_volume = least_volume
        self.largest_volume = allowed if largest_volume is None else min(allowed, largest_volume)
        self.parked = torch.zeros(0, dtype=torch.bool)

    def begin(self, num_atoms: torch.Tensor) -> None:
        """Starts with a fresh batch of crystals; `num_atoms` has shape (n_crystals,)."""
        self.num_atoms = num_atoms
        self.parked = torch.zeros(len(num_atoms), dtype=torch.bool, device=num_atoms.device)
        edge = (num_atoms / self.parking_density) ** (1 / 3)
        self.cube = torch.eye(3, device=num_atoms.device) * edge[:, None, None]  # (n_crystals, 3, 3)

    def park(self, crystals: torch.Tensor) -> None:
        """Marks crystals (n_crystals,), bool."""
        self.parked |= crystals

    def cell(self, cell: torch.Tensor) -> torch.Tensor:
        """Cells (n_crystals, 3, 3) within the bounds of volume; crystals without a usable cell are parked."""
        finite = cell.isfinite().flatten(1).all(dim=1)
        volume = torch.linalg.det(torch.where(finite[:, None, None], cell, self.cube)).abs() / self.num_atoms
        self.park(~finite | ~volume.isfinite() | (volume <= 0))
        bounded = volume.clamp(self.least_volume, self.largest_volume)
        out = bounded != volume
        scale = torch.where(out, (bounded / volume) ** (1 / 3), torch.ones_like(volume))
        scaled = torch.where(out[:, None, None], cell * scale[:, None, None], cell)
        return torch.where(self.parked[:, None, None], self.cube, scaled)

    def rows(self, x: torch.Tensor, crystals: torch.Tensor) -> torch.Tensor:
        """Values of rows (n_rows, ...) with non-finite ones replaced by random numbers; marks their crystals."""
        bad = ~x.isfinite().flatten(1).all(dim=1)
        self.park(any_of_crystal(bad, crystals, len(self.parked)))
        return torch.where(bad.reshape(-1, *[1] * (x.dim() - 1)), torch.rand_like(x), x)

    def score(self, score: Graphs, rows: Mapping[str, torch.Tensor]) -> Graphs:
        """Scores with all those of a crystal at zero if one of them is not finite; marks such crystals.

        Langevin steps are scaled with an average over the batch, so that one such number would reach every crystal.

        Args:
            score: Has the scores of the fields.
            rows: Crystal of each row, (n_rows,), by field.
        """
        bad = torch.zeros_like(self.parked)
        for name, crystals in rows.items():
            bad |= any_of_crystal(~score[name].isfinite().flatten(1).all(dim=1), crystals, len(bad))
        self.park(bad)
        changes = {}
        for name, crystals in rows.items():
            keep = ~bad[crystals]
            changes[name] = torch.where(keep.reshape(-1, *[1] * (score[name].dim() - 1)), score[name], 0.0)
        return score.replace(**changes)

    def clean(self, name: str, x: torch.Tensor, batch_idx: torch.Tensor | None) -> torch.Tensor:
        """A field after a step, with degenerate crystals parked.

        Args:
            name: Of the field.
            x: The field.
            batch_idx: Crystal of each row, (n_rows,); not needed for the cell.
        """
        if name == "cell":
            return self.cell(x)
        if not x.is_floating_point():
            return x
        assert batch_idx is not None
        return self.rows(x, batch_idx)


class Guarded:
    """A predictor or corrector of MatterGen whose results pass a guard."""

    def __init__(self, step: Any, name: str, guard: CrystalGuard) -> None:
        self.step = step
        self.name = name
        self.guard = guard

    def update_given_score(self, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The predictor's step, guarded."""
        return self._clean(self.step.update_given_score(**arguments), arguments["batch_idx"])

    def step_given_score(self, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The corrector's step, guarded."""
        return self._clean(self.step.step_given_score(**arguments), arguments["batch_idx"])

    def _clean(self, results: tuple, batch_idx: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        sample, mean = (self.guard.clean(self.name, x, batch_idx) for x in results)
        return sample, mean
