"""MatterGen's search for neighbours, once where the same structures pass through the network several times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def shared_graph(gemnet: Any) -> Iterator[None]:
    """Inside, a GemNet of MatterGen that is given the structures of its last call again takes their graph of then.

    The graph depends on positions, cells and numbers of sites alone, so that every number stays as it was.
    """
    search = gemnet.generate_interaction_graph
    known: list[tuple[Any, Any]] = []

    def remembered(*structures: Any) -> Any:
        if known and all(_same(a, b) for a, b in zip(structures, known[0][0], strict=True)):
            return known[0][1]
        graph = search(*structures)
        known[:] = [(structures, graph)]
        return graph

    gemnet.generate_interaction_graph = remembered
    try:
        yield
    finally:
        del gemnet.generate_interaction_graph


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first is second or torch.equal(first, second)
    return first is None and second is None
