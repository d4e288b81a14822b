"""Results of one stage of an evaluation on disk: a line per crystal, written when it is known, never computed again.

    <evaluation>/stages/<stage>-<12 hexadecimal digits>.jsonl

The digits are of a hash of everything that the results depend on: with another setting, another file is begun, and the
old one stays for when the setting is changed back. A line that a killed process left torn is cut off.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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
        results: What is known, plain JSON by key.
        reused: How many results were there before.
        seconds: Wall time that computing them took, over all processes that did.
    """

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        """Reads what there is.

        Args:
            folder: Of the evaluation; made if it does not exist. Only its lock's owner may do this.
            name: Of the stage.
            settings: All that its results depend on, besides the crystal.
        """
        self.name = name
        self.path = folder / FOLDER / f"{name}-{hash_settings({'stage': name, **settings})}.jsonl"
        self.results: dict[str, Any] = {}
        self.seconds = 0.0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._read()
        self.reused = len(self.results)
        self._file: Any = None

    def _read(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        for line in content[:whole].splitlines():
            try:
                entry = json.loads(line)
                if _SECONDS in entry:
                    self.seconds += float(entry[_SECONDS])
                else:
                    self.results[entry["key"]] = entry["result"]
            except (ValueError, KeyError, TypeError):
                continue  # damaged: it is computed again
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys without a result, in their order, each once."""
        return [key for key in dict.fromkeys(keys) if key not in self.results]

    def add(self, key: str, result: Any) -> None:
        """Keep a result: once this returns, a kill cannot take it away.

        Args:
            key: Of the crystal.
            result: Plain JSON.

        Raises:
            ValueError: If it holds a number that is not finite.
        """
        self._write({"key": key, "result": result})
        self.results[key] = result

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the time of what is done inside to `seconds`, if that gave a result."""
        before, begin = len(self.results), time.perf_counter()
        try:
            yield
        finally:
            passed = time.perf_counter() - begin
            if len(self.results) > before:
                self.seconds += passed
                self._write({_SECONDS: round(passed, 3)})

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self._file is None:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        while line:
            line = line[os.write(self._file, line) :]

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
