"""Descriptors of given structures, in the cell and with the sites in the order of the input."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from mattergen.common.data.collate import collate
from pymatgen.core import Structure

from mattergen_e.crystals import graphs
from mattergen_e.crystals.graphs import reduce_named, to_graph
from mattergen_e.crystals.reading import NamedStructure
from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.prediction import SAMPLES, STEPS, predict_descriptors
from mattergen_e.files import add_array, replacing
from mattergen_e.journal import claim
from mattergen_e.prediction.cells import CellMap
from mattergen_e.spectra.grid import EnergyGrid


@dataclass(frozen=True)
class SitePrediction:
    """Predicted descriptors of one structure: mean and spread by name, each of shape (n_rows, dim).

    Attributes:
        id: Name of the structure.
        structure: As it was given.
        mean: Mean over the samples by descriptor.
        std: Standard deviation over the samples by descriptor.
        grids: Energies of those descriptors that are spectra (states/eV), by name.
        descriptors: What was predicted, by name.
    """

    id: str
    structure: Structure
    mean: dict[str, np.ndarray]
    std: dict[str, np.ndarray]
    grids: dict[str, EnergyGrid] = field(default_factory=dict)
    descriptors: dict[str, Descriptor] = field(default_factory=dict)

    def in_arrays(self, name: str) -> bool:
        """Whether a descriptor goes into the npz file beside the lines: spectra and grids."""
        return name in self.grids or self.place(name) == "grid"

    def place(self, name: str) -> str:
        """Where the rows of a descriptor live."""
        return self.descriptors[name].place if name in self.descriptors else "site"

    def as_line(self) -> dict[str, Any]:
        """The entry of the output file, without what goes into arrays.

        Values of sites stand under the descriptor's name, a number or a list per site; those of the crystal under
        `values`, a number or a list; each with the spread under `<name>_std`.
        """
        line: dict[str, Any] = {"id": self.id, "structure": plain(self.structure.as_dict())}
        values: dict[str, Any] = {}
        for name in self.mean:
            if self.in_arrays(name):
                continue
            for key, rows in ((name, self.mean[name]), (f"{name}_std", self.std[name])):
                if self.place(name) == "crystal":
                    values[key] = _as_list(rows)[0]
                else:
                    line[key] = _as_list(rows)
        return line | ({"values": values} if values else {})


def plain(value: Any) -> Any:
    """A value with the numbers of numpy as those of JSON."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _as_list(values: np.ndarray) -> list:
    rounded = np.round(values.astype(float), 6)
    return rounded[:, 0].tolist() if rounded.shape[1] == 1 else rounded.tolist()


def predict(
    model: Any,
    structures: Sequence[NamedStructure],
    *,
    samples: int = SAMPLES,
    steps: int = STEPS,
    batch_size: int = 64,
    seed: int = 0,
) -> Iterator[SitePrediction]:
    """Predicts descriptors of structures, batch by batch, in the order of the input.

    Each structure is reduced to its primitive, Niggli-reduced cell, as in training, and the values are carried back to
    the sites and the cell of the input.

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
    descriptors: dict[str, Descriptor] = dict(getattr(model, "descriptors", None) or {})
    grids = {name: d.grid for name, d in descriptors.items() if d.grid is not None}
    known, cutoff = _limits(model)
    torch.manual_seed(seed)
    for start in range(0, len(structures), batch_size):
        chunk = structures[start : start + batch_size]
        reduced = [reduce_named(named, known, cutoff) for named in chunk]
        batch = collate([to_graph(cell) for cell, _ in reduced])
        predicted = predict_descriptors(model, batch, samples=samples, steps=steps)
        sizes = torch.tensor([len(cell) for cell, _ in reduced])
        counts = {name: descriptors[name].count(sizes).tolist() for name in predicted}
        means = {name: p.mean.cpu().split(counts[name]) for name, p in predicted.items()}
        stds = {name: p.std.cpu().split(counts[name]) for name, p in predicted.items()}
        for i, named in enumerate(chunk):
            back = CellMap(*reduced[i], named.structure)
            yield SitePrediction(
                id=named.id,
                structure=named.structure,
                mean={n: back.values(descriptors[n], values[i].numpy()) for n, values in means.items()},
                std={n: back.spread(descriptors[n], values[i].numpy()) for n, values in stds.items()},
                grids=grids,
                descriptors=descriptors,
            )


def usable(model: Any, structures: Iterable[NamedStructure]) -> tuple[list[NamedStructure], list[str]]:
    """Structures that `predict` takes, and for each of the others a sentence that says why not."""
    return graphs.usable(structures, *_limits(model))


def _limits(model: Any) -> tuple[frozenset[int], float]:
    """Atomic numbers that MatterGen knows, and how far the network sees (Å)."""
    from mattergen.common.utils.globals import SELECTED_ATOMIC_NUMBERS

    return frozenset(SELECTED_ATOMIC_NUMBERS), float(model.diffusion_module.model.gemnet.cutoff)


def spectra_path(path: str | Path) -> Path:
    """Where the spectra of predictions go: beside the JSON lines, with the ending npz."""
    return Path(path).with_suffix(".npz")


def write_predictions(path: str | Path, predictions: Iterable[SitePrediction]) -> int:
    """Writes predictions as JSON lines, spectra and grids beside them; under temporary names, renamed at the end.

    What a killed process left of the same file is removed first.

    The npz file holds, for line k (from 0) and descriptor D, `D_<k>` and `D_std_<k>`: of spectra (n_sites, points)
    float32 in states/eV, and once `D_energies`, (points,) eV relative to the Fermi energy; of grids (*probes, dim)
    float32. A line names its arrays under `D`.

    Args:
        path: The JSON lines.
        predictions: In the order of the lines.

    Returns:
        Number of lines.

    Raises:
        UserError: If another process writes the file, or it cannot be written.
    """
    target, beside = Path(path), spectra_path(path)
    count = 0
    with claim(target), replacing(target, target) as file, ExitStack() as stack:
        archive: ZipFile | None = None
        for prediction in predictions:
            if archive is None and any(map(prediction.in_arrays, prediction.mean)):
                archive = stack.enter_context(_arrays(beside, target))
            names = _write_arrays(archive, prediction, count) if archive is not None else {}
            links = {name: {"file": beside.name, **of_name} for name, of_name in names.items()}
            file.write(json.dumps(prediction.as_line() | links).encode() + b"\n")
            count += 1
    return count


@contextmanager
def _arrays(path: Path, target: Path) -> Iterator[ZipFile]:
    """The file of arrays beside the lines, in place before them; former lines must not refer to it."""
    with replacing(path, target) as file:
        with ZipFile(file, "w") as archive:
            yield archive
        target.unlink(missing_ok=True)


def _write_arrays(archive: ZipFile, prediction: SitePrediction, line: int) -> dict[str, dict[str, str]]:
    """Adds the spectra and grids of one line; returns the names of the arrays by descriptor."""
    names = {}
    for name in filter(prediction.in_arrays, prediction.mean):
        names[name] = {"mean": f"{name}_{line}", "std": f"{name}_std_{line}"}
        for key, values in (("mean", prediction.mean[name]), ("std", prediction.std[name])):
            if prediction.place(name) == "grid":
                values = values.reshape(*prediction.descriptors[name].probes, -1)
            add_array(archive, names[name][key], values.astype(np.float32))
        if name in prediction.grids:
            names[name]["energies"] = f"{name}_energies"
            if f"{names[name]['energies']}.npy" not in archive.NameToInfo:
                add_array(archive, names[name]["energies"], prediction.grids[name].energies)
    return names
