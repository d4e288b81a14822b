"""From crystal to crystal: the spectrum that a forward predictor gives a structure is what others are asked for.

Density of States-Intermediated Crystal Generation for Material Inverse Design, section 6.2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mattergen_e.crystals.reading import read_structures
from mattergen_e.networks.predictor.folder import load
from mattergen_e.networks.predictor.output import predict_structures
from mattergen_e.spectra.curves import Curve
from mattergen_e.targets.files import Predict


def predicted_by(folder: str | Path) -> Predict:
    """What supplies the spectra of a structure file.

    Args:
        folder: Of a predictor of `mattergen-e dos-predictor train`.

    Returns:
        A function that gives a curve, states/eV per atom, for each structure of a file. It raises `UserError` if the
        folder holds no predictor, or a structure cannot be read or predicted.
    """

    def predict(path: Path) -> list[Curve]:
        predictor = load(folder, "cpu")
        grid = predictor.grids.total
        ends = (grid.minimum, grid.maximum)
        return [
            Curve(found.id, grid.energies, found.total.astype(np.float64), known=ends)
            for found in predict_structures(predictor, read_structures([path]))
        ]

    return predict
