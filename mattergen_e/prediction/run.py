"""Descriptors of given structures, with the sites in the order of the input."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from mattergen.common.data.collate import collate
from pymatgen.core import Structure

from mattergen_e.crystals.graphs import reduce_named, to_graph
from mattergen_e.crystals.reading import NamedStructure
from mattergen_e.diffusion.prediction import predict_descriptors
from mattergen_e.files import add_array
from mattergen_e.spectra.grid import EnergyGrid

#: Smallest volume per site, in cubic angstrom, of what is called a crystal.
LEAST_VOLUME = 0.05


@dataclass(frozen=True)
class SitePrediction:
    """Predicted descriptors of one structure: mean and spread by name, each of shape (n_sites, dim).

    Attributes:
        id: Name of the structure.
        structure: As it was given.
        mean: Mean over the samples by descriptor.
        std: Standard deviation over the samples by descriptor.
        grids: Energies of those descriptors that are spectra (states/eV), by name.
    """

    id: str
    structure: Structure
    mean: dict[str, np.ndarray]
    std: dict[str, np.ndarray]
    grids: dict[str, EnergyGrid] = field(default_factory=dict)

    def as_line(self) -> dict[str, Any]:
        """The entry of the output file: plain lists for one component per site, lists of lists for more; no spectra."""
        line: dict[str, Any] = {"id": self.id, "structure": self.structure.as_dict()}
        for name, values in self.mean.items():
            if name not in self.grids:
                line[name] = _as_list(values)
                line[f"{name}_std"] = _as_list(self.std[name])
        return line


def _as_list(values: np.ndarray) -> list:
    rounded = np.round(values.astype(float), 6)
    return rounded[:, 0].tolist() if rounded.shape[1] == 1 else rounded.tolist()


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

    grids = {name: d.grid for name, d in (getattr(model, "descriptors", None) or {}).items() if d.grid is not None}
    known, cutoff = frozenset(SELECTED_ATOMIC_NUMBERS), float(model.diffusion_module.model.gemnet.cutoff)
    torch.manual_seed(seed)
    for start in range(0, len(structures), batch_size):
        chunk = structures[start : start + batch_size]
        reduced = [reduce_named(named, known, cutoff) for named in chunk]
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
                grids=grids,
            )


def spectra_path(path: str | Path) -> Path:
    """Where the spectra of predictions go: beside the JSON lines, with the ending npz."""
    return Path(path).with_suffix(".npz")


def write_predictions(path: str | Path, predictions: Iterable[SitePrediction]) -> int:
    """Writes predictions as JSON lines, and spectra beside them; under temporary names, renamed at the end.

    The npz file holds, for line k (from 0) and descriptor D, `D_<k>` and `D_std_<k>`, (n_sites, points) float32 in
    states/eV, and once `D_energies`, (points,) eV relative to the Fermi energy. A line names its arrays under `D`.

    Args:
        path: The JSON lines.
        predictions: In the order of the lines.

    Returns:
        Number of lines.
    """
    target, beside = Path(path), spectra_path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    arrays = Path(f"{temporary}.npz")
    count = 0
    try:
        with os.fdopen(handle, "w") as file, ZipFile(arrays, "w") as archive:
            for prediction in predictions:
                names = _write_spectra(archive, prediction, count)
                links = {name: {"file": beside.name, **of_name} for name, of_name in names.items()}
                file.write(json.dumps(prediction.as_line() | links) + "\n")
                count += 1
            holds_spectra = bool(archive.namelist())
        if holds_spectra:
            os.replace(arrays, beside)
        os.replace(temporary, target)
    finally:
        for left in (Path(temporary), arrays):
            left.unlink(missing_ok=True)
    return count


def _write_spectra(archive: ZipFile, prediction: SitePrediction, line: int) -> dict[str, dict[str, str]]:
    """Adds the spectra of one line; returns the names of the arrays by descriptor."""
    names = {}
    for name, grid in prediction.grids.items():
        names[name] = {"mean": f"{name}_{line}", "std": f"{name}_std_{line}", "energies": f"{name}_energies"}
        add_array(archive, names[name]["mean"], prediction.mean[name].astype(np.float32))
        add_array(archive, names[name]["std"], prediction.std[name].astype(np.float32))
        if line == 0:
            add_array(archive, names[name]["energies"], grid.energies)
    return names
