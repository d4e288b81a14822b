from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mattergen_e.crystals.findings import LabelError
from mattergen_e.labels.vasp import valence as vasp_valence
from mattergen_e.labels.vasp.files import read_density


def test_valence_from_each_file(vasp_data: Path, tmp_path: Path) -> None:
    found = vasp_valence.of_vasprun(vasp_data / "K3Sb_lobsterpy" / "vasprun.xml.gz", 4)
    assert found is not None and found.tolist() == [9, 9, 9, 5]
    assert vasp_valence.of_vasprun(vasp_data / "K3Sb_lobsterpy" / "vasprun.xml.gz", 5) is None
    silicon = read_density(vasp_data / "Si_aiida" / "CHGCAR.gz").structure
    assert vasp_valence.of_text(vasp_data / "Si_aiida" / "OUTCAR.gz", silicon).tolist() == [4, 4]  # type: ignore
    structure = read_density(vasp_data / "NaMgF3_pydefect" / "CHG.gz").structure
    lines = [f"   POMASS =   22.990; ZVAL   =    {z:.3f}    mass and valenz\n" for z in (7, 2, 7)]
    potcar = tmp_path / "POTCAR"
    potcar.write_text("".join(lines))
    assert vasp_valence.of_text(potcar, structure).tolist() == [7] * 4 + [2] * 4 + [7] * 12  # type: ignore
    potcar.write_text("".join(lines[:2]))
    assert vasp_valence.of_text(potcar, structure) is None


def test_valence_is_guessed_only_where_one_choice_fits(vasp_data: Path) -> None:
    structure = read_density(vasp_data / "NaMgF3_pydefect" / "CHG.gz").structure
    assert vasp_valence.guess(structure, 96.02, 0.05) == {"Na": 1, "Mg": 2, "F": 7}
    for electrons in (120.0, 97.0, np.nan):  # 120: Na_pv and Mg, or Na and Mg_pv
        with pytest.raises(LabelError) as caught:
            vasp_valence.guess(structure, electrons, 0.05)
        assert caught.value.reason == "no_valence"
    assert vasp_valence.guess(structure, 120.0, 0.05, {"Na": 7})["Mg"] == 2
