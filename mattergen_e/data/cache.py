"""Layout of the cache on disk, its manifest, and reading both.

    <cache>/manifest.json
    <cache>/<split>/pos.npy             (sites, 3) float64, fractional
    <cache>/<split>/cell.npy            (crystals, 3, 3) float64, Å, rows are lattice vectors
    <cache>/<split>/atomic_numbers.npy  (sites,) int64
    <cache>/<split>/num_atoms.npy       (crystals,) int64
    <cache>/<split>/structure_id.npy    (crystals,) unicode
    <cache>/<split>/<property>.json     MatterGen's PropertyValues; of one's own properties also words and lists
    <cache>/<split>/sites/<name>.npy    (sites, dim) float32, NaN where a crystal has no values
    <cache>/<split>/crystals/<name>.npy (crystals, dim) float32, NaN where a crystal has none
    <cache>/<split>/grids/<name>.npy    (crystals, nx, ny, nz, dim) float32, NaN where a crystal has none

All but `sites/`, `crystals/`, `grids/` and the manifest is MatterGen's own layout.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from mattergen_e.crystals.own_properties import Kind
from mattergen_e.crystals.quantity import Place, Quantity
from mattergen_e.errors import UserError, first_problem
from mattergen_e.files import check_name
from mattergen_e.limits import read_npy

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
SITES_FOLDER = "sites"
CRYSTALS_FOLDER = "crystals"
GRIDS_FOLDER = "grids"
#: Folder of values by where their rows live.
VALUE_FOLDERS: dict[Place, str] = {"site": SITES_FOLDER, "crystal": CRYSTALS_FOLDER, "grid": GRIDS_FOLDER}
CORE_NAMES = ("pos", "cell", "atomic_numbers", "num_atoms", "structure_id")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SourceFile(_Model):
    """A file that entries were read from."""

    name: str
    sha256: str
    size: int = Field(ge=0)
    entries: int = Field(ge=0)


class SiteStatistics(_Model):
    """Values of one kind in one split; `rms` is in the unit of the value, None where nothing is known."""

    labelled_crystals: int = Field(ge=0)
    labelled_sites: int = Field(ge=0)
    coverage: float = Field(ge=0, le=1)
    rms: float | None


class SiteValue(_Model):
    """One kind of value of sites, of crystals, or of grids with `probes` points along a, b and c."""

    unit: str
    dim: int = Field(ge=1)
    column: str
    splits: dict[str, SiteStatistics]
    probes: tuple[int, int, int] | None = None


class PropertyInfo(_Model):
    """One property of crystals: how many values are known per split, and whether it was written.

    `kind` is that of a property that MatterGen has no name for, None of others; `categories` are its words, sorted, and
    `length` is that of its lists.
    """

    column: str
    known: dict[str, int]
    written: bool = True
    kind: Kind | None = None
    categories: list[str] | None = None
    length: int | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_none(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """MatterGen's properties stand in the manifest as they always did."""
        return {name: value for name, value in write(self).items() if value is not None}


class SplitInfo(_Model):
    """One split: counts, sha256 over the sorted ids, and sha256 of the bytes of every array."""

    crystals: int = Field(ge=1)
    sites: int = Field(ge=1)
    ids_sha256: str
    arrays_sha256: dict[str, str]


class DroppedEntry(_Model):
    """An entry that was not used, and why."""

    id: str | None
    origin: str
    reason: str
    sentence: str


def _simple(names: dict[str, Any]) -> dict[str, Any]:
    for name in names:
        check_name(name)
    return names


#: By the name of a folder or of a file in the cache.
type ByName[T] = Annotated[dict[str, T], AfterValidator(_simple)]


class Manifest(_Model):
    """What a cache holds and where it comes from.

    `processing` holds, by name of the value, the settings that its labels were made with: grid, smearing, tolerances.
    `functionals` counts the crystals by the functional of their labels; of older versions it is empty.
    """

    format_version: Literal[1] = FORMAT_VERSION
    mattergen_e_version: str
    packages: dict[str, str]
    created: datetime
    settings: dict[str, Any]
    sources: list[SourceFile]
    splits: ByName[SplitInfo]
    site_values: ByName[SiteValue]
    crystal_values: ByName[SiteValue] = Field(default_factory=dict)
    grid_values: ByName[SiteValue] = Field(default_factory=dict)
    processing: dict[str, Any] = Field(default_factory=dict)
    properties: ByName[PropertyInfo]
    functionals: dict[str, int] = Field(default_factory=dict)
    spin_polarised: int = Field(default=0, ge=0)
    warnings: list[str] = Field(default_factory=list)
    excluded: int = Field(default=0, ge=0)
    dropped_by_reason: dict[str, int]
    dropped: list[DroppedEntry]

    @property
    def crystals(self) -> int:
        """Number of crystals over all splits."""
        return sum(split.crystals for split in self.splits.values())

    @property
    def sites(self) -> int:
        """Number of sites over all splits."""
        return sum(split.sites for split in self.splits.values())


def load_manifest(path: str | Path) -> Manifest:
    """Read the manifest of a cache.

    Args:
        path: The cache, one of its splits, or the manifest itself.

    Returns:
        The validated manifest.

    Raises:
        UserError: If there is none, or it is not a manifest of a version that this package reads.
    """
    path = Path(path)
    if path.name != MANIFEST_NAME:
        inside, above = path / MANIFEST_NAME, path.parent / MANIFEST_NAME
        path = above if above.is_file() and not inside.is_file() else inside
    if not path.is_file():
        raise UserError(f"{path} does not exist: make the cache with 'mattergen-e data build'.")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{path} is not a manifest of format {FORMAT_VERSION}: {first_problem(error)}; build the cache anew."
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


def is_cache(folder: str | Path) -> bool:
    """Whether a folder was written by `mattergen-e data build`, whatever became of its arrays."""
    try:
        found = json.loads((Path(folder) / MANIFEST_NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"mattergen_e_version", "splits"} <= found.keys()


def open_sites(split_dir: str | Path, name: str) -> NDArray[np.float32]:
    """Map the values of one kind of a split into memory.

    Args:
        split_dir: `<cache>/<split>`.
        name: Name of the site value.

    Returns:
        Read-only float32 array (total_sites, dim), in the order of `pos.npy`; NaN where unknown.

    Raises:
        UserError: If the cache has no such values, or the file is damaged.
    """
    path = Path(split_dir) / SITES_FOLDER / f"{name}.npy"
    if not path.is_file():
        available = ", ".join(list_sites(split_dir)) or "none"
        raise UserError(f"{path} does not exist: the cache has no site value {name!r}; it has: {available}.")
    values = load_array(path)
    if values.ndim != 2 or values.dtype != np.float32:
        raise UserError(
            f"{path} holds {values.dtype} of shape {values.shape}, expected float32 (sites, dim); build the cache anew."
        )
    return values


def open_crystals(split_dir: str | Path, name: str) -> NDArray[np.float32]:
    """Map an array of the crystals of a split into memory.

    Args:
        split_dir: `<cache>/<split>`.
        name: Name of the value, e.g. total_dos.

    Returns:
        Read-only float32 array (crystals, dim); NaN where unknown.

    Raises:
        UserError: If the cache has no such values, or the file is damaged.
    """
    path = Path(split_dir) / CRYSTALS_FOLDER / f"{name}.npy"
    if not path.is_file():
        raise UserError(f"{path} does not exist: the cache has no {name!r}; build it from labels with a DOS.")
    return load_array(path)


def open_rows(split_dir: str | Path, quantity: Quantity) -> NDArray[np.float32]:
    """Map the values of a split into memory as rows, wherever they live.

    Args:
        split_dir: `<cache>/<split>`.
        quantity: Of the values.

    Returns:
        Read-only float32 array (rows, dim): one row per site, one per crystal, or those of each crystal's grid, c
        running fastest; NaN where unknown.

    Raises:
        UserError: If the cache has no such values, they have another shape, or the file is damaged.
    """
    name = quantity.name
    if quantity.place == "site":
        return open_sites(split_dir, name)
    part = VALUE_FOLDERS[quantity.place]
    path = Path(split_dir) / part / f"{name}.npy"
    if not path.is_file():
        available = ", ".join(sorted(file.stem for file in path.parent.glob("*.npy"))) or "none"
        raise UserError(f"{path} does not exist: of {part} the cache has no {name!r}; it has: {available}.")
    values = load_array(path)
    found = values.shape[1:]
    expected = (*(quantity.probes or found[:3]), found[-1] if found else 0) if quantity.place == "grid" else found[-1:]
    if values.dtype != np.float32 or not found or found != expected or quantity.dim not in (None, found[-1]):
        shape = (*(quantity.probes or ()), quantity.dim or "dim")
        raise UserError(
            f"{path} holds {values.dtype} of shape {values.shape}, expected float32 (crystals, "
            f"{', '.join(map(str, shape))}): build the cache anew."
        )
    return values.reshape(-1, found[-1])


def require_processing(manifest: Manifest, name: str, settings: BaseModel) -> None:
    """Check that values of a cache were made as they are used.

    Args:
        manifest: Of the cache.
        name: Name of the value, e.g. atomic_dos.
        settings: How they must have been made, e.g. an `AtomicDosSettings`.

    Raises:
        UserError: If the cache does not say how they were made, or says something else.
    """
    found, wanted = manifest.processing.get(name), settings.model_dump(mode="json")
    if found is None:
        raise UserError(f"The cache does not say how its {name!r} was made: build it from labels of 'data label'.")
    for key, value in wanted.items():
        if found.get(key) != value:
            raise UserError(
                f"The cache's {name!r} was made with {key} {found.get(key)}, but {value} is needed: label anew with "
                "the same settings."
            )


def list_sites(split_dir: str | Path) -> list[str]:
    """Names of the site values of a split, sorted."""
    return sorted(file.stem for file in (Path(split_dir) / SITES_FOLDER).glob("*.npy"))


def load_array(path: str | Path, mmap: bool = True) -> NDArray[Any]:
    """Load an array of a cache without ever unpickling, and compare it with the manifest, if that tells its hash.

    Raises:
        UserError: If the file is missing, is not a plain array, or is not the one that was built.
    """
    try:
        array = np.asarray(read_npy(path, mmap))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: build the cache with 'mattergen-e data build'.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a plain array ({error}): build the cache anew.") from error
    check_bytes(Path(path).with_suffix(""), array)
    return array


def check_bytes(path: Path, array: NDArray[Any]) -> None:
    """Compares what was read from a split with the manifest of the cache; each file once in a process.

    Args:
        path: `<cache>/<split>/<name in the manifest>`. A folder without a manifest, or one that does not tell the hash,
            is taken as it is.
        array: What was read.

    Raises:
        UserError: If it is not what was built.
    """
    for split in path.parents[:2]:
        manifest = split.parent / MANIFEST_NAME
        if not manifest.is_file():
            continue
        expected = _hashes(manifest, manifest.stat().st_mtime_ns).get(split.name, {}).get(str(path.relative_to(split)))
        file = path if path.suffix == ".json" else path.with_name(f"{path.name}.npy")
        if expected is not None and not _same(file, file.stat().st_mtime_ns, expected, array):
            raise UserError(
                f"{file} is not what {manifest} tells of: it was changed or damaged; copy the cache or build it anew."
            )
        return


@lru_cache(maxsize=8)
def _hashes(manifest: Path, changed: int) -> dict[str, dict[str, str]]:
    return {name: split.arrays_sha256 for name, split in load_manifest(manifest).splits.items()}


#: Files that were compared: path, time of the last change, hash.
_COMPARED: set[tuple[Path, int, str]] = set()


def _same(file: Path, changed: int, expected: str, array: NDArray[Any]) -> bool:
    key = (file.absolute(), changed, expected)
    if key not in _COMPARED and hash_array(array) == expected:
        _COMPARED.add(key)
    return key in _COMPARED


def hash_array(array: NDArray[Any]) -> str:
    """sha256 over the bytes of an array in C order."""
    return hashlib.sha256(memoryview(np.ascontiguousarray(array)).cast("B") if array.size else b"").hexdigest()


def hash_ids(ids: Iterable[str]) -> str:
    """sha256 over the sorted ids, one per line."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def write_split(
    folder: Path,
    core: dict[str, NDArray[Any]],
    sites: dict[str, NDArray[np.float32]],
    crystals: dict[str, NDArray[np.float32]],
    properties: dict[str, NDArray[Any]],
    grids: dict[str, NDArray[np.float32]] | None = None,
) -> SplitInfo:
    """Write one split.

    Args:
        folder: New folder.
        core: The five arrays of `CORE_NAMES`.
        sites: (sites, dim) float32 arrays by name.
        crystals: (crystals, dim) float32 arrays by name.
        properties: (crystals,) float or unicode arrays, or (crystals, length) float arrays, by name.
        grids: (crystals, nx, ny, nz, dim) float32 arrays by name.

    Returns:
        Counts and hashes.
    """
    (folder / SITES_FOLDER).mkdir(parents=True)
    hashes = {}
    for name in CORE_NAMES:
        np.save(folder / f"{name}.npy", core[name], allow_pickle=False)
        hashes[name] = hash_array(core[name])
    for part, arrays in ((SITES_FOLDER, sites), (CRYSTALS_FOLDER, crystals), (GRIDS_FOLDER, grids or {})):
        for name, array in arrays.items():
            (folder / part).mkdir(exist_ok=True)
            np.save(folder / part / f"{name}.npy", array, allow_pickle=False)
            hashes[f"{part}/{name}"] = hash_array(array)
    for name, array in properties.items():
        content = {"values": array.tolist(), "property_source_doc_id": name, "origins": None}  # MatterGen's layout
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        hashes[f"{name}.json"] = hash_array(array)
    return SplitInfo(
        crystals=len(core["num_atoms"]),
        sites=len(core["pos"]),
        ids_sha256=hash_ids(core["structure_id"].tolist()),
        arrays_sha256=hashes,
    )
