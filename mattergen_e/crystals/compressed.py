"""Files as text or bytes, packed or not; what unpacks to too much is refused."""

from __future__ import annotations

import codecs
from pathlib import Path

from mattergen_e import limits
from mattergen_e.errors import UserError


def unpacked_name(path: Path) -> str:
    """The name of a file without the ending of its compression."""
    return path.name[: -len(path.suffix)] if path.suffix.lower() in limits.OPENERS else path.name


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked.

    Raises:
        UserError: If it cannot be read, is damaged, or holds more than `mattergen_e.limits` says.
    """
    try:
        return limits.read_bytes(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error
    except limits.TooLarge as error:
        raise UserError(f"{path} cannot be read ({error}): split it.") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): put back a copy of it.") from error


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
