"""Structures from pymatgen's dictionaries in files of others.

Such a dictionary is data: of a foreign one, lattice, species, positions, numbers and texts are taken. pymatgen's own
`Structure.from_dict` hands the properties of sites to monty, which imports modules and builds objects by the names that
it finds there.
"""

from __future__ import annotations

from typing import Any

from pymatgen.core import Structure

SiteProperties = dict[str, list[Any]]


def read_dictionary(given: Any) -> Structure:
    """The structure of a dictionary, with those properties that are made of numbers and texts.

    Args:
        given: As `Structure.as_dict` makes it. Arrays that monty wrote are read as lists.

    Returns:
        The structure, with labels, charge and properties.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: If it is no such dictionary.
    """
    structure, properties = split_dictionary(given)
    for name, values in properties.items():
        found = [_plain(value) for value in values]
        if not any(value is _NOT_PLAIN for value in found):
            structure.add_site_property(name, found)
    if isinstance(given.get("properties"), dict):
        kept = {str(name): _plain(value) for name, value in given["properties"].items()}
        structure.properties = {name: value for name, value in kept.items() if value is not _NOT_PLAIN}
    return structure


def split_dictionary(given: Any) -> tuple[Structure, SiteProperties]:
    """The bare structure of a dictionary, and the properties of its sites as they stand there.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: As `read_dictionary`.
    """
    sites = given["sites"]
    bare = [{key: site[key] for key in ("species", "abc", "label") if key in site} for site in sites]
    structure = Structure.from_dict({"lattice": given["lattice"], "sites": bare, "charge": given.get("charge")})
    of_sites = [site.get("properties") or {} for site in sites]
    names = dict.fromkeys(name for properties in of_sites for name in properties)
    return structure, {name: [properties.get(name) for properties in of_sites] for name in names}


_NOT_PLAIN = object()


def _plain(value: Any) -> Any:
    """A value made of numbers, texts and lists, as it is; of an array of monty's, the list; else `_NOT_PLAIN`."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict) and value.get("@module") == "numpy" and value.get("@class") == "array":
        return _plain(value.get("data"))
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return _NOT_PLAIN if any(item is _NOT_PLAIN for item in items) else items
    return _NOT_PLAIN
