"""Holding a folder and writing files in it that are whole at every moment."""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from mattergen_e.errors import UserError

LOCK_NAME = ".mattergen_e.lock"
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


def add_array(archive: ZipFile, name: str, array: np.ndarray[Any, Any]) -> None:
    """Adds an array to a zip file such that `numpy.load` finds it by its name; the same array gives the same bytes."""
    entry = ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    with archive.open(entry, "w") as member:
        np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def remove_temporary(folder: Path) -> None:
    """Removes what `replacing` left behind in a process that was killed; only for the owner of the lock."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"):
        path.unlink()


class Lock:
    """An exclusive lock on a folder; the kernel drops it with the process, however that ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self.released = False
        while True:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._take(folder)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(self._file), self._path.stat()):
                        break
            except BaseException:
                os.close(self._file)
                raise
            os.close(self._file)  # its former owner removed the file in between
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def _take(self, folder: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._file, 32, 0).decode(errors="replace").strip()
            raise UserError(
                f"{folder} is in use by another run (process {owner or 'unknown'}): wait until it has ended, or give "
                "another output folder."
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL):
                raise
            warnings.warn(f"{folder} is on a file system without locks: run only one process on it.", stacklevel=2)

    def release(self) -> None:
        """Removes the lock file and gives up the lock."""
        if not self.released:
            self.released = True
            with suppress(OSError):
                self._path.unlink()
            os.close(self._file)
