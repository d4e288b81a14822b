"""Spectra of structures from files, and the npz file that they are written to.

The file has the layout of `generated_dos.npz` (`mattergen_e.spectra.files`, whose reader takes it), with the
structures counted from 0, without latents, and with more arrays:

    total_energies       (points,) eV relative to the Fermi energy, centres of the bins of the total's grid
    total_window         (2,) eV, lower and upper end of that grid
    total                (structures, points) float32, states/eV per atom
    ids                  (structures,) names
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from mattergen_e.crystals import graphs
from mattergen_e.crystals.graphs import reduce_named, to_graph
from mattergen_e.crystals.reading import NamedStructure
from mattergen_e.files import add_array
from mattergen_e.journal import write_output
from mattergen_e.networks.predictor.model import Predictor
from mattergen_e.progress import bar
from mattergen_e.spectra.files import dos_file
from mattergen_e.spectra.objects import CrystalSpectra


@dataclass(frozen=True)
class StructureSpectra:
    """Predicted spectra of one structure.

    Attributes:
        id: Its name.
        structure: As it was given.
        sites: (n_sites, points) states/eV, in the order of its sites.
        total: (points,) states/eV per atom.
    """

    id: str
    structure: Structure
    sites: NDArray[np.float32]
    total: NDArray[np.float32]


def predict_structures(
    predictor: Predictor, structures: Sequence[NamedStructure], *, batch_size: int = 64, progress: bool = False
) -> list[StructureSpectra]:
    """Spectra of structures in any cell.

    Each is reduced to its primitive, Niggli-reduced cell, as in training; the spectra go back to the given sites.

    Args:
        predictor: The predictor.
        structures: Crystals without disorder.
        batch_size: Crystals per network call.
        progress: Whether to show a progress bar.

    Returns:
        In the order of the input.

    Raises:
        UserError: If a structure is disordered, holds an element that MatterGen does not know, is no crystal, has no
            neighbours that the network sees, or cannot be reduced.
    """
    known, cutoff = _limits(predictor)
    found = []
    with bar("Predicting", len(structures), wanted=progress) as advance:
        for start in range(0, len(structures), batch_size):
            chunk = structures[start : start + batch_size]
            reduced = [reduce_named(named, known, cutoff) for named in chunk]
            predicted = predictor.predict([to_graph(cell) for cell, _ in reduced], batch_size)
            parts = np.split(predicted.sites, np.cumsum(predicted.n_sites)[:-1])
            for named, (_, site_map), sites, total in zip(chunk, reduced, parts, predicted.total, strict=True):
                found.append(StructureSpectra(named.id, named.structure, sites[site_map], total))
            advance(len(chunk))
    return found


def usable(predictor: Predictor, structures: Iterable[NamedStructure]) -> tuple[list[NamedStructure], list[str]]:
    """Structures that `predict_structures` takes, and for each of the others a sentence that says why not."""
    return graphs.usable(structures, *_limits(predictor))


def _limits(predictor: Predictor) -> tuple[frozenset[int], float]:
    """Atomic numbers that MatterGen knows, and how far the network sees (Å)."""
    from mattergen.common.utils.globals import SELECTED_ATOMIC_NUMBERS

    return frozenset(SELECTED_ATOMIC_NUMBERS), predictor.settings.encoder.cutoff


def write_spectra(path: str | Path, spectra: Sequence[StructureSpectra], predictor: Predictor) -> None:
    """Write spectra (layout above).

    Args:
        path: The npz file; it is replaced at once, when it is complete.
        spectra: At least one structure's.
        predictor: What they were predicted by.
    """
    grids = predictor.grids

    def item(found: StructureSpectra) -> CrystalSpectra:
        nothing = np.empty((len(found.sites), 0), dtype=np.float32)
        return CrystalSpectra(found.sites, grids.sites, nothing, predictor.fingerprint)

    content = io.BytesIO(dos_file([(index, item(found)) for index, found in enumerate(spectra)]))
    with ZipFile(content, "a") as archive:
        add_array(archive, "total_energies", grids.total.energies)
        add_array(archive, "total_window", np.array([grids.total.minimum, grids.total.maximum]))
        add_array(archive, "total", np.stack([found.total for found in spectra]).astype(np.float32))
        add_array(archive, "ids", np.array([found.id for found in spectra]))
    write_output(Path(path), content.getvalue())
