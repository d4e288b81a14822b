"""What a cache holds, in numbers: what `mattergen-e data show` prints and draws.

Arrays are mapped into memory and read once; quantiles of spectra are taken over an even sample of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mattergen_e.data.cache import (
    CRYSTALS_FOLDER,
    GRIDS_FOLDER,
    MANIFEST_NAME,
    SITES_FOLDER,
    Manifest,
    load_array,
    load_manifest,
)
from mattergen_e.descriptors.registry import known
from mattergen_e.errors import UserError
from mattergen_e.labels.quantities import PRODUCED
from mattergen_e.report.cache_records import (
    QUANTILES,
    Array,
    CacheSummary,
    Distribution,
    Outlier,
    SiteDistribution,
    SpectraSummary,
    distribution,
    robust,
    symbol_of,
)
from mattergen_e.spectra.grid import EnergyGrid

#: Spectra that quantiles are taken over, at most.
SAMPLE = 4000
#: Rows of spectra that are integrated at a time.
ROWS = 20_000
EXAMPLES = 4
#: Robust standard deviations from the median beyond which a value is worth a look.
FAR = 4.0
#: Smallest robust standard deviation: differences below it are of no interest, whatever the spread.
SMALLEST = {"e": 0.05, "states": 0.25, "eV": 0.1}
SHOWN_OUTLIERS = 10
PROPERTY_UNITS = {
    "dft_band_gap": "eV",
    "energy_above_hull": "eV/atom",
    "formation_energy_per_atom": "eV/atom",
    "dft_bulk_modulus": "GPa",
    "dft_shear_modulus": "GPa",
    "ml_bulk_modulus": "GPa",
    "dft_mag_density": "mu_B/Å^3",
}


@dataclass(frozen=True)
class _Index:
    """Which crystal and element every site of the cache belongs to, splits joined."""

    folders: tuple[Path, ...]
    splits: Array
    ids: Array
    counts: Array
    numbers: Array
    crystal: Array
    first: Array


def summarise(path: str | Path) -> CacheSummary:
    """Look through a cache.

    Args:
        path: The cache, one of its splits, or its manifest.

    Returns:
        The summary of the whole cache.

    Raises:
        UserError: If it is not a cache, or an array is missing, damaged or of another length than the others.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist: make the cache with 'mattergen-e data build'.")
    manifest = load_manifest(path)
    path = path if (path / MANIFEST_NAME).is_file() else path.parent
    index = _read_index(path, manifest)
    outliers: dict[str, list[Outlier]] = {}
    properties, texts = _properties(index, manifest, outliers)
    site_values, spectra = [], []
    for name, info in manifest.site_values.items():
        parts = _open(index, SITES_FOLDER, name, index.counts)
        if not _is_spectrum(manifest, name, info.dim):
            for k in range(info.dim):
                component = name if info.dim == 1 else f"{name}_{k + 1}"
                one = [part[:, k : k + 1] for part in parts]
                site_values.append(_site_distribution(index, component, info.unit, one, outliers))
        else:
            spectra.append(_spectra(index, manifest, name, "sites", info.unit, parts, outliers))
    for name, info in manifest.crystal_values.items():
        parts = _open(index, CRYSTALS_FOLDER, name, np.ones_like(index.counts))
        if _is_spectrum(manifest, name, info.dim):
            spectra.append(_spectra(index, manifest, name, "crystals", info.unit, parts, outliers))
        else:
            properties += _components(name, info.unit, np.concatenate(parts))
    for name, info in manifest.grid_values.items():
        grids = [load_array(folder / GRIDS_FOLDER / f"{name}.npy").reshape(-1, info.dim) for folder in index.folders]
        properties += _components(name, info.unit, np.concatenate(grids))
    farthest = {kind: sorted(found, key=lambda o: -o.far)[:SHOWN_OUTLIERS] for kind, found in outliers.items()}
    return CacheSummary(
        path,
        manifest,
        _elements(index),
        distribution("sites per crystal", "", index.counts),
        tuple(properties),
        texts,
        tuple(site_values),
        tuple(spectra),
        tuple(outlier for found in farthest.values() for outlier in found),
        {kind: len(found) for kind, found in outliers.items()},
    )


def _components(name: str, unit: str, values: Array) -> list[Distribution]:
    """Distributions of values (n_rows, dim), one per component."""
    names = [name] if values.shape[1] == 1 else [f"{name}_{k + 1}" for k in range(values.shape[1])]
    return [distribution(one, unit, values[:, k]) for k, one in enumerate(names)]


def _is_spectrum(manifest: Manifest, name: str, dim: int) -> bool:
    """Whether a row is a curve over energies, by the manifest's grid, by labels, or by the descriptor."""
    if dim == 1:
        return False
    if grid_energies(manifest, name, dim) is not None:
        return True
    declared = {q.name: q for q in (*(d.quantity() for d in known().values()), *PRODUCED)}
    return name in declared and declared[name].spectrum


def _read_index(path: Path, manifest: Manifest) -> _Index:
    folders = tuple(path / split for split in manifest.splits)
    counts = [load_array(folder / "num_atoms.npy") for folder in folders]
    ids = [load_array(folder / "structure_id.npy") for folder in folders]
    numbers = [load_array(folder / "atomic_numbers.npy") for folder in folders]
    for folder, n, i, z in zip(folders, counts, ids, numbers, strict=True):
        if not (len(n) == len(i) and n.sum() == len(z) and n.min(initial=1) > 0):
            raise UserError(f"{folder}: the arrays do not belong together; build the cache anew.")
    joined = np.concatenate(counts)
    numbers = np.concatenate(numbers)
    if not np.all((numbers > 0) & (numbers < 119)):
        raise UserError(f"{path} has atomic numbers that are no elements; build the cache anew.")
    splits = np.repeat(np.array(list(manifest.splits)), [len(n) for n in counts])
    first = np.concatenate([[0], np.cumsum(joined)[:-1]])
    crystal = np.repeat(np.arange(len(joined)), joined)
    return _Index(folders, splits, np.concatenate(ids), joined, numbers, crystal, first)


def _open(index: _Index, kind: str, name: str, lengths: Array) -> list[Array]:
    """Arrays (rows, dim) of the splits; `lengths` are the rows of each crystal."""
    parts = [load_array(folder / kind / f"{name}.npy") for folder in index.folders]
    wanted = [int(lengths[index.splits == folder.name].sum()) for folder in index.folders]
    for folder, part, rows in zip(index.folders, parts, wanted, strict=True):
        if part.ndim != 2 or len(part) != rows or part.shape[1] != parts[0].shape[1]:
            raise UserError(f"{folder / kind / name}.npy has the shape {part.shape}; build the cache anew.")
    return parts


def _elements(index: _Index) -> dict[str, tuple[int, int]]:
    sites = np.bincount(index.numbers, minlength=119)
    pairs = np.unique(index.crystal * 119 + index.numbers)
    crystals = np.bincount(pairs % 119, minlength=119)
    return {symbol_of(z): (int(crystals[z]), int(sites[z])) for z in np.flatnonzero(sites)}


def _properties(
    index: _Index, manifest: Manifest, outliers: dict[str, list[Outlier]]
) -> tuple[list[Distribution], dict[str, int]]:
    distributions, texts = [], {}
    for name, info in manifest.properties.items():
        if not info.written:
            continue
        values = [value for folder in index.folders for value in _property(folder / f"{name}.json")]
        if len(values) != len(index.ids):
            raise UserError(f"{name} has {len(values)} values for {len(index.ids)} crystals; build the cache anew.")
        if any(isinstance(value, str) for value in values):
            texts[name] = len(set(values))
            continue
        numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        unit = PROPERTY_UNITS.get(name, "")
        distributions.append(distribution(name, unit, numbers))
        if name == "dft_band_gap":
            open_gaps = np.where(numbers > 0, numbers, np.nan)
            far, median = robust(open_gaps, np.zeros(len(numbers), dtype=int), SMALLEST["eV"])
            far[numbers < 0] = np.inf
            for i in np.flatnonzero(far > FAR).tolist():
                usual = f"median of the open gaps {median[i]:.2f} {unit}"
                outliers.setdefault(name, []).append(
                    _outlier(index, name, i, "", float(numbers[i]), usual, float(far[i]))
                )
    return distributions, texts


def _property(path: Path) -> list[Any]:
    try:
        return list(json.loads(path.read_bytes())["values"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): build the cache anew.") from error


def _outlier(index: _Index, kind: str, crystal: int, place: str, found: float, usual: str, far: float) -> Outlier:
    return Outlier(kind, str(index.ids[crystal]), str(index.splits[crystal]), place, found, usual, far)


def _site_outliers(
    index: _Index, kind: str, unit: str, values: Array, outliers: dict[str, list[Outlier]], smallest: float
) -> None:
    """The farthest site of every crystal that has one far from the median of its element."""
    far, medians = robust(values, index.numbers, smallest)
    order = np.argsort(-far, kind="stable")
    order = order[far[order] > FAR]
    _, first = np.unique(index.crystal[order], return_index=True)
    for i in order[np.sort(first)]:
        crystal, symbol = int(index.crystal[i]), symbol_of(index.numbers[i])
        place = f"{symbol}, site {i - index.first[crystal]}"
        usual = f"median of {symbol} {medians[i]:.2f} {unit}"
        outliers.setdefault(kind, []).append(
            _outlier(index, kind, crystal, place, float(values[i]), usual, float(far[i]))
        )


def _site_distribution(
    index: _Index, name: str, unit: str, parts: list[Array], outliers: dict[str, list[Outlier]]
) -> SiteDistribution:
    values = np.concatenate([part[:, 0] for part in parts]).astype(np.float64)
    elements = {}
    order = np.argsort(index.numbers, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(index.numbers[order])) + 1):
        known = values[rows][np.isfinite(values[rows])]
        if len(known):
            quantiles = tuple(float(q) for q in np.quantile(known, QUANTILES))
            row = (len(known), float(known.min()), quantiles, float(known.max()))
            elements[symbol_of(index.numbers[rows[0]])] = row
    _site_outliers(index, name, unit, values, outliers, SMALLEST.get(unit, 1e-3))
    return SiteDistribution(distribution(name, unit, values), elements)


def _blocks(parts: list[Array]) -> Iterator[Array]:
    for part in parts:
        for start in range(0, len(part), ROWS):
            yield np.asarray(part[start : start + ROWS])


def _spectra(
    index: _Index,
    manifest: Manifest,
    name: str,
    of: str,
    unit: str,
    parts: list[Array],
    outliers: dict[str, list[Outlier]],
) -> SpectraSummary:
    energies = grid_energies(manifest, name, parts[0].shape[1])
    step = 1.0 if energies is None else float(energies[1] - energies[0])
    sums, total = [], np.zeros(parts[0].shape[1])
    for block in _blocks(parts):
        sums.append(block.sum(axis=1, dtype=np.float64) * step)
        total += block[np.isfinite(sums[-1])].sum(axis=0, dtype=np.float64)
    integrals = np.concatenate(sums)
    known = np.flatnonzero(np.isfinite(integrals))
    sample = _rows(parts, known[np.linspace(0, len(known) - 1, min(SAMPLE, len(known))).astype(int)])
    if len(sample):
        low, middle, high = np.quantile(sample, (0.1, 0.5, 0.9), axis=0)
    else:
        low = middle = high = np.full(len(total), np.nan)
    integral = ("sum" if energies is None else "states") + (" per atom" if of == "crystals" else "")
    if of == "sites":
        _site_outliers(index, f"{name}, {integral}", "", integrals, outliers, SMALLEST["states"])
    return SpectraSummary(
        name,
        of,
        unit,
        len(known),
        len(integrals) - len(known),
        energies,
        total / max(len(known), 1),
        low,
        middle,
        high,
        distribution(f"{name}, {integral}", "", integrals),
        _examples(index, of, parts, known),
    )


def _rows(parts: list[Array], rows: Array) -> Array:
    """Rows of the joined arrays, ascending; only they are read."""
    starts = np.cumsum([0, *(len(part) for part in parts)])
    picked = [part[rows[(rows >= a) & (rows < b)] - a] for part, a, b in zip(parts, starts, starts[1:], strict=False)]
    return np.concatenate(picked)


def _examples(index: _Index, of: str, parts: list[Array], known: Array) -> tuple[tuple[str, Array], ...]:
    """Spectra spread evenly over the cache."""
    if not len(known):
        return ()
    places = np.linspace(0, len(known) - 1, EXAMPLES + 2)[1:-1].round().astype(int)
    rows = np.unique(known[places])
    titles = []
    for row in rows:
        crystal = int(index.crystal[row]) if of == "sites" else int(row)
        title = f"{index.ids[crystal]} {_formula(index, crystal)}"
        if of == "sites":
            title += f": {symbol_of(index.numbers[row])}, site {row - index.first[crystal]}"
        titles.append(title)
    return tuple(zip(titles, _rows(parts, rows), strict=True))


def _formula(index: _Index, crystal: int) -> str:
    from pymatgen.core import Composition

    start = int(index.first[crystal])
    numbers, counts = np.unique(index.numbers[start : start + int(index.counts[crystal])], return_counts=True)
    amounts = {symbol_of(z): int(n) for z, n in zip(numbers, counts, strict=True)}
    return Composition(amounts).reduced_formula


def grid_energies(manifest: Manifest, name: str, points: int) -> Array | None:
    """Energies (points,) of a spectrum in eV, as the manifest tells; None where it does not."""
    from pydantic import ValidationError

    settings = getattr(manifest, "processing", {}).get(name)
    try:
        grid = EnergyGrid.model_validate(settings["grid"] if isinstance(settings, dict) else None)
    except (ValidationError, KeyError):
        return None
    return grid.energies if grid.points == points else None
