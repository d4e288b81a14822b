"""How accurate generated descriptors are, each by its own measure, against computed ones.

Labels come from calculations on the generated crystals:

    mattergen-e data compute OUT/generated_crystals.extxyz --out computed      (or a calculation of one's own)
    mattergen-e data label computed --out labels

A label is a crystal's if it has its number (index, gen_<index>), key or name for an id, or else if it is the same
crystal, site by site. Sites are then put together by their positions, because a calculation may have ordered, relaxed
or turned them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from mattergen_e.descriptors.base import Descriptor
from mattergen_e.descriptors.measure import Measure
from mattergen_e.descriptors.registry import known
from mattergen_e.errors import UserError
from mattergen_e.evaluation.candidates import Candidate
from mattergen_e.evaluation.labels import Label, Labels, Pair, components, pair
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.spectra.metrics import summarise

Values = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Compared:
    """Values of all compared crystals, one crystal after the other.

    Attributes:
        measure: By which they are judged.
        place: Where rows live: site, crystal or grid.
        index: (n_rows,) number of the crystal.
        site: (n_rows,) place of the row in it.
        number: (n_rows,) atomic number of the site; 0 where rows do not live on sites.
        distance: (n_rows,) in the unit of the measure, NaN where there is none.
        generated: (n_rows, dim) in the unit of the descriptor.
        reference: The same by calculation.
        reasons: Why a crystal was not compared, by its number.
        source: Where the labels come from.
        grid: Energies, where the values are spectra.
    """

    measure: Measure
    place: str
    index: NDArray[np.int64]
    site: NDArray[np.int64]
    number: NDArray[np.int64]
    distance: NDArray[np.float64]
    generated: Values
    reference: Values
    reasons: Mapping[int, str]
    source: str
    grid: EnergyGrid | None = None

    @property
    def rows(self) -> dict[int, dict[str, float]]:
        """By the crystal's number: the mean distance over its rows, in the column of the measure."""
        there = ~np.isnan(self.distance)
        crystals, rows = np.unique(self.index[there], return_inverse=True)
        means = np.bincount(rows, weights=self.distance[there]) / np.bincount(rows) if len(rows) else np.empty(0)
        return {int(c): {self.measure.column: float(mean)} for c, mean in zip(crystals, means, strict=True)}

    def summary(self, sun: Collection[int] = ()) -> dict[str, Any]:
        """Distances over the rows of all and of SUN crystals, and by element where rows live on sites.

        Args:
            sun: Numbers of the crystals that are stable, unique and novel.
        """
        everything = np.ones(len(self.index), dtype=bool)
        told = asdict(replace(self.measure, distance=np.abs))
        del told["distance"], told["noun"]
        return {
            "all": self._of(everything),
            "sun": self._of(_among(self.index, sun)),
            "by_element": {s: self._of(rows) for s, rows in _elements(self.number)},
            "compared": len(np.unique(self.index)),
            "not_compared": len(self.reasons),
            "source": self.source,
            "measure": told | {"place": self.place},
        }

    def _of(self, chosen: NDArray[np.bool_]) -> dict[str, Any]:
        found = summarise(self.distance[chosen])
        rows = {"sites" if self.place == "site" else "rows": int(chosen.sum())}
        counts = rows | {"crystals": len(np.unique(self.index[chosen]))}
        if self.measure.summary == "median":
            some = {"median": found.median, "mean": found.mean, "undefined": found.undefined}
            return some | counts | ({"sites": found.sites} if self.place == "site" else {"rows": found.sites})
        return {self.measure.mean_key: found.mean} | counts

    def arrays(self, sun: Collection[int] = ()) -> dict[str, NDArray[Any]]:
        """Arrays of descriptor_sites.npz by name, for curves also the distances and energies."""
        curves = self.grid is not None
        if not len(self.index):
            return {}
        kind, key = np.float16 if curves else np.float32, self.measure.key
        flat = self.generated.shape[-1] == 1
        values = {"generated": self.generated.astype(kind), "reference": self.reference.astype(kind)}
        found: dict[str, NDArray[Any]] = {
            "crystal": self.index,
            "site": self.site,
            "number": self.number,
            **({"distance": self.distance.astype(np.float32)} if curves else {}),
            **{name: array[:, 0] if flat else array for name, array in values.items()},
            **({"energies": self.grid.energies} if self.grid is not None else {}),
            "sun": _among(self.index, sun),
        }
        return {f"{key}_{name}": array for name, array in found.items()}


def compare_all(
    candidates: Sequence[Candidate], labels: Labels, fields: Mapping[str, Any] | None = None
) -> dict[str, Compared]:
    """Compare all that the crystals have with labels.

    Args:
        candidates: Those that can be read.
        labels: From `read_labels`.
        fields: What run.json says of what was generated, by descriptor.

    Returns:
        By descriptor, in the order in which the crystals have them.

    Raises:
        UserError: If no label belongs to any crystal, or the grids of labels and crystals differ.
    """
    found = {name: compare(one, candidates, labels) for name, one in descriptors_of(candidates, labels, fields).items()}
    return {name: compared for name, compared in found.items() if compared is not None}


def descriptors_of(
    candidates: Sequence[Candidate], labels: Labels, fields: Mapping[str, Any] | None = None
) -> dict[str, Descriptor]:
    """The descriptors that crystals have values of.

    One whose package is not installed is known by run.json alone, or, without that, by its labels.
    """
    places: dict[str, str] = {}
    for one in candidates:
        if one.structure is not None:
            places |= dict.fromkeys(one.structure.site_properties, "site")
            places |= dict.fromkeys(one.values, "crystal") | dict.fromkeys(one.arrays, "grid")
    installed, told = known(), fields or {}
    if any(one.spectra is not None for one in candidates):
        having = [n for n, one in installed.items() if type(one).spectra is not Descriptor.spectra]
        places |= {next((n for n in having if n in told), having[0]): "site"} if having else {}
    found: dict[str, Descriptor] = {}
    for name in sorted(places):
        place, about = places[name], told.get(name)
        if name in installed and (about is None or installed[name].place == place):
            found[name] = installed[name]
        elif about is not None or any(label.value(name) is not None for label in labels.items):
            about = about or {}
            probes = about.get("probes") or (8, 8, 8)
            unit, label = about.get("unit") or "", about.get("label") or ""
            found[name] = Descriptor(name=name, place=place, unit=unit, label=label, probes=tuple(probes))  # type: ignore[arg-type]
    return found


def compare(descriptor: Descriptor, candidates: Sequence[Candidate], labels: Labels) -> Compared | None:
    """Compare generated values of a descriptor with labels.

    Args:
        descriptor: Which.
        candidates: Generated crystals.
        labels: From `read_labels`.

    Returns:
        The values of the crystals that have both; None if no crystal has any.

    Raises:
        UserError: If no label belongs to any crystal, or spectra of labels and crystals have different grids.
    """
    curves = type(descriptor).spectra is not Descriptor.spectra
    having = [c for c in candidates if c.structure is not None and _has(c, descriptor, curves)]
    if not having:
        return None
    pairs, reasons = pair(having, labels)
    grid: EnergyGrid | None = None
    word = descriptor.measure().noun
    found: list[tuple[Pair, Values, Values]] = []
    for item in pairs:
        rows = len(item.order) if descriptor.place == "site" else 1
        generated = _rows(_generated(item.candidate, descriptor, curves), descriptor, rows)
        reference = _rows(item.label.value(descriptor.name), descriptor, rows)
        if generated is None or reference is None:
            reasons[item.candidate.index] = f"{'it' if generated is None else 'its label'} has no {word}"
            continue
        spectra = item.candidate.spectra if curves else None
        if spectra is not None:
            grid = grid or spectra.grid
            _require(grid, (spectra.grid, labels.grid), labels.source)
        brought = _brought(reference, item, descriptor)
        if isinstance(brought, str):
            reasons[item.candidate.index] = brought
        elif brought.shape != generated.shape or (found and brought.shape[1] != found[0][1].shape[1]):
            reasons[item.candidate.index] = (
                f"its label has {word} of the shape {reference.shape}, not {generated.shape}"
            )
        else:
            found.append((item, generated, brought))
    measure = descriptor.measure(grid) if grid is not None else descriptor.measure()
    return _joined(found, descriptor, measure, reasons, labels.source, grid)


def _has(candidate: Candidate, descriptor: Descriptor, curves: bool) -> bool:
    return _generated(candidate, descriptor, curves, numbers=False) is not None


def _generated(candidate: Candidate, descriptor: Descriptor, curves: bool, numbers: bool = True) -> Any:
    """Values as the files have them; None where there are none, or, if asked for `numbers`, where they are none."""
    name, structure = descriptor.name, candidate.structure
    if curves:
        return candidate.spectra.spectra if candidate.spectra is not None else None
    if descriptor.place == "site":
        found = structure.site_properties.get(name) if structure is not None else None
    else:
        found = (candidate.values if descriptor.place == "crystal" else candidate.arrays).get(name)
    if found is None or not numbers:
        return found
    try:
        return np.array(found, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _rows(values: Values | None, descriptor: Descriptor, rows: int) -> Values | None:
    """(n_rows, dim) finite values; None where there are none, or none of this form."""
    if values is None or not np.isfinite(values).all():
        return None
    if descriptor.place == "site":
        if values.ndim == 0 or len(values) != rows:
            return None
        values = values.reshape(rows, -1)
        return values if descriptor.name != "bader_charge" or values.shape[1] == 1 else None
    if descriptor.place == "crystal":
        return values.reshape(1, -1)
    if values.ndim not in (3, 4):
        return None
    return values.reshape(int(np.prod(values.shape[:3])), -1)


def _brought(reference: Values, item: Pair, descriptor: Descriptor) -> Values | str:
    """Values of a label in the order and along the lattice vectors of the crystal, or why that cannot be."""
    label: Label = item.label
    if descriptor.place == "site":
        reference = reference[item.order]
    if item.candidate.structure is None or (descriptor.place != "grid" and descriptor.frame == "scalar"):
        return reference
    turned = components(item.candidate.structure, label.structure)
    if turned is None:
        return "the cell of its label is another choice for its lattice, along which it has other components"
    if descriptor.place == "grid" and not np.array_equal(turned, np.eye(3)):
        return "the cell of its label is another choice for its lattice, in which probes lie elsewhere"
    if descriptor.frame == "scalar":
        return reference
    return (reference.reshape(len(reference), -1, 3) @ turned).reshape(reference.shape)


def _require(grid: EnergyGrid, others: Sequence[EnergyGrid | None], source: str) -> None:
    if any(other != grid for other in others):
        other = next(other for other in others if other != grid)
        raise UserError(
            f"{source} has spectra with {other}, the generated ones have {grid}: label with the settings that the "
            "model was trained with"
        )


def _joined(
    found: Sequence[tuple[Pair, Values, Values]],
    descriptor: Descriptor,
    measure: Measure,
    reasons: Mapping[int, str],
    source: str,
    grid: EnergyGrid | None,
) -> Compared:
    none = np.empty(0, dtype=np.int64)
    sizes = [len(values) for _, values, _ in found]
    index = np.repeat(np.array([item.candidate.index for item, _, _ in found], dtype=np.int64), sizes)
    site = np.concatenate([none, *(np.arange(size) for size in sizes)])
    number = np.zeros(len(index), dtype=np.int64)
    if descriptor.place == "site" and found:
        number = np.concatenate([i.candidate.structure.atomic_numbers for i, _, _ in found if i.candidate.structure])
    empty = np.empty((0, 1))
    generated = np.concatenate([values for _, values, _ in found]) if found else empty
    reference = np.concatenate([values for _, _, values in found]) if found else empty
    distance = measure.distance(generated, reference) if found else np.empty(0)
    number = np.asarray(number, dtype=np.int64)
    return Compared(
        measure, descriptor.place, index, site, number, distance, generated, reference, reasons, source, grid
    )


def _among(index: NDArray[np.int64], chosen: Collection[int]) -> NDArray[np.bool_]:
    return np.isin(index, np.array(sorted(chosen), dtype=np.int64))


def _elements(numbers: NDArray[np.int64]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Symbol and sites of each element, the one with most sites first."""
    elements, counts = np.unique(numbers[numbers > 0], return_counts=True)
    return [(chemical_symbols[z], numbers == z) for z in elements[np.argsort(-counts, kind="stable")].tolist()]
