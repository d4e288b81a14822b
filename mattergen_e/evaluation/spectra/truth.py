"""The crystals that the asked-for densities of states are of, and how far generated ones are them (DOSMatGen, 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.data.cache import load_array
from mattergen_e.errors import UserError
from mattergen_e.evaluation.spectra.metrics import Pairs, grouped_bootstrap
from mattergen_e.evaluation.statistics import fractions
from mattergen_e.spectra.comparison import ANGLE_TOL, LTOL, STOL, cosine, crystal_matches, mean_absolute_error

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from mattergen_e.evaluation.spectra.targets import DosTargets


@dataclass(frozen=True, eq=False)
class Truth:
    """Crystals that curves are of.

    Attributes:
        structures: By the row of the curve; one that the split does not have is missing.
        source: The split.
    """

    structures: Mapping[int, Structure]
    source: Path


def read_truth(split: Path, targets: DosTargets) -> Truth:
    """Find the crystals of curves in a split of a cache, by their names.

    Args:
        split: `<cache>/<split>`.
        targets: Whose crystals are looked for.

    Raises:
        UserError: If it is no split, or has none of them.
    """
    if not (split / "structure_id.npy").is_file():
        raise UserError(f"{split} is no split of a cache: give --truth CACHE/test.")
    rows = {str(name): row for row, name in enumerate(load_array(split / "structure_id.npy").tolist())}
    known = {curve: rows[name] for curve, name in enumerate(targets.names) if name in rows}
    if not known:
        raise UserError(
            f"{split} has none of the {len(targets.names)} crystals that the target curves are of (the first is "
            f"{targets.names[0]}): give --truth the split that they were read from."
        )
    return Truth(_structures(split, known), split)


def _structures(split: Path, rows: Mapping[int, int]) -> dict[int, Structure]:
    from pymatgen.core import Lattice, Structure

    names = ("num_atoms", "cell", "atomic_numbers", "pos")
    counts, cells, numbers, positions = (load_array(split / f"{name}.npy") for name in names)
    ends = np.cumsum(counts)
    found = {}
    for curve, row in rows.items():
        sites = slice(int(ends[row] - counts[row]), int(ends[row]))
        found[curve] = Structure(Lattice(np.asarray(cells[row])), numbers[sites].tolist(), np.asarray(positions[sites]))
    return found


def matches(
    truth: Truth, structures: Mapping[int, Structure], asked: Mapping[int, int]
) -> tuple[dict[str, Any], dict[int, dict[str, bool]]]:
    """Match rates of table 2, of all crystals that were asked for a curve whose crystal is known.

    Args:
        truth: Those crystals.
        structures: Generated crystals by index; one that is missing does not match.
        asked: Row of the curve by index.

    Returns:
        `structure_match` and `composition_match` with their Wilson intervals, and the same by index.
    """
    of_known = [index for index, curve in asked.items() if curve in truth.structures]
    made = [index for index in of_known if index in structures]
    verdicts = crystal_matches([structures[i] for i in made], [truth.structures[asked[i]] for i in made])
    rows = {
        index: {f"dos_{name}_match": bool(verdict[place]) for name, verdict in verdicts.items()}
        for place, index in enumerate(made)
    }
    lost = [False] * (len(of_known) - len(made))
    rates = {f"{name}_match": fractions([*map(bool, verdict), *lost]).as_dict() for name, verdict in verdicts.items()}
    return {**rates, "tolerances": {"stol": STOL, "angle_tol": ANGLE_TOL, "ltol": LTOL}}, rows


def errors(pairs: Pairs, predicted: Mapping[int, NDArray[np.float32]], seed: int = 0) -> dict[str, Any]:
    """Mean absolute errors of table 1, states/eV per atom, with intervals over the curves.

    Args:
        pairs: Generated crystals, y_gen, and targets, y.
        predicted: y_hat: the prediction for the crystal that a curve is of, by the row of the curve.
        seed: Of the resamples.

    Returns:
        mae_generated_target, MAE(y_gen, y); mae_generated_predicted, MAE(y_gen, y_hat), free of the predictor's own
        error; mae_predicted_target, MAE(y_hat, y), which is that error; cosine_predicted_target, the cosine that the
        right crystals themselves have by this predictor.
    """
    known = np.array([curve in predicted for curve in pairs.curve.tolist()], dtype=bool)
    curves = pairs.curve[known]
    if not len(curves):
        return {}
    generated = pairs.spectra[known].astype(np.float64)
    right = np.stack([predicted[curve] for curve in curves.tolist()]).astype(np.float64)
    target = pairs.targets[curves].astype(np.float64)
    mask = ~(np.isnan(target) | np.isnan(generated))
    curves, generated, right, target, mask = (x[mask.any(axis=1)] for x in (curves, generated, right, target, mask))
    found = {
        "mae_generated_target": mean_absolute_error(generated, target, mask),
        "mae_generated_predicted": mean_absolute_error(generated, right, mask),
        "mae_predicted_target": mean_absolute_error(right, target, mask),
        "cosine_predicted_target": cosine(right, target, mask),
    }
    ends = {name: grouped_bootstrap(values, curves, seed=seed) for name, values in found.items()}
    return {name: dict(zip(("value", "low", "high"), values, strict=True)) for name, values in ends.items()}
