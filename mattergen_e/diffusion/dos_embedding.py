"""CDOSGen: the total density of states as a condition of MatterGen's adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import gelu

from mattergen_e.errors import UserError
from mattergen_e.spectra.curves import check_window, inside
from mattergen_e.spectra.grid import TOTAL_GRID, EnergyGrid, require_same
from mattergen_e.spectra.windows import RandomWindows
from mattergen_e.targets.targets import Targets
from mattergen_e.upstream import exit_on_user_error, register_property

#: The condition's name in batches, recipes and --properties_to_condition_on.
NAME = "dos"


class DosEmbedding(torch.nn.Module):
    """Embeds spectra ("Density of States-Intermediated Crystal Generation", eq. 2), knowing which bins are given.

        g = GELU(W2 GELU(LN(W1 [d; m] + b1)) + b2),    d = m log(1 + DOS)

    with a mask m beside the spectrum: 1 where a bin is given, 0 where nothing is asked. With m = 1 everywhere the mask
    adds a constant to b1, and this is the printed equation. In training, `RandomWindows` hides parts of the spectra.

    The adapter around it (eq. 3 and 4: `GemNetTAdapter`, `GemNetTCtrl`) is MatterGen's own: it replaces the embedding
    by zeros and leaves the atoms as they are where the condition is dropped or not known.
    """

    told: torch.Tensor

    @exit_on_user_error
    def __init__(
        self,
        hidden_dim: int,
        *,
        reliable: Sequence[float] = (TOTAL_GRID.minimum, TOTAL_GRID.maximum),
        windows: Mapping[str, float] | None = None,
        grid: Mapping[str, Any] | None = None,
    ) -> None:
        """Makes the embedding, and the condition known to MatterGen.

        Args:
            hidden_dim: Width of the embedding, that of the denoiser.
            reliable: eV, between which the labels of the training hold all states; bins beyond are never looked at.
            windows: Fields of `RandomWindows`.
            grid: Fields of the `EnergyGrid` that the model was made for; kept with the model so that a later version
                with another grid refuses it.

        Raises:
            UserError: If a setting makes no sense.
        """
        super().__init__()
        register_property(NAME)  # before `PropertyEmbedding`, which asks for it; not in processes without such a model
        self.grid = TOTAL_GRID if grid is None else EnergyGrid(**grid)
        require_same(TOTAL_GRID, self.grid, "The condition 'dos' of this model")
        self.reliable = (float(reliable[0]), float(reliable[1]))
        check_window(self.reliable, self.grid, "'reliable' of the condition 'dos'")
        self.register_buffer("told", torch.from_numpy(inside(self.grid, *self.reliable)), persistent=False)
        self.windows = RandomWindows(self.grid, **(windows or {}))
        self.first = torch.nn.Linear(2 * self.grid.points, hidden_dim)
        self.norm = torch.nn.LayerNorm(hidden_dim)
        self.second = torch.nn.Linear(hidden_dim, hidden_dim)

    def forward(self, spectra: Any) -> torch.Tensor:
        """Embeds spectra.

        Args:
            spectra: (n_crystals, points) states/eV per atom; negative or NaN where nothing is given.

        Returns:
            (n_crystals, hidden_dim).

        Raises:
            UserError: If they are no spectra of the grid.
        """
        if not isinstance(spectra, torch.Tensor):  # MatterGen's own condition loader hands on what was typed
            raise UserError("the condition 'dos' is read from its file by --sampling_config_name=joint: add that.")
        if spectra.dim() != 2 or spectra.shape[1] != self.grid.points:
            raise UserError(f"the condition 'dos' has the shape {tuple(spectra.shape)}: give {self.grid} per crystal.")
        given = (spectra >= 0) & self.told
        if self.training:
            given = given & self.windows(len(spectra))
        d = torch.log1p(torch.where(given, spectra, torch.zeros_like(spectra)))
        x = self.first(torch.cat([d, given.to(d.dtype)], dim=-1))
        return gelu(self.second(gelu(self.norm(x))))


def check_reliable(targets: Targets, reliable: Sequence[float]) -> None:
    """Checks that every target tells something between the energies (eV) where a model has learned spectra.

    Raises:
        UserError: If one does not.
    """
    given = (targets.values >= 0) & inside(targets.grid, reliable[0], reliable[1])
    for name, some in zip(targets.names, given.any(axis=1).tolist(), strict=True):
        if not some:
            raise UserError(
                f"'{targets.name}' of curve '{name}' is given nowhere between {reliable[0]:g} and {reliable[1]:g} eV, "
                "where this model has learned spectra: choose another window."
            )
