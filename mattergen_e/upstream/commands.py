"""How one of MatterGen's commands ends: by a user's error, or by a signal."""

from __future__ import annotations

import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from mattergen_e.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])

#: Signals that ask a process to end; both end one at once that does nothing about them.
ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(SystemExit):
    """The process was asked to end: it does so with 128 and the number of the signal, as shells count."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


@contextmanager
def told_to_end() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP a `Terminated` within, so that what is open is closed; signals ignored stay ignored.

    In a thread other than the main one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> NoReturn:
        for other in before:  # a second one must not break into the closing
            signal.signal(other, signal.SIG_IGN)
        raise Terminated(number)

    before = {number: signal.getsignal(number) for number in ENDING if signal.getsignal(number) is signal.SIG_DFL}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupted_without_traceback() -> Iterator[None]:
    """Inside one of MatterGen's commands, Ctrl-C ends it with 130 and no traceback; elsewhere it stays what it is."""
    try:
        yield
    except KeyboardInterrupt:
        if not is_mattergen_command():
            raise
        raise Terminated(signal.SIGINT) from None


def exit_on_user_error(function: F) -> F:
    """Inside one of MatterGen's commands, a `UserError` becomes one line on stderr and exit code 2.

    Elsewhere (Python callers, our own command) the exception goes on as it is.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            if not is_mattergen_command():
                raise
            print(f"mattergen-e: {error}", file=sys.stderr)
            raise SystemExit(2) from None

    return wrapped  # type: ignore[return-value]


def is_mattergen_command() -> bool:
    """Whether this process is mattergen-train, -finetune or -generate (or their modules run with -m)."""
    name = Path(sys.argv[0]).stem if sys.argv else ""
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if name == "mattergen-e":  # our own command reports errors itself
        return False
    return name.startswith("mattergen-") or (main is not None and main.name.startswith("mattergen.scripts."))
