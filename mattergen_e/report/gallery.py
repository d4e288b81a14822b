"""Crystals that can be turned in the browser: what `viewer.js` draws, and what stands below each picture."""

from __future__ import annotations

import base64
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.report.html import Html, formula, piece
from mattergen_e.report.runs import EvaluatedRun, number

if TYPE_CHECKING:
    from pymatgen.core import Structure

CHARGE = "bader_charge"
#: Sites this close to a face of the cell (fractional) are drawn on the opposite face too.
FACE = 0.03
_IMAGES = np.array([(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)])
FLAGS = {"vsun": "VSUN", "unique": "unique", "novel": "novel", "stable": "stable", "valid": "valid"}


def choose(run: EvaluatedRun, count: int) -> list[dict[str, Any]]:
    """Rows of the crystals to show: VSUN first, then by hull energy (unknown ones last), then by index."""
    shown = [row for row in run.rows if row["index"] in run.structures]

    def order(row: Mapping[str, Any]) -> tuple[bool, float, int]:
        hull = number(row.get("energy_above_hull"))
        return row.get("vsun") is not True, np.inf if hull is None else hull, row["index"]

    return sorted(shown, key=order)[:count]


def gallery(runs: Sequence[EvaluatedRun], count: int) -> Html:
    """The section's content: switches, cards, and the data of the viewer.

    Args:
        runs: Those with structures.
        count: Most crystals of each run.
    """
    shown = [(run, choose(run, count)) for run in runs]
    structures = [run.structures[row["index"]] for run, rows in shown for row in rows]
    charges = [q for structure in structures if (q := _charges(structure)) is not None]
    top = _top(charges)
    crystals: list[dict[str, Any]] = []
    groups = []
    for run, rows in shown:
        groups.append((run.name, [_card(run, row, len(crystals) + i) for i, row in enumerate(rows)]))
        crystals += [drawable(run.structures[row["index"]]) for row in rows]
    return piece("gallery", top, groups, {"elements": _elements(structures), "top": top, "crystals": crystals})


def _charges(structure: Structure) -> NDArray[np.float64] | None:
    """One finite charge per site, or None."""
    found = [number(site.properties.get(CHARGE)) for site in structure]
    return None if any(value is None for value in found) else np.array(found, dtype=float)


def _top(charges: Sequence[NDArray[np.float64]]) -> float | None:
    """End of the colour scale, in e: a round number that at most a fiftieth of the sites passes."""
    if not charges:
        return None
    return max(float(np.ceil(2 * np.quantile(np.abs(np.concatenate(charges)), 0.98)) / 2), 0.5)


def drawable(structure: Structure) -> dict[str, Any]:
    """A crystal as the viewer wants it, centred: edges, atoms with copies on the faces of the cell, charges.

    Returns:
        cell: nine numbers, the rows are the lattice vectors in Å; z: atomic numbers; xyz: three numbers per atom, in
        Å from the cell's centre; q: charges in e, or None.
    """
    matrix = structure.lattice.matrix
    copies = (structure.frac_coords % 1.0)[:, None, :] + _IMAGES
    site, image = np.nonzero(((copies >= -FACE) & (copies <= 1 + FACE)).all(axis=-1))
    positions = copies[site, image]
    charges = _charges(structure)
    return {
        "cell": np.round(matrix, 3).ravel().tolist(),
        "z": np.array(structure.atomic_numbers)[site].tolist(),
        "xyz": np.round((positions - 0.5) @ matrix, 3).ravel().tolist(),
        "q": None if charges is None else np.round(charges[site], 3).tolist(),
    }


def _elements(structures: Sequence[Structure]) -> dict[int, list[Any]]:
    """Symbol, radius in Å and Jmol's colour by atomic number."""
    from ase.data import chemical_symbols, covalent_radii
    from ase.data.colors import jmol_colors

    numbers = sorted({int(z) for structure in structures for z in structure.atomic_numbers})
    return {
        z: [chemical_symbols[z], round(float(covalent_radii[z]), 2), [round(255 * float(c)) for c in jmol_colors[z]]]
        for z in numbers
    }


# -- below the pictures -----------------------------------------------------------------------------------------------


def _card(run: EvaluatedRun, row: Mapping[str, Any], place: int) -> dict[str, Any]:
    structure = run.structures[row["index"]]
    name = str(row.get("formula") or structure.composition.reduced_formula)
    space_group = f", {row['space_group']}" if row.get("space_group") else ""
    flags = [(label, True) for key, label in FLAGS.items() if row.get(key) is True]
    flags += [(f"not {label}", False) for key, label in FLAGS.items() if row.get(key) is False and key != "vsun"]
    return {
        "formula": formula(name),
        "described": f"crystal {row['index']}{space_group}, {len(structure)} atoms",
        "place": place,
        "alternative": f"{name}: unit cell with {len(structure)} atoms; drag or use the arrow keys to turn it",
        "flags": flags,
        "lines": [_energy(row), *_values(row, structure)],
        "links": _links(run, row["index"], name),
    }


def _energy(row: Mapping[str, Any]) -> str:
    hull = number(row.get("energy_above_hull"))
    if hull is None:
        return "hull energy unknown"
    return f"{abs(hull):.3f} eV/atom {'above' if hull >= 0 else 'below'} the hull"


def _values(row: Mapping[str, Any], structure: Structure) -> list[str]:
    """Charges by element, and properties."""
    lines = []
    charges = _charges(structure)
    if charges is not None:
        symbols = np.array([site.specie.symbol for site in structure])
        means = (f"{s}\N{NO-BREAK SPACE}{charges[symbols == s].mean():+.2f}" for s in dict.fromkeys(symbols.tolist()))
        lines.append(f"charge (e): {', '.join(means).replace('-', '−')}")
    properties = row.get("properties")
    for key, found in (properties if isinstance(properties, dict) else {}).items():
        value = number(found.get("value")) if isinstance(found, dict) else None
        if value is not None:
            target = number(found.get("target"))
            lines.append(f"{key}: {value:.2f}" + ("" if target is None else f" (target {target:g})"))
    return lines


def _links(run: EvaluatedRun, index: int, name: str) -> list[tuple[str, str, str]]:
    """Label, file name and content in base64 of each CIF."""
    links = [_cif(run.structures[index], f"{name}_{index}", "CIF")]
    if index in run.relaxed:
        links.append(_cif(run.relaxed[index], f"{name}_{index}_relaxed", "relaxed CIF"))
    return links


def _cif(structure: Structure, name: str, label: str) -> tuple[str, str, str]:
    """A file for a link; charges are in it as a column."""
    from pymatgen.core import Structure as Bare
    from pymatgen.io.cif import CifWriter

    charges = _charges(structure)
    columns = {} if charges is None else {CHARGE: charges.tolist()}
    bare = Bare(structure.lattice, structure.species, structure.frac_coords, site_properties=columns)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No Pauling electronegativity")
        content = str(CifWriter(bare, write_site_properties=bool(columns)))
    data = base64.b64encode(content.encode()).decode()
    return label, re.sub(r"[^\w.-]", "", name) + ".cif", data
