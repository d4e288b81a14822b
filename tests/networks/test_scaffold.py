"""What both trainings beside MatterGen's share: the errors of their own tests are not repeated here."""

from __future__ import annotations

import pytest

from mattergen_e.networks.scaffold import NetworkModule


def test_a_module_that_does_not_describe_itself_cannot_be_made() -> None:
    """Its checkpoints could not be resumed or read."""

    class Silent(NetworkModule):
        pass

    with pytest.raises(TypeError, match="description"):
        Silent()  # pyright: ignore[reportAbstractUsage]
