"""The folder that `mattergen-e data compute` writes, crash-safe, one crystal at a time.

    <folder>/<id>.npz          one crystal, as `mattergen_e.labels.arrays` reads it
    <folder>/manifest.jsonl    a line per finished crystal: id, formula, settings, versions, hashes, findings, seconds
    <folder>/failed.jsonl      a line per crystal that failed, with the reason

A crystal is finished when its line is in the manifest. Both files are `LineJournal`s; lines are brought to the disk
as crystals finish.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mattergen_e.errors import UserError
from mattergen_e.files import check_name
from mattergen_e.journal import LineJournal, difference, hold

MANIFEST_NAME, FAILED_NAME = "manifest.jsonl", "failed.jsonl"
WORK_PREFIX = ".mattergen_e-work-"
DENSITY_SUFFIX = ".CHGCAR"


class ComputeFolder:
    """The folder, held by this process until it is closed.

    Attributes:
        folder: Its path.
    """

    def __init__(
        self, folder: Path, settings_hash: str, overwrite: bool, settings: Mapping[str, Any] | None = None
    ) -> None:
        """Open the folder, or make it.

        Args:
            folder: Its path.
            settings_hash: Of the settings that its crystals must have been computed with.
            overwrite: Throw away crystals that were computed with others.
            settings: The settings themselves, to say in what others differ.

        Raises:
            UserError: If it cannot be written to, is in use, holds crystals computed with other settings, or a
                manifest that is not of this command.
        """
        self.folder = folder
        with ExitStack() as stack:
            stack.enter_context(hold(folder))
            stack.callback(self._clean)
            self._clean()
            self._manifest, self._failures = (_journal(folder / name) for name in (MANIFEST_NAME, FAILED_NAME))
            stack.callback(self._manifest.close)
            stack.callback(self._failures.close)
            self._check(settings_hash, overwrite, settings or {})
            self._held = stack.pop_all()

    @property
    def done(self) -> dict[str, dict[str, Any]]:
        """Lines of the manifest by id."""
        return self._manifest.items

    @property
    def failed(self) -> dict[str, dict[str, Any]]:
        """Lines of failed.jsonl by id."""
        return self._failures.items

    def _clean(self) -> None:
        """Remove what a killed process left behind."""
        for path in self.folder.glob(f"{WORK_PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)  # does nothing to a link

    def _check(self, settings_hash: str, overwrite: bool, settings: Mapping[str, Any]) -> None:
        others = [name for name, line in self.done.items() if line["settings_hash"] != settings_hash]
        if others and not overwrite:
            former = self.done[others[0]].get("settings", {})
            differing = difference({key: former.get(key) for key in settings}, dict(settings))
            raise UserError(
                f"{self.folder} holds {len(others)} crystals computed with other settings (first: {others[0]}"
                f"{f', {differing}' if differing else ''}): choose another --out, or replace them with --overwrite."
            )
        for name in others:
            (self.folder / f"{name}.npz").unlink(missing_ok=True)
            (self.folder / f"{name}{DENSITY_SUFFIX}").unlink(missing_ok=True)
        gone = [name for name in self.done if not (self.folder / f"{name}.npz").is_file()]
        _forget(self._manifest, {*others, *gone})
        self.forget([name for name, line in self.failed.items() if line["settings_hash"] != settings_hash])

    def forget(self, names: list[str]) -> None:
        """Take crystals out of failed.jsonl, so that they are computed again."""
        _forget(self._failures, set(names))

    def add(self, line: dict[str, Any], failed: bool) -> None:
        """Append a finished crystal to the manifest, or a failed one to failed.jsonl."""
        (self._failures if failed else self._manifest).add(line)

    def close(self) -> None:
        """Release the folder."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, trace)


def work_folder(folder: Path) -> Path:
    """A new folder for one calculation; it is cleaned away at the next start if this process is killed."""
    return Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=folder))


def _forget(journal: LineJournal, names: set[str]) -> None:
    if names:
        journal.replace([line for name, line in journal.items.items() if name not in names])


def _journal(path: Path) -> LineJournal:
    """Lines by id.

    Raises:
        UserError: If the file was not written by this command.
    """
    try:
        return LineJournal(path, _read, sync=True)
    except ValueError as error:
        raise UserError(
            f"{path} was not written by `mattergen-e data compute` ({error}): choose another --out."
        ) from error


def _read(line: Any) -> tuple[str, dict[str, Any]]:
    if missing := [key for key in ("material_id", "settings_hash", "input_hash") if key not in line]:
        raise ValueError(f"it has no {missing[0]}")
    name = line["material_id"]
    if not isinstance(name, str):
        raise ValueError(f"its material_id {name!r} is no text")
    try:
        check_name(name)  # files are named by it, and removed
    except ValueError as error:
        raise ValueError(f"its material_id {name[:80]!r} cannot be the name of a file: {error}") from None
    return name, line
