"""A journal: the finished items of a job in a folder, from which the job goes on after whatever ended it.

Labels, computed crystals, stages of an evaluation, chunks of a reference and batches of a run are kept by it. A journal
has four parts, which a job takes as it needs them:

- `hold`: the folder, made, locked and swept of what a killed process left in it; `claim` does so for an output that is
  yet to appear, beside it;
- `LineJournal`: items that are small, each a line of JSON at the end of one file;
- `FileJournal`: items that are large or are written by several processes at once, each a file of its own;
- `difference`: the first setting in which a run and its resume differ. Where the settings are written down is the
  job's own affair (a file before the first item, each line, or the name of the journal's file); what another setting
  made is never taken for what this one makes.

What holds after a kill at any byte, of the process or, where the journal syncs, of the machine:

- A finished item is whole, and the next run finds it. An item is finished when `add` or the body of `write` has ended
  without an error; one that was about to be is either finished too, or not there.
- Nothing half-written is read: a line counts with its newline, and what follows the last one is cut off by the next
  run; a file is written under a temporary name, brought to the disk and renamed.
- The lock goes with its process, so that none is stale and no second process writes.

A disk that runs full in the midst of a line costs that line only.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from filelock import FileLock, Timeout

from mattergen_e.errors import UserError
from mattergen_e.files import TEMPORARY_PREFIX, lock_beside, recover, remove_temporary, replacing

LOCK_NAME = ".mattergen_e.lock"
CHOOSE_ANOTHER = "choose another --out"
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)


# -- the folder -------------------------------------------------------------------------------------------------------


class Lock:
    """An exclusive lock on a folder, or on an output; the kernel drops it with the process, however that ends.

    filelock's lock (which follows no symbolic link), besides which the file holds the process that has it, and is
    removed with it.
    """

    def __init__(self, held: Path, file: Path | None = None) -> None:
        """Takes the lock.

        Args:
            held: What it is for.
            file: The file that is locked; None for one in the folder `held`.

        Raises:
            UserError: If another run has it.
            OSError: If the file cannot be written to.
        """
        self._path = file or held / LOCK_NAME
        self._lock = FileLock(self._path, timeout=0, thread_local=False, fallback_to_soft=False)
        self.released = False
        while True:
            try:
                self._lock.acquire()
            except Timeout:
                owner = _owner(self._path)
                if owner is None:  # its former owner removed the file in between
                    continue
                raise UserError(
                    f"{held} is in use by another run (process {owner or 'unknown'}): wait until it has ended, or "
                    f"give another output{'' if file else ' folder'}."
                ) from None
            except OSError as error:
                if error.errno not in _WITHOUT_LOCKS:
                    raise
                warnings.warn(f"{held} is on a file system without locks: run only one process on it.", stacklevel=2)
            break
        number = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
        os.write(number, str(os.getpid()).encode())
        os.close(number)

    def release(self) -> None:
        """Removes the lock file and gives up the lock."""
        if not self.released:
            self.released = True
            with suppress(OSError):
                self._path.unlink()  # before it is unlocked: who waits for this file sees that it is gone
            self._lock.release()


def _owner(lock: Path) -> str | None:
    """The process that a lock file names, "" if none; None if there is no such file."""
    try:
        with lock.open("rb") as file:
            return file.read(32).decode(errors="replace").strip()
    except FileNotFoundError:
        return None


@contextmanager
def hold(folder: Path, *parts: str, advice: str = CHOOSE_ANOTHER) -> Iterator[None]:
    """Makes a folder and keeps it for this process alone; what the file system refuses meanwhile is one sentence.

    Args:
        folder: The folder.
        parts: Folders in it that hold files of the journal, too; they need not exist.
        advice: What to do if it cannot be written to.

    Raises:
        UserError: If another process holds it, or something in it cannot be written.
    """
    with _writable(folder, advice), _made(folder):
        lock = Lock(folder)
        try:
            for part in ("", *parts):
                remove_temporary(folder / part)
            yield
        finally:
            lock.release()


@contextmanager
def claim(target: Path, advice: str = CHOOSE_ANOTHER) -> Iterator[None]:
    """Keeps the name of an output for this process alone, while it is made beside what has the name.

    What a killed process left of it is put right first.

    Args:
        target: A file or a folder that is written as a whole (`mattergen_e.files.appearing`, `.replacing`).
        advice: What to do if it cannot be written.

    Raises:
        UserError: If another process makes it, or it cannot be written.
    """
    with _writable(target, advice):
        file = lock_beside(target)
        with _made(file.parent):
            lock = Lock(target, file)
            try:
                recover(target)
                yield
            finally:
                lock.release()


def write_output(path: Path, content: bytes, advice: str = CHOOSE_ANOTHER) -> None:
    """Writes a file that is an output by itself, into a folder that is there; see `claim`."""
    with _writable(path, advice):
        os.stat(lock_beside(path).parent)
    with claim(path, advice), replacing(path, path) as file:
        file.write(content)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder, with those above it; what had to be made goes again if nothing came into it."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            for path in new:
                path.rmdir()


@contextmanager
def _writable(place: Path, advice: str) -> Iterator[None]:
    """What the file system refuses, in one sentence."""
    try:
        yield
    except OSError as error:
        named = (name for name in (error.filename, error.filename2) if name and TEMPORARY_PREFIX not in str(name))
        where = next(named, place)  # our own names say nothing to anybody
        raise UserError(f"{where} cannot be written to ({error.strerror or error}): {advice}.") from error


# -- settings ---------------------------------------------------------------------------------------------------------

_NOT_SET = object()


class Difference(NamedTuple):
    """A place where two settings differ; as a text, "'steps' was 100 and is now 200".

    Attributes:
        key: Dotted.
        before: The former value.
        now: The other one.
    """

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"'{self.key}' was {_short(self.before)} and is now {_short(self.now)}"


def difference(before: Any, now: Any, key: str = "") -> Difference | None:
    """The first place where two settings, plain JSON, differ; None if they agree."""
    if isinstance(before, dict) and isinstance(now, dict):
        places = [(name, before.get(name, _NOT_SET), now.get(name, _NOT_SET)) for name in {**now, **before}]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        places = [(str(i), *pair) for i, pair in enumerate(zip(before, now, strict=True))]
    else:
        return None if before == now else Difference(key, before, now)
    for name, *pair in places:
        found = difference(*pair, key=f"{key}.{name}" if key else name)
        if found is not None:
            return found
    return None


def _short(value: Any) -> str:
    """A value as it stands in a sentence."""
    if value is _NOT_SET:
        return "not set"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


# -- items as lines ---------------------------------------------------------------------------------------------------


class LineJournal:
    """Items as lines of JSON at the end of one file.

    Attributes:
        path: The file; it exists once something was added.
        items: What is known of the finished items, by key, in the order in which they were finished.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[Any], tuple[str, Any] | None],
        *,
        sync: bool = False,
        skip_damaged: bool = False,
        read_only: bool = False,
    ) -> None:
        """Reads what there is.

        Args:
            path: The file, in a folder that exists.
            read: Key and content of an entry, None for an entry that is no item; raises ValueError, KeyError or
                TypeError for one that is not of this journal. The last one of a key counts.
            sync: Bring each line to the disk, so that also a power cut leaves it.
            skip_damaged: Pass over lines that are no entries, which are then made anew, instead of refusing the file.
            read_only: Leave the file as it is, also a line that is torn: for who does not hold the folder.

        Raises:
            ValueError: If a line is not an entry of this journal; names the line.
            OSError: If the file cannot be read.
        """
        self.path = path
        self.items: dict[str, Any] = {}
        self._read, self._sync, self._read_only = read, sync, read_only
        self._file: int | None = None
        if path.exists():
            self._load(skip_damaged)

    def _load(self, skip_damaged: bool) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].split(b"\n")[:-1], 1):
            try:
                self._note(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                if not skip_damaged:
                    raise ValueError(f"line {number}: {error}") from error
        if whole < len(content) and not self._read_only:
            file = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW)
            try:
                os.ftruncate(file, whole)
            finally:
                os.close(file)

    def _note(self, entry: Any) -> None:
        found = self._read(entry)
        if found is not None:
            self.items[found[0]] = found[1]

    def __contains__(self, key: str) -> bool:
        return key in self.items

    def add(self, entry: Any) -> None:
        """Appends an entry: once this returns, a kill cannot take it away.

        Args:
            entry: Plain JSON, as `read` takes it.

        Raises:
            ValueError: If it holds a number that is not finite; nothing is written then.
            OSError: If it cannot be written; the file is as it was then.
        """
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        if self._file is None:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
        end = os.fstat(self._file).st_size
        try:
            while line:
                line = line[os.write(self._file, line) :]
            if self._sync:
                os.fsync(self._file)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(self._file, end)  # a torn line would spoil the one after it
            raise
        self._note(entry)

    def replace(self, entries: Iterable[Any]) -> None:
        """Writes the file anew with these entries, at once."""
        entries = list(entries)
        with replacing(self.path) as file:
            file.writelines(json.dumps(entry, allow_nan=False).encode() + b"\n" for entry in entries)
        self.close()
        self.items = {}
        for entry in entries:
            self._note(entry)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


# -- items as files ---------------------------------------------------------------------------------------------------


class FileJournal:
    """Items as files of a folder, by number or by name; any number of processes may write different ones.

    Attributes:
        folder: The folder; made with the first item.
    """

    def __init__(self, folder: Path, form: str) -> None:
        """Takes the form of the files' names, such as `batch_{}.zip`; numbers have six digits or more in it."""
        self.folder = folder
        self._form = form
        before, after = (re.escape(part) for part in form.split("{}"))
        self._numbered = re.compile(f"{before}([0-9]{{6,}}){after}")

    def path(self, item: int | str) -> Path:
        """Where an item is, or would be."""
        return self.folder / self._form.format(f"{item:06d}" if isinstance(item, int) else file_name(item))

    def __contains__(self, item: int | str) -> bool:
        return self.path(item).is_file()

    def numbers(self) -> list[int]:
        """Numbers of the finished items, in order, where items have numbers."""
        found = (self._numbered.fullmatch(path.name) for path in self.folder.glob(self._form.format("*")))
        return sorted(int(match[1]) for match in found if match)

    @contextmanager
    def write(self, item: int | str) -> Iterator[IO[bytes]]:
        """The file of an item, which is finished, and replaces an earlier one, when the body ends without an error."""
        self.folder.mkdir(exist_ok=True)
        with replacing(self.path(item)) as file:
            yield file


def file_name(name: str) -> str:
    """A name for files: the name itself if it can be one, else its readable part and a hash."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,80}", name):
        return name
    readable = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.")[:60]
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
