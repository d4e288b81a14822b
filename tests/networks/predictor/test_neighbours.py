"""Whole shells, both directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mattergen.common.data.collate import collate
from pymatgen.core import Lattice, Structure

from mattergen_e.crystals.graphs import to_graph
from mattergen_e.networks.predictor.neighbours import neighbours
from mattergen_e.networks.predictor.settings import EncoderSettings

CAESIUM_CHLORIDE = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
#: Copper by its primitive cell: shells of 12, 6 and 24.
COPPER = Structure(Lattice(3.61 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])), ["Cu"], [[0, 0, 0]])


def _batch(*structures: Structure) -> Any:
    graphs: Any = [to_graph(structure) for structure in structures]
    return collate(graphs)


@pytest.mark.parametrize(
    ("structure", "most", "expected"),
    [
        (COPPER, 1, 12),
        (COPPER, 12, 12),
        (COPPER, 13, 18),
        (COPPER, 16, 18),
        (CAESIUM_CHLORIDE, 4, 8),
        (CAESIUM_CHLORIDE, 9, 14),
    ],
)
def test_shells_are_whole(structure: Structure, most: int, expected: int) -> None:
    edges = neighbours(_batch(structure), EncoderSettings(cutoff=5.5, max_neighbors=most))
    assert torch.bincount(edges.index[1]).tolist() == [expected] * len(structure)
    assert edges.counts.tolist() == [expected * len(structure)]


def test_every_edge_has_its_way_back() -> None:
    # a hydrogen far from a dense layer: its neighbours do not have it among their nearest
    structure = Structure(
        Lattice.orthorhombic(2.6, 2.6, 9.0), ["Ni", "Ni", "H"], [[0, 0, 0], [0.5, 0.5, 0.2], [0.1, 0.2, 0.55]]
    )
    edges = neighbours(_batch(structure, structure), EncoderSettings(cutoff=6.0, max_neighbors=6))
    one_way = {(int(s), int(t), *map(int, o)) for (s, t), o in zip(edges.index.T, edges.images, strict=True)}
    assert {(t, s, -a, -b, -c) for s, t, a, b, c in one_way} == one_way
    assert len(one_way) == len(edges.images) == int(edges.counts.sum())
    assert torch.bincount(edges.index[1]).tolist()[2] >= 6
