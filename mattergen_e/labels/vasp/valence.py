"""How many electrons the potentials of a VASP calculation treat on each site."""

from __future__ import annotations

import re
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.findings import LabelError
from mattergen_e.labels.vasp.files import read_bytes, reading

if TYPE_CHECKING:
    from pymatgen.core import Structure

_ZVAL = re.compile(r"POMASS\s*=\s*[\d.]+\s*;\s*ZVAL\s*=\s*([\d.]+)")
_IONS = re.compile(r"ions per type\s*=\s*([\d\s]+)")
_TABLE = "potcar-summary-stats.json.bz2"


def of_vasprun(path: Path, n_sites: int) -> NDArray[np.float64] | None:
    """(n_sites,) electrons that the potentials treat, from the head of vasprun.xml; None without it."""
    from xml.etree import ElementTree

    from monty.io import zopen

    types: list[int] = []
    valence: list[float] = []
    try:
        with reading(path), zopen(path, "rb") as file:
            for _, element in ElementTree.iterparse(file):
                if element.tag == "array" and element.get("name") == "atoms":
                    types = [int(row[1].text or "") for row in element.iter("rc")]
                elif element.tag == "array" and element.get("name") == "atomtypes":
                    valence = [float(row[3].text or "") for row in element.iter("rc")]
                elif element.tag == "atominfo":
                    break
        result = np.array([valence[kind - 1] for kind in types])
    except (ElementTree.ParseError, ValueError, IndexError):
        return None
    return result if len(result) == n_sites and bool(np.all((result > 0) & (result < 200))) else None


def of_text(path: Path, structure: Structure) -> NDArray[np.float64] | None:
    """(n_sites,) electrons that the potentials treat, from the ZVAL lines of POTCAR or OUTCAR; None without them."""
    text = read_bytes(path).decode(errors="replace")
    valence = [float(number) for number in _ZVAL.findall(text)]
    runs = np.array([site.specie.Z for site in structure])
    starts = np.flatnonzero(np.diff(runs, prepend=0))
    counts = np.diff(starts, append=len(runs))
    if (ions := _IONS.search(text)) is not None:
        counts = np.array(ions[1].split(), dtype=int)
    if len(valence) != len(counts) or counts.sum() != len(structure):
        return None
    return np.repeat(valence, counts)


def guess(
    structure: Structure, electrons: float, tolerance: float, known: dict[str, float] | None = None
) -> dict[str, float]:
    """Valence by element, if one choice among VASP's PBE potentials alone gives the number of electrons.

    The table of potentials is pymatgen's (`potcar-summary-stats`).

    Args:
        structure: The crystal.
        electrons: Integrated valence density, e.
        tolerance: Largest difference, e.
        known: Valence of some elements, which stays.

    Raises:
        LabelError: With reason no_valence, if none or several choices fit.
    """
    amounts = {str(e.symbol): n for e, n in structure.composition.element_composition.items()}
    options = by_element() | {symbol: {value} for symbol, value in (known or {}).items()}
    choices = [sorted(options.get(symbol, ())) for symbol in amounts]
    ask = "give bader.valence, electrons by element"
    if np.prod([float(len(choice)) for choice in choices]) > 1e5:
        raise LabelError("no_valence", f"neither vasprun.xml nor POTCAR nor OUTCAR tells the valence: {ask}")
    counts = list(amounts.values())
    fitting = [c for c in product(*choices) if abs(float(np.dot(c, counts)) - electrons) <= tolerance]
    if len(fitting) != 1:
        raise LabelError(
            "no_valence",
            f"neither vasprun.xml nor POTCAR nor OUTCAR tells the valence, and {len(fitting)} choices of VASP's PBE "
            f"potentials give {electrons:.3f} electrons: {ask}",
        )
    return dict(zip(amounts, fitting[0], strict=True))


@cache
def potentials() -> dict[str, frozenset[float]]:
    """Valences of VASP's PBE potentials by name, e.g. Na_pv; more than one where pymatgen's tables differ."""
    from importlib.resources import files

    from monty.serialization import loadfn

    found: dict[str, set[float]] = {}
    path = Path(str(files("pymatgen.io.vasp"))) / _TABLE
    tables = loadfn(path) if path.is_file() else {}
    for table in (table for functional, table in tables.items() if functional.startswith("PBE")):
        for variant in (variant for variants in table.values() for variant in variants):
            found.setdefault(variant["symbol"], set()).add(float(variant["ZVAL"]))
    return {name: frozenset(values) for name, values in found.items()}


@cache
def by_element() -> dict[str, set[float]]:
    """Valences of VASP's PBE potentials by element; fractional hydrogen left out."""
    found: dict[str, set[float]] = {}
    for name, values in potentials().items():
        symbol = re.split(r"[_.]", name)[0]
        whole = {value for value in values if value.is_integer()}
        if symbol.isalpha() and whole:
            found.setdefault(symbol, set()).update(whole)
    return found
