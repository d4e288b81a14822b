"""Writing files and folders that are whole at every moment."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from mattergen_e.errors import UserError

TEMPORARY_PREFIX = ".mattergen_e-"
TEMPORARY_SUFFIX = ".tmp"
#: Of a folder that another one is about to replace.
ASIDE_SUFFIX = ".old"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


# -- files ------------------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path, claimed: Path | None = None) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` at once when it is complete and on the disk.

    Args:
        path: The file.
        claimed: The output that it is a part of, where that is claimed (`mattergen_e.journal.claim`) instead of its
            folder being held.
    """
    with replacing_all([path], claimed) as (file,):
        yield file


@contextmanager
def replacing_all(paths: Sequence[Path], claimed: Path | None = None) -> Iterator[Sequence[IO[bytes]]]:
    """New files that take the places of `paths`, one after another, when all are complete and on the disk.

    A kill in between leaves the first ones replaced and the others as they were.
    """
    temporaries = [
        path.parent / f"{_beside(claimed) if claimed else TEMPORARY_PREFIX}{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
        for path in paths
    ]
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(temporary.open("xb")) for temporary in temporaries]
            yield files
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        for temporary, path in zip(temporaries, paths, strict=True):
            temporary.replace(path)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
    for folder in {path.parent for path in paths}:
        _sync(folder)


def _sync(path: Path) -> None:
    """Brings a file, or the names in a folder, to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems do not know it for folders
            os.fsync(number)
    finally:
        os.close(number)


def remove_temporary(folder: Path) -> None:
    """Removes what was left behind in a process that was killed; only for the owner of the folder's lock."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"):
        _remove(path)


def discard(path: Path) -> None:
    """Removes a folder of ours at once; only for the owner of the lock of the one that holds it.

    It loses its name first, so that nobody meets a part of it.
    """
    gone = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    path.rename(gone)
    _remove(gone)


# -- folders ----------------------------------------------------------------------------------------------------------


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A new folder that takes the name of `target` when the block ends well, and vanishes if not.

    What has the name goes, so the caller has to know that it is nothing of value: only a folder that this package wrote
    is replaced. At no moment is there no folder, where the system can exchange two; elsewhere, what was put aside is
    put back by `recover`.

    Args:
        target: Name of the folder, which is claimed (`mattergen_e.journal.claim`).

    Yields:
        The new folder, empty.

    Raises:
        UserError: If the target is a symbolic link.
    """
    target = Path(os.path.abspath(target))
    token = f"{_beside(target)}{uuid.uuid4().hex}"
    partial, aside = (target.with_name(f"{token}{suffix}") for suffix in (TEMPORARY_SUFFIX, ASIDE_SUFFIX))
    try:
        partial.mkdir()
        yield partial
        if target.is_symlink():
            raise UserError(f"{target} is a symbolic link, which is not replaced: name the folder that it leads to.")
        for path in partial.rglob("*"):
            _sync(path)
        if not target.exists():
            partial.rename(target)
        elif not _exchange(partial, target):
            target.rename(aside)
            partial.rename(target)
    finally:
        recover(target)


def recover(target: Path) -> None:
    """Puts right what `appearing` and `replacing` left beside a target; only for who has claimed it."""
    target = Path(os.path.abspath(target))
    found = {path.name: path for path in target.parent.iterdir() if path.name.startswith(_beside(target))}
    for name in sorted(found):
        path = found[name]
        if name.endswith(ASIDE_SUFFIX) and not os.path.lexists(target):
            path.rename(target)
        elif name.endswith((TEMPORARY_SUFFIX, ASIDE_SUFFIX)):
            _remove(path)
    _sync(target.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _beside(target: Path) -> str:
    """How the names of what belongs to a target begin, which stands beside it."""
    name = os.path.basename(os.path.abspath(target))
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    return f".{name[:40]}{TEMPORARY_PREFIX}{digest}-"


def lock_beside(target: Path) -> Path:
    """The file beside a target that is locked by who writes it.

    Raises:
        UserError: If the target is the root of the file system.
    """
    target = Path(os.path.abspath(target))
    if not target.name:
        raise UserError(f"{target} cannot be written: choose another output.")
    return target.with_name(f"{_beside(target)}lock")


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two names at once; False where the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    paths = [os.fsencode(path) for path in (one, other)]
    return renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0


# -- names ------------------------------------------------------------------------------------------------------------


def check_name(name: str, limit: int = 200) -> None:
    """Checks that what others call a thing can be the name of a file in a folder, and of none outside of it.

    Args:
        name: For example the id of a crystal, which a file says.
        limit: Most bytes of it.

    Raises:
        ValueError: If not; says why.
    """
    if not (0 < len(name.encode(errors="surrogatepass")) <= limit and name.isprintable()) or name.strip() != name:
        raise ValueError("give it another, of at most 200 printable letters")
    if name.startswith(".") or "/" in name or "\\" in name:
        raise ValueError("leave out slashes and a first dot")


# -- arrays -----------------------------------------------------------------------------------------------------------


def add_array(archive: ZipFile, name: str, array: np.ndarray[Any, Any]) -> None:
    """Adds an array to a zip file such that `numpy.load` finds it by its name; the same array gives the same bytes."""
    entry = ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    with archive.open(entry, "w") as member:
        np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
