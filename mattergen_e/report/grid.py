"""A table without a format."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """What stands in a cell; direction 1 or -1 where it is significantly above or below the baseline."""

    text: str
    direction: int = 0


@dataclass(frozen=True, eq=False)
class Grid:
    """A table without a format: groups of rows; so many columns from the left hold texts, the others numbers."""

    title: str
    head: tuple[str, ...]
    groups: tuple[tuple[tuple[Text, ...], ...], ...]
    texts: int
