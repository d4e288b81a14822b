"""A reference set and crystals made from it that coincide, nearly coincide, or only look alike."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

#: Elements that MatterGen's matcher takes for substitutable, and formulas with several polymorphs in the data.
FORMULAS = ("SiO2", "TiO2", "ZnS", "V2O5", "CdI2", "CeSb2", "CaF2", "TiNi", "CuAu", "LiCoO2", "LiVO2", "MnO2", "AlPO4")


@pytest.fixture(scope="session")
def references(real_data: Path) -> list[tuple[str, Any]]:
    """320 crystals of the Materials Project: polymorphs of a few formulas, then any."""
    from pymatgen.core import Structure

    with gzip.open(real_data / "mp_structures.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if int(row["num_atoms"]) <= 14]
    chosen = [row for row in rows if row["reduced_formula"] in FORMULAS][:80]
    rest = [row for row in rows if row["reduced_formula"] not in FORMULAS]
    chosen += rest[:: len(rest) // 260][: 320 - len(chosen)]
    return [(row["material_id"], Structure.from_str(row["cif"], fmt="cif")) for row in chosen]


@pytest.fixture(scope="session")
def as_reference() -> Callable[..., Any]:
    """Makes what `ReferenceIndex` takes of pairs of id and structure."""

    def make(pairs: Sequence[tuple[str, Any]], ordered: bool = True) -> Any:
        return SimpleNamespace(
            ids=np.array([name for name, _ in pairs]),
            formulas=np.array([structure.composition.reduced_formula for _, structure in pairs]),
            structure=lambda i: pairs[i][1].copy(),
            ordered=ordered,
        )

    return make


@pytest.fixture(scope="session")
def upstream() -> Callable[..., tuple[list[bool], list[list[str]]]]:
    """MatterGen's own verdicts: whether each crystal is unique, and the reference crystals that it matches."""
    import contextlib

    with contextlib.redirect_stderr(io.StringIO()):
        from mattergen.evaluation.metrics.structure import StructureMetricsCapability
        from mattergen.evaluation.reference.reference_dataset import ReferenceDataset
        from mattergen.evaluation.utils.metrics_structure_summary import MetricsStructureSummary
        from mattergen.evaluation.utils.structure_matcher import DefaultDisorderedStructureMatcher
        from pymatgen.entries.computed_entries import ComputedStructureEntry

    def decide(structures: Sequence[Any], pairs: Sequence[tuple[str, Any]]) -> tuple[list[bool], list[list[str]]]:
        entries = [ComputedStructureEntry(s.copy(), np.nan, data={"material_id": name}) for name, s in pairs]
        with contextlib.redirect_stderr(io.StringIO()):
            capability = StructureMetricsCapability(
                [MetricsStructureSummary.from_structure(s.copy()) for s in structures],
                ReferenceDataset.from_entries("reference", entries),
                DefaultDisorderedStructureMatcher(),
            )
            found = capability.matches_in_reference
            return capability.is_unique.tolist(), [found.get(i, []) for i in range(len(structures))]

    return decide


@pytest.fixture(scope="session")
def look_alikes() -> Callable[..., list[Any]]:
    """Makes crystals out of others: copies, supercells, turned, strained, perturbed, and with elements exchanged."""

    def make(structures: Sequence[Any], seed: int = 0) -> list[Any]:
        rng = np.random.default_rng(seed)
        return [_KINDS[i % len(_KINDS)](s.copy(), rng) for i, s in enumerate(structures)]

    return make


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _supercell(structure: Any, rng: np.random.Generator) -> Any:
    return structure.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]], in_place=False).perturb(0.01, seed=_seed(rng))


def _turned(structure: Any, rng: np.random.Generator) -> Any:
    from pymatgen.core import Lattice, Structure

    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    positions = structure.frac_coords + rng.random(3)
    order = rng.permutation(len(structure))
    species = [structure[int(i)].specie for i in order]
    return Structure(Lattice(structure.lattice.matrix @ turn), species, positions[order])


def _perturbed(structure: Any, rng: np.random.Generator) -> Any:
    return structure.perturb(float(rng.uniform(0.02, 0.8)), seed=_seed(rng))


def _strained(structure: Any, rng: np.random.Generator) -> Any:
    return structure.apply_strain(rng.normal(scale=0.07, size=3), inplace=False).scale_lattice(
        structure.volume * rng.uniform(0.6, 1.6)
    )


def _exchanged(structure: Any, rng: np.random.Generator) -> Any:
    i, j = (int(k) for k in rng.integers(len(structure), size=2))
    first, second = structure[i].specie, structure[j].specie
    structure[i], structure[j] = second, first
    return structure


def _shuffled(structure: Any, rng: np.random.Generator) -> Any:
    from pymatgen.core import Structure

    species = [structure[int(i)].specie for i in rng.permutation(len(structure))]
    return Structure(structure.lattice, species, structure.frac_coords)


def _random(structure: Any, rng: np.random.Generator) -> Any:
    from pymatgen.core import Structure

    return Structure(structure.lattice, structure.species, rng.random((len(structure), 3)))


_KINDS = (_supercell, _turned, _perturbed, _strained, _exchanged, _shuffled, _random)
