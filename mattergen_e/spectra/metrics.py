"""How far spectra are from their references.

The Wasserstein distance is the one of Okuda et al. (section 2.4), of spectra normalised to unit area: how far, in eV,
the states have to be moved on average to make one spectrum out of the other. The text does not say how it was
discretised. Here the states of a bin sit at its centre, which makes it

    W(a, b) = step * sum_k |A_k - B_k|,

with the cumulative shares A and B at the upper edges of the bins: exact for such spectra, the number that
`scipy.stats.wasserstein_distance` gives for the centres weighted by the values. Read as constant within their bins,
spectra have the same distance or a smaller one, by less than half a step: it differs in bins in which A and B cross.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mattergen_e.errors import UserError
from mattergen_e.spectra.grid import EnergyGrid

Values = NDArray[np.float64]

#: Quantiles of every summary.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Errors:
    """Errors of spectra, one number each (n,): NaN where one is not defined.

    Attributes:
        wasserstein: eV.
        mae: states/eV.
        cosine: Cosine of the angle between the two, 1 where they are proportional.
    """

    wasserstein: Values
    mae: Values
    cosine: Values

    @property
    def units(self) -> dict[str, str]:
        """Unit by name of the error."""
        return {"wasserstein": "eV", "mae": "states/eV", "cosine": ""}


@dataclass(frozen=True)
class Summary:
    """Distribution of one error over sites.

    Attributes:
        sites: Number of sites with the error.
        undefined: Number of sites without, which the rest leaves out.
        mean: Mean, None without sites.
        median: Median, None without sites.
        quantiles: Quantile by its name, e.g. "0.95"; empty without sites.
    """

    sites: int
    undefined: int
    mean: float | None
    median: float | None
    quantiles: dict[str, float]


def wasserstein(spectra: ArrayLike, reference: ArrayLike, grid: EnergyGrid) -> Values:
    """Wasserstein-1 distance of spectra normalised to unit area (definition above).

    Args:
        spectra: (..., points) states/eV; negative values count as zero.
        reference: (..., points) states/eV, likewise; both are broadcast.
        grid: Grid of both.

    Returns:
        (...) eV. NaN where one of the two has no states in the window, since it has no unit-area form, or has a NaN.

    Raises:
        UserError: When the number of points is not that of the grid.
    """
    shares = []
    for values in (_points(spectra, grid), _points(reference, grid)):
        positive = np.maximum(values, 0.0)
        area = positive.sum(axis=-1, keepdims=True)
        area = np.where(area > 0, area, np.nan)
        shares.append(np.cumsum(positive, axis=-1) / area)
    return np.abs(shares[0] - shares[1]).sum(axis=-1) * grid.step


def mean_absolute_error(spectra: ArrayLike, reference: ArrayLike, mask: ArrayLike | None = None) -> Values:
    """Mean absolute difference over the points of each pair (..., points): DOSMatGen's MAE (table 1).

    Args:
        spectra: (..., points); negative values are kept.
        reference: (..., points); both are broadcast.
        mask: (points,) or (..., points), the points that count.

    Returns:
        (...) in the spectra's unit.

    Raises:
        UserError: If the shapes do not fit, or the mask leaves nothing of a spectrum.
    """
    a, b, weights = masked(spectra, reference, mask)
    return (np.abs(a - b) * weights).sum(axis=-1) / weights.sum(axis=-1)


def cosine(spectra: ArrayLike, reference: ArrayLike, mask: ArrayLike | None = None) -> Values:
    """Cosine of the angle between the spectra of each pair as vectors, (...); NaN where one is zero everywhere.

    Arguments as in `mean_absolute_error`.
    """
    a, b, _ = masked(spectra, reference, mask)
    size = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(axis=-1) / np.where(size > 0, size, np.nan)


def masked(curves: ArrayLike, reference: ArrayLike, mask: ArrayLike | None) -> tuple[Values, Values, NDArray[np.bool_]]:
    """Both curves and the mask, broadcast; what the mask leaves out may be NaN and becomes zero."""
    a, b = np.asarray(curves, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    given = np.ones(1, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    try:
        a, b, weights = np.broadcast_arrays(a, b, given)
    except ValueError:
        raise UserError(
            f"curves {a.shape}, reference {b.shape} and mask {given.shape} do not fit: give one number per point"
        ) from None
    if not weights.any(axis=-1).all():
        raise UserError("the mask leaves nothing of a curve: keep at least one point of each")
    return np.where(weights, a, 0.0), np.where(weights, b, 0.0), weights


def compare(spectra: ArrayLike, reference: ArrayLike, grid: EnergyGrid) -> Errors:
    """All errors of spectra (n, points) against a reference (n, points), states/eV."""
    return Errors(
        wasserstein(spectra, reference, grid),
        mean_absolute_error(spectra, reference),
        cosine(spectra, reference),
    )


def summarise(values: ArrayLike, quantiles: Iterable[float] = QUANTILES) -> Summary:
    """Mean, median and quantiles (linear interpolation) of one error; NaN are left out and counted.

    Args:
        values: (n,).
        quantiles: Between 0 and 1.

    Returns:
        The summary.
    """
    values = np.asarray(values, dtype=np.float64)
    known = values[~np.isnan(values)]
    missing = len(values) - len(known)
    if len(known) == 0:
        return Summary(0, missing, None, None, {})
    found = {f"{q:g}": float(np.quantile(known, q)) for q in quantiles}
    return Summary(len(known), missing, float(known.mean()), float(np.median(known)), found)


def summarise_by_element(
    values: ArrayLike, atomic_numbers: ArrayLike, quantiles: Iterable[float] = QUANTILES
) -> dict[str, Summary]:
    """One summary per element, by its symbol, the element with most sites first.

    Args:
        values: (n,) errors of the sites.
        atomic_numbers: (n,) of the same sites.
        quantiles: Between 0 and 1.

    Returns:
        Summaries by symbol.
    """
    from ase.data import chemical_symbols

    values, chosen = np.asarray(values, dtype=np.float64), tuple(quantiles)
    elements, rows, counts = np.unique(np.asarray(atomic_numbers), return_inverse=True, return_counts=True)
    return {
        chemical_symbols[int(elements[i])]: summarise(values[rows == i], chosen)
        for i in np.argsort(-counts, kind="stable")
    }


@dataclass(frozen=True)
class SiteErrors:
    """Errors of the spectra of sites by one method.

    Attributes:
        errors: Summary by the name of the error: wasserstein (eV), mae (states/eV), cosine.
        by_element: Summaries of the Wasserstein distance by symbol, the most frequent element first.
    """

    errors: dict[str, Summary]
    by_element: dict[str, Summary]

    @classmethod
    def of(cls, errors: Errors, atomic_numbers: ArrayLike) -> SiteErrors:
        """Summaries of the errors of sites (n,) with the atomic numbers (n,)."""
        found = {name: summarise(getattr(errors, name)) for name in errors.units}
        return cls(found, summarise_by_element(errors.wasserstein, atomic_numbers))


def at_quantiles(values: ArrayLike, quantiles: Sequence[float] = QUANTILES) -> NDArray[np.int64]:
    """Index of the value that is nearest to each quantile's rank, to show examples of every quality.

    Args:
        values: (n,) errors; NaN are never chosen.
        quantiles: Between 0 and 1.

    Returns:
        (quantiles,) indices.

    Raises:
        UserError: When no value is known.
    """
    values = np.asarray(values, dtype=np.float64)
    order = np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]
    if len(order) == 0:
        raise UserError("there is no site with a known error to show: give a split with spectra")
    return order[np.rint(np.asarray(quantiles) * (len(order) - 1)).astype(np.int64)]


def _points(spectra: ArrayLike, grid: EnergyGrid) -> Values:
    values = np.asarray(spectra, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] != grid.points:
        raise UserError(
            f"the spectra have the shape {values.shape}, but their grid has {grid}: give the grid they are on"
        )
    return values
