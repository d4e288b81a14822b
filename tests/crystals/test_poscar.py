"""POSCAR, CONTCAR and XDATCAR of others: elements are told, never made up, and counts hold."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp.outputs import Xdatcar

from mattergen_e.crystals.entries import read_entries
from mattergen_e.crystals.poscar import read_poscar
from mattergen_e.crystals.reading import read_structures
from mattergen_e.errors import UserError

COPPER = "Cu fcc\n1.0\n0 1.805 1.805\n1.805 0 1.805\n1.805 1.805 0\n1\nDirect\n0 0 0\n"
SALT = "salt\n1.0\n5.64 0 0\n0 5.64 0\n0 0 5.64\n{symbols}1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"
POTCAR = "  PAW_PBE {0} 06Sep2000\n   VRHFIN ={0}: s\n   TITEL  = PAW_PBE {0}_pv 06Sep2000\n   End of Dataset\n"


def test_copper_without_its_name_is_not_hydrogen(tmp_path):
    """Its first line may say anything; VASP 4 takes the elements from POTCAR."""
    (tmp_path / "POSCAR").write_text(COPPER)
    with pytest.raises(UserError, match=r"POSCAR cannot be read: it names no elements \(VASP 4\): write their symbols"):
        read_structures([tmp_path / "POSCAR"])


@pytest.mark.parametrize("name", ["POTCAR", "OUTCAR", "POTCAR.gz"])
def test_elements_come_from_the_file_beside_it(tmp_path, name):
    (tmp_path / "POSCAR").write_text(SALT.format(symbols=""))
    content = (POTCAR.format("Na") + POTCAR.format("Cl")).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    (found,) = read_structures([tmp_path / "POSCAR"])
    assert [site.specie.symbol for site in found.structure] == ["Na", "Cl"]


def test_the_file_beside_it_is_of_another_crystal(tmp_path):
    (tmp_path / "POTCAR").write_text(POTCAR.format("Na"))
    with pytest.raises(ValueError, match="POTCAR beside it has 1 of the 2 that it counts"):
        read_poscar(SALT.format(symbols=""), tmp_path)


def test_names_behind_the_sites_are_enough(tmp_path):
    text = SALT.format(symbols="").replace("0 0 0\n0.5 0.5 0.5", "0 0 0 Na\n0.5 0.5 0.5 Cl")
    assert read_poscar(text, tmp_path).composition.formula == "Na1 Cl1"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("Na Cl\n1 1", "Na Cl O\n1 1", "names 3 elements .* but counts 2"),
        ("1 1\n", "1 2\n", "counts are of 3 sites, but 2 lines follow"),
        ("1 1\n", "1 0\n", "counts are of 1 sites, but more follow"),
        ("1 1\n", "\n", "no counts of sites"),
        ("Na Cl", "Na Qq", "it names 'Qq', which is no element"),
    ],
)
def test_counts_that_do_not_hold(tmp_path, old, new, problem):
    with pytest.raises(ValueError, match=problem):
        read_poscar(SALT.format(symbols="Na Cl\n").replace(old, new), tmp_path)


def test_velocities_are_no_sites(tmp_path):
    text = SALT.format(symbols="Na Cl\n") + "\n 0.1 0.2 0.3\n 0.3 0.2 0.1\n"
    assert len(read_poscar(text, tmp_path)) == 2


def test_three_scaling_factors(tmp_path):
    """VASP 6 scales x, y and z by one factor each, of the lattice and of Cartesian positions."""
    text = "x\n2 3 4\n1 0 0\n0 1 0\n0 0 1\nNa Cl\n1 1\nCartesian\n0 0 0\n0.5 0.5 0.5 F\n"
    found = read_poscar(text, tmp_path)
    assert np.allclose(found.lattice.abc, (2, 3, 4)) and np.allclose(found[1].coords, (1, 1.5, 2))
    with pytest.raises(ValueError, match="three have to be positive"):
        read_poscar(text.replace("2 3 4", "2 -3 4"), tmp_path)


def test_deuterium_is_hydrogen(tmp_path):
    found = read_poscar(SALT.format(symbols="Li D\n"), tmp_path)
    assert [site.specie.symbol for site in found] == ["Li", "H"]


# -- frames -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    first = Structure(Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    frames = [first.copy().translate_sites([1], [0.01 * i, 0, 0]) for i in range(3)]
    whole = Xdatcar.__new__(Xdatcar)
    whole.structures, whole.comment = frames, "salt"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "XDATCAR").write_text(whole.get_str())
    return tmp_path / "run" / "XDATCAR"


def test_every_frame_of_a_trajectory(path):
    found = read_structures([path])
    assert [one.id for one in found] == ["run_0", "run_1", "run_2"]
    assert [round(one.structure[1].a, 3) for one in found] == [0.5, 0.51, 0.52]
    assert [one.structure.composition.formula for one in found] == ["Na1 Cl1"] * 3


def test_a_trajectory_whose_cell_changes(path):
    text = path.read_text()
    path.write_text(text + text.replace("5.64", "6.00"))
    found = read_structures([path])
    assert [round(one.structure.lattice.a, 2) for one in found] == [5.64] * 3 + [6.0] * 3


def test_a_trajectory_that_was_cut_off(path):
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    (entry,) = read_entries(path)
    assert entry.structure is None and "its last frame has 1 of 2 sites" in entry.problem
