"""Draws the spectrum that site 0 was asked for beside those that a predictor gives it, a panel per run.

python docs/images/draw_site.py cache/dos/test docs/images/site_dos.png site_targets/target_{0,1,2}_guided
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from mattergen_e.crystals.reading import NamedStructure
from mattergen_e.data.cache import load_array, open_sites
from mattergen_e.generation.store import read_crystals
from mattergen_e.networks.predictor.folder import load
from mattergen_e.networks.predictor.output import predict_structures
from mattergen_e.spectra.grid import ATOMIC_GRID


def main() -> None:
    """Draws."""
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    split, picture, runs = Path(sys.argv[1]), Path(sys.argv[2]), [Path(word) for word in sys.argv[3:]]
    spectra, counts = open_sites(split, "atomic_dos"), load_array(split / "num_atoms.npy")
    ids, starts = load_array(split / "structure_id.npy").tolist(), np.concatenate([[0], np.cumsum(counts)])
    predictor = load("checkpoints/dos_predictor", "cpu")
    figure, axes = plt.subplots(1, len(runs), figsize=(4.2 * len(runs), 3), squeeze=False)
    for axis, run in zip(axes[0], runs, strict=True):
        asked = next(iter(json.loads((run / "constraints.json").read_text())["sites"][0].values().__reversed__()))
        target = spectra[starts[ids.index(asked["structure"])] + asked["site"]]
        named = [NamedStructure(str(c.index), c.structure.copy(site_properties={})) for c in read_crystals(run)]
        axis.fill_between(ATOMIC_GRID.energies, target, color="0.8", label="asked for")
        for found in predict_structures(predictor, named)[:4]:
            label = f"{found.structure[0].specie} in {found.structure.reduced_formula}"
            axis.plot(ATOMIC_GRID.energies, found.sites[0], lw=1, label=label)
        axis.set(xlabel="energy (eV)", title=f"site {asked['site']} of {asked['structure']}")
        axis.legend(fontsize=7)
    axes[0][0].set_ylabel("states/eV")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
