"""What can be generated jointly with a crystal: a descriptor is data, not a subclass of the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from mattergen.diffusion.corruption.sde_lib import VPSDE
from torch import nn

from mattergen_e.data.cache import open_sites
from mattergen_e.errors import UserError

if TYPE_CHECKING:
    from mattergen_e.spectra.grid import EnergyGrid
    from mattergen_e.spectra.objects import CrystalSpectra


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """One electronic variable that is noised and denoised together with the structure.

    A descriptor tells everything the rest of the package has to know about the variable. Adding one means one subclass
    with its `name`, and one file in `configs/descriptors/`; nothing else changes.

    Attributes:
        name: Name of the field in a batch, of the array in a cache and of the site property in the outputs.
        dim: Number of components per site.
        unit: Unit of the physical values, as written in outputs and cards.
        scale: One unit of the diffused variable in physical units (`unit`). There is no shift: zero stays zero.
        loss_weight: Weight of the variable's term in the sum of losses (Okuda, Takahara, Mizoguchi, eq. 5).
        weighting: How the noise-prediction loss is weighted over time. 'noise' is the plain loss of eq. 5. 'velocity'
            divides it by the squared signal coefficient, which makes the nearly noisy end count, where a descriptor
            has to be read off the structure; needed for prediction at a known structure.
        beta_min: Rate of the variance-preserving diffusion at time 0 (eq. 2, 3).
        beta_max: Rate at time 1.
    """

    name: str
    dim: int = 1
    unit: str = ""
    scale: float = 1.0
    loss_weight: float = 1.0
    weighting: Literal["noise", "velocity"] = "velocity"
    beta_min: float = 0.1
    beta_max: float = 20.0

    #: Whether the training values come from the cache (else `training_values` makes them).
    from_cache: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise UserError(f"descriptor name '{self.name}' is not an identifier: use letters, digits and underscores.")
        if self.scale <= 0 or self.dim < 1:
            raise UserError(f"descriptor '{self.name}': scale must be positive and dim at least 1.")
        if self.weighting not in ("noise", "velocity"):
            raise UserError(f"descriptor '{self.name}': weighting is '{self.weighting}', use 'noise' or 'velocity'.")

    def corruption(self) -> VPSDE:
        """The forward process: variance-preserving diffusion, as in eq. 2 and 3."""
        return VPSDE(beta_min=self.beta_min, beta_max=self.beta_max)

    def encode(self, values: torch.Tensor) -> torch.Tensor:
        """Physical values to the diffused variable, shape (n_sites, dim)."""
        return values / self.scale

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """The diffused variable to physical values, shape (n_sites, dim)."""
        return x * self.scale

    def companion(self) -> nn.Module | None:
        """A module whose state belongs to the model's checkpoint; none by default."""
        return None

    def begin_training(self) -> None:
        """Called once before a training, after the model was built and pretrained weights were loaded."""

    def require_ready(self) -> None:
        """Raises a `UserError` if a loaded model lacks what results of this descriptor need."""

    def read_cache(self, split_dir: Path) -> np.ndarray:
        """Training values of a split of a cache, (sites, dim) float32; NaN where a site has no label.

        Raises:
            UserError: If the cache has none.
        """
        return open_sites(split_dir, self.name)

    def check_cache(self, cache: Path) -> None:
        """Raises a `UserError` if the labels of a cache are not of the kind that the model predicts."""

    @property
    def grid(self) -> EnergyGrid | None:
        """Energies of the results if those are spectra; else None."""
        return None

    @property
    def result_dim(self) -> int:
        """Numbers per site of a result, and of the labels that it is compared with."""
        return self.dim if self.grid is None else self.grid.points

    def result(self, x: torch.Tensor) -> torch.Tensor:
        """What a prediction reports of the diffused variable, shape (n_sites, result_dim): the physical values."""
        return self.decode(x)

    def training_values(self, batch: Any) -> torch.Tensor:
        """Physical values of a training batch, shape (n_sites, dim); NaN where a site has no label.

        Raises:
            UserError: If the batch lacks the field.
        """
        if self.name not in batch:
            raise UserError(
                f"the training data has no site values '{self.name}': build the cache with `mattergen-e data build` "
                f"from a source that has them, or leave the descriptor out."
            )
        return batch[self.name]

    def after_step(self, x: torch.Tensor, *, s: float, ds: float, batch_idx: torch.Tensor) -> torch.Tensor:
        """Constraint on the variable after a reverse step; none by default.

        Args:
            x: Diffused variable after the step, shape (n_sites, dim).
            s: Normalised reverse time after the step: 0 at pure noise, 1 at the end.
            ds: Reverse time that the step took.
            batch_idx: Crystal of each site, shape (n_sites,).

        Returns:
            The constrained variable, shape (n_sites, dim).
        """
        return x

    def site_properties(self, values: np.ndarray) -> dict[str, list]:
        """Physical values of one crystal as site properties of a pymatgen structure.

        Args:
            values: Shape (n_sites, dim).

        Returns:
            One entry per column: a list with a number per site (dim 1) or a list of numbers per site.
        """
        rounded = np.round(values.astype(float), 6)
        return {self.name: rounded[:, 0].tolist() if self.dim == 1 else rounded.tolist()}

    def spectra(self, values: np.ndarray) -> CrystalSpectra | None:
        """Spectra that the physical values of one crystal stand for, to be written beside it; none by default.

        Args:
            values: Shape (n_sites, dim).
        """
        return None


def per_step_fraction(s: float, ds: float, power: float, reference_steps: int) -> float:
    """Share of a constraint that one reverse step applies, the same schedule for any number of steps.

    The papers apply a growing part g(s) of a constraint after each of their reverse steps and do not print g. The form
    here is ours: g(s) = s**power at `reference_steps` steps. A step of length ds stands for n = ds * reference_steps
    of those, after which (1 - g)**n of the violation is left. At s = 1 nothing is left.

    Args:
        s: Normalised reverse time after the step, between 0 and 1.
        ds: Reverse time of the step.
        power: Exponent of the schedule.
        reference_steps: Number of steps at which one step applies exactly g(s).

    Returns:
        A number between 0 and 1.
    """
    if s >= 1.0:
        return 1.0
    return 1.0 - (1.0 - max(s, 0.0) ** power) ** (ds * reference_steps)
