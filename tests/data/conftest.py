"""Real crystals and small files for the tests of the data room."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

REPOSITORY = Path(__file__).resolve().parents[2]
CHARGES = {
    "Na": 0.9, "Cl": -0.9, "Ba": 1.5, "Ti": 2.2, "O": -1.1, "Mg": 1.7, "Al": 2.4, "Zn": 1.0, "S": -1.0, "Ga": 0.6,
    "As": -0.6, "Cs": 0.8, "Ca": 1.6, "F": -0.8, "Si": 0.0, "La": 2.0,
}  # fmt: skip


def real_crystals() -> dict[str, Structure]:
    """Conventional cells of real crystals of many structure types, charges not yet assigned."""
    make = Structure.from_spacegroup
    cubic, tetragonal, hexagonal = Lattice.cubic, Lattice.tetragonal, Lattice.hexagonal
    return {
        "NaCl": make("Fm-3m", cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        "CsCl": make("Pm-3m", cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        "GaAs": make("F-43m", cubic(5.65), ["Ga", "As"], [[0, 0, 0], [0.25, 0.25, 0.25]]),
        "Si": make("Fd-3m", cubic(5.43), ["Si"], [[0, 0, 0]]),
        "CaF2": make("Fm-3m", cubic(5.46), ["Ca", "F"], [[0, 0, 0], [0.25, 0.25, 0.25]]),
        "BaTiO3": make(
            "P4mm", tetragonal(3.99, 4.04), ["Ba", "Ti", "O", "O"],
            [[0, 0, 0], [0.5, 0.5, 0.515], [0.5, 0.5, 0.975], [0.5, 0, 0.485]],
        ),
        "TiO2": make("P4_2/mnm", tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]),
        "MgAl2O4": make(
            "Fd-3m", cubic(8.08), ["Mg", "Al", "O"],
            [[0, 0, 0], [0.625, 0.625, 0.625], [0.3874, 0.3874, 0.3874]],
        ),
        "ZnS": make("P6_3mc", hexagonal(3.82, 6.26), ["Zn", "S"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.375]]),
        "La2O3": make(
            "P-3m1", hexagonal(3.94, 6.13), ["La", "O", "O"],
            [[1 / 3, 2 / 3, 0.2467], [1 / 3, 2 / 3, 0.6470], [0, 0, 0]],
        ),
    }  # fmt: skip


def charges_of(structure: Structure) -> list[float]:
    """Charges by species, shifted to neutrality."""
    charges = np.array([CHARGES[site.specie.symbol] for site in structure])
    return (charges - charges.mean()).tolist()


def jsonl_entry(entry_id: str, structure: Structure, **fields: Any) -> dict[str, Any]:
    """An entry in the form species, cell, positions, with Bader charges."""
    return {
        "material_id": entry_id,
        "species": [site.specie.symbol for site in structure],
        "cell": structure.lattice.matrix.tolist(),
        "positions": structure.cart_coords.tolist(),
        "bader_charge": charges_of(structure),
        **fields,
    }


def write_lines(path: Path, entries: list[Any]) -> Path:
    """Write JSON lines; texts are written as they are, also where they are not JSON."""
    text = "".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in entries)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def crystals() -> dict[str, Structure]:
    return real_crystals()


@pytest.fixture(scope="session")
def make_entry() -> Callable[..., dict[str, Any]]:
    return jsonl_entry


@pytest.fixture(scope="session")
def charges() -> Callable[[Structure], list[float]]:
    return charges_of


@pytest.fixture(scope="session")
def write() -> Callable[[Path, list[Any]], Path]:
    return write_lines


@pytest.fixture
def bader_file(tmp_path: Path, crystals: dict[str, Structure]) -> Path:
    """Ten crystals with charges, gaps for some, and splits for some."""
    splits = ["train", "val", "test", "train", None]
    entries = [
        jsonl_entry(f"c-{name}", s.get_primitive_structure(), split=splits[i % 5], band_gap_aflow=i if i % 3 else None)
        for i, (name, s) in enumerate(crystals.items())
    ]
    return write_lines(tmp_path / "bader.jsonl", entries)
