"""Draws generated crystals coloured by charge, for the README.

python docs/images/draw_crystals.py OUT/generated_crystals.extxyz docs/images/generated_crystal.png --index 0 3
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.visualize.plot import plot_atoms
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from pymatgen.core import Lattice
from pymatgen.io.ase import AseAtomsAdaptor


def reduced(atoms: Atoms) -> Atoms:
    """The same crystal in its Niggli-reduced cell, with its charges."""
    structure = AseAtomsAdaptor.get_structure(atoms).get_reduced_structure()
    cell = Lattice.from_parameters(*structure.lattice.parameters).matrix
    result = Atoms(structure.atomic_numbers, scaled_positions=structure.frac_coords % 1.0, cell=cell, pbc=True)
    result.set_array("bader_charge", np.array(structure.site_properties["bader_charge"]))
    return result


def boundary_copies(atoms: Atoms) -> Atoms:
    """The crystal with the copies of its sites that lie on the faces of the cell, each with its charge."""
    wrapped = atoms.copy()
    wrapped.wrap(eps=1e-3)
    scaled, shown = wrapped.get_scaled_positions(), wrapped.copy()
    for shift in [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1) if (i, j, k) != (0, 0, 0)]:
        keep = [n for n, s in enumerate(scaled) if all(x < 0.03 for x, d in zip(s, shift, strict=True) if d)]
        if keep:
            copies = wrapped[keep]
            copies.translate(shift @ wrapped.cell.array)
            shown += copies
    return shown


def main() -> None:
    """Draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crystals", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--index", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    frames = ase.io.read(arguments.crystals, ":")
    figure, axes = plt.subplots(1, len(arguments.index), figsize=(4 * len(arguments.index) + 1, 4), squeeze=False)
    colours = ScalarMappable(Normalize(-2, 2), "RdBu")
    for axis, index in zip(axes[0], arguments.index, strict=True):
        shown = boundary_copies(reduced(frames[index]))
        charges = shown.arrays["bader_charge"]
        plot_atoms(shown, axis, rotation="10x,-20y", colors=colours.to_rgba(charges)[:, :3], radii=0.4)
        axis.set_title(frames[index].get_chemical_formula("metal"))
        axis.set_axis_off()
    figure.colorbar(colours, ax=axes[0].tolist(), label="Bader charge (e)", shrink=0.7)
    figure.savefig(arguments.picture, dpi=130, bbox_inches="tight")


if __name__ == "__main__":
    main()
