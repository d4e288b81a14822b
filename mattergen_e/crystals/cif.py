"""Crystals of a CIF: every data block, and no other crystal than the file says.

pymatgen builds the structure; before that, what it would guess is settled here, and afterwards what it built is held
against the formula of the file. Coordinates of finite precision are put on the special positions that they mean; a CIF
without symmetry, as we write them, is taken to the last digit.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pymatgen.core import Structure
from pymatgen.io.cif import CifBlock, CifParser

from mattergen_e.crystals.cif_sites import SiteTable, read_sites, values
from mattergen_e.crystals.cif_symmetry import check_operator, on_special_positions, operators
from mattergen_e.crystals.formula import Statement

_HEADER = re.compile(r"\s*data_(\S*)", re.IGNORECASE)
_FORMULA = re.compile(r"^_chemical_formula_sum\s+'([^'\n]*)'", re.MULTILINE | re.IGNORECASE)
#: Keys that pymatgen builds a structure from as they are, beside sites and operators.
_CELL = (
    *(f"_cell_length_{edge}" for edge in "abc"),
    *(f"_cell_angle_{angle}" for angle in ("alpha", "beta", "gamma")),
    "_symmetry_cell_setting",
    "_space_group_crystal_system",
)
_TYPES = ("_atom_type_symbol", "_atom_type_oxidation_number")
_MAGNETIC = ("_space_group_magn", "_magnetic_space_group", "_space_group_symop_magn", "_atom_site_moment")
_MODULATED = ("_cell_modulation_dimension", "_cell_wave_vector")
#: What pymatgen warns of though nothing is lost: the rest of its warnings is a reason to refuse.
_HARMLESS = (
    "A 1-line symmetry op P1 CIF is detected",
    "Pauling file corrections applied",
    "Keys changed to match new magCIF",
    "Some occupancies",
    "No magnetic symmetry detected",
    "Issues encountered while parsing CIF",
    "fractional coordinates rounded to ideal values",
)
#: Tolerance with which pymatgen takes two coordinates for one, in units of the edges; without symmetry, none is moved.
_SAME_PLACE, _EXACT = 1e-4, 1e-8
#: Images of all sites, coinciding ones included, whose number makes the time that reading takes.
MAX_IMAGES = 50_000
#: Largest sum of occupancies that is a whole site, as refinements and rounding leave it.
_WHOLE = 1.01


@dataclass(frozen=True)
class Block:
    """A data block that holds a crystal.

    Attributes:
        name: What follows `data_`; may be empty, and may not be the only one of its name.
        text: The block with its header.
    """

    name: str
    text: str


def blocks(text: str) -> list[Block]:
    """The data blocks of a CIF that hold sites; what stands in its text fields is no header.

    Raises:
        ValueError: If there is none.
    """
    found, lines, name, inside = [], [], None, False
    for line in text.splitlines():
        inside ^= line.startswith(";")
        header = None if inside else _HEADER.match(line)
        if header is not None:
            found.append((name, lines))
            name, lines = header[1], [f"data_{header[1]}", line[header.end() :]]
        else:
            lines.append(line)
    found.append((name, lines))
    named = [Block(name, "\n".join(lines)) for name, lines in found if name is not None]
    if not named:
        raise ValueError("it has no data block (data_...)")
    crystals = [block for block in named if re.search(r"^\s*_atom_site[_.]", block.text, re.MULTILINE | re.IGNORECASE)]
    if not crystals:
        raise ValueError("none of its data blocks holds sites (_atom_site_...)")
    return crystals


def read_text(text: str, *, thirds: bool = False) -> Structure:
    """The crystal of a CIF that has to hold one.

    Args:
        text: The CIF.
        thirds: Take coordinates next to 1/3 and 2/3 for these, as MatterGen does, also where no symmetry asks for it.

    Raises:
        ValueError: If it holds none or several, or as `read_block`.
    """
    found = blocks(text)
    if len(found) > 1:
        names = ", ".join(block.name or "''" for block in found[:5])
        raise ValueError(f"it holds {len(found)} crystals ({names}), where one is needed")
    return read_block(found[0], thirds=thirds)


def read_block(block: Block, *, as_written: bool = False, thirds: bool = False) -> Structure:
    """The crystal of a data block.

    Args:
        block: Of `blocks`.
        as_written: Keep sites whose occupancies add up to more than one.
        thirds: As of `read_text`.

    Returns:
        The cell of the file. Without symmetry its coordinates are those of the file to the last digit.

    Raises:
        ValueError: If it cannot be read, or what can be read is not what the block says: one sentence without the end.
    """
    data = _parsed(block.text)
    if any(key.startswith(_MODULATED) for key in data):
        raise ValueError("it is of an incommensurate structure, which has no cell")
    _check_cell(data)
    told = Statement.of_cif(data)
    sites = read_sites(data, frozenset(told.formula))
    how = _How(as_written, thirds)
    magnetic = any(key.startswith("_space_group_symop_magn") or "bns" in key for key in data)
    lattice = CifParser.from_str("data_x\n").get_lattice(_block(data, _CELL))
    if lattice is None:
        raise ValueError("it gives no cell (_cell_length_a, ...)")
    if magnetic:
        return _judged(_build(data, sites, None, how), told, sites)
    choices = operators(data, lattice)
    if (images := len(sites.labels) * max(len(choice.xyz) for choice in choices)) > MAX_IMAGES:
        raise ValueError(f"its sites and operators make {images} images, more than {MAX_IMAGES} are not read")
    if any(key.startswith(_MAGNETIC) for key in data) and any(len(choice.xyz) > 1 for choice in choices):
        raise ValueError("it has magnetic moments but no magnetic symmetry operators")
    found, problems = [], []
    for choice in choices:
        try:
            placed = sites if choice.trivial else on_special_positions(sites, choice.operators, lattice)
            structure = _judged(_build(data, placed, choice.xyz, how), told, sites)
        except ValueError as error:
            problems.append(error)
            continue
        if choice.doubt and not (told.units and told.formula):
            problems.append(ValueError(choice.doubt))
            continue
        found.append(structure)
    if len(found) > 1:
        raise ValueError(choices[0].doubt)
    if not found:
        raise problems[0]
    return found[0]


@dataclass(frozen=True)
class _How:
    as_written: bool
    thirds: bool


# -- a block ----------------------------------------------------------------------------------------------------------


def _parsed(text: str) -> dict[str, Any]:
    """Values by key in small letters; loops are lists."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            block = CifBlock.from_str(text)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"a loop has values for a part of its columns only ({error})") from error
    data = {key.lower().replace(".", "_"): value for key, value in block.data.items()}
    repeated = _FORMULA.findall(text)
    if len(repeated) > 1:  # the American Mineralogist's database repeats the key without a value
        data["_chemical_formula_sum"] = next((value for value in repeated if value.strip()), "")
    if caught:  # a value without quotation marks lost its second word, maybe that of the formula
        data.pop("_chemical_formula_sum", None)
    return data


def _check_cell(data: Mapping[str, Any]) -> None:
    for key in _CELL[:6]:
        if key in data:
            text = str(data[key])
            try:
                number = float(re.sub(r"\(.*", "", text))
            except ValueError:
                number = np.nan
            if not np.isfinite(number):
                raise ValueError(f"{key} is {text[:40]!r}, no number")


def _block(data: Mapping[str, Any], keys: tuple[str, ...]) -> CifBlock:
    return CifBlock({key: data[key] for key in keys if key in data}, [], "x")


def _build(data: Mapping[str, Any], sites: SiteTable, xyz: list[str] | None, how: _How) -> Structure:
    """What pymatgen makes of cell, operators and sites; `xyz` is None for magnetic operators, which the block has."""
    kept: dict[str, Any] = {key: data[key] for key in _CELL if key in data}
    loops = []
    if xyz is not None:
        kept["_symmetry_equiv_pos_as_xyz"] = xyz
        loops.append(["_symmetry_equiv_pos_as_xyz"])
    kept |= (columns := sites.columns())
    loops.append(list(columns))
    if all(len(values(data, key)) == len(values(data, _TYPES[0])) > 0 for key in _TYPES):
        kept |= {key: values(data, key) for key in _TYPES}
        loops.append(list(_TYPES))
    kept, loops = _with_magnetism(data, kept, loops)
    exact = xyz is not None and len(xyz) == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parser = CifParser.from_str(
            str(CifBlock(kept, loops, "x")) + "\n",
            occupancy_tolerance=_WHOLE,
            site_tolerance=_EXACT if exact else _SAME_PLACE,
            frac_tolerance=_SAME_PLACE if how.thirds else 0.0,
            check_cif=False,
        )
        try:
            (structure,) = parser.parse_structures(primitive=False, check_occu=not how.as_written, on_error="raise")
        except ValueError as error:
            words = (str(error).strip().splitlines() or ["its sites cannot be read"])[-1]
            if crowded := re.fullmatch(r"Occupancy (\S+) exceeded tolerance\.", words):
                words = f"the occupancies of sites at one place add up to {float(crowded[1]):.4g}"
            raise ValueError(words) from error
    said = [*parser.warnings, *(str(warning.message) for warning in caught if warning.category is UserWarning)]
    for words in said:
        if not any(harmless in words for harmless in _HARMLESS):
            raise ValueError(" ".join(words.split())[:200])
    return structure


def _with_magnetism(
    data: Mapping[str, Any], kept: dict[str, Any], loops: list[list[str]]
) -> tuple[dict[str, Any], list[list[str]]]:
    """The keys of magnetic CIFs too, lists of the same length as a loop."""
    names = {key: _magnetic_name(key) for key in data if key.startswith(_MAGNETIC)}
    for key in names:
        if key.startswith("_space_group_symop_magn") and key.endswith("xyz"):
            for operator in values(data, key):
                check_operator(operator)
    by_group: dict[str, list[str]] = {}
    for key, name in names.items():
        kept[name] = data[key]
        if isinstance(data[key], list):
            by_group.setdefault(key.rsplit("_", 1)[0] if "moment" not in key else "moment", []).append(name)
    return kept, [*loops, *by_group.values()]


def _magnetic_name(key: str) -> str:
    """A key of a magnetic CIF as pymatgen looks for it."""
    for start in ("_space_group_symop_magn_operation", "_space_group_symop_magn_centering"):
        if key == f"{start}_xyz":
            return f"{start}.xyz"
    known = {
        "_space_group_magn_name_bns": "_space_group_magn.name_BNS",
        "_space_group_magn_number_bns": "_space_group_magn.number_BNS",
        "_space_group_magn_transform_bns_pp_abc": "_space_group_magn.transform_BNS_Pp_abc",
        "_magnetic_space_group_transform_to_standard_pp_abc": "_space_group_magn.transform_BNS_Pp_abc",
    }
    return known.get(key, key)


def _judged(structure: Structure, told: Statement, sites: SiteTable) -> Structure:
    """The structure, if it is what the file says.

    Raises:
        ValueError: If it is not, or nothing confirms a reading that leaves something out.
    """
    problem = told.problem(structure)
    if problem is not None:
        raise ValueError(f"{problem}{sites.hint()}")
    if sites.left_out and not told.formula:
        raise ValueError(sites.left_out)
    return structure
