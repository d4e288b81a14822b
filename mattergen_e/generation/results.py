"""A sampled batch as crystals: their structures, their descriptors, and which of them are crystals at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure

from mattergen_e.crystals.checks import MIN_VOLUME_PER_SITE
from mattergen_e.descriptors.artefact import Artefact
from mattergen_e.descriptors.base import Descriptor
from mattergen_e.descriptors.rows import any_of_crystal
from mattergen_e.spectra.objects import CrystalSpectra


@dataclass
class Drawn:
    """One crystal of a batch.

    Attributes:
        structure: With the values of its sites as site properties.
        spectra: Of its sites, where the model generates any.
        values: Of the crystal, by column.
        artefacts: Its arrays by descriptor.
    """

    structure: Structure
    spectra: CrystalSpectra | None = None
    values: dict[str, float | list[float]] = field(default_factory=dict)
    artefacts: dict[str, Artefact] = field(default_factory=dict)


@dataclass
class BatchResult:
    """Crystals of one batch, one per condition: None where all draws were degenerate; how often each was redrawn."""

    crystals: list[Drawn | None]
    redraws: list[int]
    trajectories: list[list[Any]]

    @property
    def structures(self) -> list[Structure | None]:
        """The structure of each crystal."""
        return [None if crystal is None else crystal.structure for crystal in self.crystals]

    @property
    def failed(self) -> int:
        """Number of crystals that are missing."""
        return sum(crystal is None for crystal in self.crystals)

    @property
    def dropped(self) -> int:
        """Number of degenerate draws."""
        return sum(self.redraws) + self.failed


def is_healthy(
    batch: Any, parked: torch.Tensor, largest_volume: float, descriptors: Mapping[str, Descriptor]
) -> torch.Tensor:
    """Which crystals of a sampled batch are crystals at all, shape (n_crystals,), bool.

    Args:
        batch: The sampled batch.
        parked: Crystals that became degenerate on the way, shape (n_crystals,).
        largest_volume: Largest volume per site in cubic angstrom.
        descriptors: Of the model, by name.
    """
    numbers = batch["atomic_numbers"]
    good_sites = batch["pos"].isfinite().all(dim=1) & (numbers >= 1) & (numbers <= 100)
    bad = any_of_crystal(~good_sites, batch.get_batch_idx("pos"), len(parked))
    for name, descriptor in descriptors.items():
        bad |= any_of_crystal(~batch[name].isfinite().all(dim=1), descriptor.rows(batch), len(parked))
    cell = batch["cell"]
    finite = cell.isfinite().flatten(1).all(dim=1)
    volume = torch.linalg.det(torch.nan_to_num(cell)).abs() / batch["num_atoms"]
    return finite & ~bad & ~parked & (volume >= MIN_VOLUME_PER_SITE) & (volume <= 1.001 * largest_volume)


def to_crystals(batch: Any, descriptors: Mapping[str, Descriptor], wanted: Sequence[bool]) -> list[Drawn | None]:
    """The wanted crystals of a sampled batch with all that their descriptors make of them; None for the others."""
    values = physical(batch, descriptors)
    spectra = to_spectra(batch, descriptors, wanted)
    crystals: list[Drawn | None] = []
    for i, structure in enumerate(to_structures(batch, descriptors)):
        if structure is None or not wanted[i]:
            crystals.append(None)
            continue
        drawn = Drawn(structure, spectra[i])
        for name, descriptor in descriptors.items():
            drawn.values |= descriptor.crystal_values(values[name][i])
            artefact = descriptor.artefact(values[name][i])
            if artefact is not None:
                drawn.artefacts[name] = artefact
        crystals.append(drawn)
    return crystals


def physical(batch: Any, descriptors: Mapping[str, Descriptor]) -> dict[str, list[NDArray[np.floating]]]:
    """Physical values of each crystal of a batch, (n_rows, dim) each, by descriptor."""
    return {
        name: [part.numpy() for part in d.decode(batch[name]).cpu().split(d.count(batch["num_atoms"]).tolist())]
        for name, d in descriptors.items()
    }


def to_structures(batch: Any, descriptors: Mapping[str, Descriptor]) -> list[Structure | None]:
    """The crystals of a batch with decoded descriptors as site properties; None for what is not a crystal."""
    sizes = batch["num_atoms"].tolist()
    numbers = batch["atomic_numbers"].cpu().split(sizes)
    positions = (batch["pos"] % 1.0).double().cpu().split(sizes)
    cells = batch["cell"].double().cpu().numpy()
    values = physical(batch, descriptors)
    structures: list[Structure | None] = []
    for i, cell in enumerate(cells):
        properties: dict[str, list] = {}
        for name, descriptor in descriptors.items():
            properties |= descriptor.site_properties(values[name][i])
        try:
            structures.append(
                Structure(Lattice(cell), numbers[i].tolist(), positions[i].numpy(), site_properties=properties)
            )
        except (ValueError, KeyError):
            structures.append(None)
    return structures


def to_spectra(
    batch: Any, descriptors: Mapping[str, Descriptor], wanted: Sequence[bool]
) -> list[CrystalSpectra | None]:
    """Spectra of the sites of the wanted crystals of a batch, of the first descriptor that has any."""
    spectra: list[CrystalSpectra | None] = [None] * len(batch["num_atoms"])
    for name, values in physical(batch, descriptors).items():
        for i, needed in enumerate(wanted):
            if needed and spectra[i] is None:
                spectra[i] = descriptors[name].spectra(values[i])
    return spectra
