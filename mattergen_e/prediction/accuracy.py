"""How well a joint model predicts the descriptors of crystals it was not trained on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Element

from mattergen_e.crystals.element_means import element_means
from mattergen_e.crystals.entries import read_entries
from mattergen_e.crystals.reading import NamedStructure
from mattergen_e.data.cache import load_array, load_manifest, open_sites
from mattergen_e.data.dataset import JointCrystalDataset
from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.prediction import SAMPLES, STEPS, predict_descriptors
from mattergen_e.errors import UserError
from mattergen_e.prediction.run import predict
from mattergen_e.prediction.spectra import SpectralAccuracy, spectral_accuracy

#: File in a model's folder with the element means of its training data.
ELEMENT_MEANS = "element_means.json"


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
        spectra: Wasserstein distances, where the descriptor stands for spectra.
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
    spectra: SpectralAccuracy | None = None


def measure(
    model: Any,
    cache: str | Path,
    *,
    split: str = "test",
    samples: int = SAMPLES,
    steps: int = STEPS,
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
        UserError: If the cache or the split is missing, has no labels of the model's descriptors, or has spectra that
            were made in another way than those of the model.
    """
    import torch
    from mattergen.common.data.collate import collate
    from mattergen.common.data.transform import symmetrize_lattice

    root = Path(cache)
    load_manifest(root)
    descriptors = {n: d for n, d in getattr(model, "descriptors", {}).items() if d.from_cache}
    if not descriptors:
        raise UserError("this model has no descriptor that could be compared with labels.")
    for descriptor in descriptors.values():
        descriptor.check_cache(root)
    dataset = JointCrystalDataset.from_cache_path(
        str(root / split), descriptors=list(descriptors), transforms=[symmetrize_lattice]
    )
    count = len(dataset) if limit is None else min(limit, len(dataset))
    torch.manual_seed(seed)
    parts: dict[str, list[tuple[np.ndarray, ...]]] = {name: [] for name in descriptors}
    for start in range(0, count, batch_size):
        batch = collate([dataset[i] for i in range(start, min(start + batch_size, count))])
        predicted = predict_descriptors(model, batch, samples=samples, steps=steps)
        for name, descriptor in descriptors.items():
            p, truth = predicted[name], batch[name].numpy()
            numbers = batch["atomic_numbers"].numpy() if descriptor.place == "site" else np.zeros(len(truth), dtype=int)
            parts[name].append((numbers, truth, p.mean.cpu().numpy(), p.std.cpu().numpy()))
    settings = {"samples": samples, "steps": steps, "seed": seed}
    return [
        _accuracy(
            split,
            count,
            descriptor,
            [np.concatenate(x) for x in zip(*parts[name], strict=True)],
            _baseline(root, descriptor),
            settings,
        )
        for name, descriptor in descriptors.items()
    ]


def _accuracy(
    split: str,
    crystals: int,
    descriptor: Any,
    arrays: list[np.ndarray],
    means: Mapping[int, np.ndarray],
    settings: Mapping[str, Any],
) -> Accuracy:
    numbers, truth, mean, std = arrays
    known = np.isfinite(truth).all(axis=1)
    if not known.any():
        raise UserError(f"the {split} crystals have no labels of {descriptor.name}.")
    numbers, truth, mean, std = numbers[known], truth[known], mean[known], std[known]
    guess = np.stack([means.get(int(z), means[0]) for z in numbers])
    spectra = None
    left = descriptor.reconstruct(truth)
    if left is not None and descriptor.grid is not None:
        spectra = spectral_accuracy(numbers, truth, mean, guess, descriptor.grid, left)
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
                Element.from_Z(int(kinds[k])).symbol if kinds[k] else "all",
                int(counts[k]),
                float(error[numbers == kinds[k]].mean()),
                float(baseline[numbers == kinds[k]].mean()),
            )
            for k in order
        ],
        settings=dict(settings),
        spectra=spectra,
    )


def train_means(cache: str | Path, name: str) -> dict[int, np.ndarray]:
    """Element means of a site value over a cache's training split."""
    train = Path(cache) / "train"
    return element_means(np.asarray(load_array(train / "atomic_numbers.npy")), open_sites(train, name))


def _baseline(cache: Path, descriptor: Descriptor) -> dict[int, np.ndarray]:
    """Element means of the labels of a descriptor of sites; of another, the mean over the training split."""
    if descriptor.place == "site":
        return train_means(cache, descriptor.name)
    values = descriptor.read_cache(cache / "train")
    return {0: values[np.isfinite(values).all(axis=1)].mean(axis=0)}


def save_means(path: str | Path, means: Mapping[str, Mapping[int, np.ndarray]]) -> None:
    """Writes element means by descriptor and element symbol as JSON; the mean over all sites goes by 'all'."""
    named = {
        name: {("all" if z == 0 else Element.from_Z(z).symbol): np.round(v, 5).tolist() for z, v in by_z.items()}
        for name, by_z in means.items()
    }
    Path(path).write_text(json.dumps(named, indent=1) + "\n")


def load_means(path: str | Path) -> dict[str, dict[int, np.ndarray]]:
    """Reads what `save_means` wrote.

    Raises:
        UserError: If the file is missing or of another form.
    """
    try:
        content = json.loads(Path(path).read_text())
        means = {
            name: {0 if s == "all" else Element(s).Z: np.asarray(v, float) for s, v in by_symbol.items()}
            for name, by_symbol in content.items()
        }
        if not all(0 in by_z for by_z in means.values()):
            raise ValueError("the mean over all sites, 'all', is missing")
        return means
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: compare on a cache, whose training split gives the means.") from None
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} does not hold element means: {error}") from error


def measure_labelled(
    model: Any,
    crystals: Sequence[LabelledStructure],
    means: Mapping[str, Mapping[int, np.ndarray]],
    *,
    samples: int = SAMPLES,
    steps: int = STEPS,
    batch_size: int = 64,
    seed: int = 0,
) -> list[Accuracy]:
    """Compares predictions with labelled structures outside a cache; spectra are left out, their making is not known.

    Args:
        model: A joint model.
        crystals: Structures with labels.
        means: Element means by descriptor, of the model's training data.
        samples: Samples per crystal.
        steps: Reverse steps per sample.
        batch_size: Crystals per network call.
        seed: Seed of the samples.

    Returns:
        One entry per descriptor of the model that has labels.

    Raises:
        UserError: If no crystal has a label of any of the model's descriptors.
    """
    named = [c.named for c in crystals]
    predictions = list(predict(model, named, samples=samples, steps=steps, batch_size=batch_size, seed=seed))
    settings = {"samples": samples, "steps": steps, "seed": seed}
    results = []
    for name, descriptor in getattr(model, "descriptors", {}).items():
        pairs = [(c, p) for c, p in zip(crystals, predictions, strict=True) if name in c.labels]
        if not pairs or name not in means or descriptor.grid is not None:
            continue
        for c, _ in pairs:
            dim = c.labels[name].shape[1]
            if dim != descriptor.dim:
                raise UserError(f"'{c.named.id}': {name} has {dim} numbers per site, the model's has {descriptor.dim}.")
        arrays = [
            np.concatenate([np.asarray(c.named.structure.atomic_numbers) for c, _ in pairs]),
            np.concatenate([c.labels[name] for c, _ in pairs]),
            np.concatenate([p.mean[name] for _, p in pairs]),
            np.concatenate([p.std[name] for _, p in pairs]),
        ]
        results.append(_accuracy("labelled", len(pairs), descriptor, arrays, means[name], settings))
    if not results:
        raise UserError("none of the crystals has a label of the model's descriptors.")
    return results


def measure_file(
    model: Any,
    path: str | Path,
    model_path: str | Path,
    *,
    samples: int = SAMPLES,
    steps: int = STEPS,
    batch_size: int = 64,
    limit: int | None = None,
    seed: int = 0,
) -> list[Accuracy]:
    """As `measure_labelled`, for a JSON lines file; the element means come from the model's folder.

    Raises:
        UserError: If the file or the means cannot be read.
    """
    means = load_means(Path(model_path) / ELEMENT_MEANS)
    names = [n for n, d in getattr(model, "descriptors", {}).items() if d.grid is None and d.place == "site"]
    crystals = read_labelled(path, names)[:limit]
    return measure_labelled(model, crystals, means, samples=samples, steps=steps, batch_size=batch_size, seed=seed)


@dataclass(frozen=True)
class LabelledStructure:
    """A structure with known site values by name, each of shape (n_sites, dim)."""

    named: NamedStructure
    labels: dict[str, np.ndarray]


def read_labelled(path: str | Path, names: Iterable[str]) -> list[LabelledStructure]:
    """Reads labelled structures from JSON lines: {"id", "structure", "<name>": [value per site]}.

    Raises:
        UserError: If the file cannot be read or a label does not fit its structure.
    """
    if Path(path).suffix.lower() not in (".jsonl", ".json"):
        raise UserError(f'{path} is not JSON lines: give {{"id", "structure", "<descriptor>": [...]}} per line.')
    found = []
    wanted = list(names)
    for one in read_entries(Path(path)):
        if one.structure is None:
            raise UserError(f"{path}, {one.place} {one.problem}.")
        item, entry, labels = NamedStructure(one.id, one.structure), one.fields, {}
        for name in wanted:
            if name not in entry:
                continue
            try:
                values = np.asarray(entry[name], dtype=float)
            except (TypeError, ValueError):
                raise UserError(f"{path}, '{item.id}': {name} is not a list of numbers, one per site.") from None
            if values.ndim == 0 or len(values) != len(item.structure):
                count = len(values) if values.ndim else 0
                raise UserError(f"{path}, '{item.id}': {name} has {count} values for {len(item.structure)} sites.")
            values = values.reshape(len(values), -1)
            labels[name] = values
        found.append(LabelledStructure(item, labels))
    if not found:
        raise UserError(f"{path} is empty.")
    return found
