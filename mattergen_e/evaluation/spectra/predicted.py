"""Spectra of the crystals: of the relaxed ones by the forward predictor, or as a joint model generated them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import batched
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.reading import NamedStructure, read_structures
from mattergen_e.errors import UserError
from mattergen_e.evaluation.candidates import Candidate, structure_key
from mattergen_e.evaluation.steps import Context, Items
from mattergen_e.networks.predictor.output import predict_structures
from mattergen_e.spectra.curves import Curve

if TYPE_CHECKING:
    from pathlib import Path

    from pymatgen.core import Structure

    from mattergen_e.networks.predictor.model import Predictor
    from mattergen_e.spectra.curves import Curve
    from mattergen_e.spectra.grid import EnergyGrid

CHUNK = 64

#: (1, points) per atom of the crystal, or (n_sites, points) of its sites, states/eV; or why there are none.
Spectrum = NDArray[np.float32] | str


def predicted(
    context: Context, predictor: Predictor, relaxed: Mapping[int, Structure], of_sites: bool
) -> dict[int, Spectrum]:
    """Predicted spectra of relaxed crystals.

    Args:
        context: Of the screening.
        predictor: The forward predictor.
        relaxed: By index.
        of_sites: Spectra of the sites instead of those per atom.

    Returns:
        By index.
    """
    keys = {index: structure_key(structure) for index, structure in relaxed.items()}
    structures = {key: relaxed[index] for index, key in keys.items()}

    def compute(items: Items) -> Iterator[tuple[str, Any]]:
        for chunk in batched(items, CHUNK):
            yield from _predict(predictor, chunk, of_sites)

    made = {"predictor": predictor.fingerprint, "of_sites": of_sites}
    found = context.run("spectra", made, structures, compute, "Predicting spectra")
    return {index: _unpacked(found[key]) for index, key in keys.items()}


def _predict(predictor: Predictor, items: Items, of_sites: bool) -> Iterator[tuple[str, Any]]:
    """Results of some crystals; one that the predictor refuses costs only itself."""
    try:
        spectra = predict_structures(predictor, [NamedStructure(key, structure) for key, structure in items])
    except UserError as error:
        if len(items) == 1:
            key = items[0][0]
            yield key, {"values": None, "sentence": str(error).replace(f"structure '{key}'", "the crystal")}
            return
        for item in items:
            yield from _predict(predictor, [item], of_sites)
        return
    for (key, _), spectrum in zip(items, spectra, strict=True):
        values = spectrum.sites if of_sites else spectrum.total[None]
        if np.isfinite(values).all():
            yield key, {"values": np.round(values.astype(float), 6).tolist(), "sentence": None}
        else:
            yield key, {"values": None, "sentence": "its predicted spectrum is not finite"}


def _unpacked(result: Mapping[str, Any]) -> Spectrum:
    return str(result["sentence"]) if result["values"] is None else np.array(result["values"], dtype=np.float32)


def generated(candidates: Mapping[int, Candidate], grid: EnergyGrid, of_sites: bool) -> dict[int, Spectrum]:
    """Spectra as a joint model generated them, with the crystals before relaxation, by index."""
    found: dict[int, Spectrum] = {}
    for index, candidate in candidates.items():
        spectra = candidate.spectra
        if spectra is None:
            found[index] = "it was generated without a spectrum"
        elif spectra.grid != grid:
            found[index] = "its spectrum is on another grid"
        else:
            found[index] = spectra.spectra if of_sites else spectra.spectra.mean(axis=0, keepdims=True)
    return found


def curves_of(predictor: Predictor, path: Path) -> list[Curve]:
    """Predicted spectra per atom of the crystals of a file: targets from crystals."""
    grid = predictor.grids.total
    found = predict_structures(predictor, read_structures([path]))
    return [Curve(item.id, grid.energies, item.total.astype(np.float64)) for item in found]
