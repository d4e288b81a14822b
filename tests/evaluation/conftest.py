"""A forward predictor on the grid of conditions, and runs whose crystals were asked for densities of states."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CURVES = 3


@pytest.fixture(scope="session")
def dos_model(tiny_predictor: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained predictor whose spectra depend on the structure."""
    from mattergen_e.networks.predictor.folder import save
    from mattergen_e.networks.predictor.guidance import TIMES
    from mattergen_e.spectra.grid import ATOMIC_GRID, TOTAL_GRID

    record = {"data": {"cache": "made up"}}
    predictor = tiny_predictor(ATOMIC_GRID, TOTAL_GRID, smearing=0.1, variance=[1.0] * TIMES, record=record)
    return save(predictor, tmp_path_factory.mktemp("predictor") / "model")


@pytest.fixture(scope="session")
def peaks() -> Any:
    """(3, 256) spectra with a peak at -5, -2 and 3 eV, 0.5 eV wide, states/eV per atom."""
    from mattergen_e.spectra.grid import TOTAL_GRID

    centres = np.array([-5.0, -2.0, 3.0])[:, None]
    return np.exp(-0.5 * ((TOTAL_GRID.energies - centres) / 0.5) ** 2).astype(np.float32)


@pytest.fixture
def dos_run(peaks: Any) -> Callable[..., Path]:
    """Writes the output of a run with the condition dos, `per_curve` crystals for each of the peaks."""
    from mattergen_e.generation.formats import Generated, batch_files
    from mattergen_e.spectra.grid import TOTAL_GRID

    def make(folder: Path, structures: list[Any], per_curve: int = 2, failed: int = 0, told: bool = True) -> Path:
        folder.mkdir(parents=True)
        names = ["one", "two", "three"]

        def conditions(index: int) -> dict[str, Any]:
            curve = index // per_curve % CURVES
            return {"dos": {"curve": curve, "name": names[curve], "file": "target_dos.npz"}} if told else {}

        crystals = [Generated(i, 0, s, conditions(i), 7) for i, s in enumerate(structures)]
        for name, content in batch_files(crystals).items():
            (folder / name).write_bytes(content)
        asked = {"dos": {"file": "test", "per_curve": per_curve, "curves": CURVES}} if told else {}
        record = {
            "status": "finished", "command": ["mattergen-generate"], "started": "2026-11-20T12:00:00Z", "seed": 7,
            "settings": {"conditions": asked, "weights_sha256": "ab" * 32}, "provenance": {},
            "crystals": len(crystals), "failed": failed,
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(record))
        if told:
            np.savez(folder / "target_dos.npz", energies=TOTAL_GRID.energies, dos=peaks, names=np.array(names))
        return folder

    return make
