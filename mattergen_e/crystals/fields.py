"""The fields of a record: structure, site values, properties and split, each read or refused with one sentence."""

from __future__ import annotations

import json
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure

from mattergen_e.crystals import cif
from mattergen_e.crystals.alignment import reduce_cell
from mattergen_e.crystals.checks import EntryError, check_cell, check_lattice
from mattergen_e.crystals.dictionary import ISOTOPES, read_lattice, split_dictionary
from mattergen_e.errors import UserError, brief
from mattergen_e.limits import open_npz

ID_KEYS = ("material_id", "id")
SPLITS = ("train", "val", "test")
TEXT_PROPERTIES = frozenset({"space_group", "chemical_system"})
MAX_TEXT = 200
#: Å and degrees: how far a site may be from its place in a space group.
SYMPREC, ANGLE = 0.1, 5.0
#: What crystals can have, generously: gaps in eV (solid helium: about 20), energies in eV per atom.
PROPERTY_BOUNDS = {
    "dft_band_gap": (0.0, 30.0),
    "formation_energy_per_atom": (-20.0, 100.0),
    "energy_above_hull": (-20.0, 100.0),
    "hhi_score": (0.0, 10_000.0),
}


def read_id(fields: dict[str, Any]) -> str:
    """Read the id of an entry.

    Raises:
        EntryError: With reason missing_id.
    """
    for key in ID_KEYS:
        value = fields.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool) and (text := str(value).strip()):
            if len(text) > MAX_TEXT or not text.isprintable():
                raise EntryError("missing_id", f"the id {text[:40]!r} is too long or not printable")
            return text
    raise EntryError("missing_id", "the entry has no 'material_id' (or 'id')")


def read_cif(text: str) -> Structure:
    """Read a CIF and reduce it to the primitive cell, to the same numbers as MatterGen does.

    Args:
        text: The CIF, of one crystal.

    Returns:
        The structure.

    Raises:
        EntryError: With reason missing_structure, broken_cif or absurd_cell.
    """
    if not text.strip():
        raise EntryError("missing_structure", "the column 'cif' is empty")
    try:
        parsed = cif.read_text(text, thirds=True)
    except Exception as error:
        words = str(error) if isinstance(error, ValueError) else brief(error)
        raise EntryError("broken_cif", f"the CIF cannot be read ({words[:300]})") from error
    check_cell(parsed)
    return reduce_cell(parsed)


def read_structure(fields: dict[str, Any]) -> tuple[Structure, dict[str, list[Any]]]:
    """Read the structure of a JSON entry.

    Args:
        fields: With 'structure' (pymatgen's dictionary) or 'species', 'cell' (Å) and 'positions' (cartesian, Å).

    Returns:
        The structure without site properties, and the site properties of the dictionary as plain lists.

    Raises:
        EntryError: With reason missing_structure or site_count_mismatch. Other errors mean a broken entry.
    """
    given = fields.get("structure")
    if isinstance(given, dict):
        return _from_dictionary(given)
    if given is not None:
        raise EntryError("missing_structure", "'structure' is not a pymatgen dictionary")
    missing = [key for key in ("species", "cell", "positions") if not fields.get(key)]
    if missing:
        raise EntryError("missing_structure", f"the entry has no structure: {', '.join(missing)} not given")
    species, positions = fields["species"], np.asarray(fields["positions"], dtype=float)
    if positions.shape != (len(species), 3):
        raise EntryError(
            "site_count_mismatch", f"'positions' has the shape {positions.shape} for {len(species)} species"
        )
    cell = np.asarray(fields["cell"], dtype=float)
    check_lattice(cell, len(species))
    elements = [ISOTOPES.get(one, one) if isinstance(one, str) else one for one in species]
    return Structure(Lattice(cell), elements, positions, coords_are_cartesian=True), {}


def _from_dictionary(given: dict[str, Any]) -> tuple[Structure, dict[str, list[Any]]]:
    sites = given.get("sites")
    if not isinstance(sites, list) or not sites or not isinstance(given.get("lattice"), dict):
        raise EntryError(
            "missing_structure", "'structure' is not a pymatgen dictionary: 'lattice' or 'sites' not given"
        )
    check_lattice(read_lattice(given["lattice"]).matrix, len(sites))
    structure, properties = split_dictionary({"lattice": given["lattice"], "sites": sites})
    return structure, properties


def read_site_values(name: str, raw: Any) -> NDArray[np.float64]:
    """Read the values of the sites.

    Args:
        name: Name of the site value.
        raw: One number or one list of numbers per site; null is unknown.

    Returns:
        Array (n_values, dim), NaN where unknown.

    Raises:
        EntryError: With reason nan_values or site_count_mismatch.
    """
    values = _plain_numbers(name, raw)
    if values.ndim not in (1, 2):
        raise EntryError("site_count_mismatch", f"{name} has the shape {values.shape}, expected one row per site")
    return values[:, None] if values.ndim == 1 else values


def read_crystal_value(name: str, raw: Any, n_axes: int = 1) -> NDArray[np.float64]:
    """Read a value of the crystal, or its values on a grid.

    Args:
        name: Name of the value.
        raw: A number, a list of numbers, or nested lists (nx, ny, nz) or (nx, ny, nz, dim); null is unknown.
        n_axes: 1, or 4 for a grid.

    Returns:
        Array (dim,) or (nx, ny, nz, dim), NaN where unknown; another shape is left as it is.

    Raises:
        EntryError: With reason nan_values.
    """
    values = _plain_numbers(name, raw)
    return values[..., None] if values.ndim == n_axes - 1 else values


def _plain_numbers(name: str, raw: Any) -> NDArray[np.float64]:
    """Nested lists as an array; what is no number is refused, though NumPy would make one of it: true, "0.8"."""
    odd = _no_number(raw)
    if odd is not None:
        raise EntryError("nan_values", f"{name} is not an array of numbers: it holds {json.dumps(odd)[:40]}")
    try:
        return np.array(raw, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise EntryError("nan_values", f"{name} is not an array of numbers ({brief(error)})") from error


def _no_number(raw: Any) -> bool | str | None:
    """The first boolean or text in nested lists."""
    if isinstance(raw, list | tuple):
        return next((odd for item in raw if (odd := _no_number(item)) is not None), None)
    return raw if isinstance(raw, bool | str) else None


def read_label_arrays(folder: Path, name: Any) -> dict[str, NDArray[np.float64]]:
    """Read the arrays that a label names.

    Args:
        folder: Of the labels.
        name: Path of the .npz relative to the folder, or None.

    Returns:
        Arrays by name; empty without a file.

    Raises:
        EntryError: With reason broken_entry, if the file is not in the folder or is damaged.
    """
    if name is None:
        return {}
    path = (folder / str(name)).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise EntryError("broken_entry", f"the arrays {str(name)[:80]!r} are outside the folder of the labels")
    try:
        with open_npz(path) as arrays:
            return {key: np.asarray(arrays[key], dtype=np.float64) for key in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise EntryError("broken_entry", f"the arrays {str(name)[:80]!r} cannot be read ({brief(error)})") from error


def read_split(value: Any) -> str | None:
    """Read the name of a split; empty means unknown.

    Raises:
        EntryError: With reason bad_split.
    """
    if value is None or not str(value).strip():
        return None
    if str(value) not in SPLITS:
        raise EntryError("bad_split", f"the split {str(value)[:40]!r} is none of {', '.join(SPLITS)}")
    return str(value)


def read_property(name: str, value: Any) -> float | str:
    """Read a property of a crystal.

    Args:
        name: MatterGen's name of the property.
        value: Number, text or None.

    Returns:
        A number (NaN where empty) or, for `TEXT_PROPERTIES`, a text ("" where empty); a space group given as a number
        becomes its symbol.

    Raises:
        EntryError: With reason bad_property.
    """
    empty = value is None or (isinstance(value, str) and not value.strip())
    if name in TEXT_PROPERTIES:
        text = "" if empty or (isinstance(value, float) and math.isnan(value)) else str(value).strip()
        if len(text) > MAX_TEXT or not text.isprintable():
            raise EntryError("bad_property", f"{name} {text[:40]!r} is too long or not printable")
        return _space_group_symbol(text) if text and name == "space_group" else text
    try:
        number = math.nan if value is None or empty else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if math.isinf(number) or isinstance(value, bool):
        raise EntryError("bad_property", f"{name} is {str(value)[:40]!r}, expected a finite number or nothing")
    low, high = PROPERTY_BOUNDS.get(name, (-math.inf, math.inf))
    if number < low or number > high:
        raise EntryError("bad_property", f"{name} is {number:g}, outside of {low:g} to {high:g}: check column and unit")
    return number


@lru_cache(maxsize=4096)
def _space_group_symbol(text: str) -> str:
    from pymatgen.symmetry.groups import SpaceGroup, sg_symbol_from_int_number

    try:
        symbol = sg_symbol_from_int_number(int(text)) if text.isdigit() else text
        SpaceGroup(symbol)
    except (ValueError, KeyError) as error:
        raise EntryError("bad_property", f"space_group {text[:40]!r} is not a space group") from error
    return symbol


def space_group_of(structure: Structure) -> str:
    """Symbol of the space group of a structure, found as MatterGen finds it: within 0.1 Å and 5°.

    Raises:
        EntryError: With reason bad_property, if none is found.
    """
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    try:
        number = SpacegroupAnalyzer(structure, symprec=SYMPREC, angle_tolerance=ANGLE).get_space_group_number()
    except Exception as error:  # spglib's and pymatgen's, of many kinds
        raise EntryError("bad_property", f"no space group is found within {SYMPREC:g} Å ({brief(error)})") from error
    return _space_group_symbol(str(number))


#: Properties that a structure tells by itself.
COMPUTED: dict[str, Callable[[Structure], str]] = {
    "chemical_system": lambda structure: structure.chemical_system,
    "space_group": space_group_of,
}


def split_rename(option: str) -> tuple[str, str]:
    """NAME or NAME=COLUMN as (name, column); a name may have :KIND behind it, which no column takes over."""
    name, _, column = option.partition("=")
    return name.strip(), column.strip() or name.partition(":")[0].strip()


def parse_renames(options: Sequence[str], what: str) -> tuple[tuple[str, str], ...]:
    """Read NAME or NAME=COLUMN options.

    Args:
        options: As typed.
        what: Name of the option, for the message.

    Returns:
        Pairs (name, column).

    Raises:
        UserError: If a name is not a plain lower-case word or is given twice.
    """
    pairs: list[tuple[str, str]] = []
    for option in options:
        name, column = split_rename(option)
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or re.search("batch|index|^face$", name):
            raise UserError(
                f"{what} {option!r}: {name!r} cannot be a name; use small letters, digits and underscores, without "
                "'batch' or 'index'."
            )
        if name in dict(pairs):
            raise UserError(f"{what} {name!r} is given twice: give each name once.")
        pairs.append((name, column))
    return tuple(pairs)
