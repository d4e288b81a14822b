"""What can be generated jointly with a crystal: a descriptor is data, not a subclass of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from mattergen.diffusion.corruption.sde_lib import VPSDE
from numpy.typing import NDArray
from torch import nn

from mattergen_e.crystals.quantity import Frame, Place, Quantity
from mattergen_e.data.cache import open_rows
from mattergen_e.descriptors.artefact import Artefact
from mattergen_e.descriptors.measure import Measure, mean_absolute
from mattergen_e.descriptors.networks import RowEmbedding, RowHead
from mattergen_e.descriptors.rows import crystal_of_rows, rows_per_crystal
from mattergen_e.errors import UserError
from mattergen_e.spectra.curves import Curve
from mattergen_e.types import Graphs

if TYPE_CHECKING:
    from mattergen_e.spectra.grid import EnergyGrid
    from mattergen_e.spectra.objects import CrystalSpectra


#: What a user gives of a row or of a grid.
type Given = Sequence[float] | NDArray[np.floating] | Curve


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """One electronic variable that is noised and denoised together with the structure.

    A descriptor tells everything the rest of the package has to know about the variable. Adding one means one subclass
    with its `name`, and one file in `configs/descriptors/`; nothing else changes.

    A field consists of rows. Everything that works on rows asks the descriptor which crystal each belongs to (`rows`,
    `count`): one row per site, one per crystal, or a fixed number of probes of a grid in each cell.

    Attributes:
        name: Name of the field in a batch, of the array in a cache and of the values in the outputs.
        place: Where the rows live: 'site', 'crystal' or 'grid'.
        probes: Rows along a, b and c, for a grid; c runs fastest.
        dim: Number of components per row.
        frame: 'scalar', or 'crystal' for components along a, b and c. Cartesian components are refused: the cell is
            turned when it is reduced and symmetrised, in training and in prediction, and they would not turn along.
        label: What people call the variable; by default the name with spaces.
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
    place: Place = "site"
    probes: tuple[int, int, int] = (8, 8, 8)
    dim: int = 1
    frame: Frame = "scalar"
    label: str = ""
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
        if self.place not in ("site", "crystal", "grid"):
            raise UserError(f"descriptor '{self.name}': place is '{self.place}', use 'site', 'crystal' or 'grid'.")
        if len(self.probes) != 3 or min(self.probes) < 1:
            raise UserError(f"descriptor '{self.name}': probes is {self.probes}, give three numbers of at least 1.")
        object.__setattr__(self, "probes", tuple(self.probes))  # a list, from a YAML
        if self.frame == "cartesian":
            raise UserError(
                f"descriptor '{self.name}': Cartesian components do not turn with the cell, which is reduced and "
                "symmetrised in training: give components along the lattice vectors (frame 'crystal')."
            )
        if self.frame not in ("scalar", "crystal") or (self.frame == "crystal" and self.dim % 3):
            raise UserError(
                f"descriptor '{self.name}': frame is '{self.frame}' with dim {self.dim}, use 'scalar', or 'crystal' "
                "with a dim of 3, 6, ...: components along a, b and c."
            )
        if self.weighting not in ("noise", "velocity"):
            raise UserError(f"descriptor '{self.name}': weighting is '{self.weighting}', use 'noise' or 'velocity'.")

    # -- what it is

    def named(self, name: str) -> Self:
        """The same descriptor under another name."""
        return replace(self, name=name)

    @property
    def title(self) -> str:
        """What people call it, as it begins a sentence."""
        label = self.label or self.name.replace("_", " ")
        return label[0].upper() + label[1:]

    def quantity(self) -> Quantity:
        """What data has to know of its values."""
        return Quantity(
            name=self.name,
            place=self.place,
            unit=self.unit,
            dim=self.dim,
            probes=self.probes if self.place == "grid" else None,
            frame=self.frame,
        )

    def measure(self, grid: EnergyGrid | None = None) -> Measure:
        """How generated values are judged by computed ones: the mean absolute error of a row.

        Args:
            grid: Energies of the values, where they are spectra.
        """
        axis = f"{self.title} ({self.unit})" if self.unit else self.title
        return Measure(
            key=self.name,
            column=f"{self.name}_mae",
            name="mean absolute error",
            unit=self.unit,
            title=self.title,
            axis=axis,
            distance=mean_absolute,
        )

    # -- rows

    def rows(self, batch: Graphs) -> torch.Tensor:
        """Crystal of each row, shape (n_rows,), of a batch that need not hold the field yet."""
        return crystal_of_rows(self.place, self.probes, batch)

    def count(self, num_atoms: torch.Tensor) -> torch.Tensor:
        """Number of rows of each crystal, shape (n_crystals,), by its number of sites."""
        return rows_per_crystal(self.place, self.probes, num_atoms)

    # -- the diffusion

    def corruption(self) -> VPSDE:
        """The forward process: variance-preserving diffusion, as in eq. 2 and 3."""
        return VPSDE(beta_min=self.beta_min, beta_max=self.beta_max)

    def encode(self, values: torch.Tensor) -> torch.Tensor:
        """Physical values to the diffused variable, shape (n_rows, dim)."""
        return values / self.scale

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """The diffused variable to physical values, shape (n_rows, dim)."""
        return x * self.scale

    # -- the network

    def embedding(self, atom_dim: int) -> nn.Module:
        """A fresh part that brings noisy rows into the sites, whose last layer starts at zero.

        Its `forward(noisy, times, batch)` takes the noisy rows (n_rows, dim), their `Times` and the noisy batch, and
        gives what is added to the embedding of the atoms, (n_sites, atom_dim).
        """
        return RowEmbedding(self.place, self.probes, self.dim, atom_dim)

    def head(self, hidden_dim: int) -> nn.Module:
        """A fresh part that reads the variable off the sites.

        Its `forward(features, noisy, times, batch)` takes the sites' last features (n_sites, hidden_dim) as well, and
        gives the velocity v of the rows, (n_rows, dim); the predicted noise is sigma x + alpha v.
        """
        return RowHead(self.place, self.probes, self.dim, hidden_dim)

    def exchange(self, atom_dim: int, blocks: int) -> nn.Module | None:
        """A fresh part that trades messages with the sites after each interaction block; none by default.

        Its `forward(block, features, noisy, times, batch)` takes the number of the block, from 0, and the sites'
        features after it, (n_sites, atom_dim), and gives what is added to them, which must start at zero. What it knows
        of its rows between blocks it keeps in `times.memory`, where the head may read it.

        Args:
            atom_dim: Width of the features.
            blocks: Number of interaction blocks.
        """
        return None

    # -- the checkpoint and the data

    def companion(self) -> nn.Module | None:
        """A module whose state belongs to the model's checkpoint; none by default."""
        return None

    def begin_training(self) -> None:
        """Called once before a training, after the model was built and pretrained weights were loaded."""

    def require_ready(self) -> None:
        """Raises a `UserError` if a loaded model lacks what results of this descriptor need."""

    def read_cache(self, split_dir: Path) -> np.ndarray:
        """Training values of a split of a cache, (rows, dim) float32; NaN where a row has no label.

        Raises:
            UserError: If the cache has none.
        """
        return open_rows(split_dir, self.quantity())

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
        """What a prediction reports of the diffused variable, shape (n_rows, result_dim): the physical values."""
        return self.decode(x)

    def training_values(self, batch: Graphs) -> torch.Tensor:
        """Physical values of a training batch, shape (n_rows, dim); NaN where a row has no label.

        Raises:
            UserError: If the batch lacks the field.
        """
        if self.name not in batch:
            raise UserError(
                f"the training data has no {self.place} values '{self.name}': build the cache with "
                f"`mattergen-e data build` from a source that has them, or leave the descriptor out."
            )
        return batch[self.name]

    def after_step(self, x: torch.Tensor, *, s: float, ds: float, batch_idx: torch.Tensor) -> torch.Tensor:
        """Constraint on the variable after a reverse step; none by default.

        Args:
            x: Diffused variable after the step, shape (n_rows, dim).
            s: Normalised reverse time after the step: 0 at pure noise, 1 at the end.
            ds: Reverse time that the step took.
            batch_idx: Crystal of each row, shape (n_rows,).

        Returns:
            The constrained variable, shape (n_rows, dim).
        """
        return x

    def after_step_free(
        self, x: torch.Tensor, free: torch.Tensor, *, s: float, ds: float, batch_idx: torch.Tensor
    ) -> torch.Tensor:
        """As `after_step`, when some rows are given and must not move.

        By default the constraint acts row by row. A descriptor whose constraint joins the rows of a crystal has to say
        how the free ones make up for the others.

        Args:
            x: As of `after_step`.
            free: Which rows may move, (n_rows,), bool.
            s: As of `after_step`.
            ds: As of `after_step`.
            batch_idx: As of `after_step`.
        """
        return torch.where(free[:, None], self.after_step(x, s=s, ds=ds, batch_idx=batch_idx), x)

    # -- what a user holds

    def clamp(self, value: Given, where: str) -> NDArray[np.float32]:
        """Physical values that a user gives, of one site, of the crystal or of a whole grid.

        Args:
            value: Numbers, or a curve.
            where: Where they stand, as it begins a sentence.

        Returns:
            Shape (1, dim), or (n_probes, dim) for a grid, NaN where a probe is free.

        Raises:
            UserError: If they are no values of this descriptor.
        """
        count = "one number" if self.dim == 1 else f"{self.dim} numbers"
        if self.place == "grid":
            count = f"{' x '.join(map(str, self.probes))} lists of {count}"
        wanted = f"{count} in {self.unit}" if self.unit else count
        if isinstance(value, Curve):
            raise UserError(f"{where} is a spectrum: give {wanted}.")
        array = np.array(value, dtype=np.float32)
        if self.place == "grid":
            if array.shape not in (self.probes, (*self.probes, self.dim)) or array.size % self.dim:
                raise UserError(f"{where} has the shape {array.shape}: give {wanted}.")
            return array.reshape(-1, self.dim)
        if array.size != self.dim:
            raise UserError(f"{where} has {array.size} numbers: give {wanted}.")
        if not np.isfinite(array).all():
            raise UserError(f"{where} has numbers that are not finite: give {wanted}.")
        return array.reshape(1, self.dim)

    def check_clamp(self, value: Given, where: str, stored: Callable[[], Mapping[str, Any]]) -> None:
        """Check a value that a user gives before the model is loaded.

        Args:
            value: As of `clamp`.
            where: As of `clamp`.
            stored: Gives the state of the companion in the checkpoint, by name; empty where there is none.

        Raises:
            UserError: If `clamp` will refuse it.
        """
        self.clamp(value, where)

    def impossible(self, values: NDArray[np.floating]) -> str | None:
        """Why a crystal cannot have these values, (n_rows, dim), of all of its rows; None where it can.

        The reason ends with what to do, without a full stop. Asked of descriptors with their defaults, before a model
        is known.
        """
        return None

    # -- results

    def site_properties(self, values: np.ndarray) -> dict[str, list]:
        """Physical values of one crystal as site properties of a pymatgen structure: columns of the outputs.

        Args:
            values: Shape (n_rows, dim).

        Returns:
            One entry per column: a list with a number per site (dim 1) or a list of numbers per site; nothing where
            rows do not live on sites.
        """
        if self.place != "site":
            return {}
        rounded = np.round(values.astype(float), 6)
        return {self.name: rounded[:, 0].tolist() if self.dim == 1 else rounded.tolist()}

    def crystal_values(self, values: np.ndarray) -> dict[str, float | list[float]]:
        """Physical values of one crystal, (1, dim), as its values in the outputs; nothing where rows live elsewhere."""
        if self.place != "crystal":
            return {}
        row = np.round(values[0].astype(float), 6).tolist()
        return {self.name: row[0] if self.dim == 1 else row}

    def artefact(self, values: np.ndarray) -> Artefact | None:
        """Physical values of one crystal, (n_rows, dim), for a file of their own: those of a grid, (*probes, dim)."""
        if self.place != "grid":
            return None
        grid = values.reshape(*self.probes, self.dim).astype(np.float32)
        return Artefact(file=f"generated_{self.name}.npz", arrays={self.name: grid})

    def reconstruct(self, labels: NDArray[np.floating]) -> NDArray[np.floating] | None:
        """What encoding and decoding leaves of labels, (n_rows, result_dim), that are spectra; else None.

        No prediction should be expected to come closer.
        """
        return None

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
