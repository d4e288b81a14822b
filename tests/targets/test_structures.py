"""Structures as targets, through the shipped predictor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from mattergen_e.errors import UserError
from mattergen_e.spectra.grid import TOTAL_GRID
from mattergen_e.targets.targets import read_target

pytestmark = pytest.mark.usefixtures("list_of_conditions")

PREDICTOR = Path(__file__).resolve().parents[2] / "checkpoints" / "dos_predictor"


@pytest.fixture
def salt(tmp_path: Path) -> Path:
    structure = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    structure.to(str(tmp_path / "NaCl.cif"))
    return tmp_path / "NaCl.cif"


def test_the_predictor_s_spectrum_is_the_target(salt: Path) -> None:
    found = read_target("dos", {"file": salt, "predictor": PREDICTOR, "window": [-4, 4]})
    assert found.names == ("NaCl",) and found.values.shape == (1, TOTAL_GRID.points)
    energies, dos = TOTAL_GRID.energies, found.values[0]
    asked = (energies > -4) & (energies < 4)
    assert (dos[asked] >= 0).all() and (dos[~asked] < 0).all()
    # the six p electrons of Cl per formula unit of two atoms lie below the gap of several eV
    below = asked & (energies < 0)
    assert dos[below].sum() * TOTAL_GRID.step == pytest.approx(3, abs=0.5)
    assert dos[(energies > 1) & (energies < 3)].max() < 0.2 * np.nanmax(dos[below])


def test_settings_name_the_predictor_without_its_place(salt: Path) -> None:
    settings = read_target("dos", {"file": salt, "predictor": PREDICTOR}).settings()
    assert settings["predictor"] == "dos_predictor" and settings["file"] == "NaCl.cif"


def test_without_a_predictor_or_with_none_there(salt: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name a forward predictor"):
        read_target("dos", str(salt))
    with pytest.raises(UserError, match="none"):
        read_target("dos", {"file": salt, "predictor": tmp_path / "none"})
