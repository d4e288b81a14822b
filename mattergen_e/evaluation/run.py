"""One evaluation from beginning to end: stages, table, summary, files.

    <evaluation>/evaluation.json        settings, provenance, rates, distributions, descriptor accuracy
    <evaluation>/crystals.csv           a row per crystal asked for
    <evaluation>/crystals.jsonl         the same
    <evaluation>/relaxed.extxyz         relaxed structures, with the index and energy of each
    <evaluation>/descriptor_sites.npz   generated and reference descriptors by site, if labels were given
    <evaluation>/dos_targets.npz        spectra of the crystals and what was asked for, if something makes spectra
    <evaluation>/stages/                results of the stages by crystal, from which a rerun goes on

Every file but those of the stages is replaced at once when the evaluation is complete.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mattergen_e.energies.calculators import check_device, require
from mattergen_e.energies.given import read_energies
from mattergen_e.energies.relaxation import RelaxSettings
from mattergen_e.errors import UserError
from mattergen_e.evaluation import output, schema, stability, steps
from mattergen_e.evaluation.candidates import Candidates, read_candidates
from mattergen_e.evaluation.descriptors import compare_all
from mattergen_e.evaluation.labels import read_labels
from mattergen_e.evaluation.predicted import properties
from mattergen_e.evaluation.properties import make_predictor, own_properties, read_properties
from mattergen_e.evaluation.schema import FOLDER
from mattergen_e.evaluation.settings import EvaluationSettings
from mattergen_e.evaluation.spectra.judging import Judged, judge, load_predictor, plan
from mattergen_e.evaluation.steps import Context
from mattergen_e.evaluation.summary import summarise
from mattergen_e.evaluation.table import StageResults, make_rows
from mattergen_e.journal import hold
from mattergen_e.reference import Reference

if TYPE_CHECKING:
    from mattergen_e.energies.given import Energies
    from mattergen_e.energies.relaxation import RelaxSettings
    from mattergen_e.evaluation.descriptors import Compared
    from mattergen_e.evaluation.labels import Labels
    from mattergen_e.evaluation.properties import GivenProperties, Predictor
    from mattergen_e.evaluation.spectra.judging import Judged, Plan
    from mattergen_e.networks.predictor.model import Predictor as DosPredictor
    from mattergen_e.reference import Reference


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        folder: Where its files are.
        summary: Content of evaluation.json.
        rows: Of the table.
        computed: Results that this run computed, by stage; all zero where everything was known.
    """

    folder: Path
    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    computed: dict[str, int]


def evaluate(
    path: str | Path,
    reference: str | Path,
    settings: EvaluationSettings | None = None,
    relaxation: RelaxSettings | None = None,
    *,
    folder: str | Path | None = None,
    name: str | None = None,
    asked: int | None = None,
    jobs: int | None = None,
    backend: str = "loky",
    progress: bool = True,
) -> Evaluation:
    """Evaluate generated crystals (Okuda et al., sections 2.1 to 2.4, 4.3 and 4.4).

    A rerun computes only what is missing; a changed setting only what depends on it.

    Args:
        path: What to evaluate; see `candidates.read_candidates`.
        reference: Folder written by `mattergen-e reference build`.
        settings: What to do.
        relaxation: How to relax.
        folder: Where to write; by default `evaluation` in the output folder, or beside a single file.
        name: What the run is called in tables; by default the name of the output folder.
        asked: How many crystals were asked for, where no run.json tells.
        jobs: Workers; None for one per core.
        backend: Of joblib: loky, threading, dask[:ADDRESS] or ray[:ADDRESS].
        progress: Show progress bars on stderr if it is a terminal.

    Returns:
        What was found and written.

    Raises:
        UserError: If the input, the reference, a file or a setting is wrong, or the folder is in use.
    """
    settings, relaxation = settings or EvaluationSettings(), relaxation or RelaxSettings()
    path = Path(path)
    check(settings, relaxation)

    opened = Reference.open(Path(reference))
    opened.verify()
    check_energies(settings, relaxation, opened)
    candidates = read_candidates(path, asked)
    given = read_given(settings, candidates)
    dos, lacking = plan(path, candidates, settings, given.dos_predictor, given.labels)
    target = Path(folder) if folder is not None else default_folder(path)
    with hold(target):
        context = Context(target, candidates, opened, jobs, backend, progress)
        found = run_stages(context, settings, relaxation, given, dos)
        found.warnings += [lacking] if lacking is not None else []
        rows = make_rows(candidates, found.stages, settings)
        used = relaxation if relaxes(settings) else None
        summary = {
            "format": schema.FORMAT,
            "name": name or _name(path),
            **output.about(candidates, opened, settings, used, [*given.files, *([dos.targets.file] if dos else [])]),
            **summarise(rows),
            **({"dos_targets": found.dos.block} if found.dos.block else {}),
            "warnings": found.warnings,
            "timings": {stage: round(seconds, 3) for stage, seconds in context.timings.items()},
        }
        if dos is not None:
            summary["conditions"] |= {"dos": dos.targets.condition}
        sun = {row["index"] for row in rows if row["sun"]}
        summary["descriptors"] |= {kind: compared.summary(sun) for kind, compared in found.compared.items()}
        sites = {name: array for compared in found.compared.values() for name, array in compared.arrays(sun).items()}
        output.write(target, schema.checked(summary), rows, found.stages.relaxation, sites, found.dos.arrays)
    return Evaluation(target, summary, rows, context.computed)


def _name(path: Path) -> str:
    resolved = path.resolve()
    return resolved.name if resolved.is_dir() else resolved.stem


def default_folder(path: Path) -> Path:
    """`evaluation` in the output folder, or beside a file, with the file's name where it is not MatterGen's."""
    if path.is_dir():
        return path / FOLDER
    return path.parent / (FOLDER if path.name.startswith("generated_crystals") else f"{path.stem}_{FOLDER}")


def relaxes(settings: EvaluationSettings) -> bool:
    """Whether crystals are relaxed here."""
    return settings.relax != "none" and settings.energies is None


def check(settings: EvaluationSettings, relaxation: RelaxSettings) -> None:
    """What can be checked before anything is read.

    Raises:
        UserError: If a target has no tolerance, a file does not exist, or the calculator cannot be made.
    """
    for name in settings.targets:
        if name not in settings.tolerances:
            raise UserError(f"--target {name} has no tolerance: add --tolerance {name}=NUMBER.")
    for option in ("energies", "properties", "labels", "dos_predictor", "truth"):
        file = getattr(settings, option)
        if file is not None and not file.exists():
            raise UserError(f"{file} does not exist: give another --{option.replace('_', '-')}.")
    if relaxes(settings):
        require(relaxation.calculator)
        check_device(relaxation.device)


def check_energies(settings: EvaluationSettings, relaxation: RelaxSettings, reference: Reference) -> None:
    """The reference must have energies, from the same calculator as those of the crystals if both are by one.

    Raises:
        UserError: If it has none, or from another calculator.
    """
    source = reference.energy_source
    if source["kind"] == "none" and (relaxes(settings) or settings.energies is not None):
        raise UserError(
            f"{reference.path} has no energies, so that nothing is stable: build it with --calculator or --energies, "
            "or add --no-relax to judge the rest."
        )
    if relaxes(settings):
        reference.check_calculator(relaxation.calculator)


@dataclass(frozen=True)
class Given:
    """What files and packages give besides the crystals; read before any work is done.

    Attributes:
        energies: Of --energies.
        properties: Of --properties.
        predictor: Of the other properties.
        labels: Of --labels.
        files: That were read.
        dos_predictor: Of spectra.
    """

    energies: Energies | None
    properties: GivenProperties | None
    predictor: Predictor | None
    labels: Labels | None
    files: list[Path]
    dos_predictor: DosPredictor | None = None


def read_given(settings: EvaluationSettings, candidates: Candidates) -> Given:
    """The files that settings name.

    Args:
        settings: Of the evaluation.
        candidates: The crystals; what they were asked to have is looked for among the properties.

    Raises:
        UserError: If one cannot be read, or the predictor is not there.
    """
    own = own_properties([*settings.tolerances, *settings.targets], [c.conditions for c in candidates.items])
    return Given(
        read_energies(settings.energies) if settings.energies is not None else None,
        read_properties(settings.properties, own) if settings.properties is not None else None,
        make_predictor(settings.predictor) if settings.predictor != "none" else None,
        read_labels(settings.labels) if settings.labels is not None else None,
        [
            file
            for file in (
                settings.energies,
                settings.properties,
                settings.labels,
                settings.dos_predictor,
                settings.truth,
            )
            if file is not None
        ],
        load_predictor(settings.dos_predictor),
    )


# -- stages -----------------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What all stages found.

    Attributes:
        stages: Results by crystal.
        compared: Generated descriptors and labels, by descriptor.
        warnings: What a reader of the figures should know, in sentences.
        dos: Spectra against what was asked for; empty where nothing was.
    """

    stages: StageResults
    compared: dict[str, Compared]
    warnings: list[str]
    dos: Judged


def run_stages(
    context: Context, settings: EvaluationSettings, relaxation: RelaxSettings, given: Given, dos: Plan | None = None
) -> Found:
    """All stages in their order."""
    stages = StageResults()
    found = Found(stages, {}, [], Judged())
    if given.labels is not None:
        _compare(context, given.labels, found, dos)
    stages.geometry = steps.geometry(context)
    stages.structure_validity = steps.structure_validity(context)
    stages.composition_validity = steps.composition_validity(context)
    stages.unique, stages.undecided = steps.uniqueness(context)
    stages.novelty = steps.novelty(context)
    _energies(context, settings, relaxation, given, found)
    stages.properties = properties(context, given.properties, given.predictor, stages.relaxation)
    if given.properties is not None:
        _own_properties(context, settings, given.properties, found)
    stages.distances = steps.distances(context)
    if dos is not None:
        _spectra(context, dos, settings.seed, found)
    return found


def _own_properties(context: Context, settings: EvaluationSettings, given: GivenProperties, found: Found) -> None:
    """What crystals were asked to have that MatterGen has no name for, and that a file gives."""
    kinds = own_properties([], [candidate.conditions for candidate in context.candidates.items])
    known = {name: kind for name, kind in kinds.items() if given.has(name)}
    found.stages.categories = frozenset(name for name, kind in known.items() if kind == "category")
    for name in sorted(set(known) - found.stages.categories - set(settings.tolerances)):
        found.warnings.append(
            f"{name} was asked for, but without a tolerance nothing is judged by it: add --tolerance {name}=NUMBER."
        )


def _spectra(context: Context, dos: Plan, seed: int, found: Found) -> None:
    """Spectra against what the crystals were asked for."""
    found.dos = judge(context, dos, found.stages.relaxation, seed)
    for index, values in found.dos.rows.items():
        found.stages.descriptors.setdefault(index, {}).update(values)


def _compare(context: Context, labels: Labels, found: Found, dos: Plan | None) -> None:
    """Generated descriptors with labels; quick, so that it is done anew each time."""
    found.compared = compare_all(context.candidates.readable, labels, context.candidates.run.get("fields"))
    for compared in found.compared.values():
        for index, values in compared.rows.items():
            found.stages.descriptors.setdefault(index, {}).update(values)
    if not found.compared and (dos is None or dos.labels is None):
        found.warnings.append("There are labels, but the crystals have no generated descriptors to compare with them.")


def _energies(
    context: Context, settings: EvaluationSettings, relaxation: RelaxSettings, given: Given, found: Found
) -> None:
    """Relaxation or energies of a file, and the hull."""
    stages = found.stages
    if given.energies is not None:
        needed = stability.chosen(context, "un", stages.unique, stages.novelty)
        energies = stability.given_energies(context.candidates.readable, given.energies, needed)
        if lacking := sum(energy is None for energy in energies.values()):
            found.warnings.append(
                f"{given.energies.source['name']} has no energy of {lacking} unique and novel crystals: they count as "
                "not stable."
            )
    else:
        crystals = stability.chosen(context, settings.relax, stages.unique, stages.novelty)
        stages.relaxation = stability.relaxation(context, crystals, relaxation)
        energies = stability.relaxed_energies(stages.relaxation)
    stages.hull = stability.hull(context, energies)
    if energies and (warning := _mixed_sources(context.reference, settings, relaxation)):
        found.warnings.append(warning)


def _mixed_sources(reference: Reference, settings: EvaluationSettings, relaxation: RelaxSettings) -> str | None:
    """What to say if energies of crystals and reference come from different places."""
    kind = reference.energy_source.get("kind")
    if (settings.energies is None) == (kind == "calculator"):
        return None
    mine = relaxation.calculator if settings.energies is None else settings.energies.name
    return (
        f"Energies of the crystals come from {mine}, those of the reference from another source ({kind}): energies "
        "above the hull mean something only if both are on the same footing."
    )
