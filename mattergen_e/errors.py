"""The one kind of error that a user sees."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can mend, said in one sentence.

    The sentence tells what is wrong, where (file, key, site) and what to do. Commands print it without a traceback
    and end with exit code 2; Python callers get the exception.
    """
