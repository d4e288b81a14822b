"""How good the predictions are, beside what the elements alone tell and what chance pairing gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.element_means import element_means
from mattergen_e.errors import UserError
from mattergen_e.networks.predictor.data import Crystals, read_split
from mattergen_e.networks.predictor.model import Predictor
from mattergen_e.spectra.comparison import Metric, compare_with_chance, derangement
from mattergen_e.spectra.metrics import SiteErrors, compare

Curves = NDArray[Any]

#: Names of what is compared.
PREDICTOR, ELEMENT_MEAN, RANDOM = "predictor", "element mean", "random pairing"
#: Weight of the ridge that keeps elements of few crystals in bounds, in crystals; chosen.
RIDGE = 0.1


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        split: Name of the split.
        crystals: Crystals with a known spectrum.
        n_sites: Sites with a known spectrum.
        fingerprint: Of the predictor.
        sites: By method.
        total: By method and metric, each beside its random pairing.
    """

    split: str
    crystals: int
    n_sites: int
    fingerprint: str
    sites: dict[str, SiteErrors]
    total: dict[str, dict[str, Metric]]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def evaluate(
    predictor: Predictor,
    cache: str | Path,
    split: str = "test",
    baseline_split: str = "train",
    *,
    batch_size: int = 64,
    seed: int = 0,
) -> Evaluation:
    """Measure the predictions for a split.

    Args:
        predictor: The predictor.
        cache: The cache.
        split: Its split to measure on.
        baseline_split: Its split that the means of the elements are taken from.
        batch_size: Crystals per network call.
        seed: Of random pairings and bootstrap.

    Returns:
        Errors of the sites' spectra and metrics of the crystals', each beside the baselines.

    Raises:
        UserError: If the cache's spectra were made in another way than the predictor's, or are missing.
    """
    predictor.require_cache(cache)
    found, fitted = (read_split(Path(cache) / name, predictor.processing) for name in (split, baseline_split))
    predicted = predictor.predict(found.structures, batch_size)
    rows, crystals = (np.isfinite(values).all(axis=1) for values in (found.sites, found.total))
    if not rows.any() or not crystals.any():
        raise UserError(f"{cache} has no known spectra in {split}: choose another split")
    numbers, sites, total = found.atomic_numbers, np.array(found.sites[rows]), np.array(found.total[crystals])
    guessed = _site_means(fitted, numbers)[rows]
    other = derangement(len(sites), np.random.default_rng(seed)) if len(sites) > 1 else np.zeros(1, int)
    by_method = {PREDICTOR: predicted.sites[rows], ELEMENT_MEAN: guessed, RANDOM: predicted.sites[rows][other]}
    grids = predictor.grids
    sums = element_sums(found, fitted)[crystals]
    return Evaluation(
        split=split,
        crystals=int(crystals.sum()),
        n_sites=int(rows.sum()),
        fingerprint=predictor.fingerprint,
        sites={
            name: SiteErrors.of(compare(values, sites, grids.sites), numbers[rows])
            for name, values in by_method.items()
        },
        total={
            name: compare_with_chance(values, total, grids.total, seed=seed)
            for name, values in ((PREDICTOR, predicted.total[crystals]), (ELEMENT_MEAN, sums))
        },
    )


def element_sums(crystals: Crystals, fitted: Crystals) -> Curves:
    """Spectra per atom that the composition alone tells: a share of each element's own spectrum.

    The spectra of the elements are those with which the sums come closest to the spectra of `fitted` (least squares
    with a small ridge towards their mean); no projection is needed.

    Args:
        crystals: What the spectra are wanted of.
        fitted: Crystals with known spectra.

    Returns:
        (n_crystals, points) states/eV per atom, not negative.
    """
    known = np.isfinite(fitted.total).all(axis=1)
    shares, total = _shares(fitted)[known], np.asarray(fitted.total[known], dtype=np.float64)
    mean = total.mean(axis=0)
    matrix = shares.T @ shares + RIDGE * np.eye(shares.shape[1])
    elements = np.linalg.solve(matrix, shares.T @ (total - mean))
    return np.maximum(_shares(crystals) @ elements + mean, 0.0)


def _shares(crystals: Crystals) -> Curves:
    """(n_crystals, elements) share of each element."""
    counts = np.diff(crystals.bounds)
    shares = np.zeros((len(crystals), 120))
    np.add.at(shares, (np.repeat(np.arange(len(crystals)), counts), crystals.atomic_numbers), 1.0)
    return shares / counts[:, None]


def _site_means(fitted: Crystals, numbers: NDArray[np.int64]) -> Curves:
    means = element_means(fitted.atomic_numbers, np.asarray(fitted.sites))
    return np.stack([means.get(int(z), means[0]) for z in numbers])
