"""How accurate generated descriptors are: Bader charges and spectra of sites against computed ones.

Labels come from calculations on the generated crystals:

    mattergen-e data compute OUT/generated_crystals.extxyz --out computed      (or a calculation of one's own)
    mattergen-e data label computed --out labels

A label is a crystal's if it has its number (index, gen_<index>), key or name for an id, or else if it is the same
crystal, site by site. Sites are then put together by their positions, because a calculation may have ordered, relaxed
or turned them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.errors import UserError
from mattergen_e.evaluation.labels import Labels, Pair, pair
from mattergen_e.spectra.grid import EnergyGrid

if TYPE_CHECKING:
    from mattergen_e.evaluation.candidates import Candidate

CHARGE = "bader_charge"


@dataclass(frozen=True, eq=False)
class Charges:
    """Charges of all compared sites, one crystal after the other.

    Attributes:
        index: (n_sites,) number of the crystal.
        site: (n_sites,) place of the site in it.
        number: (n_sites,) atomic number.
        generated: (n_sites,) e.
        reference: (n_sites,) e.
        reasons: Why a crystal was not compared, by its number.
        source: Where the labels come from.
    """

    index: NDArray[np.int64]
    site: NDArray[np.int64]
    number: NDArray[np.int64]
    generated: NDArray[np.float64]
    reference: NDArray[np.float64]
    reasons: Mapping[int, str]
    source: str

    @property
    def rows(self) -> dict[int, dict[str, float]]:
        """By the crystal's number: charge_mae, the mean absolute error over its sites, e."""
        return _means("charge_mae", self.index, np.abs(self.generated - self.reference))

    def summary(self, sun: Collection[int] = ()) -> dict[str, Any]:
        """Mean absolute errors in e over the sites of all and of SUN crystals, and by element.

        Args:
            sun: Numbers of the crystals that are stable, unique and novel.
        """
        error, chosen = np.abs(self.generated - self.reference), _among(self.index, sun)
        return {
            "all": _mae(error, self.index),
            "sun": _mae(error[chosen], self.index[chosen]),
            "by_element": {s: _mae(error[rows], self.index[rows]) for s, rows in _elements(self.number)},
            "compared": len(np.unique(self.index)),
            "not_compared": len(self.reasons),
            "source": self.source,
        }

    def arrays(self, sun: Collection[int] = ()) -> dict[str, NDArray[Any]]:
        """Arrays of descriptor_sites.npz by name."""
        return {
            "charge_crystal": self.index,
            "charge_site": self.site,
            "charge_number": self.number,
            "charge_generated": self.generated.astype(np.float32),
            "charge_reference": self.reference.astype(np.float32),
            "charge_sun": _among(self.index, sun),
        }


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra of all compared sites, one crystal after the other.

    Attributes:
        index, site, number, reasons, source: As in `Charges`.
        distance: (n_sites,) Wasserstein distance, eV; NaN where a spectrum has no states in the window.
        generated: (n_sites, points) states/eV.
        reference: (n_sites, points) states/eV.
        grid: Of both.
    """

    index: NDArray[np.int64]
    site: NDArray[np.int64]
    number: NDArray[np.int64]
    distance: NDArray[np.float64]
    generated: NDArray[np.float32]
    reference: NDArray[np.float32]
    grid: EnergyGrid | None
    reasons: Mapping[int, str]
    source: str

    @property
    def rows(self) -> dict[int, dict[str, float]]:
        """By the crystal's number: dos_wasserstein, the mean distance over its sites, eV."""
        known = ~np.isnan(self.distance)
        return _means("dos_wasserstein", self.index[known], self.distance[known])

    def summary(self, sun: Collection[int] = ()) -> dict[str, Any]:
        """Distances in eV over the sites of all and of SUN crystals, and by element; `sun` as in `Charges.summary`."""
        chosen = _among(self.index, sun)
        return {
            "all": _distances(self.distance, self.index),
            "sun": _distances(self.distance[chosen], self.index[chosen]),
            "by_element": {s: _distances(self.distance[rows], self.index[rows]) for s, rows in _elements(self.number)},
            "compared": len(np.unique(self.index)),
            "not_compared": len(self.reasons),
            "source": self.source,
        }

    def arrays(self, sun: Collection[int] = ()) -> dict[str, NDArray[Any]]:
        """Arrays of descriptor_sites.npz by name; none without a site."""
        if self.grid is None:
            return {}
        return {
            "dos_crystal": self.index,
            "dos_site": self.site,
            "dos_number": self.number,
            "dos_distance": self.distance.astype(np.float32),
            "dos_generated": self.generated.astype(np.float16),
            "dos_reference": self.reference.astype(np.float16),
            "dos_energies": self.grid.energies,
            "dos_sun": _among(self.index, sun),
        }


def compare_charges(candidates: Sequence[Candidate], labels: Labels) -> Charges | None:
    """Compare generated Bader charges with labels.

    Args:
        candidates: Generated crystals, their charges as site property `bader_charge`.
        labels: From `read_labels`.

    Returns:
        The charges of the crystals that have both; None if no crystal has generated charges.

    Raises:
        UserError: If no label belongs to any crystal.
    """
    having = [c for c in candidates if c.structure is not None and CHARGE in c.structure.site_properties]
    if not having:
        return None
    pairs, reasons = pair(having, labels)
    found: list[tuple[Pair, NDArray[np.float64], NDArray[np.float64]]] = []
    for item in pairs:
        reference = item.label.charges
        generated = _site_numbers(item.candidate)
        if reference is None or generated is None:
            reasons[item.candidate.index] = "its label has no charges" if generated is not None else "it has no charges"
        else:
            found.append((item, generated, reference[item.order]))
    index, site, number = _sites([item for item, _, _ in found])
    none = np.empty(0)
    generated = np.concatenate([none, *(values for _, values, _ in found)])
    reference = np.concatenate([none, *(values for _, _, values in found)])
    return Charges(index, site, number, generated, reference, reasons, labels.source)


def compare_spectra(candidates: Sequence[Candidate], labels: Labels) -> Spectra | None:
    """Compare generated spectra of sites with labels.

    Args:
        candidates: Generated crystals with `spectra`.
        labels: From `read_labels`; those of a file have no spectra.

    Returns:
        The spectra of the crystals that have both; None if no crystal has generated spectra.

    Raises:
        UserError: If no label belongs to any crystal, or the grids of labels and crystals differ.
    """
    having = [c for c in candidates if c.structure is not None and c.spectra is not None]
    if not having:
        return None
    pairs, reasons = pair(having, labels)
    found: list[tuple[Pair, NDArray[np.float32], NDArray[np.float32]]] = []
    grid: EnergyGrid | None = None
    for item in pairs:
        spectra, reference = item.candidate.spectra, item.label.spectra()
        if spectra is None or reference is None:
            reasons[item.candidate.index] = "its label has no spectra"
            continue
        grid = grid or spectra.grid
        for other in (spectra.grid, labels.grid):
            if other != grid:
                raise UserError(
                    f"{labels.source} has spectra with {other}, the generated ones have {grid}: label with the "
                    "settings that the model was trained with"
                )
        found.append((item, spectra.spectra, reference[item.order]))
    index, site, number = _sites([item for item, _, _ in found])
    none = np.empty((0, grid.points if grid is not None else 0), dtype=np.float32)
    generated = np.concatenate([none, *(values for _, values, _ in found)])
    reference = np.concatenate([none, *(values for _, _, values in found)])
    distance = _wasserstein(generated, reference, grid)
    return Spectra(index, site, number, distance, generated, reference, grid, reasons, labels.source)


def _wasserstein(
    generated: NDArray[np.float32], reference: NDArray[np.float32], grid: EnergyGrid | None
) -> NDArray[np.float64]:
    from mattergen_e.spectra.metrics import wasserstein

    return wasserstein(generated, reference, grid) if grid is not None else np.empty(0)


def _site_numbers(candidate: Candidate) -> NDArray[np.float64] | None:
    """(n_sites,) generated charges, e; None if they are not one finite number per site."""
    if candidate.structure is None:
        return None
    try:
        values = np.array(candidate.structure.site_properties[CHARGE], dtype=np.float64)
    except (TypeError, ValueError):
        return None
    values = values.reshape(len(candidate.structure), -1)
    return values[:, 0] if values.shape[1] == 1 and np.isfinite(values).all() else None


def _sites(pairs: Sequence[Pair]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Crystal, place and atomic number of all sites, (n_sites,) each."""
    none = np.empty(0, dtype=np.int64)
    sizes = [len(item.order) for item in pairs]
    index = np.repeat(np.array([item.candidate.index for item in pairs], dtype=np.int64), sizes)
    site = np.concatenate([none, *(np.arange(size) for size in sizes)])
    numbers = (item.candidate.structure.atomic_numbers for item in pairs if item.candidate.structure is not None)
    return index, site, np.concatenate([none, *(np.asarray(n, dtype=np.int64) for n in numbers)])


def _among(index: NDArray[np.int64], chosen: Collection[int]) -> NDArray[np.bool_]:
    return np.isin(index, np.array(sorted(chosen), dtype=np.int64))


def _means(name: str, index: NDArray[np.int64], values: NDArray[np.float64]) -> dict[int, dict[str, float]]:
    crystals, rows = np.unique(index, return_inverse=True)
    means = np.bincount(rows, weights=values) / np.bincount(rows) if len(rows) else np.empty(0)
    return {int(crystal): {name: float(mean)} for crystal, mean in zip(crystals, means, strict=True)}


def _mae(error: NDArray[np.float64], index: NDArray[np.int64]) -> dict[str, Any]:
    mean = float(error.mean()) if len(error) else None
    return {"mae": mean, "sites": len(error), "crystals": len(np.unique(index))}


def _distances(values: NDArray[np.float64], index: NDArray[np.int64]) -> dict[str, Any]:
    from mattergen_e.spectra.metrics import summarise

    found = summarise(values)
    return {
        "median": found.median,
        "mean": found.mean,
        "sites": found.sites,
        "undefined": found.undefined,
        "crystals": len(np.unique(index)),
    }


def _elements(numbers: NDArray[np.int64]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Symbol and sites of each element, the one with most sites first."""
    from ase.data import chemical_symbols

    elements, counts = np.unique(numbers, return_counts=True)
    return [(chemical_symbols[z], numbers == z) for z in elements[np.argsort(-counts, kind="stable")].tolist()]
