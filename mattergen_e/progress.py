"""A progress bar on stderr, where a person watches; nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(title: str, total: int, completed: int = 0, wanted: bool = True) -> Iterator[Callable[..., None]]:
    """A progress bar, if stderr is a terminal.

    Args:
        title: What goes on.
        total: Number of items.
        completed: Items that were there already.
        wanted: Whether to show it at all.

    Yields:
        A function that moves it on, by one item or by the number given.
    """
    if not (wanted and total and sys.stderr.isatty()):
        yield lambda done=1: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=total, completed=completed)
        yield lambda done=1: shown.advance(task, done)
