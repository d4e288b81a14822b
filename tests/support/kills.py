"""Processes that are killed with -9 right before one of their file operations, without sleeping and guessing.

The interpreter tells of each operation by an audit event, before it is done; what runs in a fork here ends at one of
them. All that lies between two operations is thereby reached, and nothing is replaced by a stand-in.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

#: Audit events of operations that change something; `ctypes.dlsym` comes before two names are exchanged.
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree", "ctypes.dlsym"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def killed(function: Callable[[], Any], number: int, within: Path, match: str = "") -> bool:
    """Runs a function in a fork that is killed before a file operation.

    Args:
        function: What to run.
        number: Of the operation, from 0.
        within: Only operations on what is in this folder count.
        match: Only operations on paths that contain this count.

    Returns:
        Whether it was killed; False: it ended well before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 3
        try:
            sys.addaudithook(_hook(number, str(within.resolve()), match))
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"the function ended with {status} instead of being killed"
    return status != 0


def _hook(number: int, within: str, match: str) -> Callable[[str, tuple], None]:
    left = [number]

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = isinstance(path, str | bytes | os.PathLike) and bool(flags & WRITING)
        else:
            path, changes = (arguments[0] if arguments else ""), event in CHANGES
        if not changes:
            return
        if event != "ctypes.dlsym":
            paths = arguments[:2] if event == "os.rename" else [path]
            texts = [os.path.realpath(os.fsdecode(path)) for path in paths]
            if not any(text.startswith(within) and match in text for text in texts):
                return
        elif match or arguments[1] != "renameat2":
            return
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    return hook


def kills(
    function: Callable[[Path], Any], begin: Callable[[Path], Any], folder: Path, *, every: int = 1, match: str = ""
) -> Iterator[Path]:
    """Kills a function before each of its file operations, each time in a folder of its own.

    Args:
        function: Takes the folder.
        begin: Fills the folder before.
        folder: Where the folders are made, which are removed again.
        every: Only each so many-th operation.
        match: Only operations on paths that contain this.

    Yields:
        The folder as the kill left it.
    """
    for number in count(0, every):
        place = folder / f"kill_{number}"
        place.mkdir()
        begin(place)
        if not killed(lambda place=place: function(place), number, place, match):
            assert number > 0, "nothing was written"
            shutil.rmtree(place)
            return
        yield place
        shutil.rmtree(place)
