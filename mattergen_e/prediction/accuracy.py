"""How well a joint model predicts the descriptors of crystals it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Element

from mattergen_e.data.cache import load_array, load_manifest, open_sites
from mattergen_e.diffusion.prediction import predict_descriptors
from mattergen_e.errors import UserError


@dataclass(frozen=True)
class ElementAccuracy:
    """Mean absolute errors over the sites of one element; `baseline` is that of the element's mean value."""

    element: str
    sites: int
    mae: float
    baseline: float


@dataclass(frozen=True)
class Accuracy:
    """Errors of one descriptor on one split, in the descriptor's unit.

    Attributes:
        descriptor: Name of the descriptor.
        unit: Unit of the errors.
        split: Split of the cache.
        crystals: Number of crystals.
        sites: Number of sites.
        mae: Mean absolute error of the model over sites and components.
        rmse: Root mean square error of the model.
        baseline: Mean absolute error of the mean value of the site's element in the training split.
        spread: Mean standard deviation over the samples: what the model itself says of its error.
        by_element: The same by element, most frequent first.
        settings: Samples, steps and seed.
    """

    descriptor: str
    unit: str
    split: str
    crystals: int
    sites: int
    mae: float
    rmse: float
    baseline: float
    spread: float
    by_element: list[ElementAccuracy]
    settings: dict[str, Any] = field(default_factory=dict)


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


def measure(
    model: Any,
    cache: str | Path,
    *,
    split: str = "test",
    samples: int = 8,
    steps: int = 20,
    batch_size: int = 64,
    limit: int | None = None,
    seed: int = 0,
) -> list[Accuracy]:
    """Compares predictions with the labels of a cache, beside the element-mean baseline of its training split.

    Args:
        model: A joint model.
        cache: Folder that `mattergen-e data build` wrote.
        split: 'test', 'val' or 'train'.
        samples: Samples per crystal.
        steps: Reverse steps per sample.
        batch_size: Crystals per network call.
        limit: Use the first so many crystals only.
        seed: Seed of the samples.

    Returns:
        One entry per descriptor of the model that has labels in the cache.

    Raises:
        UserError: If the cache or the split is missing, or has no labels of the model's descriptors.
    """
    import torch
    from mattergen.common.data.collate import collate
    from mattergen.common.data.transform import symmetrize_lattice

    from mattergen_e.data.dataset import JointCrystalDataset

    root = Path(cache)
    load_manifest(root)
    descriptors = {n: d for n, d in getattr(model, "descriptors", {}).items() if d.from_cache}
    if not descriptors:
        raise UserError("this model has no descriptor that could be compared with labels.")
    dataset = JointCrystalDataset.from_cache_path(
        str(root / split), descriptors=list(descriptors), transforms=[symmetrize_lattice]
    )
    count = len(dataset) if limit is None else min(limit, len(dataset))
    torch.manual_seed(seed)
    parts: dict[str, list[tuple[np.ndarray, ...]]] = {name: [] for name in descriptors}
    for start in range(0, count, batch_size):
        batch = collate([dataset[i] for i in range(start, min(start + batch_size, count))])
        predicted = predict_descriptors(model, batch, samples=samples, steps=steps)
        numbers = batch["atomic_numbers"].numpy()
        for name in descriptors:
            p = predicted[name]
            parts[name].append((numbers, batch[name].numpy(), p.mean.cpu().numpy(), p.std.cpu().numpy()))
    settings = {"samples": samples, "steps": steps, "seed": seed}
    return [
        _accuracy(root, split, count, descriptor, [np.concatenate(x) for x in zip(*parts[name], strict=True)], settings)
        for name, descriptor in descriptors.items()
    ]


def _accuracy(
    root: Path, split: str, crystals: int, descriptor: Any, arrays: list[np.ndarray], settings: Mapping[str, Any]
) -> Accuracy:
    numbers, truth, mean, std = arrays
    train = root / "train"
    means = element_means(np.asarray(load_array(train / "atomic_numbers.npy")), open_sites(train, descriptor.name))
    known = np.isfinite(truth).all(axis=1)
    if not known.any():
        raise UserError(f"{root / split} has no labels of {descriptor.name}.")
    numbers, truth, mean, std = numbers[known], truth[known], mean[known], std[known]
    guess = np.stack([means.get(int(z), means[0]) for z in numbers])
    error, baseline = np.abs(mean - truth).mean(axis=1), np.abs(guess - truth).mean(axis=1)
    kinds, counts = np.unique(numbers, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return Accuracy(
        descriptor=descriptor.name,
        unit=descriptor.unit,
        split=split,
        crystals=crystals,
        sites=len(numbers),
        mae=float(error.mean()),
        rmse=float(np.sqrt(((mean - truth) ** 2).mean())),
        baseline=float(baseline.mean()),
        spread=float(std.mean()),
        by_element=[
            ElementAccuracy(
                Element.from_Z(int(kinds[k])).symbol,
                int(counts[k]),
                float(error[numbers == kinds[k]].mean()),
                float(baseline[numbers == kinds[k]].mean()),
            )
            for k in order
        ],
        settings=dict(settings),
    )
