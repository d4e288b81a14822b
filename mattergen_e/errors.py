"""The one kind of error that a user sees, and the words of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """Something that the user can mend, said in one sentence.

    The sentence tells what is wrong, where (file, key, site) and what to do. Commands print it without a traceback
    and end with exit code 2; Python callers get the exception.
    """


def brief(error: BaseException) -> str:
    """Kind and first words of an error, on one printable line."""
    text = " ".join(str(error).split()).encode("utf-8", "backslashreplace").decode()
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def first_problem(error: ValidationError, whole: str = "the file", under: tuple[str, ...] = ()) -> str:
    """Where the first wrong value of a file stands, and what is wrong with it.

    Args:
        error: Of pydantic.
        whole: What to call the place of an error that is about all of it.
        under: Keys above what was read, that its places begin with.
    """
    first = error.errors()[0]
    place = ".".join(str(part) for part in (*under, *first["loc"])) or whole
    return f"{place}: {first['msg']}"
