"""What the doctor hands back: findings, and what a trained model holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: Group of findings.
        subject: What was looked at.
        level: 'ok'; 'warning' where something may not work; 'problem' where something does not.
        text: What was found.
        remedy: What to do about a warning or problem.
    """

    section: str
    subject: str
    level: Level
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.level != "ok" and not self.remedy:
            raise ValueError(f"the finding '{self.subject}' is a {self.level} and names no remedy")


@dataclass(frozen=True)
class ModelSummary:
    """What a folder with a trained model holds, as its configuration and its checkpoint tell."""

    path: str
    fields: list[str]
    descriptors: dict[str, str]
    properties: list[str]
    hidden_dim: int | None
    blocks: int | None
    steps: int | None
    parameters: int | None = None
    epoch: int | None = None
    global_step: int | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All findings, and the model if one was asked for."""

    findings: list[Finding]
    model: ModelSummary | None = None

    @property
    def healthy(self) -> bool:
        """Whether there is no problem; warnings are allowed."""
        return all(finding.level != "problem" for finding in self.findings)


def first_lines(error: BaseException, limit: int = 2) -> str:
    """The first lines of an error's message, in one line."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return " ".join(lines[:limit]) or type(error).__name__
