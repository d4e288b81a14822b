"""What happens to a crystal on the way."""

from __future__ import annotations

import pytest


@pytest.fixture
def collapse():
    """Lets the cell of the second crystal collapse at the fifth call of a sampler's score, which parks it."""

    def arrange(sampler):
        original, calls = sampler._score_fn, []

        def broken(x, t):
            calls.append(None)
            if len(calls) == 5:
                cell = x["cell"].clone()
                cell[1] = 0.0
                x = x.replace(cell=sampler.guard.cell(cell))
            return original(x, t)

        sampler._score_fn = broken

    return arrange
