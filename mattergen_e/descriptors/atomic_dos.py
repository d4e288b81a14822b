"""Atomic density of states of each site, as latents of an autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mattergen_e.crystals.quantity import Quantity
from mattergen_e.data.cache import load_manifest
from mattergen_e.descriptors.autoencoder_slot import ENTRY, AutoencoderSlot, described_grid, from_bytes
from mattergen_e.descriptors.base import Descriptor, Given, per_step_fraction
from mattergen_e.descriptors.measure import Measure
from mattergen_e.errors import UserError
from mattergen_e.labels.quantities import ATOMIC_DOS
from mattergen_e.networks.autoencoder import folder as autoencoder_folder
from mattergen_e.networks.autoencoder.data import encode_cache
from mattergen_e.networks.autoencoder.model import Autoencoder
from mattergen_e.spectra.curves import whole_spectrum
from mattergen_e.spectra.grid import ATOMIC_GRID, EnergyGrid
from mattergen_e.spectra.metrics import wasserstein
from mattergen_e.spectra.objects import CrystalSpectra
from mattergen_e.upstream import load_checkpoint

#: Largest absolute value of a latent at the end: below 1 by more than scaling back and forth rounds.
LARGEST = 1.0 - 1e-6


@dataclass(frozen=True, kw_only=True)
class AtomicDos(Descriptor):
    """Latents, between -1 and 1, of the spectrum of each site (Okuda, Takahara, Mizoguchi, sections 4.1 and 4.2).

    The cache holds spectra; they are encoded when a split is opened, so that latents never lie on a disk. The
    autoencoder becomes a part of the model's weights when its training begins (see `AutoencoderSlot`).

    During sampling an element-wise tanh keeps the latents in their range, weakly at first and fully at the last step
    (eq. 7; its form and its schedule are ours). Plain tanh would change latents that are in their range too, 0.6 to
    0.54; here it acts beyond `knee` only, where it joins the unchanged part smoothly. See `per_step_fraction` for the
    schedule.

    Attributes:
        autoencoder: Folder of the autoencoder, or of a joint model that has one. Needed in training only.
        knee: Absolute value of a latent from which the tanh bends; 0 is plain tanh. Chosen.
        range_power: Exponent of the schedule of eq. 7; larger means later. Chosen.
        reference_steps: Number of reverse steps for which the schedule is stated.
        slot: Where the autoencoder is held.
    """

    name: str = "atomic_dos"
    dim: int = 30
    unit: str = "states/eV"
    scale: float = 0.2
    autoencoder: str | None = None
    knee: float = 0.9
    range_power: float = 4.0
    reference_steps: int = 1000
    slot: AutoencoderSlot = field(default_factory=AutoencoderSlot, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.knee < 1:
            raise UserError(f"descriptor '{self.name}': knee is {self.knee:g}, give a number from 0 to below 1.")

    def quantity(self) -> Quantity:
        """That of labels."""
        return replace(ATOMIC_DOS, name=self.name)

    def measure(self, grid: EnergyGrid | None = None) -> Measure:
        """The Wasserstein distance of the sites' spectra, of which the median is told (section 2.4)."""
        return Measure(
            key="dos",
            column="dos_wasserstein",
            name="Wasserstein distance",
            unit="eV",
            title="Densities of states",
            axis="density of states (states/eV)",
            distance=partial(wasserstein, grid=grid or ATOMIC_GRID),
            summary="median",
            noun="spectra",
        )

    # -- the constraint

    def after_step(self, x: torch.Tensor, *, s: float, ds: float, batch_idx: torch.Tensor) -> torch.Tensor:
        """Bends latents into their range by a growing part (eq. 7); at the last step they are inside."""
        fraction = per_step_fraction(s, ds, self.range_power, self.reference_steps)
        latents = self.decode(x)
        bent = latents + fraction * (soft_limit(latents, self.knee) - latents)
        return self.encode(bent.clamp(-LARGEST, LARGEST) if fraction == 1.0 else bent)

    # -- what a user holds

    def clamp(self, value: Given, where: str) -> NDArray[np.float32]:
        """Latents of a spectrum that a user gives, (1, dim)."""
        autoencoder = self.of_model()
        spectrum = whole_spectrum(value, autoencoder.grid, where)
        return autoencoder.encode(spectrum[None], autoencoder.grid)

    def check_clamp(self, value: Given, where: str, stored: Callable[[], Mapping[str, Any]]) -> None:
        """Compares a spectrum with the energies of the autoencoder in the checkpoint, where that tells them."""
        grid = described_grid(stored().get(ENTRY))
        if grid is not None:
            whole_spectrum(value, grid, where)

    # -- the autoencoder

    def companion(self) -> nn.Module:
        """The slot: its content belongs to the model's checkpoint."""
        return self.slot

    def begin_training(self) -> None:
        """Puts the autoencoder into the model.

        Raises:
            UserError: If none is named or readable, it does not fit, or the model began with another one.
        """
        self.slot.put(self._from_folder(), str(self.autoencoder))

    def require_ready(self) -> None:
        """Raises a `UserError` if the model has no autoencoder."""
        self.of_model()

    def of_model(self) -> Autoencoder:
        """The autoencoder that the model was trained with.

        Raises:
            UserError: If there is none, or it does not fit.
        """
        if self.slot.held is None:
            raise UserError(
                f"this model holds no autoencoder for '{self.name}': it was never trained with this descriptor, train "
                "it with a joint recipe"
            )
        return self._fitting(self.slot.held, "the model")

    def _from_folder(self) -> Autoencoder:
        if self.autoencoder is None:
            raise UserError(
                f"descriptor '{self.name}' needs an autoencoder: add "
                f"lightning_module.descriptors.{self.name}.autoencoder=DIR to the command (DIR: the folder that "
                "`mattergen-e autoencoder train` wrote)"
            )
        return self._fitting(read_autoencoder(self.autoencoder), self.autoencoder)

    def _fitting(self, found: Autoencoder, where: str) -> Autoencoder:
        if found.latents != self.dim:
            raise UserError(
                f"the autoencoder of {where} has {found.latents} latents per site, but descriptor '{self.name}' has "
                f"dim {self.dim}: set dim to {found.latents}"
            )
        return found

    # -- data

    def read_cache(self, split_dir: Path) -> np.ndarray:
        """Latents of the spectra of a split, (sites, dim) float32; NaN where a site has no spectrum.

        Raises:
            UserError: If there is no autoencoder, or the spectra are missing, were made in another way than those of
                the autoencoder, or cannot be encoded.
        """
        return encode_cache(self._from_folder(), split_dir)

    def training_values(self, batch: Any) -> torch.Tensor:
        """Latents of a training batch, shape (n_sites, dim); NaN where a site has no spectrum.

        Raises:
            UserError: If the batch holds something else.
        """
        values = super().training_values(batch)
        if values.shape[-1] != self.dim:
            raise UserError(
                f"the training data has {values.shape[-1]} numbers per site of '{self.name}', not {self.dim} latents: "
                "read it with the data module `joint`, which encodes spectra"
            )
        return values

    def check_cache(self, cache: Path) -> None:
        """Raises a `UserError` if a cache's spectra were made in another way than those of the model."""
        self.of_model().require_cache(load_manifest(cache))

    # -- results

    @property
    def grid(self) -> EnergyGrid:
        """Energies of the spectra; a `UserError` if the model has no autoencoder."""
        return self.of_model().grid

    def result(self, x: torch.Tensor) -> torch.Tensor:
        """Spectra of diffused latents, shape (n_sites, points), states/eV."""
        autoencoder = self.of_model().to(x.device)
        return torch.from_numpy(autoencoder.decode(self.decode(x))).to(x.device)

    def reconstruct(self, labels: NDArray[np.floating]) -> NDArray[np.floating]:
        """What the autoencoder leaves of spectra, (n_sites, points)."""
        return self.of_model().reconstruct(labels)

    def site_properties(self, values: np.ndarray) -> dict[str, list]:
        """None: thirty latents do not make a column; see `spectra`."""
        return {}

    def spectra(self, values: np.ndarray) -> CrystalSpectra:
        """The spectra of one crystal's latents (n_sites, dim), which are finite and in their range."""
        autoencoder = self.of_model()
        latents = values.astype(np.float32)
        return CrystalSpectra(
            spectra=autoencoder.decode(latents),
            grid=autoencoder.grid,
            latents=latents,
            fingerprint=autoencoder.fingerprint,
        )


def soft_limit(latents: torch.Tensor, knee: float) -> torch.Tensor:
    """Unchanged up to `knee`, from there on a tanh that approaches 1; odd, with a continuous slope."""
    room = 1.0 - knee
    beyond = (latents.abs() - knee).clamp(min=0.0)
    return latents.clamp(-knee, knee) + latents.sign() * room * torch.tanh(beyond / room)


def read_autoencoder(path: str | Path) -> Autoencoder:
    """Reads an autoencoder from its own folder or from that of a joint model.

    Args:
        path: Relative paths start where the command was called.

    Raises:
        UserError: If there is none, or it is damaged.
    """
    from hydra.utils import to_absolute_path

    folder = Path(to_absolute_path(str(path)))
    checkpoint = folder / "checkpoints" / "last.ckpt"
    if autoencoder_folder.exists(folder) or not checkpoint.is_file():
        return autoencoder_folder.load(folder)
    state = load_checkpoint(checkpoint)["state_dict"]
    found = [value for name, value in state.items() if name.endswith(f".companions.atomic_dos.{ENTRY}") and len(value)]
    if not found:
        raise UserError(f"{folder} is a model without an autoencoder: give the folder of an autoencoder")
    return from_bytes(found[0], str(folder))
