"""Files as text or bytes, packed or not; what unpacks to too much is refused."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from pathlib import Path

from mattergen_e.errors import UserError

_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
#: What a packed file may hold.
MAX_UNPACKED_BYTES = 2_000_000_000


def unpacked_name(path: Path) -> str:
    """The name of a file without the ending of its compression."""
    return path.name[: -len(path.suffix)] if path.suffix.lower() in _OPENERS else path.name


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked.

    Raises:
        UserError: If it cannot be read, is damaged, or unpacks to more than `MAX_UNPACKED_BYTES`.
    """
    opener = _OPENERS.get(path.suffix.lower())
    try:
        if opener is None:
            return path.read_bytes()
        with opener(path, "rb") as file:
            content = file.read(MAX_UNPACKED_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path} is damaged ({error}): put back a copy of it.") from error
    if len(content) > MAX_UNPACKED_BYTES:
        raise UserError(f"{path} unpacks to more than {MAX_UNPACKED_BYTES} bytes: split it.")
    return content


def as_text(content: bytes) -> str:
    """Text of a file of others: UTF-8, or UTF-16 if its first bytes say so; what is neither is replaced."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig", errors="replace")


def read_file(path: Path) -> str:
    """The text of a file, unpacked.

    Raises:
        UserError: As `read_bytes`.
    """
    return as_text(read_bytes(path))
