"""Files of spectra of every kind, sound and broken."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mattergen_e.errors import UserError
from mattergen_e.spectra.curves import check_curve, on_grid
from mattergen_e.spectra.grid import TOTAL_GRID
from mattergen_e.spectra.quantities import band_gap, states_below_fermi
from mattergen_e.targets.files import read_curves

pytestmark = pytest.mark.usefixtures("list_of_conditions")

ENERGIES = np.array([-1.0, 0.0, 1.0])


def test_npz(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, energies=ENERGIES, dos_per_cell=[[2.0, 4, 6], [3, 3, 0]], num_atoms=[2, 3], names=["x", "y"])
    x, y = read_curves(file)
    assert (x.name, y.name) == ("x", "y") and x.dos.tolist() == [1, 2, 3] and y.dos.tolist() == [1, 1, 0]
    np.savez(file, energies=ENERGIES, dos=[1.0, 2, 3])
    (one,) = read_curves(file)
    assert one.dos.tolist() == [1, 2, 3] and one.energies.tolist() == ENERGIES.tolist() and one.smearing == 0
    np.savez(file, dos=np.ones((2, 256)))
    assert [c.energies[0] for c in read_curves(file)] == [TOTAL_GRID.energies[0]] * 2


def test_npz_of_labels(tmp_path):
    file = tmp_path / "mp-1.npz"
    energies = np.linspace(-15, 10, 1001)
    dos = np.where(energies > -8, 4.0, 0.0)
    np.savez(file, energy_grid=energies, dos=dos, numbers=[11, 17], complete_to=5.0)
    (one,) = read_curves(file)
    assert one.name == "mp-1" and one.dos.max() == 2.0 and one.smearing == 0.1
    found = on_grid(one, TOTAL_GRID)
    assert (found[TOTAL_GRID.energies > 5.1] < 0).all() and found[0] == 0 and found[128] == pytest.approx(2.0)


def test_npz_of_a_forward_predictor(tmp_path):
    file = tmp_path / "predicted.npz"
    total = np.array([np.full(256, 0.5), np.linspace(0, 1, 256)], dtype=np.float32)
    np.savez(file, total=total, total_energies=TOTAL_GRID.energies, total_window=[-10, 10], ids=["a", "b"], sites_a=[1])
    a, b = read_curves(file)
    assert (a.name, b.name) == ("a", "b") and np.array_equal(on_grid(b, TOTAL_GRID), total[1])


def test_csv(tmp_path):
    file = tmp_path / "target.csv"
    file.write_text("energy, dos\n-1, 1\n0,\n1, 3\n")
    (one,) = read_curves(file)
    assert one.name == "target" and np.isnan(one.dos[1]) and one.dos[2] == 3
    file.write_text("name,energy,dos_per_cell,num_atoms\n01,-1,2,2\n01,0,4,2\nb,-1,3,1\nb,1,3,1\n")
    first, second = read_curves(file)
    assert (first.name, second.name) == ("01", "b")
    assert first.dos.tolist() == [1, 2] and second.energies.tolist() == [-1, 1]


def test_json_lines(tmp_path):
    file = tmp_path / "a.jsonl"
    lines = [
        {"id": "x", "energies": ENERGIES.tolist(), "dos": [1, None, 2]},
        {"energies": [0, 1], "dos_per_cell": [4, 4], "num_atoms": 4},
    ]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    x, second = read_curves(file)
    assert x.name == "x" and np.isnan(x.dos[1]) and second.dos.tolist() == [1, 1] and second.name == "line 2"


def test_vasprun(real_data):
    """MgO, two atoms: the window holds the six electrons of O 2p; O 2s lies below it."""
    (mgo,) = read_curves(real_data / "vasp" / "MgO_vise" / "vasprun.xml.gz")
    check_curve(mgo, "MgO")
    found = on_grid(mgo, TOTAL_GRID)
    known = np.maximum(found, 0)
    assert found[0] >= 0 and mgo.smearing == 0.1
    assert 3.5 < band_gap(known, TOTAL_GRID) < 5.0
    assert 2 * states_below_fermi(known, TOTAL_GRID) == pytest.approx(6.0, abs=0.2)


def test_real_labels_are_the_cache_of_the_same_crystal(real_data):
    """A label file as a target gives what a model was trained on: the room of labels makes it in another way."""
    from mattergen_e.spectra.processing import TotalDosSettings, total_dos
    from mattergen_e.spectra.raw import RawDos

    file = sorted((real_data / "gpaw").glob("mp-*.npz"))[0]
    with np.load(file, allow_pickle=False) as label:
        raw = RawDos(label["energy_grid"].astype(float), label["dos"].astype(float))
        expected, _ = total_dos(raw, len(label["numbers"]), TotalDosSettings())
    found = on_grid(read_curves(file)[0], TOTAL_GRID)
    told = found >= 0
    assert told.sum() > 250 and np.allclose(found[told][:-3], expected[told][:-3], atol=2e-5)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "", "cannot be read as CSV"),
        ("a.csv", "e,dos\n1,2\n", "needs a first line with the columns energy .*it has: e, dos"),
        ("a.csv", "energy,dos_per_cell\n0,1\n1,1\n", "without its 'num_atoms'"),
        ("a.csv", "energy,dos\n0,one\n1,1\n", "no number"),
        ("a.csv", "energy,dos\n", "holds no|0 values|no 'energies'"),
        ("a.jsonl", "{}\n", "either 'dos'"),
        ("a.jsonl", "\n", "holds no spectrum"),
        ("a.jsonl", '{"dos": [1, 2]}\n', "2 values but no 'energies'"),
        ("a.jsonl", '{"dos": [[1], [2]]}\n', "no single curve"),
        ("a.jsonl", '{"dos": [1, "x"], "energies": [0, 1]}\n', "no number"),
        ("a.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("a.jsonl", "{" + "\n", "line 1 is no JSON"),
        ("a.jsonl", '{"structure": {}}\n', "is a structure"),
        ("a.cif", "data_x\n", "is a structure, not a spectrum: name a forward predictor"),
        ("POSCAR", "x\n", "is a structure"),
        ("a.txt", "1 2\n", "of no known kind"),
        ("vasprun.xml", "<modeling>\n", "no density of states that can be used"),
        ("a.npz", "PK", "no npz file of plain arrays"),
    ],
)
def test_broken_files(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=sentence) as error:
        [check_curve(curve, str(tmp_path / name)) for curve in read_curves(tmp_path / name)]
    assert name in str(error.value) and "\n" not in str(error.value)


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "a.npz", dos=np.array([Trap()], dtype=object), energies=ENERGIES)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Trap()))
    for name in ("a.npz", "b.npz"):
        with pytest.raises(UserError, match="no npz file of plain arrays"):
            read_curves(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist: give a file with a density of states"):
        read_curves(tmp_path / "a.npz")
    with pytest.raises(UserError, match="no split of a cache"):
        read_curves(tmp_path)


def read_all(file):
    """What a user's file may do: give curves that pass the checks, or one sentence."""
    try:
        curves = read_curves(file)
        for curve in curves:
            check_curve(curve, str(file))
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        return
    for curve in curves:
        values = on_grid(curve, TOTAL_GRID)
        assert values.shape == (256,) and np.isfinite(values).all()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=200), head=st.sampled_from(["", "energy,dos\n", "name,energy,dos_per_cell,num_atoms\n"]))
def test_any_text_as_csv_or_json(tmp_path, text, head):
    for name in ("a.csv", "a.jsonl"):
        (tmp_path / name).write_text(head + text, encoding="utf-8", errors="replace")
        read_all(tmp_path / name)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    energies=arrays.arrays(float, arrays.array_shapes(max_dims=2, max_side=5)),
    dos=arrays.arrays(float, arrays.array_shapes(max_dims=3, max_side=5)),
    atoms=st.integers(-2, 3),
    key=st.sampled_from(["dos", "dos_per_cell"]),
)
def test_any_arrays_as_npz(tmp_path, energies, dos, atoms, key):
    np.savez(tmp_path / "a.npz", energies=energies, num_atoms=atoms, **{key: dos})
    read_all(tmp_path / "a.npz")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_any_bytes(tmp_path, content):
    for name in ("a.npz", "a.csv", "a.jsonl", "a.xyz"):
        (tmp_path / name).write_bytes(content)
        read_all(tmp_path / name)
