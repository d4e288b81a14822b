"""Draws the spectra that crystals were asked for beside those that a predictor gives them.

python docs/images/draw_targets.py OUT/target_dos.npz OUT docs/images/dos_targets.png --quantiles 0.9 0.5 0.1
python docs/images/draw_targets.py TARGETS OUT docs/images/dos_window.png --crystals 0 1 2 --window -2 2
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from mattergen_e.crystals.reading import NamedStructure
from mattergen_e.generation.store import read_crystals
from mattergen_e.networks.predictor.folder import load
from mattergen_e.networks.predictor.output import predict_structures
from mattergen_e.spectra.grid import TOTAL_GRID


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of the angle between two spectra."""
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def main() -> None:
    """Draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--predictor", type=Path, default=Path("checkpoints/dos_predictor"))
    parser.add_argument("--quantiles", type=float, nargs="+", help="of the cosine over all crystals")
    parser.add_argument("--crystals", type=int, nargs="+")
    parser.add_argument("--window", type=float, nargs=2, default=(-10.0, 5.0))
    arguments = parser.parse_args()
    with np.load(arguments.targets, allow_pickle=False) as file:
        curves = file["dos"]
    crystals = read_crystals(arguments.out)
    named = [NamedStructure(str(c.index), c.structure.copy(site_properties={})) for c in crystals]
    found = [s.total for s in predict_structures(load(arguments.predictor, "cpu"), named)]
    rows = [c.conditions["dos"]["curve"] for c in crystals]
    asked = (TOTAL_GRID.energies >= arguments.window[0]) & (TOTAL_GRID.energies <= arguments.window[1])
    values = [cosine(f[asked], curves[row][asked]) for f, row in zip(found, rows, strict=True)]
    order = np.argsort(values)
    chosen = arguments.crystals or [int(order[round(q * (len(order) - 1))]) for q in arguments.quantiles or [0.5]]
    figure, axes = plt.subplots(1, len(chosen), figsize=(4.2 * len(chosen), 3), squeeze=False, sharey=False)
    for axis, place in zip(axes[0], chosen, strict=True):
        axis.fill_between(TOTAL_GRID.energies, np.clip(curves[rows[place]], 0, None), color="0.8", label="asked for")
        axis.plot(TOTAL_GRID.energies, found[place], color="tab:blue", label="of the crystal, predicted")
        axis.axvspan(*arguments.window, color="tab:orange", alpha=0.08)
        axis.set(
            xlim=(-10, 6), xlabel="energy (eV)", title=f"{named[place].structure.reduced_formula}, {values[place]:.2f}"
        )
    axes[0][0].set_ylabel("states/eV per atom")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(arguments.picture, dpi=110)


if __name__ == "__main__":
    main()
