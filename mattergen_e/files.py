"""Writing files that are whole at every moment."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

TEMPORARY_PREFIX = ".mattergen_e-"
TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` at once when it is complete and on the disk."""
    temporary = path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems do not know it for folders
            os.fsync(folder)
    finally:
        os.close(folder)


def remove_temporary(folder: Path) -> None:
    """Removes what `replacing` left behind in a process that was killed; only for the owner of the folder's lock."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"):
        path.unlink()


def add_array(archive: ZipFile, name: str, array: np.ndarray[Any, Any]) -> None:
    """Adds an array to a zip file such that `numpy.load` finds it by its name; the same array gives the same bytes."""
    entry = ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    with archive.open(entry, "w") as member:
        np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
