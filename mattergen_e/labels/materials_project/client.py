"""Asking the Materials Project through its own client: not too often, with one sentence for what fails."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from mattergen_e.errors import UserError
from mattergen_e.quiet import quiet

T = TypeVar("T")

#: Failures in a row after which nothing more is asked.
PATIENCE = 3
KEY_HELP = (
    "get one at https://materialsproject.org/api and put it into the environment variable MP_API_KEY, or into "
    "~/.pmgrc.yaml as PMG_MAPI_KEY"
)
# How the client says that the database has no such thing, as against a failure to ask.
_NOT_THERE = re.compile(r"No (density of states|DOS|electronic structure) data found|No object found", re.IGNORECASE)


class Absent(Exception):
    """The database has no such thing."""


class Failed(Exception):
    """The Materials Project, or the way to it, failed."""


class Client:
    """Asks a rester, not too often, and keeps account of what failed."""

    def __init__(self, rester: Any, interval: float) -> None:
        self._rester, self._interval, self._last = rester, interval, -np.inf
        self.failures: list[str] = []
        self._in_a_row = 0

    @property
    def database(self) -> str | None:
        """Version of the database, as far as the rester tells."""
        version = getattr(self._rester, "current_db_version", None) or getattr(self._rester, "db_version", None)
        return str(version) if version else None

    def ask(self, call: Callable[[Any], T]) -> T:
        """The answer to one request.

        Raises:
            Absent: If the database has no such thing.
            Failed: If there was no answer, or none that the client understands.
            UserError: If there is no client, no key or no connection.
        """
        if self._rester is None:
            self._rester = _connect()
        time.sleep(max(0.0, self._last + self._interval - time.monotonic()))
        try:
            return call(self._rester)
        except Exception as error:
            if _NOT_THERE.search(str(error)):
                raise Absent(_brief(error)) from error
            raise Failed(_brief(error)) from error
        finally:
            self._last = time.monotonic()

    def search(self, **criteria: Any) -> list[Any]:
        """Summaries; a failure ends everything."""
        try:
            return list(self.ask(lambda rester: rester.materials.summary.search(all_fields=False, **criteria)))
        except (Absent, Failed) as error:
            raise UserError(_no_answer(str(error))) from error

    def attempt(self, name: str, action: Callable[[], None]) -> None:
        """Run an action for one material; `Absent` passes, other failures are counted.

        Raises:
            UserError: After `PATIENCE` failures in a row.
        """
        try:
            action()
        except Absent:
            self._in_a_row = 0
            raise
        except (Failed, LookupError, TypeError, ValueError, AttributeError) as error:
            self.failures.append(f"{name}: {_brief(error)}")
            self._in_a_row += 1
            if self._in_a_row >= PATIENCE:
                raise UserError(_no_answer(self.failures[-1])) from error
            return
        self._in_a_row = 0

    def report(self, total: int) -> None:
        """Say what failed, if anything did."""
        if self.failures:
            raise UserError(
                f"{len(self.failures)} downloads of {total} materials failed (first: {self.failures[0]}); the others "
                "are stored: run the same command again, which asks for the missing ones only."
            )


def _no_answer(why: str) -> str:
    return (
        f"The Materials Project gave no answer ({why}): check the network and the key, and run the same command again, "
        "which goes on where this one stopped."
    )


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__


def _connect() -> Any:
    """A client with the key that mp-api finds.

    Raises:
        UserError: If mp-api or the key is missing, or the Materials Project cannot be reached.
    """
    with quiet():
        try:
            from mp_api.client import MPRester
            from mp_api.client.core.utils import validate_api_key
        except ImportError as error:
            raise UserError("Downloads need mp-api: install 'mattergen-e[labels]'.") from error
        try:
            if not validate_api_key():
                raise UserError(f"There is no key of the Materials Project: {KEY_HELP}.")
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"The key of the Materials Project is not valid ({_brief(error)}): {KEY_HELP}.") from error
        try:
            return MPRester(mute_progress_bars=True)
        except Exception as error:
            raise UserError(_no_answer(_brief(error))) from error
