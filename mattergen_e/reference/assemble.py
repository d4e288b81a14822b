"""From chunks of crystals, each a file of a `FileJournal`, to the arrays of a reference, with bounded memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from mattergen_e.errors import UserError
from mattergen_e.files import add_array, replacing
from mattergen_e.journal import FileJournal
from mattergen_e.parallel import in_parallel
from mattergen_e.progress import bar
from mattergen_e.reference.folder import ArrayInfo

SMALL = ("formulas", "chemical_systems", "energies")


def fill[Task](
    parts: FileJournal,
    total: int,
    chunk: int,
    tasks: Callable[[list[int]], Iterable[Task]],
    compute: Callable[[Task], tuple[int, Mapping[str, NDArray[Any]] | str]],
    *,
    title: str,
    failure: str,
    jobs: int | None,
    backend: str,
) -> None:
    """Computes the chunks that are missing; each is on the disk as soon as it is known.

    Args:
        parts: The chunks.
        total: Number of crystals.
        chunk: Crystals per chunk.
        tasks: Gives what is to be computed for the numbers of chunks.
        compute: Gives number and arrays of a chunk, or what went wrong; runs in workers.
        title: Of the progress bar.
        failure: What it means that something went wrong, for people.
        jobs: Workers of one thread each; None for one per core.
        backend: Of joblib.

    Raises:
        UserError: If a chunk could not be computed.
    """
    missing = [number for number in range(math.ceil(total / chunk)) if number not in parts]
    sizes = {number: min(chunk, total - number * chunk) for number in missing}
    with (
        bar(title, total, total - sum(sizes.values())) as advance,
        closing(in_parallel(compute, tasks(missing), jobs, backend)) as results,
    ):
        for number, arrays in results:
            if isinstance(arrays, str):
                raise UserError(f"Crystals {number * chunk} and following {failure} ({arrays}).")
            with parts.write(number) as file, ZipFile(file, "w") as archive:
                for name, array in arrays.items():
                    add_array(archive, name, array)
            advance(sizes[number])


def load_small(parts: Sequence[Path]) -> dict[str, NDArray[Any]]:
    """What fits into memory of all chunks, joined, by name.

    Raises:
        UserError: If a chunk is damaged.
    """
    read = [_load(part, SMALL) for part in parts]
    return {name: np.concatenate([arrays[name] for arrays in read]) for name in SMALL}


def write(path: Path, array: NDArray[Any]) -> ArrayInfo:
    """Writes an array whole or not at all."""
    return _write(path, array.shape, array.dtype, [array])


def join(path: Path, parts: Sequence[Path], name: str, length: int) -> ArrayInfo:
    """Writes an array of all chunks, one after the other.

    Raises:
        UserError: If a chunk is damaged.
    """
    first = _load(parts[0], [name])[name]
    blocks = (_load(part, [name])[name] for part in parts)
    return _write(path, (length, *first.shape[1:]), first.dtype, blocks)


def join_all(path: Path, parts: Sequence[Path], name: str) -> ArrayInfo:
    """As `join`, of chunks that have any number of rows.

    Raises:
        UserError: If a chunk is damaged.
    """
    return join(path, parts, name, sum(len(_load(part, [name])[name]) for part in parts))


def _write(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Iterable[NDArray[Any]]) -> ArrayInfo:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    rows = 0
    with replacing(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype=dtype).tobytes())
            rows += len(block)
    if rows != shape[0]:
        path.unlink()
        raise UserError(f"{path.name} has {rows} rows, expected {shape[0]}: build the reference anew with --overwrite.")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ArrayInfo(shape=list(shape), dtype=str(dtype), size=path.stat().st_size, sha256=digest)


def _load(part: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(part, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{part} is damaged ({error}): delete it and run the command again.") from None
