"""The real crystals of the tests of data."""

from __future__ import annotations

from tests.data.conftest import crystals

__all__ = ["crystals"]
