"""Bader charges of textbook crystals by GPAW and baderkit: made textbook_crystals.jsonl.

    OMP_NUM_THREADS=1 python compute_textbook_crystals.py WORK textbook_crystals.jsonl

Crystals are computed as `mattergen-e data compute` does it; those that are in WORK already are left out, and so are
those that do not converge. The charges are checked, and those that pass are written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Structure

from mattergen_e.crystals.reading import NamedStructure
from mattergen_e.labels.computed.compute import ComputeSettings, compute

# Space group, and the fractional coordinates of each kind of site in the conventional cell.
ROCK_SALT = (225, [(0, 0, 0), (0.5, 0.5, 0.5)])
ZINC_BLENDE = (216, [(0, 0, 0), (0.25, 0.25, 0.25)])
FLUORITE = (225, [(0, 0, 0), (0.25, 0.25, 0.25)])
CORUNDUM = (167, [(0, 0, 0.352), (0.306, 0, 0.25)])

# Id, prototype, element of each kind of site, and lattice constants a (and c) in Å: handbook values, rounded. Mg2Si is
# the antifluorite: anion and cation of fluorite exchanged.
CRYSTALS: tuple[tuple[str, tuple, tuple[str, ...], tuple[float, ...]], ...] = (
    ("NaCl", ROCK_SALT, ("Na", "Cl"), (5.64,)),
    ("MgSe", ROCK_SALT, ("Mg", "Se"), (5.46,)),
    ("BaS", ROCK_SALT, ("Ba", "S"), (6.39,)),
    ("NaI", ROCK_SALT, ("Na", "I"), (6.47,)),
    ("SrTe", ROCK_SALT, ("Sr", "Te"), (6.66,)),
    ("AgBr", ROCK_SALT, ("Ag", "Br"), (5.77,)),
    ("CsH", ROCK_SALT, ("Cs", "H"), (6.38,)),
    ("ZnSe", ZINC_BLENDE, ("Zn", "Se"), (5.668,)),
    ("BeTe", ZINC_BLENDE, ("Be", "Te"), (5.626,)),
    ("CdTe", ZINC_BLENDE, ("Cd", "Te"), (6.482,)),
    ("Mg2Si", FLUORITE, ("Si", "Mg"), (6.351,)),
    ("HgF2", FLUORITE, ("Hg", "F"), (5.54,)),
    ("Al2O3", CORUNDUM, ("Al", "O"), (4.76, 12.99)),
)
PIPELINE_CHECK = "NaCl"  # A known number, 0.865 e; not written, because NaCl is in many training sets.

SETTINGS = ComputeSettings(cutoff=400, kpoint_density=2.5, smearing=0.05, refinement=4)
MAX_ELECTRON_ERROR = 0.02  # e: sum over the sites against the electrons of the neutral cell
MAX_SITE_SPREAD = 0.02  # e: sites of one element; in these prototypes they are all equivalent


def build_atoms(prototype: tuple, elements: tuple[str, ...], constants: tuple[float, ...]) -> Any:
    """Build the primitive cell of a prototype.

    Args:
        prototype: Space group number and positions of the kinds of sites.
        elements: Element of each kind of site.
        constants: a of a cubic crystal, or a and c of a hexagonal one, in Å.

    Returns:
        The `ase.Atoms`, its sites in the order of `elements`.
    """
    from ase.build import sort
    from ase.spacegroup import crystal

    number, positions = prototype
    a, c = constants[0], constants[-1]
    cell = [a, a, c, 90, 90, 90 if len(constants) == 1 else 120]
    atoms = crystal(list(elements), positions, spacegroup=number, cellpar=cell, primitive_cell=True)
    return sort(atoms, tags=[elements.index(symbol) for symbol in atoms.get_chemical_symbols()])


def build_structure(prototype: tuple, elements: tuple[str, ...], constants: tuple[float, ...]) -> Structure:
    """The same as a pymatgen `Structure`, without the last digits that differ from machine to machine."""
    atoms = build_atoms(prototype, elements, constants)
    cell, positions = (np.round(values, 10) + 0.0 for values in (atoms.cell, atoms.get_scaled_positions()))
    return Structure(cell, atoms.get_chemical_symbols(), positions)  # + 0.0: no -0.0


def checked(name: str, structure: Structure, charges: np.ndarray) -> list[float]:
    """Check the charges of a crystal more strictly than `mattergen-e data compute` does.

    Args:
        name: Id of the crystal.
        structure: The crystal.
        charges: (n_sites,) e, positive where electrons are lost.

    Returns:
        Charge of each site in e, with the rest of the integration (checked to be small) taken off equally, so that the
        cell is neutral.

    Raises:
        ValueError: If electrons are missing or equivalent sites differ.
    """
    error = float(charges.sum())
    by_element = defaultdict(list)
    for site, charge in zip(structure, charges, strict=True):
        by_element[site.specie.symbol].append(charge)
    spread = max(max(values) - min(values) for values in by_element.values())
    values = " ".join(f"{charge:+.4f}" for charge in charges)
    print(f"{name}: {values} e; sum {error:+.4f}, spread {spread:.4f}", flush=True)
    if abs(error) > MAX_ELECTRON_ERROR:
        raise ValueError(f"the charges add up to {error:+.4f} e")
    if spread > MAX_SITE_SPREAD:
        raise ValueError(f"equivalent sites differ by {spread:.4f} e")
    return [round(float(charge), 4) for charge in charges - error / len(charges)]


def line(work: Path, crystal: NamedStructure, made_by: dict[str, str]) -> str:
    """A crystal's line of the output.

    Args:
        work: Folder of the calculations.
        crystal: The crystal.
        made_by: Versions, from the manifest of the calculations.

    Raises:
        ValueError: If the charges do not pass the checks.
    """
    with np.load(work / f"{crystal.id}.npz", allow_pickle=False) as archive:
        if "bader" not in archive:
            raise ValueError("its charges were refused")
        charges = checked(crystal.id, crystal.structure, archive["bader"].astype(float))
    source = f"GPAW {made_by['gpaw']} PBE, plane waves {SETTINGS.cutoff:g} eV; Bader by baderkit {made_by['baderkit']}"
    record = {"id": crystal.id, "structure": crystal.structure.as_dict(), "bader_charge": charges, "split": "test"}
    return json.dumps({**record, "source": source})


def main() -> None:
    """Compute, check and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of the calculations")
    parser.add_argument("output", type=Path, help="the .jsonl file to write")
    parser.add_argument("--only", nargs="*", default=[], metavar="ID", help="these crystals only")
    parser.add_argument("--python", type=Path, help="a Python that has GPAW")
    arguments = parser.parse_args()
    chosen = [crystal for crystal in CRYSTALS if not arguments.only or crystal[0] in arguments.only]
    named = [NamedStructure(name, build_structure(*parts)) for name, parts in ((c[0], c[1:]) for c in chosen)]
    compute(named, arguments.work, settings=SETTINGS, python=arguments.python)
    with (arguments.work / "manifest.jsonl").open(encoding="utf-8") as file:
        versions = {record["material_id"]: record["versions"] for record in map(json.loads, file)}
    lines = []
    for crystal in named:
        if crystal.id not in versions:
            print(f"{crystal.id}: not computed, see {arguments.work / 'failed.jsonl'}", file=sys.stderr)
            continue
        try:
            made = line(arguments.work, crystal, versions[crystal.id])
        except ValueError as error:
            print(f"{crystal.id}: left out, {error}", file=sys.stderr)
            continue
        if crystal.id != PIPELINE_CHECK:
            lines.append(made)
    arguments.output.write_text("".join(text + "\n" for text in lines), encoding="utf-8")
    print(f"{len(lines)} crystals in {arguments.output}")


if __name__ == "__main__":
    main()
