"""The baseline that knows the composition of a crystal and nothing of its structure."""

from __future__ import annotations

import numpy as np


def element_means(numbers: np.ndarray, values: np.ndarray) -> dict[int, np.ndarray]:
    """Mean value of each element: the baseline that knows the composition and nothing of the structure.

    Args:
        numbers: Atomic numbers, shape (n_sites,).
        values: Site values, shape (n_sites, dim); rows with NaN are left out.

    Returns:
        Atomic number to mean of shape (dim,); 0 holds the mean over all sites, for elements that were never seen.
    """
    known = np.isfinite(values).all(axis=1)
    means = {int(z): values[known & (numbers == z)].mean(axis=0) for z in np.unique(numbers[known])}
    means[0] = values[known].mean(axis=0)
    return means
