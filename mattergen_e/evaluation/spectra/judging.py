"""The stage of an evaluation that holds spectra of generated crystals against the curves that they were asked for.

A crystal's spectrum comes from a forward predictor (the surrogate of "Density of States-Intermediated Crystal
Generation", section 5.3), of the relaxed crystal where there is one, or from labels of calculations. One evaluation
never mixes the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.errors import UserError
from mattergen_e.evaluation.labels import pair
from mattergen_e.evaluation.predicted import best
from mattergen_e.evaluation.settings import EvaluationSettings
from mattergen_e.evaluation.spectra import metrics as dos_metrics
from mattergen_e.evaluation.spectra import truth as dos_truth
from mattergen_e.evaluation.spectra.metrics import Pairs
from mattergen_e.evaluation.spectra.predicted import predicted
from mattergen_e.evaluation.spectra.targets import find_targets
from mattergen_e.evaluation.spectra.truth import read_truth
from mattergen_e.networks.predictor.folder import load
from mattergen_e.spectra.grid import TOTAL_GRID, require_same

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from mattergen_e.evaluation.candidates import Candidates
    from mattergen_e.evaluation.labels import Labels
    from mattergen_e.evaluation.spectra.metrics import Chance, Pairs, Values
    from mattergen_e.evaluation.spectra.targets import DosTargets
    from mattergen_e.evaluation.spectra.truth import Truth
    from mattergen_e.evaluation.steps import Context
    from mattergen_e.networks.predictor.model import Predictor

_SHOWN = 12

Relaxed = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Plan:
    """What there is to judge, and by what; all read before any work is done.

    Attributes:
        targets: Of the crystals.
        predictor: Of their spectra; None for those of labels.
        labels: Instead of it.
        truth: Crystals that the targets are of.
    """

    targets: DosTargets
    predictor: Predictor | None
    labels: Labels | None
    truth: Truth | None

    @property
    def source(self) -> str:
        """Where spectra come from."""
        if self.predictor is not None:
            return f"predictor {self.predictor.fingerprint[:_SHOWN]}"
        return f"labels {self.labels.source}" if self.labels is not None else "nowhere"


@dataclass
class Judged:
    """What was found.

    Attributes:
        block: `dos_targets` of evaluation.json.
        rows: Columns of the table by index.
        arrays: Of dos_targets.npz.
    """

    block: dict[str, Any] = field(default_factory=dict)
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Spectra:
    """Spectra by index, the crystals that they are of, what these are, and why others have none."""

    found: Mapping[int, NDArray[np.float32]]
    structures: Mapping[int, Structure]
    kinds: Mapping[str, int]
    reasons: Mapping[int, str]


def load_predictor(folder: Path | None) -> Predictor | None:
    """The predictor of --dos-predictor.

    Raises:
        UserError: If it cannot be read, or makes spectra on another grid than that of conditions.
    """
    if folder is None:
        return None
    predictor = load(folder)
    require_same(predictor.grids.total, TOTAL_GRID, f"--dos-predictor {folder}")
    return predictor


def plan(
    path: Path,
    candidates: Candidates,
    settings: EvaluationSettings,
    predictor: Predictor | None,
    labels: Labels | None,
) -> tuple[Plan | None, str | None]:
    """What is judged, or in one sentence why nothing is although it could be.

    Raises:
        UserError: If what is asked for cannot be done.
    """
    wanted = next(
        (option for option in ("dos_predictor", "dos_target", "truth") if getattr(settings, option) is not None), None
    )
    try:
        targets = find_targets(path, candidates, settings.dos_target)
    except UserError as error:
        if wanted is not None:
            raise
        return None, str(error)
    if targets is None:
        if wanted is None:
            return None, None
        raise UserError(
            f"--{wanted.replace('_', '-')} is given, but the crystals of {path} were asked for no density of states: "
            "add --dos-target FILE to hold them against one."
        )
    usable = labels if predictor is None and _have_totals(labels) else None
    if predictor is None and usable is None:
        sentence = (
            f"The crystals are to have densities of states ({targets.condition}), which nothing judges: add "
            "--dos-predictor MODEL, a folder of `mattergen-e dos-predictor train`, or --labels with total_dos."
        )
        if wanted is None:
            return Plan(targets, None, None, None), sentence
        raise UserError(sentence)
    truth = read_truth(settings.truth, targets) if settings.truth is not None else None
    return Plan(targets, predictor, usable, truth), None


def _have_totals(labels: Labels | None) -> bool:
    return labels is not None and any(label.total() is not None for label in labels.items)


def judge(context: Context, made: Plan, relaxed: Relaxed, seed: int = 0) -> Judged:
    """Hold the crystals against their targets.

    Args:
        context: Of the evaluation.
        made: What is judged.
        relaxed: Results of the relaxation, by key.
        seed: Of mismatched pairs and intervals.

    Returns:
        Empty but for the names of the targets where nothing makes spectra.
    """
    asked = made.targets.curve
    judged = Judged(rows={index: {"dos_target": made.targets.names[curve]} for index, curve in asked.items()})
    if made.predictor is None and made.labels is None:
        return judged
    spectra = _predicted(context, made, relaxed) if made.predictor is not None else _labelled(context, made)
    judged.block = _about(made, spectra)
    if spectra.found:
        _compare(judged, made, spectra, seed)
    if made.truth is not None:
        judged.block["truth"] = _against_truth(context, judged, made, spectra, seed)
    return judged


def _pairs(made: Plan, spectra: _Spectra) -> Pairs:
    targets, index = made.targets, np.array(sorted(spectra.found), dtype=np.int64)
    curve = np.array([targets.curve[i] for i in index.tolist()], dtype=np.int64)
    values = np.array([spectra.found[i] for i in index.tolist()], dtype=np.float32)
    return Pairs(index, curve, values.reshape(len(index), targets.grid.points), targets.values, targets.grid)


def _about(made: Plan, spectra: _Spectra) -> dict[str, Any]:
    about: dict[str, Any] = {"source": made.source}
    if made.predictor is not None:
        about["predictor"] = {
            "fingerprint": made.predictor.fingerprint,
            "smearing": made.predictor.processing.total_dos.smearing,
            "data": made.predictor.record.get("data"),
        }
    return about | {
        "targets": made.targets.about(),
        "asked": len(made.targets.curve),
        "crystals": len(spectra.found),
        "not_judged": dict(Counter(spectra.reasons.values()).most_common()),
        "structures": dict(spectra.kinds),
    }


def _compare(judged: Judged, made: Plan, spectra: _Spectra, seed: int) -> None:
    pairs = _pairs(made, spectra)
    matched, random = pairs.metrics(), dos_metrics.chance(pairs, seed)
    curves = len(np.unique(pairs.curve))
    judged.block |= {
        "interval": {
            "level": dos_metrics.LEVEL,
            "resamples": dos_metrics.RESAMPLES,
            "over": "targets" if curves > 1 else "crystals",
        },
        **dos_metrics.summarise(pairs, matched, random, seed),
        "te_filter": dos_metrics.te_rate(pairs, len(made.targets.curve)),
    }
    if random is None:
        judged.block["no_random"] = "there is a single target, so that no pair is mismatched"
    for place, index in enumerate(pairs.index.tolist()):
        for column, name in (("dos_cosine", "cosine"), ("dos_gap_error", "band_gap")):
            value = float(matched[name][place])
            judged.rows[index][column] = value if np.isfinite(value) else None
    judged.arrays = _arrays(pairs, matched, random, made.targets)


def _arrays(pairs: Pairs, matched: Mapping[str, Values], random: Chance | None, targets: DosTargets) -> dict[str, Any]:
    """Curves of the crystals and the targets, and the cosines of the two and of mismatched pairs."""
    return {
        "energies": targets.grid.energies,
        "crystal": pairs.index,
        "curve": pairs.curve,
        "generated": pairs.spectra,
        "targets": targets.values,
        "names": np.array(targets.names),
        "cosine": matched["cosine"],
        "random_cosine": np.empty(0) if random is None else random.cosines,
    }


# -- spectra ----------------------------------------------------------------------------------------------------------


def _predicted(context: Context, made: Plan, relaxed: Relaxed) -> _Spectra:
    assert made.predictor is not None
    structures: dict[int, Structure] = {}
    reasons, kinds = _unreadable(context, made), Counter()
    for one in context.candidates.readable:
        if one.index in made.targets.curve and one.structure is not None:
            structures[one.index] = best(one.structure, relaxed.get(one.key))
            kinds["relaxed" if structures[one.index] is not one.structure else "generated"] += 1
    found = predicted(context, made.predictor, structures, of_sites=False)
    reasons |= {index: spectrum for index, spectrum in found.items() if isinstance(spectrum, str)}
    values = {index: spectrum[0] for index, spectrum in found.items() if not isinstance(spectrum, str)}
    return _Spectra(values, structures, kinds, reasons)


def _labelled(context: Context, made: Plan) -> _Spectra:
    assert made.labels is not None and made.labels.total_grid is not None
    require_same(made.labels.total_grid, made.targets.grid, f"total_dos of {made.labels.source}")
    asked = [one for one in context.candidates.readable if one.index in made.targets.curve]
    pairs, lacking = pair(asked, made.labels)
    reasons, values = _unreadable(context, made) | lacking, {}
    for found in pairs:
        total = found.label.total()
        if total is None or np.isnan(total).all():
            reasons[found.candidate.index] = "its label has no total_dos"
        else:
            values[found.candidate.index] = total.astype(np.float32)
    structures = {one.index: one.structure for one in asked if one.structure is not None}
    return _Spectra(values, structures, {"labelled": len(values)}, reasons)


def _unreadable(context: Context, made: Plan) -> dict[int, str]:
    return {
        one.index: str(one.reason)
        for one in context.candidates
        if one.structure is None and one.index in made.targets.curve
    }


def _against_truth(context: Context, judged: Judged, made: Plan, spectra: _Spectra, seed: int) -> dict[str, Any]:
    """Tables 1 and 2 of DOSMatGen."""
    assert made.truth is not None
    found, rows = dos_truth.matches(made.truth, spectra.structures, made.targets.curve)
    for index, columns in rows.items():
        judged.rows[index] |= columns
    if made.predictor is not None and spectra.found:
        right = predicted(context, made.predictor, made.truth.structures, of_sites=False)
        values = {curve: spectrum[0] for curve, spectrum in right.items() if not isinstance(spectrum, str)}
        found |= dos_truth.errors(_pairs(made, spectra), values, seed)
    return {"source": "/".join(made.truth.source.parts[-2:]), "crystals": len(made.truth.structures), **found}
