"""Files of others: what they hold arrives unchanged, and what is damaged is refused with a reason."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mattergen_e.crystals.findings import LabelError
from mattergen_e.errors import UserError
from mattergen_e.labels.arrays import is_label, read, read_arrays, read_manifest
from mattergen_e.labels.settings import BaderSettings, LabelSettings

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = LabelSettings()
ENERGIES = np.linspace(-10.0, 6.0, 161)


@pytest.fixture(scope="module")
def gpaw(real_data: Path) -> Path:
    """Folder of real files, or a skip."""
    folder = real_data / "gpaw"
    return folder


def gauss(centre: float, states: float) -> np.ndarray:
    """A band of the given number of states, 0.5 eV wide."""
    return states * np.exp(-0.5 * ((ENERGIES - centre) / 0.5) ** 2) / (0.5 * np.sqrt(2 * np.pi))


def cscl(**changes: Any) -> dict[str, np.ndarray]:
    """CsCl: Cl 3s (2 states), Cl 3p (6 states) and empty Cs 6s (2 states); None takes an array away."""
    cl_s, cl_p, cs_s = gauss(-8, 2), gauss(-2, 6), gauss(4, 2)
    none = np.zeros_like(ENERGIES)
    arrays = {
        "numbers": np.array([55, 17]),
        "cell": 4.12 * np.eye(3),
        "frac": np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]),
        "energy_grid": ENERGIES,
        "dos": cl_s + cl_p + cs_s,
        "pdos": np.array([[cs_s, none], [cl_s, cl_p]]),
        "bader": np.array([0.83, -0.83]),
        "efermi": np.array(1.5),
        **changes,
    }
    return {name: value for name, value in arrays.items() if value is not None}


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def test_a_file_becomes_a_calculation(tmp_path):
    path = write(tmp_path / "CsCl.npz", cscl())
    found = read(path, None, SETTINGS)
    assert (found.id, found.split, found.structure.formula) == ("CsCl", None, "Cs1 Cl1")
    assert found.structure.lattice.a == pytest.approx(4.12)
    assert found.dos is not None and found.dos.sites is not None and found.bader_charge is not None
    states = np.trapz(found.dos.sites, ENERGIES, axis=1)
    np.testing.assert_allclose(states, [2, 8], atol=1e-3)
    np.testing.assert_array_equal(found.bader_charge, [0.83, -0.83])
    assert found.dos.complete_to is None
    assert found.record["efermi"] == 1.5
    assert found.record["projected_share"] == pytest.approx(1, abs=1e-6)
    assert found.findings == []


def test_the_manifest_names_splits_and_gives_only_what_is_asked(tmp_path):
    path = write(tmp_path / "x.npz", cscl())
    line = {"material_id": "mp-22865", "split": "val", "band_gap_mp2018": 5.2, "hull": None, "complete_to": 5}
    found = read(path, line, SETTINGS)
    assert (found.id, found.split, found.properties) == ("mp-22865", "val", {})
    assert found.dos is not None and found.dos.complete_to == 5.0
    wanted = {"dft_band_gap": "band_gap_mp2018", "energy_above_hull": "hull"}
    found = read(path, line, SETTINGS, properties=wanted, complete_to=4.5)
    assert found.properties == {"dft_band_gap": 5.2}
    assert found.dos is not None and found.dos.complete_to == 4.5


def test_projections_need_not_have_orbitals_nor_a_total(tmp_path):
    whole, by_orbital = cscl(), cscl()["pdos"]
    plain = read(write(tmp_path / "a.npz", cscl(pdos=by_orbital.sum(axis=1))), None, SETTINGS)
    assert plain.dos is not None and plain.dos.sites is not None
    np.testing.assert_allclose(plain.dos.sites, by_orbital.sum(axis=1))
    summed = read(write(tmp_path / "b.npz", cscl(dos=None)), None, SETTINGS)
    assert summed.dos is not None
    np.testing.assert_allclose(summed.dos.total, whole["dos"], atol=1e-12)
    assert [(f.part, f.reason, f.refused) for f in summed.findings] == [("total_dos", "sum_of_sites", False)]


def test_spectra_are_not_normalised(tmp_path):
    found = read(write(tmp_path / "a.npz", cscl(pdos=1.7 * cscl()["pdos"])), None, SETTINGS)
    assert found.dos is not None and found.dos.sites is not None
    np.testing.assert_allclose(np.trapz(found.dos.sites, ENERGIES, axis=1), [3.4, 13.6], atol=2e-3)
    assert found.record["projected_share"] == pytest.approx(1.7, abs=1e-6)
    assert found.record["normalised"] is False


def test_charges_alone_are_enough_and_must_be_neutral(tmp_path):
    bare = {"dos": None, "pdos": None, "energy_grid": None}
    found = read(write(tmp_path / "a.npz", cscl(**bare)), None, SETTINGS)
    assert found.dos is None and found.bader_charge is not None
    path = write(tmp_path / "b.npz", cscl(bader=np.array([0.9, -0.83])))
    found = read(path, None, SETTINGS)
    assert found.bader_charge is None and found.dos is not None
    (finding,) = found.findings
    assert (finding.part, finding.reason, finding.refused) == ("bader", "not_neutral", True)
    assert "+0.070 e" in finding.sentence
    loose = LabelSettings(bader=BaderSettings(neutrality_tolerance=0.08))
    assert read(path, None, loose).bader_charge is not None
    with pytest.raises(LabelError, match="holds neither spectra nor charges") as caught:
        read(write(tmp_path / "c.npz", cscl(**bare, bader=None)), None, SETTINGS)
    assert caught.value.reason == "no_labels"


def test_equivalent_sites_must_agree(tmp_path):
    """CsCl doubled along z: the two Cs are equivalent, and so are the two Cl."""
    doubled = {
        "numbers": np.array([55, 55, 17, 17]),
        "cell": np.diag([4.12, 4.12, 8.24]),
        "frac": np.array([[0, 0, 0], [0, 0, 0.5], [0.5, 0.5, 0.25], [0.5, 0.5, 0.75]]),
        "bader": np.array([0.9, 0.8, -0.85, -0.85]),
        "dos": None,
        "pdos": None,
    }
    path = write(tmp_path / "a.npz", cscl(**doubled))
    (finding,) = read(path, None, SETTINGS).findings
    assert (finding.reason, finding.refused) == ("sites_differ", True)
    averaged = read(path, None, LabelSettings(bader=BaderSettings(average_equivalent=True)))
    np.testing.assert_allclose(averaged.bader_charge, [0.85, 0.85, -0.85, -0.85])  # type: ignore[arg-type]


def test_the_file_may_tell_where_bands_end(tmp_path):
    found = read(write(tmp_path / "a.npz", cscl(complete_to=np.array(5.5))), {"complete_to": 4.0}, SETTINGS)
    assert found.dos is not None and found.dos.complete_to == 5.5
    assert "complete_to" not in found.record


def nan_at(values: np.ndarray) -> np.ndarray:
    changed = values.copy()
    changed.flat[3] = np.nan
    return changed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"numbers": None}, "damaged_file"),
        ({"numbers": np.array([55, 0])}, "bad_structure"),
        ({"numbers": np.array([55, 17, 17])}, "bad_structure"),
        ({"numbers": np.array(["Cs", "Cl"])}, "damaged_file"),
        ({"cell": np.eye(3) * 0.1}, "bad_structure"),
        ({"cell": np.eye(2)}, "bad_structure"),
        ({"frac": np.full((2, 3), np.inf)}, "bad_structure"),
        ({"energy_grid": None}, "bad_dos"),
        ({"energy_grid": ENERGIES[::-1]}, "bad_dos"),
        ({"energy_grid": ENERGIES[:-1]}, "bad_dos"),
        ({"dos": nan_at(cscl()["dos"])}, "bad_dos"),
        ({"dos": -cscl()["dos"]}, "negative_dos"),
        ({"dos": 0 * ENERGIES}, "negative_dos"),
        ({"pdos": nan_at(cscl()["pdos"])}, "bad_dos"),
        ({"pdos": cscl()["pdos"][:1]}, "bad_dos"),
        ({"pdos": cscl()["pdos"][..., :-1]}, "bad_dos"),
        ({"pdos": cscl()["pdos"] - 0.5}, "negative_dos"),
        ({"bader": np.array([0.8])}, "damaged_file"),
        ({"bader": np.array([0.8, np.nan])}, "damaged_file"),
        ({"efermi": np.array(np.nan)}, "no_fermi_energy"),
        ({"n_valence": np.array([1, 2])}, "damaged_file"),
        ({"dos": np.zeros(161, dtype=complex)}, "damaged_file"),
    ],
)
def test_what_is_wrong_has_a_reason(tmp_path, changes, reason):
    with pytest.raises(LabelError) as caught:
        read(write(tmp_path / "a.npz", cscl(**changes)), None, SETTINGS)
    assert caught.value.reason == reason


@pytest.mark.parametrize("line", [{"split": "dev"}, {"gap": "wide"}, {"gap": True}, {"gap": float("nan")}])
def test_a_wrong_line_of_the_manifest_is_refused(tmp_path, line):
    path = write(tmp_path / "a.npz", cscl())
    with pytest.raises(LabelError, match="manifest's"):
        read(path, line, SETTINGS, properties={"dft_band_gap": "gap"})


def test_nothing_is_unpickled(tmp_path):
    class Harm:
        def __reduce__(self):
            return Path(tmp_path / "harm").touch, ()

    path = tmp_path / "a.npz"
    np.savez(path, **{**cscl(), "dos": np.array([Harm()], dtype=object)}, allow_pickle=True)
    with pytest.raises(LabelError) as caught:
        read(path, None, SETTINGS)
    assert caught.value.reason == "damaged_file"
    assert not (tmp_path / "harm").exists()


def test_bombs_and_false_headers_are_refused(tmp_path):
    path = write(tmp_path / "zeros.npz", {"dos": np.zeros(2_000_000)})
    assert path.stat().st_size < 50_000
    with pytest.raises(LabelError, match="too large"):
        read_arrays(path, ["dos"], limit=1_000_000)
    assert read_arrays(path, ["pdos"], limit=1_000_000)[0] == {}
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    claim = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("dos.npy", header + claim + bytes(80))
    with pytest.raises(LabelError, match="does not have the size of its shape"):
        read_arrays(path, ["dos"])


def test_files_that_are_not_there_or_not_readable(tmp_path):
    with pytest.raises(LabelError) as caught:
        read(tmp_path / "no.npz", None, SETTINGS)
    assert caught.value.reason == "missing_file"
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(LabelError) as caught:
        read(tmp_path / "folder.npz", None, SETTINGS)
    assert caught.value.reason == "unreadable_file"
    (tmp_path / "empty.npz").touch()
    with pytest.raises(LabelError) as caught:
        read(tmp_path / "empty.npz", None, SETTINGS)
    assert caught.value.reason == "damaged_file"


def test_which_files_may_be_labels(tmp_path):
    """By the arrays' names; a damaged one may have been one, and gets a line among the failures."""
    assert is_label(write(tmp_path / "a.npz", cscl()))
    assert is_label(write(tmp_path / "b.npz", {"numbers": np.ones(2)}))
    assert not is_label(write(tmp_path / "c.npz", {"kpoints": np.ones(2)}))
    (tmp_path / "d.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:200])
    assert is_label(tmp_path / "d.npz")
    for name in (".hidden.npz", "x.txt"):
        (tmp_path / name).touch()
        assert not is_label(tmp_path / name)


@pytest.mark.parametrize(
    ("charges", "reason", "told"),
    [
        ([87.0, -87.0], "bad_charge", "+87 e at site 0 (Cs), beyond Cs's -1.5 to +1.5 e"),
        ([2.3, -2.3], "bad_charge", "site 0 (Cs)"),
    ],
)
def test_charges_beyond_the_valence_are_refused(tmp_path, charges, reason, told):
    found = read(write(tmp_path / "a.npz", cscl(bader=np.array(charges))), None, SETTINGS)
    (finding,) = [f for f in found.findings if f.refused]
    assert (finding.part, finding.reason) == ("bader", reason) and told in finding.sentence
    assert found.bader_charge is None and found.dos is not None


def test_charges_with_flipped_signs_are_told(tmp_path):
    found = read(write(tmp_path / "a.npz", cscl(bader=np.array([-0.83, 0.83]))), None, SETTINGS)
    assert [(f.reason, f.refused) for f in found.findings] == [("signs_opposed", False)]
    assert read(write(tmp_path / "b.npz", cscl()), None, SETTINGS).findings == []


@pytest.mark.parametrize(
    ("line", "functional"),
    [
        (None, "unknown"),
        ({"functional": "HSE06"}, "HSE06"),
        ({"method": {"functional": "PBE", "spin": True}}, "PBE"),
        ({"source": "gpaw", "settings_hash": "0"}, "PBE"),  # of `data compute` before it told
        ({"source": "gpaw"}, "unknown"),
        ({"functional": 3}, "unknown"),
        ({"functional": "x" * 500}, "unknown"),
    ],
)
def test_the_functional_that_a_manifest_tells(tmp_path, line, functional):
    found = read(write(tmp_path / "a.npz", cscl()), line, SETTINGS)
    assert found.record["method"]["functional"] == functional


def test_the_manifest(tmp_path):
    assert read_manifest(tmp_path) == {}
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"material_id": "a", "x": 1}\n\n{"id": "b"}\n')
    assert read_manifest(tmp_path) == {"a": {"material_id": "a", "x": 1}, "b": {"id": "b"}}
    for text, message in (('{"x": 1}\n', ":1 is not a JSON object"), ("{", "not made of JSON lines")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_manifest(tmp_path)
    path.write_text('{"id": "b"}\n{"id": "b"}\n')
    with pytest.raises(UserError, match=":2: 'b' is there twice"):
        read_manifest(tmp_path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_refused_or_harmless(tmp_path, data):
    """Cut off, overwritten or bent at any place: the values are right or the file is refused."""
    path = tmp_path / "a.npz"
    np.savez(path, **cscl())
    whole = read(path, None, SETTINGS)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["cut", "bend", "zeros", "shift"]))
    if kind == "cut":
        content = content[:place]
    elif kind == "bend":
        content[place] ^= data.draw(st.integers(1, 255))
    elif kind == "zeros":
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    else:
        content[place:place] = b"\0"
    path.write_bytes(content)
    try:
        found = read(path, None, SETTINGS)
    except LabelError:
        return
    assert found.structure == whole.structure
    assert found.dos is not None and whole.dos is not None
    pairs = [(found.dos.sites, whole.dos.sites), (found.dos.total, whole.dos.total)]
    for ours, right in (*pairs, (found.bader_charge, whole.bader_charge)):
        assert ours is not None and right is not None
        np.testing.assert_array_equal(ours, right)
    assert found.record == whole.record


def test_real_files_hold_the_electrons_that_they_should(gpaw):
    """BaTe has 16 valence electrons, Ba 5s (2) below the window; MgO has 16, Mg 2s, 2p and O 2s (10) below it."""
    records = read_manifest(gpaw)
    assert len(records) == sum(map(is_label, gpaw.iterdir())) == 680
    for name, formula, electrons in (("mp-1000", "Ba1 Te1", 14), ("mp-1265", "Mg1 O1", 6)):
        found = read(gpaw / f"{name}.npz", records[name], SETTINGS, complete_to=5.0)
        assert found.structure.formula == formula
        assert found.split == records[name]["split"]
        assert found.dos is not None and found.dos.sites is not None and found.bader_charge is not None
        below = found.dos.energies <= 0
        states = np.trapz(found.dos.total[below], found.dos.energies[below])
        assert states == pytest.approx(electrons, abs=0.01)
        assert found.dos.sites.shape == (2, 1001)
        assert found.bader_charge[0] > 1.2
    assert found.record["n_valence"] == 16


def test_other_files_of_the_folder_stay_closed(gpaw):
    arrays, digest = read_arrays(gpaw / "mp-1000.npz", ["bader"])
    assert list(arrays) == ["bader"]
    assert len(digest) == 64
