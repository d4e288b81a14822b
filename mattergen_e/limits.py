"""How much is read of a file of others: it may say a million times more than it holds.

Each limit is far above what anybody has, and its error, a `ValueError`, says which it was; the reader of the file makes
one sentence of it. Nothing is allocated, unpacked or expanded before its size is known.

| limit | of |
| --- | --- |
| `TEXT` | a file that is read at once, unpacked |
| `LINE` | a line of JSON or CSV |
| `ARRAY` | one array of an npz file, unpacked |
| `ARRAYS` | all that is read of one npz or zip file, unpacked |
| `YAML_TEXT`, `YAML_NODES` | a YAML file; its values, counted as often as aliases name them |
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast
from zipfile import ZipFile

import numpy as np
import yaml
from numpy.typing import NDArray

GIB = 1 << 30
TEXT, LINE = 4 * GIB, GIB // 4
ARRAY, ARRAYS = 4 * GIB, 16 * GIB
YAML_TEXT, YAML_NODES = GIB // 128, 1_000_000


#: How files are unpacked, by the ending of their names.
OPENERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": lambda raw: cast(IO[bytes], gzip.GzipFile(fileobj=raw)),
    ".bz2": bz2.open,
    ".xz": lzma.open,
}


class TooLarge(ValueError):
    """A file holds more than is read."""


def _most(size: int) -> str:
    return f"{size // GIB} GiB" if size >= GIB else f"{size >> 20} MiB"


# -- text -------------------------------------------------------------------------------------------------------------


def read_bytes(path: str | Path, most: int | None = None) -> bytes:
    """A whole file; one whose name ends in .gz, .bz2 or .xz is unpacked.

    Args:
        path: The file.
        most: Most bytes, unpacked; None: `TEXT`.

    Raises:
        TooLarge: If it holds more.
        ValueError: If it is packed and damaged.
        OSError: If it cannot be read.
    """
    path, most = Path(path), TEXT if most is None else most
    unpack = OPENERS.get(path.suffix.lower())
    with path.open("rb") as raw:
        try:
            content = (raw if unpack is None else unpack(raw)).read(most + 1)
        except OSError as error:
            if unpack is None or error.errno is not None:
                raise
            raise ValueError(f"it is no sound {path.suffix} file: {error}") from error
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise ValueError(f"it is no sound {path.suffix} file: {error}") from error
    if len(content) > most:
        raise TooLarge(f"it holds more than {_most(most)}")
    return content


def read_text(path: str | Path, errors: str = "strict") -> str:
    """As `read_bytes`, of text in UTF-8, with the ends of lines as Python reads them.

    Raises:
        UnicodeDecodeError: If it is not UTF-8, a `ValueError`.
    """
    return io.TextIOWrapper(io.BytesIO(read_bytes(path)), encoding="utf-8", errors=errors).read()


def lines[T: (str, bytes)](file: IO[T], most: int | None = None) -> Iterator[T]:
    """The lines of an open file, with their ends.

    Args:
        file: Open for reading.
        most: Longest line; None: `LINE`.

    Raises:
        TooLarge: If a line is longer.
    """
    most = LINE if most is None else most
    number = 0
    while line := file.readline(most + 1):
        number += 1
        if len(line) > most:
            raise TooLarge(f"line {number} is longer than {_most(most)}")
        yield line


# -- arrays -----------------------------------------------------------------------------------------------------------


class Arrays(Mapping[str, NDArray[Any]]):
    """The arrays of an open npz file, each read when it is asked for, and never unpickled."""

    def __init__(self, archive: ZipFile) -> None:
        """Takes the archive, which stays open as long as arrays are asked for."""
        self._archive = archive
        self._members = {
            info.filename.removesuffix(".npy"): info for info in archive.infolist() if info.filename.endswith(".npy")
        }
        self._left = ARRAYS

    @property
    def files(self) -> list[str]:
        """Names of the arrays."""
        return list(self._members)

    def __getitem__(self, name: str) -> NDArray[Any]:
        info = self._members[name]
        if info.file_size > ARRAY:
            raise TooLarge(f"its array {name!r} holds more than {_most(ARRAY)}")
        self._left -= info.file_size
        if self._left < 0:
            raise TooLarge(f"its arrays hold more than {_most(ARRAYS)}")
        with _sound(f"its array {name!r} is damaged"), self._archive.open(info) as member:
            return plain_array(member.read(info.file_size + 1))

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


@contextmanager
def open_npz(file: str | Path | IO[bytes]) -> Iterator[Arrays]:
    """The arrays of an npz file.

    Args:
        file: The file, or its content.

    Raises:
        ValueError: If it is no npz file of plain arrays, or holds more than is read.
        KeyError: If an array is asked for that is not there.
        OSError: If it cannot be read.
    """
    with _sound("it is no sound npz file"):
        archive = ZipFile(file)
    with archive:
        yield Arrays(archive)


@contextmanager
def _sound(what: str) -> Iterator[None]:
    """Whatever a damaged zip or array makes its readers raise becomes a `ValueError`."""
    try:
        yield
    except (OSError, TooLarge, MemoryError):
        raise
    except Exception as error:
        words = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{what} ({words[:200]})") from error


def check_zip(archive: ZipFile) -> None:
    """Checks what the members of a zip file say of their sizes.

    Raises:
        TooLarge: If it unpacks to more than is read.
    """
    if sum(info.file_size for info in archive.infolist()) > ARRAYS:
        raise TooLarge(f"it unpacks to more than {_most(ARRAYS)}")


def plain_array(content: bytes) -> NDArray[Any]:
    """An array from the bytes of an npy file, whose size must be that of its header.

    Raises:
        ValueError: If it is not, or the array holds objects.
    """
    buffer = io.BytesIO(content)
    shape, dtype = _header(buffer)
    if math.prod(shape) * dtype.itemsize != len(content) - buffer.tell():
        raise ValueError(f"it does not have the size of its shape {shape}")
    buffer.seek(0)
    return np.lib.format.read_array(buffer, allow_pickle=False)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"its npy version {version} is not read")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("it holds objects")
    if not all(isinstance(length, int) and 0 <= length < 1 << 60 for length in shape):
        raise ValueError(f"its shape is {shape}")
    return shape, dtype


def read_npy(path: str | Path, mmap: bool = False) -> NDArray[Any]:
    """The array of an npy file.

    Args:
        path: The file.
        mmap: Map it into memory instead of reading it.

    Raises:
        ValueError: If it is no plain array, or its header says more than it holds.
        OSError: If it cannot be read.
    """
    path = Path(path)
    with _sound("it is no sound npy file"):
        with path.open("rb") as file:
            shape, dtype = _header(file)
            if math.prod(shape) * dtype.itemsize > path.stat().st_size - file.tell():
                raise ValueError(f"it is shorter than its shape {shape}")
        return np.load(path, mmap_mode="r" if mmap and math.prod(shape) else None, allow_pickle=False)


# -- YAML -------------------------------------------------------------------------------------------------------------


def load_yaml(content: str | bytes) -> Any:
    """What a YAML text says, as `yaml.safe_load`; aliases are allowed where they do not multiply.

    Raises:
        yaml.YAMLError: If it is no YAML, has a number or a date that is none, is nested too deeply, or holds more
            than is read.
    """
    if len(content) > YAML_TEXT:
        raise yaml.YAMLError(f"it is longer than {_most(YAML_TEXT)}")
    try:
        loader = yaml.SafeLoader(content)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count(node, {}, set())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except (ValueError, OverflowError) as error:  # of a number or a date
        raise yaml.YAMLError(str(error)) from error


def read_yaml(path: str | Path) -> Any:
    """As `load_yaml`, of a file.

    Raises:
        yaml.YAMLError: As `load_yaml`; or if the file is not UTF-8.
        OSError: If it cannot be read.
    """
    try:
        content = read_text(path)
    except UnicodeDecodeError as error:
        raise yaml.YAMLError(f"it is not UTF-8: {error}") from error
    except TooLarge as error:
        raise yaml.YAMLError(str(error)) from error
    return load_yaml(content)


def _count(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """Number of values in a node, counted as often as aliases name them.

    Raises:
        yaml.YAMLError: If there are too many, or one holds itself.
    """
    key = id(node)
    if key in known:
        return known[key]
    if key in above:
        raise yaml.YAMLError("it holds itself, through an alias")
    above.add(key)
    total = 1
    if isinstance(node, yaml.CollectionNode):
        for item in node.value:
            for part in item if isinstance(item, tuple) else (item,):
                total += _count(part, known, above)
                if total > YAML_NODES:
                    raise yaml.YAMLError(f"it holds more than {YAML_NODES:,} values, aliases included")
    above.discard(key)
    known[key] = total
    return total
