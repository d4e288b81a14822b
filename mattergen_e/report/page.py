"""One page about evaluated runs: a single file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mattergen_e.reference import Reference
from mattergen_e.report import dos_section, overview, sections
from mattergen_e.report.drawing import style
from mattergen_e.report.html import Section, page, write_page
from mattergen_e.report.runs import EvaluatedRun, read_runs

if TYPE_CHECKING:
    from mattergen_e.report.runs import Floats

GALLERY = 24


def write_report(
    runs: Sequence[Path], out: Path, *, reference: Path | None = None, title: str | None = None, gallery: int = GALLERY
) -> int:
    """Write a report of evaluated runs.

    Args:
        runs: Their folders.
        out: The page; one that exists is replaced when the new one is complete.
        reference: Reference set, whose properties are shown beside those of the crystals.
        title: Of the page.
        gallery: Most crystals to show of each run.

    Returns:
        Size of the page in bytes.

    Raises:
        UserError: If a run was not evaluated, a file is damaged, or the page cannot be written.
    """
    training = training_properties(reference)
    return write_page(render(read_runs(runs), training=training, title=title, gallery=gallery), out, "--out")


def training_properties(reference: Path | None) -> dict[str, Floats]:
    """Known values of the properties of a reference set; nothing without one."""
    import numpy as np

    if reference is None:
        return {}
    found = {}
    for name, values in Reference.open(reference).properties.items():
        values = np.asarray(values)
        if values.dtype.kind in "fiu":
            found[name] = values[np.isfinite(values)].astype(float)
    return found


def render(
    runs: Sequence[EvaluatedRun],
    *,
    training: Mapping[str, Floats] | None = None,
    title: str | None = None,
    gallery: int = GALLERY,
) -> str:
    """The page as a text.

    Args:
        runs: At least one.
        training: Values of the reference by property.
        title: By default the names of the runs.
        gallery: Most crystals to show of each run.
    """
    title = title or f"Evaluation of {', '.join(run.name for run in runs)}"
    asked = dos_section.asked_for(runs)
    with style():
        made = [
            Section("summary", "Summary", overview.summary(runs)),
            Section("failures", "Failures", overview.failures(runs)),
            Section("properties", "Properties", sections.properties(runs, training or {})),
            Section("hull", "Hull energies", sections.hull(runs)),
            Section("novelty", "Novelty", sections.novelty(runs)),
            *(
                Section(
                    sections.ANCHORS.get(name, name), str(measure["title"]), sections.descriptor(runs, name, measure)
                )
                for name, measure in sections.measures(runs).items()
            ),
            *([Section("targets", "Densities of states asked for", dos_section.targets(runs))] if asked else []),
            Section("elements", "Errors by element", sections.elements(runs)),
            Section("gallery", "Crystals", sections.crystals(runs, gallery)),
            Section("provenance", "How it was made", sections.provenance(runs)),
        ]
    script = "viewer.js" if any('id="crystals"' in section.content for section in made) else ""
    return page(title, made, introduction=overview.introduction(runs), script=script)
