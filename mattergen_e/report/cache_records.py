"""What `mattergen-e data show` tells of a cache, and the statistics behind it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.data.cache import Manifest

Array = NDArray[Any]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 40
#: Fewest values that a median is taken over.
ENOUGH = 10


@dataclass(frozen=True)
class Distribution:
    """How numbers are spread.

    Attributes:
        name: Of the value.
        unit: Of the numbers.
        count: How many are known.
        unknown: How many are not.
        minimum: Smallest.
        maximum: Largest.
        quantiles: At `QUANTILES`.
        zero: Share of exact zeros.
        histogram: (bins,) counts of the values between the 0.1 and 99.9 % quantiles; others are in the outer bins.
        edges: (bins + 1,) edges of the bins.
    """

    name: str
    unit: str
    count: int
    unknown: int
    minimum: float
    maximum: float
    quantiles: tuple[float, ...]
    zero: float
    histogram: Array
    edges: Array


@dataclass(frozen=True)
class SiteDistribution:
    """One number per site, over all elements and for each.

    Attributes:
        total: Over all sites.
        elements: Count, minimum, the five quantiles and maximum by element, in the order of atomic numbers.
    """

    total: Distribution
    elements: dict[str, tuple[int, float, tuple[float, ...], float]]


@dataclass(frozen=True)
class SpectraSummary:
    """Spectra of sites or of crystals.

    Attributes:
        name: Of the value.
        of: "sites" or "crystals".
        unit: Of the values.
        count: How many are known.
        unknown: How many are not.
        energies: (points,) eV relative to the Fermi energy; None where the cache does not tell.
        mean: (points,) over all that are known.
        low: (points,) 10 % quantile over a sample.
        middle: (points,) median over a sample.
        high: (points,) 90 % quantile over a sample.
        integrals: States in the window, or the sum of the points where there are no energies.
        examples: Title and (points,) values of a few.
    """

    name: str
    of: str
    unit: str
    count: int
    unknown: int
    energies: Array | None
    mean: Array
    low: Array
    middle: Array
    high: Array
    integrals: Distribution
    examples: tuple[tuple[str, Array], ...]


@dataclass(frozen=True)
class Outlier:
    """One value that is worth a look.

    Attributes:
        kind: Name of the value.
        crystal: Id of the crystal.
        split: Its split.
        place: Element and number of the site, or "".
        found: The value.
        usual: What is usual, as a text.
        far: Distance from the median in robust standard deviations.
    """

    kind: str
    crystal: str
    split: str
    place: str
    found: float
    usual: str
    far: float


@dataclass(frozen=True)
class CacheSummary:
    """All that is shown of a cache.

    Attributes:
        path: The cache.
        manifest: Its manifest.
        elements: Number of crystals and of sites by element, in the order of atomic numbers.
        sizes: Distribution of the number of sites per crystal.
        properties: Distributions of the crystals' properties.
        texts: Number of different texts by property.
        site_values: One number per site, by name.
        spectra: Several numbers per site or crystal.
        outliers: The farthest ones of each kind.
        outlier_counts: How many there are of each kind.
    """

    path: Path
    manifest: Manifest
    elements: dict[str, tuple[int, int]]
    sizes: Distribution
    properties: tuple[Distribution, ...]
    texts: dict[str, int]
    site_values: tuple[SiteDistribution, ...]
    spectra: tuple[SpectraSummary, ...]
    outliers: tuple[Outlier, ...]
    outlier_counts: dict[str, int]


def distribution(name: str, unit: str, values: Array) -> Distribution:
    """Distribution of numbers, NaN where unknown; a few different whole numbers have a bin each."""
    whole = np.issubdtype(np.asarray(values).dtype, np.integer)
    values = np.asarray(values, dtype=np.float64)
    known = values[np.isfinite(values)]
    if not len(known):
        nan = float("nan")
        bins = np.zeros(BINS, dtype=int), np.linspace(0, 1, BINS + 1)
        return Distribution(name, unit, 0, len(values), nan, nan, (nan,) * len(QUANTILES), 0.0, *bins)
    quantiles = tuple(float(q) for q in np.quantile(known, QUANTILES))
    low, high = np.quantile(known, (0.001, 0.999))
    edges = np.histogram_bin_edges(known, BINS, (low, high))
    if whole and high - low <= BINS:
        edges = np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    counts, _ = np.histogram(np.clip(known, low, high), edges)
    zero = float((known == 0).mean())
    unknown = len(values) - len(known)
    return Distribution(
        name, unit, len(known), unknown, float(known.min()), float(known.max()), quantiles, zero, counts, edges
    )


def robust(values: Array, groups: Array, smallest: float) -> tuple[Array, Array]:
    """Distance of each value from the median of its group.

    The robust standard deviation is 1.4826 times the median of the absolute deviations, which is the standard deviation
    where values are normally distributed.

    Args:
        values: (n,) numbers, NaN where unknown.
        groups: (n,) number of the group.
        smallest: Smallest standard deviation that counts.

    Returns:
        (n,) distances in robust standard deviations, 0 where unknown or the group is smaller than `ENOUGH`; and (n,)
        medians of the groups, NaN there.
    """
    far, medians = np.zeros(len(values)), np.full(len(values), np.nan)
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        known = rows[np.isfinite(values[rows])]
        if len(known) >= ENOUGH:
            median = np.median(values[known])
            deviation = np.abs(values[known] - median)
            far[known] = deviation / max(1.4826 * float(np.median(deviation)), smallest)
            medians[known] = median
    return far, medians


def symbol_of(number: Any) -> str:
    """Symbol of an atomic number."""
    from pymatgen.core import Element

    return Element.from_Z(int(number)).symbol
