"""Structures from pymatgen's dictionaries in files of others.

Such a dictionary is data: of a foreign one, lattice, species, positions, numbers and texts are taken. pymatgen's own
`Structure.from_dict` hands the properties of sites to monty, which imports modules and builds objects by the names that
it finds there; nothing else in this package may call it, or another reader that builds what a file names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pymatgen.core import Lattice, Structure

SiteProperties = dict[str, list[Any]]

_LATTICE = ("a", "b", "c", "alpha", "beta", "gamma")
#: Names of heavy hydrogen, which MatterGen and ASE do not know.
ISOTOPES = {"D": "H", "T": "H"}


def read_dictionary(given: Any) -> Structure:
    """The structure of a dictionary, with those properties that are made of numbers and texts.

    Args:
        given: As `Structure.as_dict` makes it. Arrays that monty wrote are read as lists.

    Returns:
        The structure, with labels, charge and properties; deuterium and tritium are hydrogen.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: If it is no such dictionary.
    """
    structure, properties = split_dictionary(given)
    for name, values in properties.items():
        found = [_plain(value) for value in values]
        if not any(value is _NOT_PLAIN for value in found):
            structure.add_site_property(name, found)
    if isinstance(given.get("properties"), dict):
        structure.properties = plain_properties(given["properties"])
    return structure


def split_dictionary(given: Any) -> tuple[Structure, SiteProperties]:
    """The bare structure of a dictionary, and the properties of its sites as they stand there.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: As `read_dictionary`.
    """
    sites = given["sites"]
    if not isinstance(sites, list):
        raise TypeError("'sites' is no list")
    charge = given.get("charge")
    structure = Structure.from_dict(
        {
            "lattice": _lattice(given["lattice"]),
            "sites": [_site(site) for site in sites],
            "charge": None if charge is None else _number(charge, "charge"),
        }
    )
    of_sites = [site.get("properties") or {} for site in sites]
    names = dict.fromkeys(str(name) for properties in of_sites for name in properties)
    return structure, {name: [properties.get(name) for properties in of_sites] for name in names}


def read_lattice(given: Any) -> Lattice:
    """The lattice of a dictionary.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: As `read_dictionary`.
    """
    return Lattice.from_dict(_lattice(given))


def plain_properties(given: Mapping[Any, Any]) -> dict[str, Any]:
    """Those properties that are made of numbers and texts; arrays of numpy as lists."""
    kept = {str(name): _plain(value) for name, value in given.items()}
    return {name: value for name, value in kept.items() if value is not _NOT_PLAIN}


# -- nothing but numbers and texts ------------------------------------------------------------------------------------


def _lattice(given: Any) -> dict[str, Any]:
    pbc = given.get("pbc")
    kept: dict[str, Any] = {} if pbc is None else {"pbc": tuple(bool(periodic) for periodic in pbc)}
    if "matrix" in given:
        matrix = given["matrix"]
        if isinstance(matrix, dict):
            matrix = _plain(matrix)
        return kept | {"matrix": [[_number(entry, "matrix") for entry in row] for row in matrix]}
    return kept | {name: _number(given[name], name) for name in _LATTICE}


def _site(given: Any) -> dict[str, Any]:
    species = [_species(one) for one in given["species"]]
    site: dict[str, Any] = {"species": species, "abc": [_number(entry, "abc") for entry in given["abc"]]}
    label = given.get("label")
    if isinstance(label, str):
        # pymatgen labels a site by its species if nothing else is given
        site["label"] = ISOTOPES.get(label, label)
    return site


def _species(given: Any) -> dict[str, Any]:
    element = given["element"]
    if not isinstance(element, str):
        raise TypeError(f"an element is no text but a {type(element).__name__}")
    found: dict[str, Any] = {"element": ISOTOPES.get(element, element), "occu": _number(given["occu"], "occu")}
    if "oxidation_state" in given:
        state = given["oxidation_state"]
        found["oxidation_state"] = None if state is None else _number(state, "oxidation_state")
    if (spin := given.get("spin")) is not None:
        found["spin"] = _number(spin, "spin")
    return found


def _number(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name!r} holds a {type(value).__name__} where a number belongs")
    if isinstance(value, int) and not math.isfinite(float(value)):
        raise ValueError(f"{name!r} is too large")
    return value


_NOT_PLAIN = object()


def _plain(value: Any) -> Any:
    """A value made of numbers, texts and lists, as it is; of an array, the list; else `_NOT_PLAIN`."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict) and value.get("@module") == "numpy" and value.get("@class") == "array":
        return _plain(value.get("data"))
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return _NOT_PLAIN if any(item is _NOT_PLAIN for item in items) else items
    return _NOT_PLAIN
