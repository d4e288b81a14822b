"""Bader charges of textbook crystals by GPAW and baderkit: made textbook_crystals.jsonl.

Two steps, because GPAW and baderkit may live in different Pythons. The first needs ase and gpaw, the second baderkit:

    OMP_NUM_THREADS=1 python3 compute_textbook_crystals.py density WORK
    python compute_textbook_crystals.py charges WORK textbook_crystals.jsonl

The first writes WORK/<id>/CHGCAR (all-electron density) and WORK/<id>/density.json; crystals that are there already are
left out, and so are those that do not converge. The second checks the charges and writes those that pass.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

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

CUTOFF = 400  # eV
KPOINTS = {"density": 2.5, "gamma": True, "even": True}
SMEARING = 0.05  # eV
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


def write_chgcar(path: Path, atoms: Any, density: Any) -> None:
    """Write a density in the format of VASP's CHGCAR.

    Args:
        path: The file.
        atoms: The crystal; sites of one element must stand together.
        density: Electrons per Å^3 on a grid that starts at the origin, array (nx, ny, nz).
    """
    symbols = atoms.get_chemical_symbols()
    elements = list(dict.fromkeys(symbols))
    counts = [symbols.count(element) for element in elements]
    if symbols != [e for e, n in zip(elements, counts) for _ in range(n)]:  # noqa: B905
        raise ValueError(f"the sites are not ordered by element: {symbols}")
    lines = [str(atoms.symbols), "1.0"]
    lines += [" ".join(f"{x:.12f}" for x in row) for row in atoms.cell]
    lines += [" ".join(elements), " ".join(map(str, counts)), "Direct"]
    lines += [" ".join(f"{x:.12f}" for x in row) for row in atoms.get_scaled_positions()]
    lines += ["", " ".join(map(str, density.shape))]
    values = (density * atoms.get_volume()).ravel(order="F")  # x runs fastest
    with path.open("w", encoding="utf-8") as handle:
        handle.write("\n".join(lines) + "\n")
        for start in range(0, len(values), 5):
            handle.write(" ".join(f"{x:.10E}" for x in values[start : start + 5]) + "\n")


def compute_density(folder: Path, atoms: Any, refinement: int) -> None:
    """Run GPAW on one crystal and write CHGCAR and density.json.

    Args:
        folder: Where to write.
        atoms: The crystal.
        refinement: Refinement of GPAW's coarse grid for the all-electron density: 2 or 4.
    """
    import gpaw

    folder.mkdir(parents=True, exist_ok=True)
    start = time.process_time()
    calculator = gpaw.GPAW(
        mode=gpaw.PW(CUTOFF),
        xc="PBE",
        kpts=KPOINTS,
        occupations=gpaw.FermiDirac(SMEARING),
        spinpol=False,
        txt=str(folder / "gpaw.txt"),
    )
    atoms.calc = calculator
    atoms.get_potential_energy()
    density = calculator.get_all_electron_density(gridrefinement=refinement)
    write_chgcar(folder / "CHGCAR", atoms, density)
    record = {
        "cell": atoms.cell.tolist(),
        "species": atoms.get_chemical_symbols(),
        "positions": atoms.get_scaled_positions().tolist(),
        "electrons": int(atoms.numbers.sum()),
        "grid": list(density.shape),
        "kpoints": len(calculator.get_bz_k_points()),
        "gpaw": gpaw.__version__,
        "cpu_seconds": round(time.process_time() - start, 1),
    }
    # Last, so that its presence says that the crystal is done.
    (folder / "density.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def run_density(work: Path, only: list[str], refinement: int) -> None:
    """The first step: densities of all crystals that are not done yet.

    Args:
        work: Folder of the runs.
        only: Ids to run; all if empty.
        refinement: As in `compute_density`.
    """
    from gpaw import KohnShamConvergenceError

    for name, prototype, elements, constants in CRYSTALS:
        folder = work / name
        if (only and name not in only) or (folder / "density.json").exists():
            continue
        try:
            compute_density(folder, build_atoms(prototype, elements, constants), refinement)
        except (KohnShamConvergenceError, FileNotFoundError) as error:  # the latter: an element without a setup
            print(f"{name}: left out, {type(error).__name__}: {error}", file=sys.stderr)
        else:
            print(f"{name}: done", flush=True)


def site_charges(folder: Path, structure: Any) -> list[float]:
    """Partition a density and check the charges.

    Args:
        folder: Where CHGCAR is.
        structure: The crystal, as a pymatgen `Structure` in the order of CHGCAR's sites.

    Returns:
        Charge of each site in e, positive where electrons are lost, with the rest of the integration (checked to be
        small) taken off equally, so that the cell is neutral.

    Raises:
        ValueError: If electrons are missing or equivalent sites differ.
    """
    import numpy as np
    from baderkit import Bader

    logging.disable(logging.INFO)  # baderkit tells every step
    bader = Bader.from_vasp(charge_grid=str(folder / "CHGCAR"))
    numbers = np.array([site.specie.Z for site in structure])
    charges = numbers - np.asarray(bader.atom_charges, dtype=float)
    error = float(charges.sum())
    by_element = defaultdict(list)
    for site, charge in zip(structure, charges, strict=True):
        by_element[site.specie.symbol].append(charge)
    spread = max(max(values) - min(values) for values in by_element.values())
    values = " ".join(f"{charge:+.4f}" for charge in charges)
    print(f"{folder.name}: {values} e; sum {error:+.4f}, spread {spread:.4f}", flush=True)
    if abs(error) > MAX_ELECTRON_ERROR:
        raise ValueError(f"the charges add up to {error:+.4f} e")
    if spread > MAX_SITE_SPREAD:
        raise ValueError(f"equivalent sites differ by {spread:.4f} e")
    return [round(float(charge), 4) for charge in charges - error / len(charges)]


def run_charges(work: Path, output: Path) -> None:
    """The second step: charges of all densities, written as JSON lines.

    Args:
        work: Folder of the runs.
        output: The file to write.
    """
    import numpy as np
    from pymatgen.core import Structure

    lines = []
    for name, *_ in CRYSTALS:
        folder = work / name
        if not (folder / "density.json").exists():
            print(f"{name}: no density", file=sys.stderr)
            continue
        run = json.loads((folder / "density.json").read_text(encoding="utf-8"))
        cell, positions = (np.round(run[key], 10) + 0.0 for key in ("cell", "positions"))  # + 0.0: no -0.0
        structure = Structure(cell, run["species"], positions)
        try:
            charges = site_charges(folder, structure)
        except ValueError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
            continue
        if name == PIPELINE_CHECK:
            continue
        source = f"GPAW {run['gpaw']} PBE, plane waves {CUTOFF} eV; Bader by baderkit {version('baderkit')}"
        record = {"id": name, "structure": structure.as_dict(), "bader_charge": charges, "split": "test"}
        lines.append(json.dumps({**record, "source": source}))
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} crystals in {output}")


def main() -> None:
    """Read the command line and run one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    density = steps.add_parser("density", help="GPAW: all-electron densities (needs ase and gpaw)")
    density.add_argument("work", type=Path, help="folder of the runs")
    density.add_argument("--only", nargs="*", default=[], metavar="ID", help="run these crystals only")
    density.add_argument("--refinement", type=int, default=4, choices=(2, 4), help="grid of the density")
    charges = steps.add_parser("charges", help="Bader charges, checked and written (needs baderkit)")
    charges.add_argument("work", type=Path, help="folder of the runs")
    charges.add_argument("output", type=Path, help="the .jsonl file to write")
    arguments = parser.parse_args()
    if arguments.step == "density":
        run_density(arguments.work, arguments.only, arguments.refinement)
    else:
        run_charges(arguments.work, arguments.output)


if __name__ == "__main__":
    main()
