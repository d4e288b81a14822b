"""What an error of the user looks like inside one of MatterGen's commands."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mattergen_e.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])


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
