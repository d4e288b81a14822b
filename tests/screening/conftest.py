"""The textbook crystals as generated ones, and relaxations of them that cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textbook import predictor as predictor
from textbook import textbook as textbook


@pytest.fixture
def write_output() -> Callable[..., Path]:
    """Writes crystals as a joint model does, with the indices 3, 4, ... and with spectra, if there are any."""
    from mattergen_e.generation.formats import Generated, batch_files

    def make(folder: Path, structures: Mapping[str, Any], spectra: Mapping[str, Any] | None = None) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        given = spectra or {}
        crystals = [
            Generated(index, 0, structure, {}, 7, spectra=given.get(name))
            for index, (name, structure) in enumerate(structures.items(), start=3)
        ]
        for name, content in batch_files(crystals).items():
            (folder / name).write_bytes(content)
        return folder

    return make


@pytest.fixture
def evaluated() -> Callable[..., Path]:
    """Writes what an evaluation knows of relaxing crystals: nothing moves, energies are those given."""
    from mattergen_e.energies import calculators
    from mattergen_e.energies.relaxation import RelaxSettings
    from mattergen_e.evaluation.candidates import read_candidates
    from mattergen_e.evaluation.stages import Stage

    def make(output: Path, energies: Mapping[str, float | None], **changes: Any) -> Path:
        settings = RelaxSettings(**changes)
        made = {"settings": settings.model_dump(mode="json"), "calculator": calculators.describe(settings.calculator)}
        with Stage(output / "evaluation", "relaxation", made) as stage:
            for candidate in read_candidates(output).readable:
                energy = energies[candidate.structure.composition.reduced_formula]  # type: ignore[union-attr]
                stage.add(candidate.key, {
                    "ok": energy is not None, "reason": None if energy is not None else "time_limit",
                    "sentence": None if energy is not None else "it took longer than 120 s and was stopped",
                    "energy_per_atom": energy, "converged": True, "steps": 4, "seconds": 1.0, "rmsd": 0.0,
                    "structure": candidate.structure.as_dict() if energy is not None else None,  # type: ignore[union-attr]
                })  # fmt: skip
        return output / "evaluation"

    return make


@pytest.fixture
def zero_elements(textbook: dict[str, Any]) -> Callable[..., Path]:
    """Makes the folder of a shortlist that knows the energies of the elements: zero, apart from the changes."""
    from mattergen_e.energies.calculators import describe
    from mattergen_e.energies.elements import SOURCE
    from mattergen_e.evaluation.stages import Stage

    def make(folder: Path, **changes: float | None) -> Path:
        symbols = {site.specie.symbol for structure in textbook.values() for site in structure}
        with Stage(folder, "elements", {"calculator": describe("chgnet"), "source": SOURCE}) as stage:
            for symbol in sorted(symbols):
                stage.add(symbol, changes.get(symbol, 0.0))
        return folder

    return make


@pytest.fixture
def write_curve(tmp_path: Path) -> Callable[..., Path]:
    """Writes a target: by default a peak at -2 eV."""

    def make(name: str = "target.csv", centre: float = -2.0, energies: Any = None, dos: Any = None) -> Path:
        energies = np.linspace(-10, 10, 401) if energies is None else energies
        dos = np.exp(-0.5 * (energies - centre) ** 2) if dos is None else dos
        lines = "".join(f"{energy:.6f},{value:.8f}\n" for energy, value in zip(energies, dos, strict=True))
        (tmp_path / name).write_text(f"energy,dos\n{lines}")
        return tmp_path / name

    return make
