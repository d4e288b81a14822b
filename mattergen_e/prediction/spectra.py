"""How far predicted spectra are from their labels, beside two bounds: element means and the autoencoder alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.spectra.metrics import Summary, summarise, summarise_by_element, wasserstein


@dataclass(frozen=True)
class Distances:
    """Wasserstein distances to the labels in eV (see `dos.metrics`).

    Attributes:
        model: Of the predicted mean spectrum.
        element_mean: Of the mean spectrum of the site's element in the training split.
        autoencoder: Of the label's own reconstruction, which no prediction of latents should be expected to beat.
    """

    model: Summary
    element_mean: Summary
    autoencoder: Summary


@dataclass(frozen=True)
class SpectralAccuracy:
    """Distances over all sites, and by the symbol of the element, the most frequent first."""

    all: Distances
    by_element: dict[str, Distances]


def spectral_accuracy(
    numbers: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    element_mean: np.ndarray,
    grid: EnergyGrid,
    left: np.ndarray,
) -> SpectralAccuracy:
    """Compares spectra with labels.

    Args:
        numbers: Atomic numbers, shape (n_sites,).
        truth: Labels, (n_sites, points) states/eV.
        prediction: Predicted spectra, likewise.
        element_mean: Mean spectra of the sites' elements, likewise.
        grid: Energies of all of them.
        left: What the autoencoder leaves of the labels.
    """
    kinds = [wasserstein(spectra, truth, grid) for spectra in (prediction, element_mean, left)]
    by_element = [summarise_by_element(values, numbers) for values in kinds]
    return SpectralAccuracy(
        all=Distances(*map(summarise, kinds)),
        by_element={symbol: Distances(*(found[symbol] for found in by_element)) for symbol in by_element[0]},
    )
