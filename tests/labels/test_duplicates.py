"""The same crystal under two ids is found; a polymorph, or the crystal under pressure, is another crystal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Lattice, Structure

from mattergen_e.labels.duplicates import find_duplicates
from mattergen_e.labels.folder import LabelStore, Outcome, open_store
from mattergen_e.labels.record import Label
from mattergen_e.labels.settings import LabelSettings


def outcomes_of(folder: Path, structures: dict[str, Structure]) -> list[Outcome]:
    made = []
    with open_store(folder, LabelSettings()) as opened:
        for name, structure in structures.items():
            charges = np.zeros((len(structure), 1))
            made.append(Outcome(name, name, None, "", "s"))
            opened.write(made[-1], Label(name, name, structure, site_values={"bader_charge": charges}))
    return made


def test_supercell_turned_and_shifted_is_the_same_crystal(solids: dict[str, Any], tmp_path: Path) -> None:
    salt = solids["NaCl"]
    other = salt.copy().make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]], in_place=False)
    other.translate_sites(range(len(other)), [0.1, 0.2, 0.3])
    squeezed = salt.copy().apply_strain(-0.04, inplace=False)
    polymorph = Structure.from_spacegroup("Pm-3m", Lattice.cubic(3.41), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    given = {"a": salt, "b": solids["MgO"], "c": other, "d": squeezed, "e": polymorph}
    found = find_duplicates(LabelStore(tmp_path), outcomes_of(tmp_path, given))
    assert [outcome.reason for outcome in found] == [None, None, "duplicate", None, None]
    assert found[2].sentence == "it is the same crystal as a"
