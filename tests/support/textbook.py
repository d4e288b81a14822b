"""The textbook crystals of examples/, and a tiny predictor of their spectra."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.spectra.grid import EnergyGrid

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "textbook_crystals.jsonl"
SITES = EnergyGrid(minimum=-15, maximum=5, points=64)
TOTAL = EnergyGrid(minimum=-10, maximum=10, points=32)


@pytest.fixture(scope="session")
def textbook() -> dict[str, Any]:
    """The twelve crystals by formula, with charges as a site property."""
    from pymatgen.core import Structure

    found = {}
    for line in EXAMPLES.read_text().splitlines():
        entry = json.loads(line)
        found[entry["id"]] = Structure.from_dict(entry["structure"])
        found[entry["id"]].add_site_property("bader_charge", entry["bader_charge"])
    return found


@pytest.fixture(scope="session")
def predictor(tiny_predictor: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained predictor whose spectra depend on the crystal."""
    from mattergen_e.networks.predictor.folder import save

    made = tiny_predictor(SITES, TOTAL, variance=np.linspace(0.1, 1.0, 10).tolist(), record={"made": "by hand"})
    return save(made, tmp_path_factory.mktemp("models") / "dos_predictor")
