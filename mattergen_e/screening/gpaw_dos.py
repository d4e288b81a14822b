"""Relaxes crystals with GPAW and computes their densities of states: PBE, plane waves.

    python gpaw_dos.py crystals/*.cif                  relax, then the DOS
    python gpaw_dos.py --no-relax crystals/gen_3.cif   the DOS of the crystal as it is

Beside each crystal NAME.cif: NAME.relaxed.cif, NAME.gpaw.txt, and NAME.dos.npz with `energies` (eV relative to the
Fermi energy), `dos` (states/eV per atom) and `sites` (n_sites, points; states/eV). A crystal that has NAME.dos.npz is
passed over. The settings are those of `mattergen-e data compute`; a relaxation wants --cutoff 500 or more (stress).

This file stands alone: it needs Python 3.9, numpy, ase and gpaw. Under MPI: mpiexec -n 8 gpaw python gpaw_dos.py ...
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

ENERGIES = np.linspace(-15.0, 10.0, 1001)
ORBITALS = 4  # s, p, d, f


def calculator(arguments: argparse.Namespace, log: Path) -> Any:
    """GPAW with the settings of the command line."""
    from gpaw import GPAW, PW, FermiDirac  # type: ignore[import-not-found]

    return GPAW(
        mode=PW(arguments.cutoff),
        xc="PBE",
        kpts={"density": arguments.kpoint_density, "gamma": True, "even": True},
        occupations=FermiDirac(arguments.smearing),
        nbands="200%",
        spinpol=arguments.spin,
        txt=str(log),
    )


def relax(atoms: Any, arguments: argparse.Namespace, log: Path) -> None:
    """Moves atoms and cell to the minimum."""
    from ase.optimize import BFGS

    try:
        from ase.filters import FrechetCellFilter as CellFilter
    except ImportError:  # ase before 3.23
        from ase.constraints import ExpCellFilter as CellFilter  # type: ignore[attr-defined,no-redef]
    moving: Any = CellFilter(atoms)
    BFGS(moving, logfile=str(log)).run(fmax=arguments.fmax, steps=arguments.steps)


def spectra(atoms: Any, width: float) -> dict[str, Any]:
    """Total DOS per atom and projections on the sites, spins summed."""
    dos = atoms.calc.dos()
    total = dos.raw_dos(ENERGIES, width=width)
    sites = [
        sum(dos.raw_pdos(ENERGIES, a=site, l=orbital, width=width) for orbital in range(ORBITALS))
        for site in range(len(atoms))
    ]
    return {"energies": ENERGIES, "dos": total / len(atoms), "sites": np.array(sites)}


def run(path: Path, arguments: argparse.Namespace) -> None:
    """One crystal."""
    from ase.io import read, write
    from ase.parallel import parprint, world

    result = path.with_suffix(".dos.npz")
    if result.exists():
        parprint(f"{result} exists")
        return
    atoms: Any = read(path)
    if np.linalg.det(atoms.cell) < 0:  # GPAW wants right-handed cells
        atoms.set_cell(-np.array(atoms.cell))
        atoms.positions = -atoms.positions
    if arguments.spin:
        atoms.set_initial_magnetic_moments([1.0] * len(atoms))
    atoms.calc = calculator(arguments, path.with_suffix(".gpaw.txt"))
    if arguments.relax:
        relax(atoms, arguments, path.with_suffix(".bfgs.txt"))
        write(path.with_suffix(".relaxed.cif"), atoms)
    energy = atoms.get_potential_energy()
    found = spectra(atoms, arguments.dos_width)
    if world.rank == 0:
        np.savez(result, **found, total_energy=energy)
    parprint(f"{result}: {energy / len(atoms):.4f} eV/atom")


def main() -> None:
    """All crystals of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crystals", nargs="+", type=Path, help="CIF files")
    parser.add_argument("--no-relax", dest="relax", action="store_false", help="keep the crystals as they are")
    parser.add_argument("--cutoff", type=float, default=350.0, help="largest plane wave, eV")
    parser.add_argument("--kpoint-density", type=float, default=2.5, help="k-points per 1/Å along each axis")
    parser.add_argument("--smearing", type=float, default=0.05, help="width of the Fermi-Dirac occupation, eV")
    parser.add_argument("--dos-width", type=float, default=0.1, help="w of the DOS's broadening exp(-(E/w)^2), eV")
    parser.add_argument("--fmax", type=float, default=0.05, help="largest force of a relaxed crystal, eV/Å")
    parser.add_argument("--steps", type=int, default=200, help="most steps of a relaxation")
    parser.add_argument("--spin", action="store_true", help="spin-polarised, from ferromagnetic moments")
    arguments = parser.parse_args()
    for path in arguments.crystals:
        run(path, arguments)


if __name__ == "__main__":
    main()
