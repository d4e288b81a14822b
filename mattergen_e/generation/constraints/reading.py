"""A constraints file with all that it names, read and checked before a model is loaded."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from mattergen_e.crystals.checks import MIN_VOLUME_PER_SITE
from mattergen_e.crystals.reading import read_structures
from mattergen_e.data.cache import load_array, open_sites
from mattergen_e.descriptors.registry import known
from mattergen_e.diffusion.elements import ElementRules
from mattergen_e.diffusion.settings import LEAST_VOLUME_ON_THE_WAY
from mattergen_e.diffusion.site_dos import cached_grid
from mattergen_e.errors import UserError
from mattergen_e.generation.constraints import elements
from mattergen_e.generation.constraints.cells import read_cell, read_positions
from mattergen_e.generation.constraints.schema import LATER, ConstraintsFile, SpectrumSource
from mattergen_e.limits import read_npy, read_yaml
from mattergen_e.spectra.curves import Curve, check_curve
from mattergen_e.targets.files import read_curves

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True, eq=False)
class Constraints:
    """What a constraints file asks for.

    Attributes:
        path: The file.
        content: Its content.
        numbers: Atomic numbers by site.
        values: What is asked of a descriptor or condition, by its name and by site: a list of numbers or a curve.
        crystal: What is asked of fields of the crystal, by name: an array, NaN where free, or a curve.
        rules: What is asked of the elements of a crystal.
        positions: Fractional coordinates (3,) by site.
        cell: Lattice vectors in rows, (3, 3), Å.
        template: The structure to start from.
        sha256: Of all that generation depends on, the spectra and the template included.
    """

    path: Path
    content: ConstraintsFile
    numbers: dict[int, int]
    values: dict[str, dict[int, list[float] | Curve]]
    template: Structure | None = None
    crystal: dict[str, NDArray[np.float64] | Curve] = field(default_factory=dict)
    rules: ElementRules | None = None
    positions: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    cell: NDArray[np.float64] | None = None
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", _digest(self))

    def settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the run that it resumes."""
        content = self.content.model_dump(mode="json", exclude_unset=True)
        return {"file": self.path.name, "sha256": self.sha256, "content": content}

    def within(self, system: str | Sequence[str] | None) -> Constraints:
        """The same for crystals of a chemical system.

        Raises:
            UserError: If they contradict it, or need one and there is none.
        """
        symbols = system.split("-") if isinstance(system, str) else system
        found = replace(self, rules=elements.within(self.rules, self.numbers, symbols, self.path))
        _check_sizes(found)
        return found

    @cached_property
    def impossible(self) -> str | None:
        """What is wrong with a crystal of the constrained sites alone; None: nothing, or some of them are free."""
        for name, descriptor in known().items() if self.values else ():
            given = [value for value in self.values.get(name, {}).values() if isinstance(value, list)]
            if len(given) == self.content.constrained and {len(value) for value in given} == {descriptor.dim}:
                problem = descriptor.impossible(np.array(given))
                if problem is not None:
                    return problem
        return None

    @property
    def volume(self) -> float:
        """Of the given cell, Å^3."""
        return math.inf if self.cell is None else float(abs(np.linalg.det(self.cell)))

    @property
    def least_sites(self) -> int:
        """Fewest sites of a crystal: the constrained ones, and one more where only that can make up for them."""
        return self.content.constrained + int(self.impossible is not None)

    def check_size(self, n_sites: int, where: str) -> None:
        """Raises a `ValueError` if a crystal of so many sites, which `where` asks for, cannot have what is asked."""
        constrained = self.content.constrained
        if n_sites < constrained:
            raise ValueError(
                f"site {constrained - 1} is constrained, but {where} gives crystals of {n_sites} sites, which are "
                f"numbered from 0 to {n_sites - 1}"
            )
        if n_sites < self.least_sites:
            raise ValueError(self.impossible)
        problem = elements.problem(self.rules, self.numbers, n_sites, where)
        if problem is not None:
            raise ValueError(problem)
        if self.cell is not None and self.volume < MIN_VOLUME_PER_SITE * n_sites:
            raise ValueError(f"the cell is too small for the {n_sites} sites that {where} gives")

    def _fits(self, n_sites: int) -> bool:
        try:
            self.check_size(n_sites, "num_atoms")
        except ValueError:
            return False
        return True

    def sizes(self, default: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Numbers of sites that crystals may have, with their probabilities; both (n,).

        Args:
            default: Name of the distribution where the file has no word on it; sizes below the least are left out.

        Raises:
            UserError: If no size is left.
        """
        from mattergen.common.data.num_atoms_distribution import NUM_ATOMS_DISTRIBUTIONS

        told = self.content.num_atoms
        if self.template is not None:
            return np.array([len(self.template)]), np.ones(1)
        if isinstance(told, int | list):
            choices = self.content.choices
            return np.array(choices), np.full(len(choices), 1 / len(choices))
        composition = self.content.composition
        if told is None and composition is not None:
            choices = sorted({sum(composition.counts.values()) * z for z in composition.z})
            return np.array(choices), np.full(len(choices), 1 / len(choices))
        weights = told if isinstance(told, dict) else NUM_ATOMS_DISTRIBUTIONS[told or default]
        kept = {n: w for n, w in weights.items() if w > 0 and self._fits(n)}
        if not kept and max(weights) < self.least_sites:
            raise UserError(
                f"{self.path}: the sites need crystals of at least {self.least_sites} sites, which the "
                f"distribution {told or default} does not have: give num_atoms."
            )
        if not kept:
            raise UserError(
                f"{self.path}: the distribution {told or default} has no number of sites that fits what is asked for: "
                "give num_atoms."
            )
        share = np.array(list(kept.values()), dtype=np.float64)
        return np.array(list(kept)), share / share.sum()


def read_constraints(path: str | Path) -> Constraints:
    """Read a constraints file and the files that it names.

    Args:
        path: YAML or JSON; see `ConstraintsFile`.

    Returns:
        The constraints; whether a model can take them is checked when there is one.

    Raises:
        UserError: If a file is missing or of no use, or the constraints contradict themselves.
    """
    path = Path(path)
    content = _content(path)
    numbers = {
        s.site: elements.atomic_number(s.element, f"{path}, site {s.site}")
        for s in content.sites
        if s.element is not None
    }
    cell = read_cell(content, path)
    values: dict[str, dict[int, list[float] | Curve]] = {}
    for site in content.sites:
        for name, value in site.values.items():
            where = f"{path}, site {site.site}, '{name}'"
            told = _curve(value, path.parent, where) if isinstance(value, SpectrumSource) else np.ravel(value).tolist()
            values.setdefault(name, {})[site.site] = told
    crystal = {
        name: _of_crystal(value, path.parent, f"{path}, crystal, '{name}'") for name, value in content.crystal.items()
    }
    template = _template(path, content)
    if isinstance(content.num_atoms, str):
        _check_distribution(content.num_atoms, path)
    rules, positions = elements.read_rules(content, numbers, path), read_positions(content, cell, path)
    read = Constraints(path, content, numbers, values, template, crystal, rules, positions, cell)
    _check_sizes(read)
    return read


def _check_sizes(read: Constraints) -> None:
    """Refuses what no crystal of the sizes that the file asks for can have."""
    path, content, template = read.path, read.content, read.template
    composition = content.composition
    try:
        for n_sites in sorted(content.choices):
            read.check_size(n_sites, "num_atoms")
        if composition is not None:
            unit = sum(composition.counts.values())
            for z in composition.z:
                read.check_size(unit * z, "the composition")
            odd = [n for n in content.choices if n not in {unit * z for z in composition.z}]
            if odd:
                raise ValueError(
                    f"the composition gives crystals of {' or '.join(str(unit * z) for z in composition.z)} sites, but "
                    f"num_atoms of {odd[0]}: leave num_atoms out, or ask for formula units as {{formula: ..., z: ...}}"
                )
        if template is not None:
            read.check_size(len(template), "the template")
    except ValueError as error:
        raise UserError(f"{path}: {error}.") from None


def _content(path: Path) -> ConstraintsFile:
    import yaml

    try:
        given = read_yaml(path)  # JSON is YAML
    except FileNotFoundError:
        raise UserError(f"the constraints file {path} does not exist: give its absolute path.") from None
    except (OSError, yaml.YAMLError) as error:
        first = " ".join(str(error).split())[:160]
        raise UserError(f"the constraints file {path} is no YAML or JSON ({first}).") from None
    if not isinstance(given, dict):
        raise UserError(f"the constraints file {path} holds no keys: give num_atoms, sites or template.")
    try:
        return ConstraintsFile.model_validate(given)
    except ValidationError as error:
        raise UserError(f"{path}: {_first_problem(error)}.") from None


def _first_problem(error: ValidationError) -> str:
    """What is wrong, and where, in one clause; of a value that fits none of its kinds, the kind that was meant."""
    first = min(error.errors(), key=lambda e: (e["type"] in ("int_type", "float_type"), -len(e["loc"])))
    place = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("list[", "dict[", "constrained")))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such key"
    elif first["type"] == "string_pattern_mismatch":
        message = f"'{first['input']}' is no symbol of an element"
    return f"{place}: {message}" if place else message


def _check_distribution(name: str, path: Path) -> None:
    from mattergen.common.data.num_atoms_distribution import NUM_ATOMS_DISTRIBUTIONS

    if name not in NUM_ATOMS_DISTRIBUTIONS:
        raise UserError(f"{path}: num_atoms is '{name}': use one of {', '.join(NUM_ATOMS_DISTRIBUTIONS)}, or numbers.")


# -- of the crystal ---------------------------------------------------------------------------------------------------


def _of_crystal(value: float | list | SpectrumSource, folder: Path, where: str) -> NDArray[np.float64] | Curve:
    """What is asked of a field of the crystal."""
    if isinstance(value, SpectrumSource) and value.file.suffix != ".npy":
        return _curve(value, folder, where)
    given: Any = _array(folder / value.file, where) if isinstance(value, SpectrumSource) else value
    try:
        array = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{where} is not made of numbers: give a number, or lists of the same length.") from None
    if np.isinf(array).any():
        raise UserError(f"{where} has numbers that are not finite: give finite ones, or null where it is free.")
    return array


def _array(path: Path, where: str) -> NDArray[Any]:
    try:
        return read_npy(path)
    except FileNotFoundError:
        raise UserError(f"{where}: {path} does not exist: give a file of numpy.save.") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{where}: {path} is no array of numbers ({error}): give a file of numpy.save.") from None


# -- spectra ----------------------------------------------------------------------------------------------------------


def _curve(source: SpectrumSource, folder: Path, where: str) -> Curve:
    """The one curve that is meant, states/eV of the site."""
    path = folder / source.file
    curve = _of_cache(source, path, where) if path.is_dir() else _chosen(read_curves(path), source.curve, path, where)
    check_curve(curve, f"{path}, curve '{curve.name}'")
    return curve


def _chosen(curves: list[Curve], wanted: int | str | None, path: Path, where: str) -> Curve:
    names = [curve.name for curve in curves]
    if isinstance(wanted, int):
        if not 0 <= wanted < len(curves):
            raise UserError(f"{where}: {path} has the curves 0 to {len(curves) - 1}, not {wanted}.")
        return curves[wanted]
    if wanted is None and len(curves) == 1:
        return curves[0]
    if wanted is None or wanted not in names:
        shown = ", ".join(names[:8])
        raise UserError(f"{where}: {path} holds {len(curves)} curves ({shown}): name one of them as 'curve'.")
    return curves[names.index(wanted)]


def _of_cache(source: SpectrumSource, path: Path, where: str) -> Curve:
    """The spectrum of a site of a crystal of a cache, as the training knows it."""
    if source.structure is None or source.site is None:
        raise UserError(f"{where}: {path} is a folder: for a split of a cache give 'structure' (its id) and 'site'.")
    if not (path / "structure_id.npy").is_file():
        raise UserError(f"{where}: {path} is a folder, but no split of a cache.")
    names, sizes = load_array(path / "structure_id.npy").tolist(), load_array(path / "num_atoms.npy")
    if source.structure not in names:
        raise UserError(f"{where}: {path} has no crystal '{source.structure}'.")
    index = names.index(source.structure)
    if source.site >= sizes[index]:
        raise UserError(f"{where}: crystal '{source.structure}' ends with site {sizes[index] - 1}.")
    row = open_sites(path, "atomic_dos")[int(sizes[:index].sum()) + source.site]
    grid = cached_grid(path)
    return Curve(f"{source.structure}, site {source.site}", grid.energies, np.asarray(row, dtype=np.float64))


# -- the template -----------------------------------------------------------------------------------------------------


def _template(path: Path, content: ConstraintsFile) -> Structure | None:
    if content.template is None:
        return None
    found = read_structures([path.parent / content.template.structure])
    where = f"the template {path.parent / content.template.structure}"
    if len(found) != 1:
        raise UserError(f"{where} holds {len(found)} structures: give a file with one.")
    structure = found[0].structure
    _check_structure(structure, where)
    if content.num_atoms is not None and content.choices != [len(structure)]:  # a distribution lists no choices
        raise UserError(f"{path}: num_atoms contradicts the template, which has {len(structure)} sites: leave it out.")
    return structure


def _check_structure(structure: Structure, where: str) -> None:
    from mattergen.common.utils.globals import SELECTED_ATOMIC_NUMBERS

    if not structure.is_ordered:
        raise UserError(f"{where} has partially occupied sites: give an ordered structure.")
    unknown = [site.specie.symbol for site in structure if site.specie.Z not in SELECTED_ATOMIC_NUMBERS]
    if unknown:
        raise UserError(f"{where} holds {unknown[0]}, an element that MatterGen does not know.")
    numbers = np.concatenate([structure.lattice.matrix.ravel(), structure.frac_coords.ravel()])
    if not np.isfinite(numbers).all() or structure.volume < LEAST_VOLUME_ON_THE_WAY * len(structure):
        raise UserError(f"{where} is no crystal: its cell or positions are not finite, or its cell has no volume.")


def _digest(constraints: Constraints) -> str:
    content = constraints.content.model_dump(mode="json", exclude={"template": {"structure"}, "crystal": True})
    given = {key: content.pop(key) for key in LATER}
    positions = [site.pop("position") for site in content["sites"]]
    parts: list[Any] = [content]
    later = {key: value for key, value in given.items() if value} | ({"sites": positions} if any(positions) else {})
    if constraints.cell is not None:  # its file goes by what it holds
        later["cell"] = constraints.cell.tolist()
    if later:
        parts.append(later)
    if constraints.crystal:  # its files go by what they hold
        parts.append(sorted((name, _told(value)) for name, value in constraints.crystal.items()))
    for name, by_site in sorted(constraints.values.items()):
        for site, value in sorted(by_site.items()):
            parts.append([name, site, _told(value)])
    if constraints.template is not None:
        matrix, coords = constraints.template.lattice.matrix, constraints.template.frac_coords
        parts.append([matrix.tolist(), coords.tolist(), list(constraints.template.atomic_numbers)])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _told(value: list[float] | NDArray[np.float64] | Curve) -> list[Any] | float:
    if isinstance(value, Curve):
        return [value.energies.tolist(), value.dos.tolist(), value.smearing]
    return value.tolist() if isinstance(value, np.ndarray) else value
