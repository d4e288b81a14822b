"""The folder that `mattergen-e data compute` writes, crash-safe, one crystal at a time.

    <folder>/<id>.npz          one crystal, as `mattergen_e.labels.arrays` reads it
    <folder>/manifest.jsonl    a line per finished crystal: id, formula, settings, versions, hashes, findings, seconds
    <folder>/failed.jsonl      a line per crystal that failed, with the reason

A crystal is finished when its line is in the manifest. Lines are appended and brought to the disk as crystals finish;
what a kill leaves of a line is cut off at the next start.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mattergen_e.errors import UserError
from mattergen_e.files import Lock, remove_temporary, replacing

MANIFEST_NAME, FAILED_NAME = "manifest.jsonl", "failed.jsonl"
WORK_PREFIX = ".work-"
DENSITY_SUFFIX = ".CHGCAR"


class ComputeFolder:
    """The folder, held by this process until it is closed.

    Attributes:
        folder: Its path.
        done: Lines of the manifest by id.
        failed: Lines of failed.jsonl by id.
    """

    def __init__(self, folder: Path, settings_hash: str, overwrite: bool) -> None:
        """Open the folder, or make it.

        Args:
            folder: Its path.
            settings_hash: Of the settings that its crystals must have been computed with.
            overwrite: Throw away crystals that were computed with others.

        Raises:
            UserError: If it cannot be written to, is in use, holds crystals computed with other settings, or a
                manifest that is not of this command.
        """
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(folder)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written to ({error.strerror or error}): choose another --out."
            ) from None
        try:
            self._clean()
            self.done = _read_lines(folder / MANIFEST_NAME)
            self.failed = _read_lines(folder / FAILED_NAME)
            self._check(settings_hash, overwrite)
        except BaseException:
            self._lock.release()
            raise

    def _clean(self) -> None:
        """Remove what a killed process left behind."""
        remove_temporary(self.folder)
        for path in self.folder.glob(f"{WORK_PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _check(self, settings_hash: str, overwrite: bool) -> None:
        others = [name for name, line in self.done.items() if line["settings_hash"] != settings_hash]
        if others and not overwrite:
            raise UserError(
                f"{self.folder} holds {len(others)} crystals computed with other settings (first: {others[0]}): choose "
                "another --out, or replace them with --overwrite."
            )
        for name in others:
            (self.folder / f"{name}.npz").unlink(missing_ok=True)
            (self.folder / f"{name}{DENSITY_SUFFIX}").unlink(missing_ok=True)
            del self.done[name]
        gone = [name for name in self.done if not (self.folder / f"{name}.npz").is_file()]
        for name in gone:
            del self.done[name]
        if others or gone:
            self._rewrite(MANIFEST_NAME, self.done)
        old = [name for name, line in self.failed.items() if line["settings_hash"] != settings_hash]
        self.forget(old)

    def forget(self, names: list[str]) -> None:
        """Take crystals out of failed.jsonl, so that they are computed again."""
        if names:
            self.failed = {name: line for name, line in self.failed.items() if name not in set(names)}
            self._rewrite(FAILED_NAME, self.failed)

    def add(self, line: dict[str, Any], failed: bool) -> None:
        """Append a finished crystal to the manifest, or a failed one to failed.jsonl."""
        known, name = (self.failed, FAILED_NAME) if failed else (self.done, MANIFEST_NAME)
        known[line["material_id"]] = line
        with (self.folder / name).open("ab") as file:
            file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _rewrite(self, name: str, lines: dict[str, dict[str, Any]]) -> None:
        with replacing(self.folder / name) as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in lines.values())

    def close(self) -> None:
        """Release the folder."""
        self._clean()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def work_folder(folder: Path) -> Path:
    """A new folder for one calculation; it is cleaned away at the next start if this process is killed."""
    return Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=folder))


def _read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """Lines by id; a line that a kill cut off is removed from the file.

    Raises:
        UserError: If the file was not written by this command.
    """
    if not path.exists():
        return {}
    lines: dict[str, dict[str, Any]] = {}
    sound = 0
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if not text.endswith(b"\n"):
                    break
                line = json.loads(text)
                if not {"material_id", "settings_hash", "input_hash"} <= set(line):
                    raise ValueError(f"line {number}")
                lines[line["material_id"]] = line
                sound += len(text)
        if sound < path.stat().st_size:
            os.truncate(path, sound)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): choose another --out.") from error
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path} was not written by `mattergen-e data compute` ({error}): choose another --out."
        ) from error
    return lines
