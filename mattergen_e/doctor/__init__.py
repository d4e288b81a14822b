"""What is right and what is wrong with this installation and with a trained model: `mattergen-e doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mattergen_e.doctor.installation import (
    CHECKED,
    check_descriptors,
    check_device,
    check_hydra,
    check_mattergen,
    check_published,
    check_scatter,
    check_versions,
    has_nvidia_gpu,
)
from mattergen_e.doctor.model import check_model, summarise
from mattergen_e.doctor.report import Finding, Level, ModelSummary, Report, first_lines
from mattergen_e.quiet import quiet

__all__ = [
    "CHECKED",
    "CHECKS",
    "Finding",
    "Level",
    "ModelSummary",
    "Report",
    "check_descriptors",
    "check_device",
    "check_hydra",
    "check_mattergen",
    "check_model",
    "check_published",
    "check_scatter",
    "check_versions",
    "examine",
    "first_lines",
    "has_nvidia_gpu",
    "summarise",
]

#: What `examine` runs after the versions, in this order.
CHECKS = (check_device, check_scatter, check_mattergen, check_published, check_hydra, check_descriptors)


def examine(model_path: str | Path | None = None) -> Report:
    """Runs every check.

    Args:
        model_path: Folder of a trained model to look at as well.
    """
    findings = [*check_versions()]
    with quiet():
        for check in CHECKS:
            findings += _guarded(check)
        if model_path is None:
            return Report(findings)
        summary, of_model = check_model(model_path)
    return Report([*findings, *of_model], summary)


def _guarded(check: Any) -> list[Finding]:
    """Findings of a check; an error inside it is a finding as well, so that the others still run."""
    try:
        return check()
    except Exception as error:
        name = check.__name__.removeprefix("check_")
        text = f"the check failed: {type(error).__name__}: {first_lines(error)}"
        return [Finding(name, name, "problem", text, "Repair the packages named above, then run this command again.")]
