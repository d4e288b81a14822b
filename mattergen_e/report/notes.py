"""The sentences below a comparison: what was tested and how, and where the numbers come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mattergen_e.evaluation.schema import ALL, UNITS
from mattergen_e.evaluation.statistics import LEAST_EXPECTED
from mattergen_e.report.rates import A_FILE, COLUMNS, Run, differing

if TYPE_CHECKING:
    from mattergen_e.report.comparison import Comparison

TEST = "two-sided two-proportion z-test with pooled variance"

#: Marks of a cell.
UNKNOWN, ROUGH, NOT_COMPARABLE = "–", "≈", "‡"


def warnings(comparison: Comparison) -> Iterator[str]:
    """What keeps runs from being compared with the baseline, a sentence for each run."""
    for line in comparison.lines:
        columns = [column for column, cell in line.cells.items() if not cell.comparable]
        if columns:
            causes = dict.fromkeys(cause for c in columns for cause in differing(line.run, line.baseline, c))
            yield (
                f"{NOT_COMPARABLE} {line.run.name} and {line.baseline.name} ({line.condition}) are not comparable in "
                f"{', '.join(COLUMNS[c] for c in columns)}, since they differ in: {', '.join(causes)}."
            )


def notes(comparison: Comparison) -> Iterator[str]:
    """What a reader of the table has to know."""
    of_what = "every property with a target" if comparison.success == ALL else comparison.success
    yield (
        "In % of all crystals asked for, failed ones included: unique and novel (UN), also stable (SUN), also "
        f"valid (VSUN); success: VSUN and {of_what} within its tolerance."
    )
    if comparison.tests:
        yield _test(comparison)
    cells = [cell for line in comparison.lines for cell in line.cells.values()]
    if any(cell.difference is not None and cell.difference.rough for cell in cells):
        yield f"{ROUGH} An expected count is below {LEAST_EXPECTED:g}: the z-test is an approximation only."
    yield from _unknown(comparison)
    yield from _spectra([line.run for line in comparison.lines])
    runs = [line.run for line in comparison.lines]
    yield from _by_run(runs)
    if any(A_FILE in str(value) for run in runs for value in run.sources("success").values()):
        yield "Values from files are taken to be computed alike."
    for run in runs:
        yield from (f"{run.name}: {sentence}" for sentence in run.evaluation.warnings)


def _test(comparison: Comparison) -> str:
    tests = f"{comparison.tests} test{'s' if comparison.tests > 1 else ''}"
    correction = f"Holm's correction for {tests}" if comparison.corrected else f"{tests} without correction"
    return (
        "Bold with an arrow: significantly above or below the baseline of the same condition; "
        f"{TEST}, alpha = {comparison.alpha:g}, {correction}. Intervals: {comparison.percent}, Newcombe's."
    )


def _spectra(runs: Sequence[Run]) -> Iterator[str]:
    """How spectra were judged, and whether that is the same for all runs."""
    blocks = {run.name: run.evaluation.dos_targets for run in runs}
    judged = {name: block for name, block in blocks.items() if block is not None}
    if not judged:
        return
    over = " or ".join(dict.fromkeys(str(block.interval.get("over", "targets")) for block in judged.values()))
    yield (
        "Densities of states per atom: means over the crystals with a spectrum, with 95 % bootstrap intervals over "
        f"{over}; random pairing: the same of crystals and the targets of others."
    )
    topics: dict[str, dict[str, list[str]]] = {"Spectra": {}, "Targets": {}}
    for name, block in judged.items():
        of = ", ".join(kind for kind, number in block.structures.items() if number) or "no"
        topics["Spectra"].setdefault(f"by {block.source}, of {of} crystals", []).append(name)
        curves = f"{block.targets.curves} curves {(block.targets.sha256 or '')[:10]}".strip()
        topics["Targets"].setdefault(curves, []).append(name)
    for topic, sentences in topics.items():
        for sentence, names in sentences.items():
            yield f"{topic}: {sentence}{_of(names, set(judged))}."
        if len(sentences) > 1:
            yield f"{topic} are not the same for all runs: their densities of states are not comparable."


def _unknown(comparison: Comparison) -> Iterator[str]:
    """Which rates are not known, and why."""
    places: dict[str, list[str]] = {}
    for line in comparison.lines:
        for column, cell in line.cells.items():
            if cell.rate.reason is not None:
                where = places.setdefault(f"{COLUMNS[column]}: {cell.rate.reason}", [])
                where.append(line.run.name)
    everyone = {line.run.name for line in comparison.lines}
    for what, names in places.items():
        yield f"{UNKNOWN} {what}{_of(names, everyone)}."


def _by_run(runs: Sequence[Run]) -> Iterator[str]:
    """Where the numbers come from; where runs differ in it, each sentence names its runs."""
    topics: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        for topic, sentence in _origins(run):
            topics.setdefault(topic, {}).setdefault(sentence, []).append(run.name)
    for topic, sentences in topics.items():
        everyone = {name for names in sentences.values() for name in names}
        for sentence, names in sentences.items():
            yield f"{topic}: {sentence}{_of(names, everyone)}."


def _of(names: Iterable[str], everyone: set[str]) -> str:
    names = list(dict.fromkeys(names))
    return "" if set(names) == everyone else f" ({', '.join(names)})"


def _origins(run: Run) -> Iterator[tuple[str, str]]:
    """Where novelty, stability, validity and properties of a run come from."""
    reference = run.evaluation.reference
    size = "" if reference.structures is None else f" ({reference.structures:,} structures)"
    yield "Novelty", f"against {reference.name or 'a reference set without a name'}{size}"
    if run.rate("sun").count is not None:
        yield "Stability", _stability(run)
    if run.rate("vsun").count is not None:
        yield "Validity", "composition by SMACT's rules, as in xtalmet"
    for name, rate in sorted(run.evaluation.success.items()):
        if name != ALL:
            unit = f" {UNITS[name]}" if name in UNITS else ""
            within = "" if rate.tolerance is None else f", within {_listed(rate.tolerance)}{unit} of the target"
            yield name, f"by {_listed(rate.source)}{within}"


def _stability(run: Run) -> str:
    settings, limit = run.evaluation.settings, run.evaluation.settings.get("stable")
    least = "" if limit is None else f" of at most {_listed(limit)} eV/atom"
    energies = "energies from a file" if settings.get("energies") else f"energies by {_listed(run.relaxation)}"
    reference = _listed(run.evaluation.reference.energy_source)
    return f"energy above hull{least}; {energies}, those of the reference by {reference}"


def _listed(value: Any) -> str:
    """A setting for people, in one line."""
    if value is None or value in ({}, []):
        return "an unknown source"
    if isinstance(value, dict):
        plain = {key: item for key, item in value.items() if item is not None and not isinstance(item, dict | list)}
        named = " ".join(str(plain.pop(key)) for key in ("kind", "calculator", "name", "version") if key in plain)
        rest = (f"{key} {_listed(item)}" for key, item in plain.items())
        return ", ".join(filter(None, (named, *rest))) or "an unknown source"
    if isinstance(value, list):
        return " or ".join(_listed(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
