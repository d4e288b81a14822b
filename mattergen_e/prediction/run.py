"""Descriptors of given structures, with the sites in the order of the input."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mattergen.common.data.chemgraph import ChemGraph
from mattergen.common.data.collate import collate
from mattergen.common.data.transform import symmetrize_lattice
from pymatgen.core import Structure

from mattergen_e.data.alignment import AlignmentError, reduce_with_map
from mattergen_e.diffusion.prediction import predict_descriptors
from mattergen_e.errors import UserError
from mattergen_e.prediction.structures import NamedStructure

#: Smallest volume per site, in cubic angstrom, of what is called a crystal.
LEAST_VOLUME = 0.05


@dataclass(frozen=True)
class SitePrediction:
    """Predicted descriptors of one structure: mean and spread by name, each of shape (n_sites, dim)."""

    id: str
    structure: Structure
    mean: dict[str, np.ndarray]
    std: dict[str, np.ndarray]

    def as_line(self) -> dict[str, Any]:
        """The entry of the output file: plain lists for one component per site, lists of lists for more."""
        line: dict[str, Any] = {"id": self.id, "structure": self.structure.as_dict()}
        for name, values in self.mean.items():
            line[name] = _as_list(values)
            line[f"{name}_std"] = _as_list(self.std[name])
        return line


def _as_list(values: np.ndarray) -> list:
    rounded = np.round(values.astype(float), 6)
    return rounded[:, 0].tolist() if rounded.shape[1] == 1 else rounded.tolist()


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


def predict(
    model: Any,
    structures: Sequence[NamedStructure],
    *,
    samples: int = 8,
    steps: int = 20,
    batch_size: int = 64,
    seed: int = 0,
) -> Iterator[SitePrediction]:
    """Predicts descriptors of structures, batch by batch, in the order of the input.

    Each structure is reduced to its primitive, Niggli-reduced cell, as in training, and the values are carried back to
    the sites of the input.

    Args:
        model: A joint model.
        structures: Crystals without disorder.
        samples: Samples per crystal, from which mean and spread are taken.
        steps: Reverse steps per sample.
        batch_size: Crystals per network call.
        seed: Seed of the samples.

    Yields:
        One prediction per structure.

    Raises:
        UserError: If a structure is disordered, holds an element that MatterGen does not know, is no crystal, has no
            neighbours that the network sees, or cannot be reduced.
    """
    from mattergen.common.utils.globals import SELECTED_ATOMIC_NUMBERS

    known, cutoff = frozenset(SELECTED_ATOMIC_NUMBERS), float(model.diffusion_module.model.gemnet.cutoff)
    torch.manual_seed(seed)
    for start in range(0, len(structures), batch_size):
        chunk = structures[start : start + batch_size]
        reduced = [_reduce(named, known, cutoff) for named in chunk]
        batch = collate([to_graph(cell) for cell, _ in reduced])
        predicted = predict_descriptors(model, batch, samples=samples, steps=steps)
        sizes = [len(cell) for cell, _ in reduced]
        means = {name: p.mean.cpu().split(sizes) for name, p in predicted.items()}
        stds = {name: p.std.cpu().split(sizes) for name, p in predicted.items()}
        for i, named in enumerate(chunk):
            site_map = reduced[i][1]
            yield SitePrediction(
                id=named.id,
                structure=named.structure,
                mean={name: values[i].numpy()[site_map] for name, values in means.items()},
                std={name: values[i].numpy()[site_map] for name, values in stds.items()},
            )


def _reduce(named: NamedStructure, known: frozenset[int], cutoff: float) -> tuple[Structure, np.ndarray]:
    structure = named.structure
    if not structure.is_ordered:
        raise UserError(f"structure '{named.id}' has partially occupied sites: give an ordered structure.")
    unknown = sorted({site.specie.symbol for site in structure if site.specie.Z not in known})
    if unknown:
        raise UserError(f"structure '{named.id}' holds {unknown[0]}, an element that MatterGen does not know.")
    if not (np.isfinite(structure.lattice.matrix).all() and np.isfinite(structure.frac_coords).all()):
        raise UserError(f"structure '{named.id}' has numbers that are not finite in its cell or positions.")
    if structure.volume < LEAST_VOLUME * len(structure):
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


def write_predictions(path: str | Path, predictions: Iterable[SitePrediction]) -> int:
    """Writes predictions as JSON lines under a temporary name and renames at the end; returns their number."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            for prediction in predictions:
                file.write(json.dumps(prediction.as_line()) + "\n")
                count += 1
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return count
