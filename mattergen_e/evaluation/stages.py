"""Results of one stage of an evaluation on disk: a line per crystal, written when it is known, never computed again.

    <evaluation>/stages/<stage>-<12 hexadecimal digits>.jsonl

The digits are of a hash of everything that the results depend on: with another setting, another file is begun, and the
old one stays for when the setting is changed back. Each file is a `LineJournal`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mattergen_e.journal import LineJournal

FOLDER = "stages"
_SECONDS = "seconds"


def hash_settings(settings: Mapping[str, Any]) -> str:
    """12 hexadecimal digits of what JSON makes of settings; the order of keys does not matter."""
    text = json.dumps(settings, sort_keys=True, allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Stage:
    """Results of a stage by the crystal's key, in memory and on disk; a context manager that closes the file.

    Attributes:
        name: Of the stage.
        path: Of the file.
        reused: How many results were there before.
        seconds: Wall time that computing them took, over all processes that did.
    """

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], read_only: bool = False) -> None:
        """Reads what there is; a damaged line costs itself only.

        Args:
            folder: Of the evaluation; made if it does not exist. Only its lock's owner may write to it.
            name: Of the stage.
            settings: All that its results depend on, besides the crystal.
            read_only: Change nothing in the folder, for who does not own the lock.
        """
        self.name = name
        self.path = folder / FOLDER / f"{name}-{hash_settings({'stage': name, **settings})}.jsonl"
        self.seconds = 0.0
        if not read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._journal = LineJournal(self.path, self._read, skip_damaged=True, read_only=read_only)
        self.reused = len(self.results)

    def _read(self, entry: Any) -> tuple[str, Any] | None:
        if _SECONDS in entry:
            self.seconds += float(entry[_SECONDS])
            return None
        return entry["key"], entry["result"]

    @property
    def results(self) -> dict[str, Any]:
        """What is known, plain JSON by key."""
        return self._journal.items

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys without a result, in their order, each once."""
        return [key for key in dict.fromkeys(keys) if key not in self._journal]

    def add(self, key: str, result: Any) -> None:
        """Keep a result: once this returns, a kill cannot take it away.

        Args:
            key: Of the crystal.
            result: Plain JSON.

        Raises:
            ValueError: If it holds a number that is not finite.
        """
        self._journal.add({"key": key, "result": result})

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the time of what is done inside to `seconds`, if that gave a result."""
        before, begin = len(self.results), time.perf_counter()
        try:
            yield
        finally:
            if len(self.results) > before:
                self._journal.add({_SECONDS: round(time.perf_counter() - begin, 3)})

    def close(self) -> None:
        """Closes the file."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
