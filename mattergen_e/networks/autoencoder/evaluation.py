"""How good the reconstructions of an autoencoder are, beside principal components of the same number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.data.cache import load_array, load_manifest
from mattergen_e.errors import UserError
from mattergen_e.networks.autoencoder.data import SiteSpectra, read_split
from mattergen_e.networks.autoencoder.model import Autoencoder
from mattergen_e.spectra.metrics import QUANTILES, Summary, at_quantiles, compare, summarise, summarise_by_element

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mattergen_e.spectra.metrics import Errors

Spectra = NDArray[np.float64]
Function = Callable[[Spectra], Spectra]

#: What the spectra are before principal components are taken, and the way back.
TRANSFORMS: dict[str, tuple[Function, Function]] = {
    "log1p": (np.log1p, np.expm1),
    "plain": (lambda x: x, lambda x: x),
    "sqrt": (np.sqrt, lambda x: np.square(np.maximum(x, 0.0))),
}
#: Endings of figures.
FIGURES = (".png", ".svg", ".pdf")
#: Spectra that principal components are accumulated over at a time.
CHUNK = 16384


@dataclass(frozen=True)
class MethodResult:
    """Errors of one way to compress spectra.

    Attributes:
        name: "autoencoder", or e.g. "pca30_log1p".
        errors: Summary by the name of the error: wasserstein (eV), mae (states/eV), cosine.
        by_element: Summaries of the Wasserstein distance by symbol, the most frequent element first.
    """

    name: str
    errors: dict[str, Summary]
    by_element: dict[str, Summary]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        split: Name of the split.
        crystals: Crystals of the split.
        sites: Sites with a known spectrum.
        fingerprint: Of the autoencoder.
        methods: The autoencoder, then the baselines.
        latents: Of the split: "rms" over all, "smallest_deviation" and "largest_deviation", the standard deviations of
            the latents that vary least and most from site to site, and "largest", the largest absolute value.
        reconstructions: (quantiles, 2, points): a spectrum and its reconstruction at each quantile of the error.
        examples: For each of these, quantile, site, element, crystal and error.
    """

    split: str
    crystals: int
    sites: int
    fingerprint: str
    methods: list[MethodResult]
    latents: dict[str, float]
    reconstructions: Spectra = field(repr=False)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """All but the spectra, as plain values."""
        return {k: v for k, v in asdict(self).items() if k != "reconstructions"}


def evaluate(
    autoencoder: Autoencoder, cache: str | Path, split: str = "test", baseline_split: str = "train"
) -> Evaluation:
    """Measure the reconstructions of the spectra of a split, beside principal components.

    Args:
        autoencoder: The autoencoder.
        cache: The cache.
        split: Its split to measure on.
        baseline_split: Its split that principal components are fitted on, as many as there are latents.

    Returns:
        Errors over all sites and by element, and examples.

    Raises:
        UserError: If the cache's spectra were made in another way, are missing or cannot be encoded.
    """
    cache = Path(cache)
    autoencoder.require_cache(load_manifest(cache))
    found, fitted = read_split(cache / split), read_split(cache / baseline_split)
    spectra, numbers, grid = found.known, found.known_numbers, autoencoder.grid
    latents = autoencoder.encode(spectra)
    rebuilt = autoencoder.decode(latents)
    errors = compare(rebuilt, spectra, grid)
    methods = [_result("autoencoder", errors, numbers)]
    for name, (there, back) in TRANSFORMS.items():
        mean, components = principal_components(fitted, autoencoder.latents, there)
        values = back((there(spectra.astype(np.float64)) - mean) @ components.T @ components + mean)
        values = np.maximum(values, 0.0)
        methods.append(_result(f"pca{autoencoder.latents}_{name}", compare(values, spectra, grid), numbers))
    chosen = at_quantiles(errors.wasserstein)
    return Evaluation(
        split=split,
        crystals=len(load_array(cache / split / "num_atoms.npy")),
        sites=len(spectra),
        fingerprint=autoencoder.fingerprint,
        methods=methods,
        latents=_statistics(latents),
        reconstructions=np.stack([spectra[chosen], rebuilt[chosen]], axis=1).astype(np.float64),
        examples=_examples(cache / split, found, chosen, errors),
    )


def principal_components(split: SiteSpectra, count: int, transform: Function) -> tuple[Spectra, Spectra]:
    """Mean and leading principal components of spectra, from the exact covariance.

    Args:
        split: Spectra to fit.
        count: Number of components.
        transform: What is done to the spectra (n, points) first.

    Returns:
        (points,) mean, and (count, points) orthonormal components, the largest variance first; fewer than `count` only
        where there are fewer points.
    """
    points = split.values.shape[1]
    total, squares = np.zeros(points), np.zeros((points, points))
    for start in range(0, len(split.rows), CHUNK):
        values = transform(np.asarray(split.values[split.rows[start : start + CHUNK]], dtype=np.float64))
        total += values.sum(axis=0)
        squares += values.T @ values
    mean = total / len(split.rows)
    _, vectors = np.linalg.eigh(squares / len(split.rows) - np.outer(mean, mean))
    return mean, vectors[:, ::-1][:, :count].T


def draw(evaluation: Evaluation, autoencoder: Autoencoder) -> Figure:
    """A panel for each quantile of the error: a spectrum and its reconstruction."""
    from matplotlib.figure import Figure

    energies, pairs = autoencoder.grid.energies, evaluation.reconstructions
    figure = Figure(figsize=(7, 1.7 * len(pairs)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(pairs), sharex=True))
    for axes, pair, example in zip(panels, pairs, evaluation.examples, strict=True):
        axes.fill_between(energies, pair[0], color="0.8", label="spectrum")
        axes.plot(energies, pair[1], color="C0", linewidth=1.0, label="reconstruction")
        axes.axvline(0.0, color="0.5", linewidth=0.7, linestyle=":")
        axes.set_ylim(0, None)
        axes.set_title(
            f"quantile {example['quantile']:g}: {example['element']} in {example['crystal']}, "
            f"Wasserstein {example['wasserstein']:.3f} eV",
            fontsize="small",
        )
    panels[0].legend(fontsize="small", frameon=False)
    panels[0].set_xlim(autoencoder.grid.minimum, autoencoder.grid.maximum)
    panels[len(panels) // 2].set_ylabel("density of states (states/eV)")
    panels[-1].set_xlabel("energy relative to the Fermi energy (eV)")
    return figure


def check_figure(path: Path) -> None:
    """Check the ending of a figure before the work begins.

    Raises:
        UserError: If it is none of png, svg and pdf.
    """
    if path.suffix.lower() not in FIGURES:
        raise UserError(f"{path} cannot be drawn: give a name that ends in {', '.join(FIGURES)}")


def _result(name: str, errors: Errors, numbers: NDArray[np.int64]) -> MethodResult:
    return MethodResult(
        name,
        {kind: summarise(getattr(errors, kind)) for kind in errors.units},
        summarise_by_element(errors.wasserstein, numbers),
    )


def _statistics(latents: NDArray[np.float32]) -> dict[str, float]:
    values = latents.astype(np.float64)
    deviations = values.std(axis=0)
    return {
        "rms": float(np.sqrt(np.mean(values**2))),
        "smallest_deviation": float(deviations.min()),
        "largest_deviation": float(deviations.max()),
        "largest": float(np.abs(values).max()),
    }


def _examples(folder: Path, split: SiteSpectra, chosen: NDArray[np.int64], errors: Errors) -> list[dict[str, Any]]:
    from ase.data import chemical_symbols

    ends = np.cumsum(load_array(folder / "num_atoms.npy"))
    ids = load_array(folder / "structure_id.npy")
    return [
        {
            "quantile": quantile,
            "site": int(site),
            "element": chemical_symbols[int(split.atomic_numbers[site])],
            "crystal": str(ids[np.searchsorted(ends, site, side="right")]),
            "wasserstein": float(errors.wasserstein[index]),
        }
        for quantile, index, site in zip(QUANTILES, chosen, split.rows[chosen], strict=True)
    ]
