"""The crash-safe store of a run: after k finished batches, k batches can be read, whenever the process ends.

    <folder>/batches/batch_<number>.zip    a finished batch: its part of each output file, and batch.json
    <folder>/run.json                      command, settings, provenance, timings, counts, state (`RunRecord`)
    <folder>/generated_*                   the output files, such as generated_crystals.extxyz (see `formats`)

Batches are a `FileJournal`, and the truth: the output files are made anew from them after each batch and at each
resume. Which there are, the batches say: each has its part of those that its crystals need. The JSON lines take their
place last: between a kill and the resume, the other files hold each crystal that stands in the JSON lines, and may hold
those of one batch more.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from zipfile import ZipFile

from mattergen_e.errors import UserError
from mattergen_e.files import remove_temporary, replacing, replacing_all
from mattergen_e.generation.formats import JSONL_NAME, Generated, batch_files, join, plain, read_files
from mattergen_e.generation.records import (
    NUM_SAMPLES,
    RUN_NAME,
    START_ANEW,
    BatchRecord,
    Resume,
    RunRecord,
    ShardRecord,
    hash_settings,
    load_record,
)
from mattergen_e.generation.shards import (
    BATCH_NAME,
    BATCHES_FOLDER,
    BY_OVERRIDE,
    OUTPUT,
    Shard,
    batches_of,
    check_extended,
    extends,
    read_shards,
    sound,
)
from mattergen_e.journal import Difference, Lock, difference

__all__ = ["BatchRecord", "Generated", "RunRecord", "RunStore", "load_record", "read_crystals"]


def read_crystals(path: str | Path) -> list[Generated]:
    """Reads the crystals of a run from its generated_crystals.jsonl; needs no lock.

    Args:
        path: The file, or the folder that holds it.

    Raises:
        UserError: If the file is missing or is not what this package writes.
    """
    path = Path(path)
    folder, name = (path, None) if path.is_dir() else (path.parent, path.name)
    try:
        return read_files(folder.joinpath, name)
    except FileNotFoundError as error:
        missing = error.filename or path
        raise UserError(f"{missing} does not exist: give the output folder of a run with a joint model.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): resume the run, which makes the file anew.") from None


class RunStore:
    """Output folder of one run, held by this process until it is closed.

    Attributes:
        folder: The folder.
        seed: Seed of the run; on a resume the one that the run began with.
        done: Numbers of the finished batches.
    """

    def __init__(self, folder: Path, lock: Lock, record: RunRecord, shards: dict[int, Shard]) -> None:
        """Use `RunStore.open`."""
        self.folder = folder
        self.seed = record.seed
        self.done = set(shards)
        self._lock = lock
        self._record = record
        self._shards = shards
        self._batches = batches_of(folder)
        self._stale = False

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        existing: Literal["refuse", "resume", "overwrite"],
        settings: dict[str, Any],
        provenance: dict[str, Any],
        fields: Mapping[str, Any] | None = None,
    ) -> Self:
        """Begins or continues a run.

        Args:
            folder: Output folder; made if it does not exist. Files in it that are not the store's stay as they are.
            existing: What to do with results that it holds. 'resume' begins a new run where there is none.
            settings: What an interrupted run and its resume must agree in. The seed, if any, is under 'seed'; None
                stands for a random one, or on a resume for the recorded one.
            provenance: What else to write down: versions, checkpoint, hardware.
            fields: What is generated besides the structure, by descriptor; see `RunRecord`. A resume needs the same
                names.

        Raises:
            UserError: If another process uses the folder, it holds results that may not be touched, the settings
                differ from those of the run to be resumed, or a file is damaged or cannot be written.
        """
        folder = Path(folder)
        with _one_sentence(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                lock = Lock(folder)
                stack.callback(lock.release)
                remove_temporary(folder)
                remove_temporary(folder / BATCHES_FOLDER)
                if existing == "overwrite":
                    _remove_own(folder)
                elif existing == "refuse":
                    _refuse_results(folder)
                resumed = existing == "resume" and _can_resume(folder)
                begin = _resumed if resumed else _begun
                store = cls(folder, lock, *begin(folder, plain(settings), plain(provenance), plain(fields or {})))
                store._save()
                if resumed:
                    store._refresh()
                stack.pop_all()
        return store

    def write_batch(self, batch: int, crystals: list[Generated], *, seconds: float, dropped: int, failed: int) -> None:
        """Writes a finished batch; when this returns, it is on the disk and in all output files.

        Args:
            batch: Number of the batch, from 0; not one of `done`.
            crystals: Its crystals; none is a batch too.
            seconds: Wall-clock time that it took, in s.
            dropped: Number of degenerate draws.
            failed: Number of crystals that are missing.

        Raises:
            ValueError: If the batch or an index was written before, or a number of a crystal is not finite.
            UserError: If the files cannot be written.
        """
        indices = [crystal.index for crystal in crystals]
        known = {index for shard in self._shards.values() for index in shard.indices}
        if batch in self.done or len(set(indices)) < len(indices) or known & set(indices):
            raise ValueError(f"batch {batch} or one of its crystals was written before: {indices}")
        if any(crystal.batch != batch for crystal in crystals):
            raise ValueError(f"crystals of other batches are handed over as batch {batch}")
        record = BatchRecord(batch=batch, crystals=len(crystals), seconds=seconds, dropped=dropped, failed=failed)
        files = batch_files(crystals)
        if refused := [name for name in files if not OUTPUT.fullmatch(name)]:
            raise ValueError(f"{refused[0]!r} is not the name of an output file")
        with _one_sentence(self.folder):
            self._stale = True
            with self._batches.write(batch) as target, ZipFile(target, "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
                archive.writestr(BATCH_NAME, self._shard(record, indices).model_dump_json())
            self._shards[batch] = Shard(record, indices, list(files))
            self.done.add(batch)
            self._refresh()
            self._record.status, self._record.finished, self._record.outputs = "running", None, {}
            self._save()

    def finish(self) -> None:
        """Marks the run as finished and records the hashes of its output files."""
        with _one_sentence(self.folder):
            if self._stale or not all((self.folder / name).exists() for name in self._names()):
                self._refresh()
            for name in self._names():
                with (self.folder / name).open("rb") as file:
                    self._record.outputs[name] = hashlib.file_digest(file, "sha256").hexdigest()
            self._record.status = "finished"
            self._record.finished = self._record.finished or datetime.now(UTC)
            self._save()

    def read(self) -> list[Generated]:
        """The crystals of all finished batches, in the order of their index."""
        crystals: list[Generated] = []
        for batch in sorted(self.done):
            crystals += read_files(partial(self._part, batch))
        return sorted(crystals, key=lambda crystal: crystal.index)

    def close(self) -> None:
        """Releases the folder; a run that is not finished is marked as interrupted."""
        if self._lock.released:
            return
        try:
            with suppress(OSError, UserError):  # the reason to close may be a full disk
                if self._stale:
                    self._refresh()
                if self._record.status != "finished":
                    self._record.status = "interrupted"
                    self._save()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _part(self, batch: int, name: str) -> bytes:
        """A batch's part of an output file."""
        path = self._batches.path(batch)
        with sound(path), ZipFile(path) as archive:
            return archive.read(name)

    def _shard(self, record: BatchRecord, indices: list[int]) -> ShardRecord:
        settings = hash_settings(self._record.settings)
        return ShardRecord(record=record, indices=indices, seed=self.seed, settings_sha256=settings)

    def _names(self) -> list[str]:
        """The output files: those of any run, and those that this one's batches have parts of; the JSON lines last."""
        names = dict.fromkeys([*batch_files([]), *(name for s in self._shards.values() for name in s.files)])
        return sorted(names, key=lambda name: name == JSONL_NAME)

    def _refresh(self) -> None:
        """Makes the output files anew from the batches."""
        self._stale = True
        names = self._names()
        with replacing_all([self.folder / name for name in names]) as targets:
            for name, target in zip(names, targets, strict=True):
                batches = [batch for batch in sorted(self.done) if name in self._shards[batch].files]
                join(name, (self._part(batch, name) for batch in batches), target)
        self._stale = False

    def _save(self) -> None:
        record = self._record
        record.batches = [self._shards[batch].record for batch in sorted(self._shards)]
        for name in ("crystals", "dropped", "failed"):
            setattr(record, name, sum(getattr(batch, name) for batch in record.batches))
        text = json.dumps(record.model_dump(mode="json"), indent=2, allow_nan=False, ensure_ascii=False)
        with replacing(self.folder / RUN_NAME) as target:
            target.write(text.encode() + b"\n")


# -- beginning and resuming -------------------------------------------------------------------------------------------


def _can_resume(folder: Path) -> bool:
    """Whether there is a run to go on with; False if the folder holds no results at all."""
    if (folder / RUN_NAME).exists():
        return True
    if _results(folder):
        raise UserError(
            f"{folder} cannot be resumed because it holds results without {RUN_NAME}, which are not a run of a joint "
            f"model: give another output folder, or {START_ANEW} {BY_OVERRIDE}."
        )
    return False


def _refuse_results(folder: Path) -> None:
    """Lets pass what holds no results, such as a run that ended before its first batch was finished."""
    if (folder / RUN_NAME).exists():
        with suppress(UserError):
            if not _results(folder) and not load_record(folder).batches:
                return
        raise UserError(
            f"{folder} already holds the results of a run: set MATTERGEN_E_EXISTING=resume to go on with it or "
            f"MATTERGEN_E_EXISTING=overwrite to replace it {BY_OVERRIDE}."
        )
    if _results(folder):
        raise UserError(
            f"{folder} already holds results, but no {RUN_NAME} to resume from: give another output folder, or set "
            f"MATTERGEN_E_EXISTING=overwrite to replace them {BY_OVERRIDE}."
        )


def _begun(
    folder: Path, settings: dict[str, Any], provenance: dict[str, Any], fields: dict[str, Any]
) -> tuple[RunRecord, dict[int, Shard]]:
    seed = settings.pop("seed", None)
    record = RunRecord(
        status="running",
        command=list(sys.argv),
        started=datetime.now(UTC),
        seed=secrets.randbits(31) if seed is None else seed,
        settings=settings,
        provenance=provenance,
        fields=fields,
    )
    return record, {}


def _resumed(
    folder: Path, settings: dict[str, Any], provenance: dict[str, Any], fields: dict[str, Any]
) -> tuple[RunRecord, dict[int, Shard]]:
    record = load_record(folder)
    seed = settings.pop("seed", None)
    asked = settings.get(NUM_SAMPLES)
    differing = difference(
        {**record.settings, NUM_SAMPLES: asked} if extends(record, asked) else record.settings, settings
    )
    if differing is None and seed not in (None, record.seed):
        differing = Difference("seed", record.seed, seed)
    if differing is None and record.fields and set(record.fields) != set(fields):
        differing = Difference("fields", sorted(record.fields), sorted(fields))
    if differing is not None:
        raise UserError(
            f"{folder} cannot be resumed because {differing}: run with the former, give another output folder, or "
            f"{START_ANEW} {BY_OVERRIDE}."
        )
    shards = read_shards(folder, record)
    check_extended(folder, record, asked, shards)
    record.resumes.append(Resume(started=datetime.now(UTC), command=list(sys.argv), provenance=provenance))
    record.fields = fields or record.fields
    if (
        record.status != "finished"
        or set(shards) != {batch.batch for batch in record.batches}
        or record.settings != settings
    ):
        record.status, record.finished, record.outputs = "running", None, {}
    record.settings = settings
    return record, shards


# -- the folder -------------------------------------------------------------------------------------------------------


def _results(folder: Path) -> list[Path]:
    """The results that a folder holds, be they of a run or MatterGen's own; batches last."""
    batches = batches_of(folder)
    paths = [batches.path(batch) for batch in batches.numbers()]
    names = dict.fromkeys(batch_files([]))
    for path in paths:
        with suppress(UserError), sound(path), ZipFile(path) as archive:  # a batch that is damaged names no files
            names |= dict.fromkeys(filter(OUTPUT.fullmatch, archive.namelist()))
    return [*(file for name in names if (file := folder / name).exists()), *paths]


def _remove_own(folder: Path) -> None:
    """Removes the store's files; run.json goes last, so that what is left after a crash is still a run."""
    for path in _results(folder):
        path.unlink()
    with suppress(OSError):
        (folder / BATCHES_FOLDER).rmdir()
    (folder / RUN_NAME).unlink(missing_ok=True)


# -- errors -----------------------------------------------------------------------------------------------------------


@contextmanager
def _one_sentence(folder: Path) -> Iterator[None]:
    """What the file system refuses becomes a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or folder} cannot be used ({error.strerror or error}): check that {folder} is a "
            "folder with room that you may write in, and run the command again with MATTERGEN_E_EXISTING=resume."
        ) from error
