"""Which crystals are shown, and what the viewer is told of them."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from mattergen_e.report.gallery import choose, drawable, gallery
from mattergen_e.report.runs import read_run


def test_vsun_first_then_by_hull_energy_and_unknown_last(evaluated, tmp_path):
    def change(rows):
        rows[9]["energy_above_hull"] = -0.1
        rows[2]["energy_above_hull"] = 0.0

    run = read_run(evaluated(tmp_path / "run", change=change))
    assert [row["index"] for row in choose(run, 99)] == [0, 2, 1, 9, 3, 4, 5, 6, 8, 10, 11, 7]
    assert len(choose(run, 4)) == 4


def test_atoms_on_faces_are_drawn_on_both():
    """The conventional cell of rock salt: 8 corners and 6 faces of the one, 12 edges and the centre of the other."""
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    drawn = drawable(cell)
    numbers = np.array(drawn["z"])
    assert ((numbers == 11).sum(), (numbers == 17).sum()) == (14, 13)
    positions = np.array(drawn["xyz"]).reshape(-1, 3)
    np.testing.assert_allclose(positions.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(np.abs(positions).max(axis=0), 2.8)
    assert len(np.unique(positions, axis=0)) == 27
    assert drawn["q"] is None


@pytest.mark.parametrize("x", [-1e-9, 0.0, 1.0, 0.999999])
def test_an_atom_at_the_origin_is_at_all_corners(x):
    drawn = drawable(Structure(Lattice.cubic(3.0), ["Po"], [[x, 0.0, 0.5]]))
    assert len(drawn["z"]) == 4


def test_charges_go_with_their_atoms(textbook):
    mgse = textbook[0]
    drawn = drawable(mgse)
    assert dict(zip(drawn["z"], drawn["q"], strict=True)) == {12: 1.636, 34: -1.636}
    odd = mgse.copy(site_properties={"bader_charge": [1.0, float("nan")]})
    assert drawable(odd)["q"] is None


def test_the_colour_scale_and_the_elements(evaluated, tmp_path):
    run = read_run(evaluated(tmp_path / "run"))
    content = gallery([run], 3)
    match = re.search(r'<script type="application/json" id="crystals">(.*?)</script>', content)
    assert match is not None
    data = json.loads(match[1])
    assert data["top"] == 2.0
    assert {symbol for symbol, _, _ in data["elements"].values()} == {"Mg", "Se", "Ba", "S", "Na", "I"}
    assert data["elements"]["53"][2] == [148, 0, 148]
    assert len(data["crystals"]) == content.count("<canvas") == 3


def test_without_charges_there_is_nothing_to_switch(evaluated, tmp_path):
    run = read_run(evaluated(tmp_path / "run"))
    for structure in run.structures.values():
        structure.remove_site_property("bader_charge")
    content = gallery([run], 3)
    assert 'value="charge"' not in content and '"top":null' in content
