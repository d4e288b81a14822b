"""Labels of generated crystals, and which site of a label is which site of its crystal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.alignment import MAX_DISPLACEMENT, AlignmentError, match_sites
from mattergen_e.crystals.dictionary import read_dictionary
from mattergen_e.crystals.tables import read_rows, row_name
from mattergen_e.errors import UserError
from mattergen_e.labels.folder import LABELS, is_label_folder, read_settings
from mattergen_e.limits import open_npz
from mattergen_e.provenance import hash_file
from mattergen_e.spectra.grid import EnergyGrid

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from mattergen_e.evaluation.candidates import Candidate

LENGTH_TOLERANCE = 0.15
"""Largest change of an edge, as a share of it, by which a relaxed cell is still taken for the same choice of a cell."""
ANGLE_TOLERANCE = 8.0
"""The same of an angle, degrees."""
SAME_DISTANCE = 0.05
"""Å: a label without a known id is a crystal's if no site is farther from its counterpart."""
SAME_LENGTH, SAME_ANGLE = 1e-3, 0.05
"""The same for the edges, as a share, and the angles, degrees."""
_OTHER = ("index", "key", "id", "material_id", "structure", "bader_charge", "arrays")
"""Columns of a label that are no value of a descriptor."""


@dataclass(frozen=True, eq=False)
class Label:
    """What is known of one crystal from a calculation.

    Attributes:
        id: What the calculation calls it.
        structure: The cell of the calculation; None if its sites are in the order of the generated crystal.
        charges: (n_sites,) e, in the order of that cell, where there are any.
        arrays: File with its arrays, where there is one.
        values: Other columns of its line.
    """

    id: str
    structure: Structure | None
    charges: NDArray[np.float64] | None
    arrays: Path | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def value(self, name: str) -> NDArray[np.floating] | None:
        """What it knows under a name, as it was written; None where it is nothing, or not finite numbers.

        Raises:
            UserError: If the file of arrays is damaged.
        """
        found = self.charges if name == "bader_charge" else self._array(name)
        if found is None:
            try:
                found = np.array(self.values.get(name), dtype=np.float64)
            except (TypeError, ValueError):
                return None
        return found if found.size and np.isfinite(found).all() else None

    def spectra(self) -> NDArray[np.float32] | None:
        """(n_sites, points) states/eV, in the order of its cell; None if there are none.

        Raises:
            UserError: If the file is damaged.
        """
        return self._array("atomic_dos")

    def total(self) -> NDArray[np.float32] | None:
        """(points,) states/eV per atom of the crystal; None if there is none.

        Raises:
            UserError: If the file is damaged.
        """
        return self._array("total_dos")

    def _array(self, name: str) -> NDArray[np.float32] | None:
        if self.arrays is None:
            return None
        try:
            with open_npz(self.arrays) as arrays:
                return arrays.get(name)
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise UserError(f"{self.arrays} is damaged ({error}): label anew with 'mattergen-e data label'.") from None


@dataclass(frozen=True)
class Labels:
    """Labels of a folder or file.

    Attributes:
        items: The labels.
        grid: Of the spectra of sites; None for a file.
        source: Name, and the first digits of the SHA-256 of the labels.
        sha256: All of them.
        total_grid: Of the spectra of crystals; None for a file.
    """

    items: Sequence[Label]
    grid: EnergyGrid | None
    source: str
    sha256: str
    total_grid: EnergyGrid | None = None


@dataclass(frozen=True, eq=False)
class Pair:
    """A crystal and its label.

    Attributes:
        candidate: The crystal.
        label: Its label.
        order: (n_sites,) for each site of the crystal, the site of the label that it is.
    """

    candidate: Candidate
    label: Label
    order: NDArray[np.int64]


# -- reading ----------------------------------------------------------------------------------------------------------


def read_labels(path: str | Path) -> Labels:
    """Reads labels of generated crystals.

    Args:
        path: Folder that `mattergen-e data label` wrote, or a JSON lines file with, on each line, a name (`index`,
            `key`, `id` or `material_id`), `bader_charge` (a number in e for each site) and, unless the sites are in the
            order of the generated crystal, the `structure` (pymatgen's dictionary) that they belong to.

    Raises:
        UserError: If there are none, or something is wrong; names the file and the line.
    """
    path = Path(path)
    if path.is_dir():
        if not is_label_folder(path):
            raise UserError(f"{path} holds no labels: give a folder that 'mattergen-e data label' wrote.")
        settings, file = read_settings(path), path / LABELS
        grid, total_grid = settings.atomic_dos.grid, settings.total_dos.grid
    else:
        grid, total_grid, file = None, None, path
    items = list(_read(file, path if path.is_dir() else None))
    if not items:
        raise UserError(f"{file} holds no label: give labels of the generated crystals.")
    digest = hash_file(file)
    return Labels(items, grid, f"{path.name} (sha256 {digest[:12]})", digest, total_grid)


def _read(file: Path, folder: Path | None) -> Iterable[Label]:
    seen = set()
    for place, row in read_rows(file, (".jsonl",)):
        name = row_name(row, f"{file}, {place}")
        if name in seen:
            raise UserError(f"{file}, {place}: {name} occurs twice: keep one line.")
        seen.add(name)
        structure = _structure(row.get("structure"), f"{file}, {place}")
        charges = _charges(row.get("bader_charge"), structure, f"{file}, {place}")
        arrays = _arrays(folder, row.get("arrays"), f"{file}, {place}")
        values = {key: value for key, value in row.items() if key not in _OTHER}
        yield Label(name, structure, charges, arrays, values)


def _arrays(folder: Path | None, given: Any, place: str) -> Path | None:
    if folder is None or not given:
        return None
    path = folder / str(given)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{place} names a file outside of {folder}: label anew with 'mattergen-e data label'.")
    return path


def _structure(given: Any, place: str) -> Structure | None:
    if given is None:
        return None
    try:
        return read_dictionary(given)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{place}: the structure cannot be read ({error}): give pymatgen's dictionary.") from None


def _charges(given: Any, structure: Structure | None, place: str) -> NDArray[np.float64] | None:
    if given is None:
        return None
    try:
        values = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise UserError(f"{place}: bader_charge is no list of finite numbers: give one in e for each site.")
    if structure is not None and len(values) != len(structure):
        raise UserError(f"{place}: bader_charge has {len(values)} numbers for the {len(structure)} sites of its cell.")
    return values


# -- whose label it is ------------------------------------------------------------------------------------------------


def pair(candidates: Sequence[Candidate], labels: Labels) -> tuple[list[Pair], dict[int, str]]:
    """Find the label of each crystal, and put their sites together.

    Args:
        candidates: Crystals that can be read.
        labels: Of some of them.

    Returns:
        The pairs, in the order of the crystals, and by index why a crystal is in none.

    Raises:
        UserError: If there is no pair at all.
    """
    named = {label.id: label for label in labels.items}
    alike: dict[tuple[int, ...], list[Label]] = {}
    for label in labels.items:
        if label.structure is not None:
            alike.setdefault(_species(label.structure), []).append(label)
    pairs, reasons = [], {}
    for candidate in candidates:
        try:
            found = _named(candidate, named) or _same(candidate, alike)
            if found is None:
                reasons[candidate.index] = "it has no label"
            else:
                pairs.append(found)
        except AlignmentError as error:
            reasons[candidate.index] = str(error)
    if candidates and not pairs:
        first = next(iter(reasons.items()))
        raise UserError(
            f"none of the {len(labels.items)} labels of {labels.source} belongs to one of the {len(candidates)} "
            f"crystals (crystal {first[0]}: {first[1]}): give labels whose ids are gen_<index>."
        )
    return pairs, reasons


def _named(candidate: Candidate, named: Mapping[str, Label]) -> Pair | None:
    names = (f"gen_{candidate.index}", str(candidate.index), candidate.key, candidate.name, Path(candidate.name).stem)
    label = next((named[name] for name in names if name in named), None)
    if label is None or candidate.structure is None:
        return None
    if label.structure is None:
        return Pair(candidate, label, _own_order(candidate.structure, label))
    return Pair(candidate, label, site_order(candidate.structure, label.structure))


def _own_order(structure: Structure, label: Label) -> NDArray[np.int64]:
    if label.charges is not None and len(label.charges) != len(structure):
        raise AlignmentError(f"its label has {len(label.charges)} charges for {len(structure)} sites")
    return np.arange(len(structure))


def _same(candidate: Candidate, alike: Mapping[tuple[int, ...], Sequence[Label]]) -> Pair | None:
    """The label of the very crystal, unrelaxed."""
    structure = candidate.structure
    if structure is None:
        return None
    for label in alike.get(_species(structure), ()):
        if label.structure is not None and _cells_agree(structure, label.structure, SAME_LENGTH, SAME_ANGLE):
            order = _in_frame(structure, label.structure, SAME_DISTANCE)
            if order is not None:
                return Pair(candidate, label, order)
    return None


def _species(structure: Structure) -> tuple[int, ...]:
    return tuple(sorted(structure.atomic_numbers))


# -- which site is which ----------------------------------------------------------------------------------------------


def site_order(structure: Structure, label: Structure) -> NDArray[np.int64]:
    """For each site of a crystal, the site of a label's cell that it is.

    The cells may be turned, relaxed, or different choices for one lattice; they must have the same number of sites.

    Args:
        structure: The generated crystal.
        label: The cell of the calculation.

    Returns:
        (n_sites,): `values_of_the_label[order]` are in the order of the crystal's sites.

    Raises:
        AlignmentError: If the compositions differ, or sites cannot be put together.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    if _species(structure) != _species(label):
        raise AlignmentError(f"its label is of {label.formula}, the crystal is {structure.formula}")
    order = _in_frame(structure, label, MAX_DISPLACEMENT)
    if order is None and _cells_agree(structure, label, LENGTH_TOLERANCE, ANGLE_TOLERANCE):
        order = _by_fractions(structure, label, np.eye(3), MAX_DISPLACEMENT)
    if order is None:
        matcher = StructureMatcher(primitive_cell=False, scale=True, attempt_supercell=False)
        order = matcher.get_mapping(_plain(label), _plain(structure))
    if order is None:
        raise AlignmentError("the sites of its label cannot be put together with its own: they have moved too far")
    return np.asarray(order, dtype=np.int64)


def components(structure: Structure, label: Structure | None) -> NDArray[np.float64] | None:
    """What turns components along the lattice vectors of a label's cell into those along the crystal's.

    Returns:
        (3, 3): `values_of_the_label @ it` are along the vectors of the crystal; None if the two cells are choices for a
        lattice that cannot be told from their vectors.
    """
    if label is None:
        return np.eye(3)
    whole = _steps(structure, label)
    if whole is not None:
        return whole
    return np.eye(3) if _cells_agree(structure, label, LENGTH_TOLERANCE, ANGLE_TOLERANCE) else None


def _steps(structure: Structure, label: Structure) -> NDArray[np.float64] | None:
    """The label's lattice vectors as whole-number sums of the crystal's, (3, 3), apart from a small strain."""
    steps = label.lattice.matrix @ np.linalg.inv(structure.lattice.matrix)
    whole = np.round(steps)
    far = np.abs(steps - whole).max() > LENGTH_TOLERANCE or round(abs(float(np.linalg.det(whole)))) != 1
    return None if far else whole


def _in_frame(structure: Structure, label: Structure, limit: float) -> NDArray[np.int64] | None:
    """The order if the label's lattice vectors are whole-number sums of the crystal's, apart from a small strain."""
    whole = _steps(structure, label)
    return None if whole is None else _by_fractions(structure, label, whole, limit)


def _by_fractions(
    structure: Structure, label: Structure, whole: NDArray[np.float64], limit: float
) -> NDArray[np.int64] | None:
    """The order by positions in units of the lattice vectors, so that a strain and a rotation of the cell don't count.

    Args:
        structure: The crystal.
        label: The cell of the calculation.
        whole: (3, 3) vectors of the label in units of the crystal's.
        limit: Largest displacement of a site, Å.
    """
    from pymatgen.core import Structure

    brought = Structure(structure.lattice, _plain(label).species, label.frac_coords @ whole)
    try:
        places = match_sites(brought, _plain(structure))
    except AlignmentError:
        return None
    moved = brought.frac_coords - structure.frac_coords[places]
    moved = (moved - np.round(moved)) @ structure.lattice.matrix
    return np.argsort(places) if np.linalg.norm(moved, axis=1).max() <= limit else None


def _plain(structure: Structure) -> Structure:
    """The same cell of elements, without oxidation states and site properties."""
    from pymatgen.core import Element, Structure

    elements = [Element.from_Z(z) for z in structure.atomic_numbers]
    return Structure(structure.lattice, elements, structure.frac_coords)


def _cells_agree(structure: Structure, label: Structure, length: float, angle: float) -> bool:
    a, b = np.array(structure.lattice.abc), np.array(label.lattice.abc)
    turned = np.abs(np.subtract(structure.lattice.angles, label.lattice.angles)).max()
    return bool((np.abs(b / a - 1).max() <= length) and turned <= angle)
