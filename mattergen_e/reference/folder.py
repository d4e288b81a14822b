"""Layout of a reference set on disk, and reading it.

    <folder>/manifest.json         settings, sources, energy source, hashes (`ReferenceManifest`); written last
    <folder>/ids.npy               (n,) unicode, likewise formulas.npy, chemical_systems.npy and split.npy
    <folder>/num_atoms.npy         (n,) int64
    <folder>/cell.npy              (n, 3, 3) float64, Å, rows are lattice vectors
    <folder>/frac_coords.npy       (sites, 3) float64
    <folder>/atomic_numbers.npy    (sites,) int64
    <folder>/energies.npy          (n,) float64, eV/atom, NaN where unknown
    <folder>/magpie.npy            (n, 132) float32, NaN where there is none
    <folder>/amd.npy               (n, k) float32, Å
    <folder>/properties/<name>.npy (n,) float64, NaN where unknown

What follows from these and is kept so that matching need not make it (see `reduced`); references of earlier versions
have none of it:

    <folder>/reduced_cell.npy           (n, 3, 3) float64, Å, NaN where there is none
    <folder>/reduced_num_atoms.npy      (n,) int64, 0 where there is none
    <folder>/reduced_frac_coords.npy    (reduced sites, 3) float64
    <folder>/reduced_atomic_numbers.npy (reduced sites,) int64
    <folder>/formula_order.npy          (n,) int64, positions of the crystals in the order of their formulas

Arrays are mapped into memory, so that opening a million crystals costs nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mattergen_e.energies.hull import Hull
from mattergen_e.errors import UserError, first_problem
from mattergen_e.limits import read_npy
from mattergen_e.provenance import hash_file
from mattergen_e.reference.packed import is_packed, unpack

if TYPE_CHECKING:
    from pymatgen.core import Structure

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
PROPERTIES_FOLDER = "properties"
#: Arrays that follow from others: results do not depend on them, only how fast they come.
DERIVED = ("reduced_cell", "reduced_num_atoms", "reduced_frac_coords", "reduced_atomic_numbers", "formula_order")

#: Lattice vectors (3, 3) in Å, fractional positions (sites, 3), and atomic numbers (sites,).
Sites = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ArrayInfo(_Model):
    """An array of the folder."""

    shape: list[int]
    dtype: str
    size: int = Field(ge=0)
    sha256: str


class ReferenceManifest(_Model):
    """What a reference set holds and where it comes from.

    Attributes:
        structures: Number of crystals.
        settings: What it was built with; a rerun with others is refused.
        sources: Caches and files, with their hashes.
        energy_source: kind (calculator, file or none) and what it was.
        elements: Energies of elements in eV/atom that do not come from the crystals themselves, by symbol.
        elements_source: Where their crystals come from.
        missing_elements: Elements that occur in the crystals but have no energy of their own.
        without_energy: Crystals whose energy is unknown.
        dropped_by_reason: Entries of the sources that were not used.
        arrays: By path in the folder.
        provenance: Versions and hardware.
    """

    format_version: Literal[1] = FORMAT_VERSION
    created: datetime
    structures: int = Field(ge=1)
    settings: dict[str, Any]
    sources: list[dict[str, Any]]
    energy_source: dict[str, Any]
    elements: dict[str, float]
    elements_source: str | None
    missing_elements: list[str]
    without_energy: int = Field(ge=0)
    dropped_by_reason: dict[str, int]
    arrays: dict[str, ArrayInfo]
    provenance: dict[str, Any]

    @property
    def hash(self) -> str:
        """sha256 of all that results depend on: the arrays and the energies of elements."""
        derived = {f"{name}.npy" for name in DERIVED}
        parts = [f"{name} {info.sha256}" for name, info in sorted(self.arrays.items()) if name not in derived]
        parts += [f"{symbol} {energy!r}" for symbol, energy in sorted(self.elements.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def reducer(self) -> str | None:
        """Version of pymatgen that made the reduced cells; None if there are none."""
        return self.provenance.get("reduced_cells", {}).get("pymatgen")


class Reference:
    """A reference set on disk; it can be pickled, and workers then open it themselves.

    Attributes:
        path: The folder of its arrays.
        manifest: What it holds.
        name: Of the folder that was opened.
    """

    def __init__(self, path: Path, manifest: ReferenceManifest, name: str | None = None) -> None:
        """Use `Reference.open`."""
        self.path = path
        self.manifest = manifest
        self.name = name or path.resolve().name
        self._arrays: dict[str, NDArray[Any]] = {}
        self._offsets: dict[str, NDArray[np.int64]] = {}

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Opens a reference set and compares its arrays, byte by byte, with the manifest.

        Args:
            path: The folder.

        Raises:
            UserError: If it is missing, not finished, of another version, or a file is damaged.
        """
        path = Path(path)
        found = cls._known(unpack(path, *_packed(path)) if is_packed(path) else path, path.resolve().name)
        found.verify()
        return found

    @classmethod
    def _known(cls, path: Path, called: str | None = None) -> Self:
        """The reference without comparing bytes: for workers, whose parent has."""
        manifest = read_manifest(path)
        for name, info in manifest.arrays.items():
            file = path / name
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise UserError(
                    f"{path / MANIFEST_NAME} names {name!r}, which is outside of the folder: build it anew."
                )
            if not file.is_file() or file.stat().st_size != info.size:
                raise UserError(f"{file} is missing or not whole: build the reference anew with --overwrite.")
        return cls(path, manifest, called)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self)._known, (self.path, self.name))

    def __len__(self) -> int:
        return self.manifest.structures

    @property
    def hash(self) -> str:
        """sha256 of all that results depend on."""
        return self.manifest.hash

    @property
    def energy_source(self) -> dict[str, Any]:
        """Where the energies come from: kind (calculator, file or none), name, version, hash."""
        return self.manifest.energy_source

    @property
    def ids(self) -> NDArray[np.str_]:
        """(n,) names of the crystals."""
        return self.array("ids")

    @property
    def formulas(self) -> NDArray[np.str_]:
        """(n,) reduced formulas, as pymatgen writes them."""
        return self.array("formulas")

    @property
    def chemical_systems(self) -> NDArray[np.str_]:
        """(n,) sorted symbols joined by "-"."""
        return self.array("chemical_systems")

    @property
    def split(self) -> NDArray[np.str_]:
        """(n,) train, val, test, or empty where the source does not tell."""
        return self.array("split")

    @property
    def energies(self) -> NDArray[np.float64]:
        """(n,) eV/atom, NaN where unknown."""
        return self.array("energies")

    @property
    def magpie(self) -> NDArray[np.float32]:
        """(n, 132) fingerprints of the compositions, see `fingerprints`."""
        return self.array("magpie")

    @property
    def amd(self) -> NDArray[np.float32]:
        """(n, k) average minimum distances in Å, see `fingerprints`."""
        return self.array("amd")

    @property
    def properties(self) -> dict[str, NDArray[np.float64]]:
        """(n,) numbers of the crystals by name, NaN where unknown; select those of the training set by `split`."""
        folder = f"{PROPERTIES_FOLDER}/"
        names = (name.removesuffix(".npy") for name in self.manifest.arrays if name.startswith(folder))
        return {name.removeprefix(folder): self.array(name) for name in names}

    @property
    def offsets(self) -> NDArray[np.int64]:
        """(n + 1,) where the sites of each crystal begin in `atomic_numbers` and `frac_coords`."""
        return self._starts("num_atoms")

    @cached_property
    def has_reduced(self) -> bool:
        """Whether there are reduced cells, made by the pymatgen that is installed."""
        return self.manifest.reducer == reducer()

    def array(self, name: str) -> NDArray[Any]:
        """An array of the folder by name (`cell`, `atomic_numbers`, ...), mapped into memory, read-only.

        Raises:
            UserError: If the reference does not have it, or it is not what the manifest says.
        """
        if name not in self._arrays:
            info = self.manifest.arrays.get(f"{name}.npy")
            if info is None:
                raise UserError(f"{self.path} has no {name}: build the reference anew with --overwrite.")
            self._arrays[name] = _load(self.path / f"{name}.npy", info)
        return self._arrays[name]

    def structure(self, index: int) -> Structure:
        """A crystal, without oxidation states or properties.

        Args:
            index: Position, 0 to n - 1.
        """
        from pymatgen.core import Lattice, Structure

        cell, positions, numbers = self.sites(index)
        return Structure(Lattice(cell), numbers.tolist(), positions)

    def sites(self, index: int) -> Sites:
        """A crystal as arrays.

        Args:
            index: Position, 0 to n - 1.
        """
        return self._sites(index, "")

    def reduced(self, index: int) -> Sites | None:
        """The reduced cell that pymatgen's StructureMatcher makes of a crystal, if it is kept here.

        Args:
            index: Position, 0 to n - 1.
        """
        found = self._sites(index, "reduced_") if self.has_reduced else None
        return found if found is not None and len(found[2]) else None

    def members(self, formulas: Sequence[str]) -> dict[str, list[int]]:
        """Positions of the crystals of each reduced formula, those of formulas that occur."""
        known = self.formulas
        wanted = np.array([name for name in dict.fromkeys(formulas) if len(name) <= known.dtype.itemsize // 4])
        if "formula_order.npy" not in self.manifest.arrays or not len(wanted):
            chosen = np.flatnonzero(np.isin(known, wanted)) if len(wanted) else wanted
            found: dict[str, list[int]] = {}
            for index in chosen.tolist():
                found.setdefault(str(known[index]), []).append(index)
            return found
        wanted, order = wanted.astype(known.dtype), self.array("formula_order")
        starts, ends = (np.searchsorted(known, wanted, side=side, sorter=order) for side in ("left", "right"))
        spans = zip(wanted.tolist(), starts.tolist(), ends.tolist(), strict=True)
        return {name: order[start:end].tolist() for name, start, end in spans if start < end}

    def structures(self, indices: Iterable[int]) -> Iterator[Structure]:
        """Crystals of these positions, one after the other."""
        return map(self.structure, indices)

    def hull(self) -> Hull:
        """The convex hull of the crystals and the elements.

        Raises:
            UserError: If the reference was built without energies.
        """
        if self.energy_source["kind"] == "none":
            raise UserError(f"{self.path} has no energies: build the reference with --calculator or --energies.")
        return Hull(self.formulas, self.chemical_systems, self.energies, elements=self.manifest.elements)

    def check_calculator(self, calculator: str) -> None:
        """Energies by two calculators have no common hull.

        Raises:
            UserError: If the energies are by another calculator than those of the crystals would be.
        """
        source = self.energy_source
        if source["kind"] == "calculator" and source.get("name") != calculator:
            raise UserError(
                f"the energies of {self.path} are by {source.get('name')}, those of the crystals would be by "
                f"{calculator}: use --calculator {source.get('name')}, or another reference."
            )

    def _sites(self, index: int, prefix: str) -> Sites:
        starts = self._starts(f"{prefix}num_atoms")
        span = slice(starts[index], starts[index + 1])
        cell, positions, numbers = (self.array(prefix + name) for name in ("cell", "frac_coords", "atomic_numbers"))
        return cell[index], positions[span], numbers[span]

    def _starts(self, name: str) -> NDArray[np.int64]:
        if name not in self._offsets:
            self._offsets[name] = np.concatenate([[0], np.cumsum(self.array(name))])
        return self._offsets[name]

    def verify(self) -> None:
        """Compares the bytes of all arrays with the manifest.

        Raises:
            UserError: If a file was changed; names it.
        """
        for name, info in self.manifest.arrays.items():
            if hash_file(self.path / name) != info.sha256:
                raise UserError(f"{self.path / name} is not what was built: build the reference anew with --overwrite.")


def reducer() -> str:
    """Version of pymatgen, on which reduced cells depend."""
    from pymatgen.core import __version__

    return __version__


def _packed(path: Path) -> tuple[str, dict[str, int]]:
    """Identity and sizes of the arrays of a packed reference."""
    manifest = read_manifest(path)
    outside = [name for name in manifest.arrays if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise UserError(f"{path / MANIFEST_NAME} names {outside[0]!r}, which is outside of the folder: build it anew.")
    whole = hashlib.sha256("\n".join(f"{n} {i.sha256}" for n, i in sorted(manifest.arrays.items())).encode())
    return whole.hexdigest(), {name: info.size for name, info in manifest.arrays.items()}


def read_manifest(path: Path) -> ReferenceManifest:
    """The manifest of a folder.

    Raises:
        UserError: If there is none, or it is of another version.
    """
    file = path / MANIFEST_NAME
    if not file.is_file():
        raise UserError(f"{path} is no reference: make it with `mattergen-e reference build CACHE --out {path}`.")
    try:
        return ReferenceManifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{file} is not of a reference of format {FORMAT_VERSION}: {first_problem(error)}; build it anew."
        ) from None
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error}).") from None


def _load(file: Path, info: ArrayInfo) -> NDArray[Any]:
    try:
        found = read_npy(file, mmap=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not a plain array ({error}): build the reference anew with --overwrite.") from None
    if list(found.shape) != info.shape or str(found.dtype) != info.dtype:
        raise UserError(f"{file} is not what was built: build the reference anew with --overwrite.")
    return np.asarray(found)  # a view: it is faster to take parts of than numpy's memmap
