"""The section of a report about densities of states that crystals were asked for."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from mattergen_e.evaluation.schema import DosTargets
from mattergen_e.report import dos_figures
from mattergen_e.report.dos_block import ERRORS, MATCHES, METRICS, between, head, shown
from mattergen_e.report.drawing import picture
from mattergen_e.report.html import Html, join, missing, percent, piece, table
from mattergen_e.report.html import figures as side_by_side
from mattergen_e.report.runs import EvaluatedRun

COMMAND = "mattergen-e evaluate OUT --reference REF --dos-predictor MODEL"
EXPLAINED = (
    "Means over the crystals with the interval below, each beside that of mismatched pairs of crystal and target, "
    "which tells what comes of the distribution of the curves alone."
)


def asked_for(runs: Sequence[EvaluatedRun]) -> bool:
    """Whether the crystals of any run were to have densities of states."""
    return any(run.part("dos_targets") or "dos" in run.part("conditions") for run in runs)


def targets(runs: Sequence[EvaluatedRun]) -> Html:
    """Metrics beside random pairing, where spectra come from, distributions of the cosine, and examples."""
    blocks = [(i, run, block) for i, run in enumerate(runs) if (block := _block(run)) is not None]
    if not blocks:
        return missing("Nothing judged the densities of states that were asked for", COMMAND)
    drawn, sentences = [], []
    for i, run, block in blocks:
        sentences.append(piece("paragraph", f"{run.name}: {_origin(block)}", "note"))
        if run.curves is not None:
            formulas = {row["index"]: str(row.get("formula")) for row in run.rows}
            drawn += [dos_figures.cosines(run.curves, run.name, i)]
            drawn += [dos_figures.examples(run.curves, formulas, run.name, i)]
    pairs = [(run, block) for _, run, block in blocks]
    parts = [_metrics(pairs), *sentences, _truth(pairs), side_by_side(picture(*one) for one in drawn)]
    return join(parts)


def _block(run: EvaluatedRun) -> DosTargets | None:
    found = run.part("dos_targets")
    try:
        return DosTargets.model_validate(found) if found else None
    except ValidationError:
        return None


def _origin(block: DosTargets) -> str:
    of = ", ".join(f"{number:,} {kind}" for kind, number in block.structures.items() if number)
    told = ", told afterwards" if block.targets.given else ""
    over = block.interval.get("over", "targets")
    curves = "" if block.targets.curves is None else f"{block.targets.curves:,} curves of "
    return (
        f"spectra by {block.source} of {block.crystals:,} of {block.asked:,} crystals ({of or 'none'}); "
        f"{curves}{block.targets.file or 'an unknown file'}{told}; 95 % bootstrap intervals over {over}."
    )


def _metrics(pairs: Sequence[tuple[EvaluatedRun, DosTargets]]) -> Html:
    rows = []
    for name in METRICS:
        cells = []
        for _, block in pairs:
            found = block.metric(name)
            cells += [piece("cell", shown(found.value), [between(found.low, found.high)]), shown(found.random)]
        rows.append((head(name), *cells))
    rates = []
    for _, block in pairs:
        rate = block.te_filter
        rates += ["–" if rate.fraction is None else percent(rate.fraction), ""]
    rows.append(("passes the TE filter", *rates))
    columns = [word for run, _ in pairs for word in (run.name, "random pairing")]
    return table(("metric", *columns), rows, EXPLAINED)


def _truth(pairs: Sequence[tuple[EvaluatedRun, DosTargets]]) -> Html:
    """Tables 1 and 2 of DOSMatGen, of the runs that have them."""
    known = [(run.name, block.truth) for run, block in pairs if block.truth is not None]
    if not known:
        return Html()
    rows: list[tuple[object, ...]] = [
        (f"{words} (states/eV)", *(_with_interval(getattr(found, name)) for _, found in known))
        for name, words in ERRORS.items()
    ]
    for name, words in MATCHES.items():
        rates = [getattr(found, name).fraction for _, found in known]
        rows.append((words.removesuffix(", %"), *("–" if rate is None else percent(rate) for rate in rates)))
    rows.append(("cosine of y_hat with y", *(_with_interval(found.cosine_predicted_target) for _, found in known)))
    words = "y: the target, y_gen: predicted of the generated crystal, y_hat: predicted of the crystal that y is of."
    return table(("", *(name for name, _ in known)), rows, words)


def _with_interval(found: object) -> Html:
    value, low, high = (getattr(found, name) for name in ("value", "low", "high"))
    return piece("cell", shown(value), [between(low, high)])
