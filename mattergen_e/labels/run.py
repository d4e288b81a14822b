"""`mattergen-e data label`: calculations in, a folder of labels out, in parallel and resumable."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mattergen_e.crystals.findings import LabelError
from mattergen_e.errors import UserError
from mattergen_e.labels import method
from mattergen_e.labels.duplicates import find_duplicates
from mattergen_e.labels.folder import LABELS, LabelStore, Outcome, is_label_folder, open_store
from mattergen_e.labels.process import make_label
from mattergen_e.labels.settings import LabelSettings
from mattergen_e.labels.sources import Task, find_tasks, read_calculation
from mattergen_e.parallel import in_parallel
from mattergen_e.progress import bar


@dataclass(frozen=True)
class Summary:
    """What a run of `label` left.

    Attributes:
        outcomes: Of all calculations, in the order of the sources.
        reused: Number of those that were there already.
        functionals: Labels by functional, most frequent first.
        spin_polarised: Labels with separate spins.
    """

    outcomes: tuple[Outcome, ...]
    reused: int
    functionals: dict[str, int] = field(default_factory=dict)
    spin_polarised: int = 0

    @property
    def labelled(self) -> int:
        """Number of calculations with labels."""
        return sum(outcome.reason is None for outcome in self.outcomes)

    @property
    def failed(self) -> dict[str, list[Outcome]]:
        """Calculations without labels by reason, most frequent first."""
        counts = Counter(o.reason for o in self.outcomes if o.reason is not None)
        return {reason: [o for o in self.outcomes if o.reason == reason] for reason, _ in counts.most_common()}


def label(
    sources: Sequence[str | Path],
    out: str | Path,
    settings: LabelSettings | None = None,
    *,
    properties: Mapping[str, str] | None = None,
    jobs: int | None = None,
    backend: str = "loky",
    keep_duplicates: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Make labels of calculations.

    Each one is stored as soon as it is made; the same call goes on where an earlier one was stopped, and makes anew
    only what has changed. Calculations that cannot be used are listed with the reason.

    Args:
        sources: Folders of VASP calculations, of .npz files or of downloads, or single .npz files.
        out: Folder of the labels.
        settings: Grids, processing and checks.
        properties: Key of a manifest by MatterGen's name of the property, for .npz files.
        jobs: Workers; None takes one per core.
        backend: joblib's: loky, threading, dask[:ADDRESS] or ray[:ADDRESS].
        keep_duplicates: Keep crystals that are the same as an earlier one.
        overwrite: Replace labels that were made with other settings.
        progress: Show a progress bar on stderr if it is a terminal.

    Returns:
        The outcomes.

    Raises:
        UserError: If a source or an option is wrong.
    """
    if not sources:
        raise UserError("No source: name at least one folder of calculations.")
    settings = settings or LabelSettings()
    tasks = find_tasks([Path(source) for source in sources])
    with open_store(Path(out), settings, overwrite) as store:
        return _label(tasks, store, settings, dict(properties or {}), jobs, backend, keep_duplicates, progress)


def label_calculations(
    sources: Sequence[str | Path], out: str | Path, *, jobs: int | None = None, progress: bool = True
) -> tuple[list[Path], list[Outcome]]:
    """Label those sources of a cache that are calculations, with the default settings.

    Args:
        sources: Whatever `label` takes, beside folders of labels and files, which stay as they are.
        out: Folder of the labels; the same call goes on where an earlier one was stopped.
        jobs: Workers; None takes one per core.
        progress: Show a progress bar on stderr if it is a terminal.

    Returns:
        The sources of the cache in their order, `out` in the place of the first calculations; and the calculations
        without labels.

    Raises:
        UserError: If a source is wrong.
    """
    files, out = [Path(source) for source in sources], Path(out)
    raw = [file for file in files if (file.is_dir() and not is_label_folder(file)) or file.suffix == ".npz"]
    if not raw:
        return files, []
    summary = label(raw, out, jobs=jobs, progress=progress)
    kept = [out if file is raw[0] else file for file in files if file is raw[0] or file not in raw]
    return kept, [outcome for outcome in summary.outcomes if outcome.reason is not None]


def _label(
    tasks: Sequence[Task],
    store: LabelStore,
    settings: LabelSettings,
    properties: dict[str, str],
    jobs: int | None,
    backend: str,
    keep_duplicates: bool,
    progress: bool,
) -> Summary:
    done = {task.id: found for task in tasks if (found := store.done(task.id, _stamp(task, properties))) is not None}
    left = [task for task in tasks if task.id not in done]
    (store.folder / LABELS).unlink(missing_ok=True)  # until everything is done again
    work = partial(_one, store=store, settings=settings, properties=properties)
    results = in_parallel(work, left, jobs, backend)
    with bar("Labelling", len(tasks), len(done), progress) as advance, closing(results):
        for outcome in results:
            done[outcome.id] = outcome
            advance()
    outcomes = [done[task.id] for task in tasks]
    if not keep_duplicates:
        outcomes = find_duplicates(store, outcomes)
    store.finish(outcomes)
    methods = [method.of_label(store.read(o.id)["label"]) for o in outcomes if o.reason is None]
    polarised = sum(one.spin is True for one in methods)
    return Summary(tuple(outcomes), len(tasks) - len(left), method.count(methods), polarised)


def _stamp(task: Task, properties: Mapping[str, str]) -> str:
    """Of the files, and of what else shapes the label besides the settings of the store."""
    chosen = ",".join(f"{key}={column}" for key, column in sorted(properties.items()))
    return f"{task.stamp}:{chosen}" if task.kind == "npz" and chosen else task.stamp


def _one(task: Task, store: LabelStore, settings: LabelSettings, properties: Mapping[str, str]) -> Outcome:
    """Label one calculation and store the outcome; runs in worker processes and never raises for a bad calculation."""
    stamp = _stamp(task, properties)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = make_label(read_calculation(task, settings, properties), settings)
    except LabelError as error:
        outcome, made = Outcome(task.id, str(task.path), error.reason, error.sentence, stamp), None
    except UserError:  # nothing of this calculation: a package is missing
        raise
    except (Exception, RecursionError) as error:
        text = " ".join(str(error).split())[:200]
        sentence = f"the calculation cannot be read ({type(error).__name__}: {text})"
        outcome, made = Outcome(task.id, str(task.path), "damaged_file", sentence, stamp), None
    else:
        outcome = Outcome(task.id, str(task.path), None, "", stamp)
    store.write(outcome, made)
    return outcome
