"""Parts of the structure that are given while the rest is generated: positions of sites, and the cell.

On the way they are noised by the model's own corruption to the time of all the rest, which is the state that the
network was trained on (as in RePaint, Lugmayr et al. 2022, without its resampling); at time 0 they are exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mattergen.common.utils.data_utils import compute_lattice_polar_decomposition

from mattergen_e.diffusion.held import Rows
from mattergen_e.diffusion.settings import LEAST_VOLUME_ON_THE_WAY
from mattergen_e.errors import UserError
from mattergen_e.types import Graphs


def check_volume(volume: float, n_sites: int, least: float, largest: float | None) -> None:
    """Refuses a given cell that the bounds of volume would take for that of a degenerate crystal.

    Args:
        volume: Of the cell, Å^3.
        n_sites: Sites of a crystal.
        least: Smallest volume per site (Å^3) of the sampling settings.
        largest: Largest one of them, and what the network's cutoff allows; None: any.

    Raises:
        UserError: If it would.
    """
    if not least <= volume / n_sites <= (math.inf if largest is None else largest):
        bounds = f"at least {least:g}" if largest is None else f"{least:g} to {largest:.4g}"
        raise UserError(
            f"the given cell has {volume / n_sites:.4g} cubic angstrom per site in a crystal of {n_sites} sites, but "
            f"the sampler keeps crystals of {bounds}: give another cell or number of sites."
        )


class HeldPositions:
    """Sites whose fractional coordinates are given."""

    def __init__(self, positions: Mapping[int, Sequence[float]], corruption: Any) -> None:
        """Takes fractional coordinates (3,) by site, and the forward process of the positions."""
        self.chosen = Rows(list(positions))
        self.positions = torch.tensor([list(p) for p in positions.values()], dtype=torch.float64).remainder(1.0).float()
        self.corruption = corruption

    def begin(self, conditions: Graphs) -> None:
        """Finds the sites in a batch of conditions.

        Raises:
            UserError: If a crystal has too few sites.
        """
        self.chosen.begin(conditions["num_atoms"])
        self._conditions = conditions

    def hold(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """Positions (n_sites, 3) with the given ones in place, as they are at time t."""
        rows = (self.chosen.rows,)
        placed = torch.zeros_like(x).index_put(rows, self.chosen.spread(self.positions).to(x))
        if t > 0:
            num_atoms = self._conditions["num_atoms"]
            times = torch.full((len(num_atoms),), t, device=x.device, dtype=x.dtype)
            crystals = self._conditions.get_batch_idx("pos")
            placed = self.corruption.sample_marginal(placed, times, batch_idx=crystals, batch=self._conditions)
        return x.index_put(rows, placed[rows])


class HeldCell:
    """A cell that every crystal has, in the orientation in which its matrix is symmetric, as in training."""

    def __init__(self, matrix: Sequence[Sequence[float]], corruption: Any) -> None:
        """Takes lattice vectors in rows, (3, 3), in Å, and the forward process of the cell."""
        cell = torch.tensor([[list(row) for row in matrix]], dtype=torch.float64)
        self.cell = compute_lattice_polar_decomposition(cell).float()  # (1, 3, 3)
        self.corruption = corruption

    @property
    def volume(self) -> float:
        """In Å^3."""
        return float(torch.linalg.det(self.cell[0].double()).abs())

    def begin(self, conditions: Graphs) -> None:
        """Takes a batch of conditions."""
        self._conditions = conditions

    def hold(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """The cell (n_crystals, 3, 3) as it is at time t, without noise where that would leave no volume."""
        cell = self.cell.to(x).expand(len(x), 3, 3)
        if t <= 0:
            return cell.clone()
        times = torch.full((len(x),), t, device=x.device, dtype=x.dtype)
        noised = self.corruption.sample_marginal(cell, times, batch=self._conditions)
        least = LEAST_VOLUME_ON_THE_WAY * self._conditions["num_atoms"]
        flat = torch.linalg.det(noised).abs() < least
        return torch.where(flat[:, None, None], cell, noised)
