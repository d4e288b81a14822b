"""References to share: all arrays in one compressed file, unpacked once on each machine.

    <folder>/manifest.json      as of every reference
    <folder>/arrays.zip         its arrays, compressed (LZMA)

What is unpacked lies in the user's cache (`MATTERGEN_E_CACHE`, else what the system has for caches), by its hash.
"""

from __future__ import annotations

import lzma
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from platformdirs import user_cache_path

from mattergen_e.errors import UserError
from mattergen_e.files import replacing

ARRAYS = "arrays.zip"
#: Environment variable: folder in place of the user's cache.
VARIABLE = "MATTERGEN_E_CACHE"
#: Parts of an array that are copied at a time, bytes.
PIECE = 2**20


def is_packed(folder: Path) -> bool:
    """Whether a folder holds a packed reference."""
    return (folder / ARRAYS).is_file()


def pack(folder: Path, out: Path, names: Iterable[str]) -> int:
    """Write a packed copy.

    Args:
        folder: The reference.
        out: New folder.
        names: Of its arrays, as paths in the folder.

    Returns:
        Size of the copy, bytes.

    Raises:
        UserError: If `out` exists.
    """
    if out.exists():
        raise UserError(f"{out} exists: choose another --out.")
    out.mkdir(parents=True)
    with replacing(out / ARRAYS) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        for name in names:
            archive.write(folder / name, name)
    shutil.copyfile(folder / "manifest.json", out / "manifest.json")
    return sum(path.stat().st_size for path in out.iterdir())


def unpack(folder: Path, identity: str, sizes: dict[str, int]) -> Path:
    """The unpacked copy of a packed reference, which is made where there is none.

    Args:
        folder: The packed reference.
        identity: Its hash.
        sizes: Of its arrays in bytes, by path in the folder, as the manifest tells.

    Raises:
        UserError: If the packed file is damaged, holds something else than the manifest tells, or there is no place.
    """
    target = cache() / "references" / identity[:32]
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise UserError(
            f"{folder} cannot be unpacked in {target.parent} ({error}): set {VARIABLE} to a folder with "
            f"{sum(sizes.values()) >> 20} MiB of space."
        ) from error
    try:
        with zipfile.ZipFile(folder / ARRAYS) as archive:
            for name, size in sizes.items():
                _extract(archive, name, size, part / name)
        shutil.copyfile(folder / "manifest.json", part / "manifest.json")
        part.chmod(0o755)
        _settle(part, target)
    except (zipfile.BadZipFile, lzma.LZMAError, KeyError, NotImplementedError, EOFError, RuntimeError) as error:
        raise UserError(f"{folder / ARRAYS} is damaged ({error}): copy the reference anew.") from error
    except OSError as error:
        raise UserError(f"{folder} cannot be unpacked in {target.parent}: {error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def cache() -> Path:
    """Folder of what this package keeps for the user."""
    given = os.environ.get(VARIABLE)
    return Path(given).expanduser() if given else user_cache_path("mattergen-e")


def _extract(archive: zipfile.ZipFile, name: str, size: int, target: Path) -> None:
    """One array; never more bytes than the manifest tells."""
    if archive.getinfo(name).file_size != size:
        raise zipfile.BadZipFile(f"{name} has another size than the manifest tells")
    target.parent.mkdir(parents=True, exist_ok=True)
    left = size
    with archive.open(name) as source, target.open("wb") as file:
        while piece := source.read(PIECE):
            left -= len(piece)
            if left < 0:
                raise zipfile.BadZipFile(f"{name} is longer than the manifest tells")
            file.write(piece)
    if left:
        raise zipfile.BadZipFile(f"{name} is shorter than the manifest tells")


def _settle(part: Path, target: Path) -> None:
    """Puts the copy in its place; another process may have been faster."""
    try:
        part.rename(target)
    except OSError:
        if not target.is_dir():
            raise
