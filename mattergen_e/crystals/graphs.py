"""Crystals as MatterGen's networks take them: the reduced cell, as a graph without edges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from mattergen.common.data.chemgraph import ChemGraph
from mattergen.common.data.transform import symmetrize_lattice
from pymatgen.core import Structure

from mattergen_e.crystals.alignment import AlignmentError, reduce_with_map
from mattergen_e.crystals.reading import NamedStructure
from mattergen_e.errors import UserError
from mattergen_e.types import Graphs

#: Smallest volume per site (Å^3) of what has a volume at all: less is a flat cell, which no reduction can take.
LEAST_VOLUME_OF_A_CELL = 0.05


def to_graph(structure: Structure) -> ChemGraph:
    """A reduced structure as the network's input, with the cell matrix made symmetric as in training."""
    n_sites = torch.tensor(len(structure))
    return symmetrize_lattice(
        ChemGraph(
            pos=torch.from_numpy(structure.frac_coords % 1.0).float() % 1.0,
            cell=torch.from_numpy(structure.lattice.matrix.copy()).float().unsqueeze(0),
            atomic_numbers=torch.tensor(structure.atomic_numbers),  # type: ignore[arg-type]
            num_atoms=n_sites,
            num_nodes=n_sites,
        )
    )


def reduce_named(named: NamedStructure, known: frozenset[int], cutoff: float) -> tuple[Structure, np.ndarray]:
    structure = named.structure
    if not structure.is_ordered:
        raise UserError(f"structure '{named.id}' has partially occupied sites: give an ordered structure.")
    unknown = sorted({site.specie.symbol for site in structure if site.specie.Z not in known})
    if unknown:
        raise UserError(f"structure '{named.id}' holds {unknown[0]}, an element that MatterGen does not know.")
    if not (np.isfinite(structure.lattice.matrix).all() and np.isfinite(structure.frac_coords).all()):
        raise UserError(f"structure '{named.id}' has numbers that are not finite in its cell or positions.")
    if structure.volume < LEAST_VOLUME_OF_A_CELL * len(structure):
        raise UserError(f"structure '{named.id}' has a cell without volume: {structure.volume:.2g} cubic angstrom.")
    species: list[Any] = list(structure.atomic_numbers)
    plain = Structure(structure.lattice, species, structure.frac_coords)
    try:
        cell, site_map = reduce_with_map(plain)
    except AlignmentError as error:
        raise UserError(f"structure '{named.id}' cannot be reduced to its primitive cell: {error}") from error
    neighbours = np.bincount(cell.get_neighbor_list(cutoff)[0], minlength=len(cell))
    if neighbours.max() < 2:  # neither pairs nor triplets of sites: MatterGen's network has nothing to work on
        raise UserError(f"structure '{named.id}' has no neighbours within the {cutoff:g} angstrom that the model sees.")
    return cell, site_map


def usable(
    named: Iterable[NamedStructure], known: frozenset[int], cutoff: float
) -> tuple[list[NamedStructure], list[str]]:
    """Structures that a network can take, and for each of the others a sentence that says why not.

    Args:
        named: Structures.
        known: Atomic numbers that MatterGen knows.
        cutoff: How far the network sees, Å.
    """
    found, problems = [], []
    for one in named:
        try:
            reduce_named(one, known, cutoff)
        except UserError as error:
            problems.append(str(error))
        else:
            found.append(one)
    return found, problems


def structure_rows(name: str, batch: Graphs) -> torch.Tensor:
    """Crystal of each row of a field of MatterGen's: the cell has a row per crystal, the others have one per site."""
    if name == "cell":
        return torch.arange(len(batch["num_atoms"]), device=batch["num_atoms"].device)
    return batch.get_batch_idx("pos")
