"""Crystals together with the values of their sites, as MatterGen's data loaders want them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from mattergen.common.data.chemgraph import ChemGraph
from mattergen.common.data.dataset import CrystalDataset, DatasetTransform, repeat_along_first_axis
from mattergen.common.data.transform import Transform
from mattergen.common.data.types import PropertyValues
from numpy.typing import NDArray

from mattergen_e.crystals.fields import TEXT_PROPERTIES
from mattergen_e.crystals.quantity import Place, Quantity
from mattergen_e.data.cache import CORE_NAMES, check_bytes, load_array, open_rows
from mattergen_e.data.conditions import CACHED, read_labels
from mattergen_e.errors import UserError
from mattergen_e.upstream import exit_on_user_error, register_property


@runtime_checkable
class ReadsCache(Protocol):
    """What knows how to read its training values from a split: a descriptor."""

    from_cache: bool

    def named(self, name: str) -> ReadsCache:
        """The same under another name."""
        ...

    def read_cache(self, split_dir: Path) -> NDArray[np.float32]:
        """Values (rows, dim) of a split."""
        ...


@dataclass(frozen=True, kw_only=True)
class JointCrystalDataset(CrystalDataset):
    """MatterGen's `CrystalDataset` whose items also carry values of the sites.

    For every requested name, an item has the field `<name>`, float32 (n_rows, dim), and `<name>_batch`, zeros
    (n_rows,), one row per site, one of the crystal, or those of a grid with c running fastest. Collating turns the
    zeros into the index of the crystal: `batch.get_batch_idx(name)` works as for positions.
    Conditions that are arrays, such as dos, come as (1, dim), which collating joins to (n_crystals, dim).

    Attributes:
        site_values: Arrays (total_sites, dim) by name, in the order of `pos`.
        crystal_values: Conditions: arrays (n_crystals, dim) by name.
        row_values: Fields of crystals and of grids: arrays (n_crystals, rows of each, dim) by name.
        categories: Words of the conditions that are categories, by name; their `properties` are the places of the
            words, (n_crystals,) float, NaN where unknown. An item has the word itself, "" where unknown.
    """

    site_values: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    crystal_values: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    row_values: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    categories: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, values in self.site_values.items():
            if len(values) != len(self.pos):
                raise UserError(
                    f"The site value {name!r} has {len(values)} rows for {len(self.pos)} sites: build the cache anew."
                )
        for name, values in (self.crystal_values | self.row_values).items():
            if len(values) != len(self.num_atoms):
                raise UserError(
                    f"The value {name!r} has {len(values)} rows for {len(self.num_atoms)} crystals: build the "
                    "cache anew."
                )

    @classmethod
    @exit_on_user_error
    def from_cache_path(
        cls,
        cache_path: str,
        transforms: list[Transform] | None = None,
        properties: list[str] | None = None,
        dataset_transforms: list[DatasetTransform] | None = None,
        descriptors: Sequence[str] | Mapping[str, Any] | None = None,
    ) -> JointCrystalDataset:
        """Open a split of a cache; its arrays stay on disk and are mapped into memory.

        Args:
            cache_path: `<cache>/<split>`.
            transforms: Applied to every item.
            properties: Conditions of the crystals to load: properties by name, and dos. Those that MatterGen has no
                name for are added to its list.
            dataset_transforms: Applied to the whole data set.
            descriptors: Names of the site values to load as they are, or descriptors by name, which read their training
                values (those that say that their values do not come from the cache are left out).

        Returns:
            The data set.

        Raises:
            UserError: If the split, a site value or a property is missing or damaged.
        """
        folder = Path(cache_path)
        if not folder.is_dir():
            raise UserError(f"{folder} is not a split of a cache: give <cache>/train, <cache>/val or <cache>/test.")
        core = {name: load_array(folder / f"{name}.npy") for name in CORE_NAMES}
        _check_core(folder, core)
        values = _values(folder, descriptors, len(core["num_atoms"]))
        numbers = [name for name in properties or () if name not in CACHED]
        loaded = {name: _load_property(folder, name, len(core["num_atoms"])) for name in numbers}
        words = {name: _words(values) for name, values in loaded.items() if _is_category(name, values)}
        lists = {name: values.astype(np.float32) for name, values in loaded.items() if values.ndim == 2}
        dataset: Any = cls(
            **core,
            properties={
                name: _places(values, words[name]) if name in words else values
                for name, values in loaded.items()
                if name not in lists
            },
            site_values=values["site"],
            row_values=values["crystal"] | values["grid"],
            crystal_values=lists | {name: read_labels(folder, name) for name in properties or () if name in CACHED},
            categories=words,
            transforms=list(transforms) if transforms is not None else None,
        )
        for transform in dataset_transforms or ():
            dataset = transform(dataset)
        return dataset

    @cached_property
    def _bounds(self) -> list[int]:
        return [0, *np.cumsum(self.num_atoms).tolist()]

    @cached_property
    def _counts(self) -> torch.Tensor:
        return torch.from_numpy(np.array(self.num_atoms, dtype=np.int64))

    def __getitem__(self, index: int) -> ChemGraph:
        """One crystal: a `ChemGraph` with fractional positions in [0, 1), the cell in Å, and the site values."""
        index = range(len(self))[index]
        start, stop = self._bounds[index], self._bounds[index + 1]
        num_atoms = self._counts[index].clone()
        fields: dict[str, Any] = self.get_properties_dict(index)
        for name, values in self.site_values.items():
            fields[name] = torch.from_numpy(np.array(values[start:stop]))
            fields[f"{name}_batch"] = torch.zeros(stop - start, dtype=torch.long)
        for name, values in self.row_values.items():
            fields[name] = torch.from_numpy(np.array(values[index]))
            fields[f"{name}_batch"] = torch.zeros(values.shape[1], dtype=torch.long)
        for name, values in self.crystal_values.items():
            fields[name] = torch.from_numpy(np.array(values[index : index + 1]))
        fields["atomic_numbers"] = torch.from_numpy(np.array(self.atomic_numbers[start:stop]))
        data = ChemGraph(
            pos=torch.from_numpy(self.pos[start:stop].astype(np.float32)) % 1.0,
            cell=torch.from_numpy(self.cell[index].astype(np.float32)).unsqueeze(0),
            num_atoms=num_atoms,
            num_nodes=num_atoms,
            **fields,
        )
        for transform in self.transforms or ():
            data = transform(data)
        return data

    def get_properties_dict(self, index: int) -> dict[str, Any]:
        """As MatterGen's, with the words of categories as they are; "" where a crystal has none."""
        found: dict[str, Any] = super().get_properties_dict(index)
        for name, words in self.categories.items():
            place = self.properties[name][index]
            found[name] = "" if np.isnan(place) else words[int(place)]
        return found

    def subset(self, indices: Sequence[int]) -> JointCrystalDataset:
        """The crystals at some indices, in that order, with all their values."""
        chosen = np.asarray(indices, dtype=np.int64)
        bounds = self._bounds
        parts = [np.arange(bounds[i], bounds[i + 1]) for i in (range(len(self))[j] for j in chosen.tolist())]
        rows = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        return type(self)(
            pos=self.pos[rows],
            cell=self.cell[chosen],
            atomic_numbers=self.atomic_numbers[rows],
            num_atoms=self.num_atoms[chosen],
            structure_id=self.structure_id[chosen],
            properties={name: values[chosen] for name, values in self.properties.items()},
            site_values={name: values[rows] for name, values in self.site_values.items()},
            crystal_values={name: values[chosen] for name, values in self.crystal_values.items()},
            row_values={name: values[chosen] for name, values in self.row_values.items()},
            categories=self.categories,
            transforms=self.transforms,
        )

    def repeat(self, repeats: int) -> JointCrystalDataset:
        """The whole data set several times over, with all its values."""

        def again(array: NDArray[Any]) -> NDArray[Any]:
            return repeat_along_first_axis(array, repeats)

        return type(self)(
            **{name: again(getattr(self, name)) for name in CORE_NAMES},
            properties={name: again(values) for name, values in self.properties.items()},
            site_values={name: again(values) for name, values in self.site_values.items()},
            crystal_values={name: again(values) for name, values in self.crystal_values.items()},
            row_values={name: again(values) for name, values in self.row_values.items()},
            categories=self.categories,
            transforms=self.transforms,
        )


def _values(
    folder: Path, descriptors: Sequence[str] | Mapping[str, Any] | None, n_crystals: int
) -> dict[Place, dict[str, NDArray[np.float32]]]:
    """Values by where they live and by name: (sites, dim), or (crystals, rows of each, dim)."""
    values: dict[Place, dict[str, NDArray[np.float32]]] = {"site": {}, "crystal": {}, "grid": {}}
    named = descriptors if isinstance(descriptors, Mapping) else dict.fromkeys(descriptors or ())
    for name, descriptor in named.items():
        place: Place = getattr(descriptor, "place", "site")
        if not getattr(descriptor, "from_cache", True):
            continue
        if isinstance(descriptor, ReadsCache):
            rows = descriptor.named(name).read_cache(folder)
        else:
            rows = open_rows(folder, Quantity(name=name, place=place))
        if place != "site":
            if len(rows) % n_crystals:
                raise UserError(f"{folder}: {name!r} has {len(rows)} rows for {n_crystals} crystals: build anew.")
            rows = rows.reshape(n_crystals, -1, rows.shape[-1])
        values[place][name] = rows
    return values


def _check_core(folder: Path, core: dict[str, NDArray[Any]]) -> None:
    n_sites, n_crystals = int(core["num_atoms"].sum()), len(core["num_atoms"])
    lengths = {"pos": n_sites, "atomic_numbers": n_sites, "cell": n_crystals, "structure_id": n_crystals}
    for name, length in lengths.items():
        if len(core[name]) != length:
            raise UserError(
                f"{folder / name}.npy has {len(core[name])} rows, expected {length} as num_atoms.npy tells: build the "
                "cache anew."
            )


def _load_property(folder: Path, name: str, n_crystals: int) -> NDArray[Any]:
    path = folder / f"{name}.json"
    if not path.is_file():
        available = ", ".join(sorted(file.stem for file in folder.glob("*.json"))) or "none"
        raise UserError(f"{path} does not exist: the cache has no property {name!r}; it has: {available}.")
    register_property(name)
    try:
        values = PropertyValues.from_json(str(path)).values
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise UserError(f"{path} is not a property of MatterGen ({error}): build the cache anew.") from error
    if len(values) != n_crystals:
        raise UserError(f"{path} has {len(values)} values for {n_crystals} crystals: build the cache anew.")
    check_bytes(path, values)
    return values


def _is_category(name: str, values: NDArray[Any]) -> bool:
    """Whether the values of a property are words that MatterGen knows nothing of."""
    return values.dtype.kind == "U" and name not in TEXT_PROPERTIES


def _words(values: NDArray[Any]) -> list[str]:
    """The words of a category, sorted."""
    return [str(word) for word in np.unique(values) if word != ""]


def _places(values: NDArray[Any], words: list[str]) -> NDArray[np.float64]:
    """Places of the values of a category among its words, NaN where unknown, which MatterGen's filter looks for."""
    return np.where(values == "", np.nan, np.searchsorted(words, values).astype(np.float64))
