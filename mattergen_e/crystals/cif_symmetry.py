"""The symmetry of a CIF: its operators, or those of the space group that it names, and the places that they make."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import spglib
from numpy.typing import NDArray
from pymatgen.core import Lattice
from pymatgen.core.operations import SymmOp
from pymatgen.io.cif import CifBlock, CifParser

from mattergen_e.crystals.cif_sites import SiteTable, values

_OPERATORS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
_NAMES = (
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m_alt",
    "_space_group_name_h-m_full",
    "_symmetry_space_group_name_hall",
    "_space_group_name_hall",
)
_NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")
_UNKNOWN = ("?", ".", "")
_SETTINGS = 530
#: Characters of an operator.
_LONGEST = 80
#: Choices of spglib's that a number alone means: unique axis b, the first cell; of origin and axes it says nothing.
_STANDARD = frozenset({"", "1", "2", "H", "R", "b", "b1"})
#: Suffixes of names for the same: of ICSD, of the International Tables, of pymatgen.
_SUFFIXES = {"1": (":1", "S", ":S"), "2": (":2", "Z", ":Z"), "H": (":H", "H"), "R": (":R", "R")}
#: Å, at most this far from its image an atom lies on a special position; as a share of the edges, at least this far.
_FARTHEST, _LEAST = 0.3, 1e-4


@dataclass(frozen=True)
class Choice:
    """Operators that the file may mean.

    Attributes:
        xyz: As text.
        doubt: Why they count only if formula and units of the file confirm them; empty if they are certain.
    """

    xyz: list[str]
    doubt: str = ""
    operators: list[SymmOp] = field(default_factory=list, repr=False)

    @property
    def trivial(self) -> bool:
        """Whether it is the identity alone."""
        return len(self.xyz) == 1


def operators(data: Mapping[str, Any], lattice: Lattice) -> list[Choice]:
    """The operators of a data block: one choice, or several between which the composition has to decide.

    Args:
        data: Values by key in small letters.
        lattice: Its cell, which rules out axes of another setting.

    Raises:
        ValueError: If an operator cannot be read, or a space group is named that is not known.
    """
    given = next((found for key in _OPERATORS if (found := values(data, key)) and found[0] not in _UNKNOWN), [])
    names = [text for key in _NAMES if (text := _text(data, key))]
    settings = {text: _settings(text, "hall" in key) for key in _NAMES if (text := _text(data, key))}
    number = next((int(text) for key in _NUMBERS if (text := _text(data, key)).isdecimal()), None)
    number = number if number is not None and 1 <= number <= 230 else None
    if given:
        return [_explicit(given, settings, number)]
    if not names and number is None:
        return [_choice(["x, y, z"])]
    for name in names:
        if found := _compatible(settings[name], lattice):
            return _doubtful(found, name)
    if names and (found := _of_pymatgen(data)):
        return [_choice(found)]
    if number is not None:
        standard = [hall for hall in range(1, _SETTINGS + 1) if _type(hall).number == number]
        standard = [hall for hall in standard if _type(hall).choice in _STANDARD]
        if found := _compatible(standard, lattice):
            return _doubtful(found, f"number {number}")
    what = names[0] if names else f"number {number}"
    raise ValueError(
        f"it names the space group {what[:40]!r} but gives no operators, and that setting is not known for its cell: "
        "give the operators (_symmetry_equiv_pos_as_xyz)"
    )


def check_operator(text: str) -> None:
    """Check that a text can be an operator: pymatgen never comes to the end of a long one.

    Raises:
        ValueError: If it cannot.
    """
    if len(text) > _LONGEST or not re.fullmatch(r"[\sxyzXYZ0-9+\-*/.,()]+", text):
        raise ValueError(f"its symmetry operator {text[:40]!r} cannot be read")


def on_special_positions(sites: SiteTable, operators: Sequence[SymmOp], lattice: Lattice) -> SiteTable:
    """Sites whose rounded coordinates miss a special position, put on it.

    An image that differs from its site by no more than the last digits of the coordinates, as the operator adds them
    up, is the site itself; the mean of these images is on the special position.
    """
    rotations = np.array([operator.rotation_matrix for operator in operators])
    translations = np.array([operator.translation_vector for operator in operators])
    amplified = np.abs(rotations - np.eye(3))  # (n_operators, 3, 3)
    places = []
    for place, rounding in zip(sites.coordinates, sites.rounding, strict=True):
        moved = rotations @ place + translations - place
        moved -= np.round(moved)
        near = np.abs(moved) <= np.maximum(_LEAST, 1.01 * amplified @ rounding)
        same = near.all(axis=1) & (np.linalg.norm(moved @ lattice.matrix, axis=1) <= _FARTHEST)
        shift = moved[same].mean(axis=0)
        places.append(place + np.where(np.abs(shift) > 1e-12, shift, 0.0))
    return sites.moved(np.array(places))


# -- what the file gives ----------------------------------------------------------------------------------------------


def _text(data: Mapping[str, Any], key: str) -> str:
    text = next(iter(values(data, key)), "").strip()
    return "" if text in _UNKNOWN else text


def _choice(xyz: list[str], doubt: str = "") -> Choice:
    found = []
    for text in xyz:
        check_operator(text)
        try:
            found.append(SymmOp.from_xyz_str(text))
        except Exception as error:  # pymatgen raises whatever the first odd character leads to
            raise ValueError(f"its symmetry operator {text[:40]!r} cannot be read") from error
        if not np.isclose(abs(np.linalg.det(found[-1].rotation_matrix)), 1, atol=1e-3):
            raise ValueError(f"its symmetry operator {text[:40]!r} cannot be read: it is no rotation or reflection")
    return Choice(xyz, doubt, found)


def _explicit(given: list[str], names: Mapping[str, Sequence[int]], number: int | None) -> Choice:
    """Operators of the file; in doubt if they are fewer than those of the space group that it names."""
    known = next((found for halls in names.values() if (found := {_type(hall).number for hall in halls})), set())
    if not known and number is not None:
        known = {number}
    least = min((_order(one) for one in known), default=1)
    if len(given) >= least:
        return _choice(given)
    what = next(iter(names), f"number {number}")
    return _choice(
        given,
        f"it names the space group {what[:40]!r}, which has {least} operators, but gives {len(given)}: give all of "
        "them, or formula and number of units in the cell (_chemical_formula_sum, _cell_formula_units_Z)",
    )


def _doubtful(halls: Sequence[int], what: str) -> list[Choice]:
    doubt = ""
    if len(halls) > 1:
        doubt = (
            f"it gives no operators, and the space group {what[:40]!r} has several settings that would fit: name the "
            "origin or the axes ('F d -3 m :2', 'R -3 m :H'), or give the operators (_symmetry_equiv_pos_as_xyz)"
        )
    return [_choice(_xyz(hall), doubt) for hall in halls]


def _of_pymatgen(data: Mapping[str, Any]) -> list[str]:
    """Operators by a name that pymatgen's tables have; empty if they don't."""
    block = {_SPELLED.get(key, key): data[key] for key in _NAMES if key in data}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser = CifParser.from_str("data_x\n")
        found = parser.get_symops(CifBlock(block, [], "x"))
    if any("Defaulting to P1" in words for words in parser.warnings):
        return []
    return [operator.as_xyz_str() for operator in found]


_SPELLED = {
    "_symmetry_space_group_name_h-m": "_symmetry_space_group_name_H-M",
    "_space_group_name_h-m_alt": "_space_group_name_H-M_alt",
    "_space_group_name_hall": "_space_group_name_Hall",
}


# -- spglib's table of settings ---------------------------------------------------------------------------------------


@cache
def _type(hall: int) -> Any:
    return spglib.get_spacegroup_type(hall)


@cache
def _rotations(hall: int) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
    found = spglib.get_symmetry_from_database(hall)
    assert found is not None
    return found["rotations"], found["translations"]


def _xyz(hall: int) -> list[str]:
    return [
        SymmOp.from_rotation_and_translation(rotation, translation).as_xyz_str()
        for rotation, translation in zip(*_rotations(hall), strict=True)
    ]


@cache
def _order(number: int) -> int:
    """Fewest operators of any setting of a space group."""
    return min(len(_rotations(hall)[0]) for hall in range(1, _SETTINGS + 1) if _type(hall).number == number)


def _compatible(halls: Sequence[int], lattice: Lattice) -> list[int]:
    """Settings whose operators leave the lattice as it is."""
    metric = lattice.matrix @ lattice.matrix.T
    lengths = np.sqrt(np.diag(metric))
    found = []
    for hall in halls:
        rotations = _rotations(hall)[0].astype(float)
        turned = np.swapaxes(rotations, 1, 2) @ metric @ rotations
        if (np.abs(turned - metric) <= 0.01 * np.outer(lengths, lengths)).all():
            found.append(hall)
    return [hall for hall in found if _type(hall).choice.startswith("b")] or found  # axis b, where nothing else is said


def _settings(name: str, hall: bool) -> tuple[int, ...]:
    """Settings that a name may mean, of Hall or of Hermann and Mauguin."""
    return _by_hall_symbol().get(" ".join(name.split()).upper(), ()) if hall else _by_name().get(_key(name), ())


def _key(name: str) -> str:
    """A name without what is written in different ways: blanks, underscores, small and large letters."""
    return re.sub(r"[\s_]", "", name).upper()


@cache
def _by_hall_symbol() -> dict[str, tuple[int, ...]]:
    """Settings by Hall's symbol, whose blanks tell 'P 4 2' from 'P 42'."""
    return {_type(hall).hall_symbol.upper(): (hall,) for hall in range(1, _SETTINGS + 1)}


@cache
def _by_name() -> dict[str, tuple[int, ...]]:
    """Settings by each of their names."""
    found: dict[str, list[int]] = {}
    for hall in range(1, _SETTINGS + 1):
        for name in dict.fromkeys(_key(name) for name in _names(hall)):
            found.setdefault(name, []).append(hall)
    return {name: tuple(halls) for name, halls in found.items()}


def _names(hall: int) -> Iterator[str]:
    kind = _type(hall)
    names = [kind.international_full]
    if 3 <= kind.number <= 15:
        names.append(" ".join(part for part in kind.international_full.split() if part != "1"))
    else:
        names += [kind.international_short, kind.international]
    if kind.number >= 200:  # before 1983, the bar of the threefold axis was left out
        names += [name.replace("-3", "3") for name in names]
    # before 1992, one of the two glides that 'e' stands for was named
    names += [name.replace("e", glide) for name in names for glide in "abc" if "e" in name]
    choice = kind.choice if kind.choice in _SUFFIXES else kind.choice[:1] if kind.choice[:1] in "12" else ""
    for name in names:
        yield name
        yield from (f"{name}{suffix}" for suffix in _SUFFIXES.get(choice, ()))
