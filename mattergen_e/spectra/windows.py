"""Random windows for training: a model that has seen parts of spectra can be asked for a part (ours: in no paper)."""

from __future__ import annotations

import torch

from mattergen_e.errors import UserError
from mattergen_e.spectra.grid import EnergyGrid


class RandomWindows(torch.nn.Module):
    """Draws which bins of a spectrum a training example is told.

    A share `full` of the examples is told all, a share `outside` all but a window, the rest a window alone. The width
    of a window is uniform from `narrowest` to the whole grid (for `outside`: half of that), its place uniform among
    those that fit. The shares and the width are chosen, not derived.
    """

    energies: torch.Tensor

    def __init__(self, grid: EnergyGrid, full: float = 0.5, outside: float = 0.1, narrowest: float = 1.0) -> None:
        """Makes the windows of a grid.

        Args:
            grid: Of the spectra.
            full: Share of the examples that are told the whole spectrum.
            outside: Share that is told all but a window.
            narrowest: Smallest width, eV.

        Raises:
            UserError: If the shares are none, or the width does not fit the grid.
        """
        super().__init__()
        span = grid.maximum - grid.minimum
        if min(full, outside) < 0 or full + outside > 1:
            raise UserError("the shares windows.full and windows.outside must be at least 0 and add up to at most 1.")
        if not 2 * grid.step <= narrowest <= span:
            raise UserError(f"windows.narrowest is {narrowest:g} eV: give {2 * grid.step:.2g} to {span:g} eV.")
        self.grid, self.full, self.outside, self.narrowest = grid, full, outside, narrowest
        energies = torch.tensor(grid.energies, dtype=torch.float32)
        self.register_buffer("energies", energies, persistent=False)

    def forward(self, n_crystals: int) -> torch.Tensor:
        """Which bins are told, shape (n_crystals, points), bool."""
        kind, width, place = torch.rand(3, n_crystals, 1, device=self.energies.device)
        span = self.grid.maximum - self.grid.minimum
        hole = (kind >= self.full) & (kind < self.full + self.outside)
        width = self.narrowest + width * (span - self.narrowest)
        width = torch.where(hole, 0.5 * width, width)
        low = self.grid.minimum + place * (span - width)
        window = (self.energies >= low) & (self.energies <= low + width)
        return (kind < self.full) | (window ^ hole)
