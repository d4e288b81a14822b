"""Finished batches of a run: their files, and whether they are of that run.

A batch is a zip file with its part of each output file, and batch.json (`ShardRecord`), by which it is known.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

from mattergen_e.errors import UserError
from mattergen_e.generation.formats import JSONL_NAME, batch_files
from mattergen_e.generation.records import (
    NUM_SAMPLES,
    START_ANEW,
    BatchRecord,
    RunRecord,
    ShardRecord,
    hash_settings,
)
from mattergen_e.journal import FileJournal
from mattergen_e.limits import check_zip

BATCHES_FOLDER = "batches"
BATCH_NAME = "batch.json"

#: Names of output files; nothing else in a batch's file becomes a file.
OUTPUT = re.compile(r"generated_[A-Za-z0-9_-]+(\.[A-Za-z0-9]+)+")
BY_OVERRIDE = "(or sampler_partial.output.existing=... by --sampling_config_overrides)"


class Shard(NamedTuple):
    """A finished batch: what is written down about it, and the output files that it has a part of."""

    record: BatchRecord
    indices: list[int]
    files: list[str]


def batches_of(folder: Path) -> FileJournal:
    """The files of a run's batches."""
    return FileJournal(folder / BATCHES_FOLDER, "batch_{}.zip")


def read_shards(folder: Path, record: RunRecord) -> dict[int, Shard]:
    """The finished batches, each of which must be of this run.

    Raises:
        UserError: If a file is damaged, or of another run or place.
    """
    batches, shards = batches_of(folder), {}
    where: dict[int, int] = {}
    settings = hash_settings(record.settings)
    for number in batches.numbers():
        path = batches.path(number)
        shard, stored = _read_shard(path)
        twice = next((index for index in shard.indices if index in where), None)
        reason = None
        if stored.record.batch != number:
            reason = f"it is batch {stored.record.batch}"
        elif stored.seed not in (None, record.seed):
            reason = f"its seed is {stored.seed}, not {record.seed}"
        elif stored.settings_sha256 not in (None, settings):
            reason = "it was made with other settings"
        elif twice is not None:
            reason = f"crystal {twice} stands in {batches.path(where[twice]).name} too"
        if reason is not None:
            raise UserError(
                f"{path} is not of this run ({reason}): move this file away and resume, which generates its crystals "
                "anew."
            )
        where |= dict.fromkeys(shard.indices, number)
        shards[number] = shard
    return shards


def _read_shard(path: Path) -> tuple[Shard, ShardRecord]:
    """What a batch's file holds, after comparing the checksums of its content, and what it says of itself."""
    with sound(path), ZipFile(path) as archive:
        check_zip(archive)
        damaged = archive.testzip()
        files = [name for name in archive.namelist() if name != BATCH_NAME]
        if damaged is not None or not set(batch_files([])) <= set(files):
            raise BadZipFile(f"{damaged or 'a part'} is not whole")
        if refused := [name for name in files if not OUTPUT.fullmatch(name)]:
            raise BadZipFile(f"{refused[0]!r} is not the name of an output file")
        stored = ShardRecord.model_validate_json(archive.read(BATCH_NAME))
        first = archive.read(JSONL_NAME).partition(b"\n")[0]
        if stored.seed is None and first:  # of an earlier version: its crystals tell
            stored.seed = int(json.loads(first)["seed"])
        return Shard(stored.record, stored.indices, files), stored


def extends(record: RunRecord, asked: Any) -> bool:
    """Whether numbers of crystals can be compared, which is done after all else (`check_extended`)."""
    return isinstance(asked, int) and isinstance(record.settings.get(NUM_SAMPLES), int)


def check_extended(folder: Path, record: RunRecord, asked: Any, shards: dict[int, Shard]) -> None:
    """Lets a run become longer: by whole batches, since a batch depends on its own crystals only."""
    before: Any = record.settings.get(NUM_SAMPLES)
    if not extends(record, asked) or asked == before:
        return
    if asked < before:
        raise UserError(
            f"{folder} cannot be resumed because it is a run of {before} crystals, not of {asked}: ask for as "
            f"many or more (--num_batches), give another output folder, or {START_ANEW} {BY_OVERRIDE}."
        )
    size = record.settings.get("batch_size")
    if isinstance(size, int) and size > 0 and before % size and before // size in shards:
        raise UserError(
            f"{folder} cannot be extended because its last batch holds {before % size} crystals instead of {size}: "
            f"generate the others into another output folder, or {START_ANEW} {BY_OVERRIDE}."
        )


@contextmanager
def sound(path: Path) -> Iterator[None]:
    """What a damaged batch file makes its readers raise becomes a `UserError`."""
    try:
        yield
    except (BadZipFile, LookupError, ValueError, RuntimeError, EOFError, struct.error, FileNotFoundError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path} is damaged ({reason}): remove this file and resume, which generates its crystals anew."
        ) from error
