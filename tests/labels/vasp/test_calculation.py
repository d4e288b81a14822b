from __future__ import annotations

import gzip
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.io.vasp.outputs import Vasprun

from mattergen_e.crystals.findings import Finding, LabelError
from mattergen_e.labels.record import Calculation
from mattergen_e.labels.settings import BaderSettings, LabelSettings
from mattergen_e.labels.vasp import calculation as vasp
from mattergen_e.labels.vasp import dos as vasp_dos
from mattergen_e.labels.vasp.vasprun import read_vasprun

SETTINGS = LabelSettings()
CHARGES = np.repeat([0.8325, 1.6557, -0.8302, -0.8277], [4, 4, 8, 4])
FEW = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Copy = Callable[[str], Path]


def integral(calculation: Calculation, low: float, high: float = 0.0) -> tuple[float, np.ndarray | None]:
    """States of the crystal and of its sites between two energies."""
    dos = calculation.dos
    assert dos is not None
    inside = (dos.energies > low) & (dos.energies <= high)
    sites = None if dos.sites is None else np.trapz(dos.sites[:, inside], dos.energies[inside], axis=1)
    return float(np.trapz(dos.total[inside], dos.energies[inside])), sites


def pymatgen_run(folder: Path) -> Vasprun:
    (path,) = folder.glob("vasprun.xml*")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Vasprun(path, parse_potcar_file=False)


def refusals(calculation: Calculation) -> dict[str, str]:
    return {f.part: f.reason for f in calculation.findings if f.refused}


def replace(path: Path, old: str, new: str, count: int = 0) -> None:
    text = path.read_text()
    changed = re.sub(old, new, text, count=count)
    assert changed != text
    path.write_text(changed)


def reason_of(folder: Path, chosen: LabelSettings = SETTINGS) -> str:
    with pytest.raises(LabelError) as caught:
        vasp.read(folder, chosen)
    return caught.value.reason


# -- real calculations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "electrons", "in_window"),
    # In [-15, 0] eV: MgO without O 2s (at -17.6 to -16.0 eV); K3Sb without K 3s and the 3p of one of its three K.
    [("MgO_vise", 8.0, 6.0), ("K3Sb_lobsterpy", 32.0, 20.0)],
)
def test_dos_holds_the_valence_electrons(vasp_data: Path, name: str, electrons: float, in_window: float) -> None:
    calculation = vasp.read(vasp_data / name, SETTINGS)
    total, sites = integral(calculation, -100)
    assert total == pytest.approx(electrons, abs=1e-3)
    assert integral(calculation, -15)[0] == pytest.approx(in_window, abs=1e-3)
    assert sites is not None and 0.65 < sites.sum() / total < 0.8  # what the PAW spheres hold
    assert refusals(calculation) == {} and calculation.dos is not None
    run = pymatgen_run(vasp_data / name)
    assert calculation.dos.energies[0] == pytest.approx(run.tdos.energies[0] - run.efermi)
    peak = calculation.dos.energies[np.argmax(np.where(calculation.dos.energies > -8, calculation.dos.total, 0))]
    column = np.sum(list(run.tdos.densities.values()), axis=0)
    expected = run.tdos.energies - run.efermi
    assert peak == pytest.approx(expected[np.argmax(np.where(expected > -8, column, 0))], abs=0.02)


def test_sites_are_those_of_pymatgen(vasp_data: Path) -> None:
    calculation = vasp.read(vasp_data / "MgO_vise", SETTINGS)
    complete = pymatgen_run(vasp_data / "MgO_vise").complete_dos
    assert calculation.dos is not None and calculation.dos.sites is not None
    for i, site in enumerate(complete.structure):
        column = np.sum(list(complete.get_site_dos(site).densities.values()), axis=0)
        np.testing.assert_allclose(calculation.dos.sites[i, 1:-1], 0.5 * (column[1:-1] + column[2:]), atol=1e-9)


@pytest.mark.parametrize("name", ["MgO_vise", "K3Sb_lobsterpy"])
def test_band_gap_is_pymatgens(vasp_data: Path, name: str) -> None:
    gap = vasp.read(vasp_data / name, SETTINGS).properties["dft_band_gap"]
    run = pymatgen_run(vasp_data / name)
    assert gap == pytest.approx(run.eigenvalue_band_properties[0], abs=0.01)
    if name == "K3Sb_lobsterpy":  # the DOS of MgO has the tails of its smearing in the gap
        assert gap == pytest.approx(run.complete_dos.get_gap(), abs=0.1)


def test_band_gap_does_not_hang_on_the_smearing(vasp_data: Path) -> None:
    calculation = vasp.read(vasp_data / "Si_aiida", SETTINGS)
    assert calculation.properties["dft_band_gap"] == pytest.approx(0.514, abs=0.001)  # by hand from the band edges
    assert calculation.dos is not None and calculation.dos.complete_to == pytest.approx(8.3872 - 5.8332, abs=1e-3)


def test_charges_of_densities_alone(vasp_data: Path) -> None:
    calculation = vasp.read(vasp_data / "NaMgF3_pydefect", SETTINGS, "mp-2955")
    assert calculation.bader_charge is not None and calculation.id == "mp-2955"
    np.testing.assert_allclose(calculation.bader_charge, CHARGES, atol=1e-3)
    assert [f.reason for f in calculation.findings] == ["few_digits", "valence_guessed"]
    assert set(calculation.inputs) == {"AECCAR0.gz", "AECCAR2.gz", "CHG.gz"}
    given_by_user = LabelSettings(bader=BaderSettings(valence={"Na": 1, "Mg": 2, "F": 7}))
    again = vasp.read(vasp_data / "NaMgF3_pydefect", given_by_user)
    assert [f.reason for f in again.findings] == ["few_digits"]
    np.testing.assert_array_equal(again.bader_charge, calculation.bader_charge)  # type: ignore[arg-type]
    wrong = LabelSettings(bader=BaderSettings(valence={"Na": 7, "Mg": 2, "F": 7}))
    assert reason_of(vasp_data / "NaMgF3_pydefect", wrong) == "no_labels"


def test_an_empty_chgcar_gives_way_to_chg(copy: Copy) -> None:
    """As a full disk leaves it; the charges are those of CHG, and both warnings are there."""
    folder = copy("NaMgF3")
    (folder / "CHGCAR").touch()
    calculation = vasp.read(folder, SETTINGS)
    assert calculation.bader_charge is not None
    np.testing.assert_allclose(calculation.bader_charge, CHARGES, atol=1e-3)
    assert [f.reason for f in calculation.findings] == ["empty_file", "few_digits", "valence_guessed"]
    assert set(calculation.inputs) == {"AECCAR0", "AECCAR2", "CHG"}
    (folder / "CHG").unlink()
    assert reason_of(folder) == "damaged_file"


def test_valence_density_alone_is_refused_and_the_rest_goes_on(vasp_data: Path) -> None:
    calculation = vasp.read(vasp_data / "Si_aiida", SETTINGS)
    assert calculation.bader_charge is None and calculation.dos is not None and calculation.dos.sites is None
    found = {f.reason: f for f in calculation.findings}
    assert set(found) == {"no_core_density", "maximum_off_atom"}
    assert not found["no_core_density"].refused and found["maximum_off_atom"].refused


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (r'(name="LNONCOLLINEAR">) F', r"\1 T", "not_collinear"),
        (r'(name="LSORBIT">) F', r"\1 T", "not_collinear"),
        (r'(<i type="int" name="NELM">)\s+100', r"\1 11", "not_converged"),
        (r"(?s)</calculation>.*", "", "damaged_file"),
        (r"(?s)<calculation>.*</calculation>", "", "damaged_file"),
        (r'(<i name="NELECT">).*</i>', "", "damaged_file"),
        (r'(?s)(<varray name="weights" >\s*)<v>.*?</v>', r"\1", "damaged_file"),
        (r'(?s)(<set comment="kpoint 7">\s*)<r>.*?</r>', r"\1", "damaged_file"),
        (r'(?s)<set comment="kpoint 7">.*?</set>', "", "damaged_file"),
    ],
)
def test_calculations_that_are_refused_as_a_whole(copy: Copy, old: str, new: str, reason: str) -> None:
    folder = copy("MgO")
    replace(folder / "vasprun.xml", old, new)
    assert reason_of(folder) == reason


def test_unconverged_only_where_allowed(copy: Copy) -> None:
    folder = copy("MgO")
    replace(folder / "vasprun.xml", r'(<i type="int" name="NELM">)\s+100', r"\1 11")
    calculation = vasp.read(folder, LabelSettings(allow_unconverged=True))
    assert [f.reason for f in calculation.findings] == ["not_converged", "no_density"]
    assert calculation.record["converged"] is False


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (r'<i name="efermi">.*</i>', "", "no_fermi_energy"),
        (r'(<i name="efermi">).*(</i>)', r"\1 ******** \2", "no_fermi_energy"),
        (r'(<i name="efermi">).*(</i>)', r"\1 NaN \2", "no_fermi_energy"),
        (r"(?s)<dos>.*</dos>", "", "bad_dos"),
        (r"-20.0100(\s+0.0000\s+0.0000)", r"-19.0100\1", "bad_dos"),
    ],
)
def test_dos_that_is_refused(copy: Copy, old: str, new: str, reason: str) -> None:
    folder = copy("MgO")
    replace(folder / "vasprun.xml", old, new)
    result = vasp.read(folder, SETTINGS)
    assert refusals(result) == {"total_dos": reason} and result.dos is None
    assert result.properties["dft_band_gap"] == pytest.approx(4.6586, abs=1e-3)  # of the eigenvalues, which are sound


@pytest.mark.parametrize("efermi", [3.0672, 7.7282, 9.5, 50.0])
def test_fermi_energy_inside_a_band_is_moved_into_the_gap(copy: Copy, efermi: float) -> None:
    folder = copy("MgO")
    replace(folder / "vasprun.xml", r'(<i name="efermi">).*(</i>)', rf"\1 {efermi} \2")  # the band ends at 3.0677 eV
    calculation = vasp.read(folder, SETTINGS)
    assert calculation.record["fermi_energy_ev"] == pytest.approx((3.0677 + 7.7263) / 2, abs=1e-3)
    assert calculation.properties["dft_band_gap"] == pytest.approx(4.6586, abs=1e-3)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"0\.130000 ", "0.140000 "),
        (r"2\.750000", "2.760000"),
        (r"   Si", "   Ge"),
        (r"Direct\n(.*)\n(.*)\n", r"Direct\n\2\n\1\n"),
    ],
)
def test_density_of_another_crystal(copy: Copy, old: str, new: str) -> None:
    folder = copy("Si")
    replace(folder / "CHGCAR", old, new)
    assert reason_of(folder) == "other_structure"


def test_densities_swapped_between_folders(copy: Copy) -> None:
    silicon, fluoride = copy("Si"), copy("NaMgF3")
    (silicon / "CHGCAR").write_bytes((fluoride / "CHG").read_bytes())
    assert reason_of(silicon) == "other_structure"
    (fluoride / "AECCAR2").write_bytes(gzip.decompress(gzip.compress((copy("Si") / "CHGCAR").read_bytes())))
    assert reason_of(fluoride) == "other_structure"


def test_other_order_of_sites(copy: Copy) -> None:
    folder = copy("NaMgF3")
    replace(folder / "AECCAR0", r"   Na   Mg   F", "   Mg   Na   F")
    assert reason_of(folder) == "other_structure"


@pytest.mark.parametrize("name", ["vasprun.xml", "CHGCAR"])
def test_files_that_cannot_be_read(copy: Copy, name: str) -> None:
    folder = copy("Si")
    path = folder / name
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    target = folder / f"{name}.gz"

    def reason() -> str:
        try:
            return refusals(vasp.read(folder, SETTINGS))["bader"]
        except LabelError as error:
            return error.reason

    for content in (packed[: len(packed) // 2], b"no gzip at all", packed[:-8] + b"\0" * 8):
        target.write_bytes(content)
        assert reason() == "unreadable_file"
    target.write_bytes(b"")
    assert reason() == "damaged_file"
    target.write_bytes(packed)
    target.chmod(0)
    if not os.access(target, os.R_OK):  # it always is for root
        assert reason() == "unreadable_file"
    target.unlink()
    target.symlink_to(folder / "nowhere")
    assert reason() == "missing_file"


# -- random damage ----------------------------------------------------------------------------------------------------
# What physics can check: sums of electrons, symmetry, maxima on atoms, one crystal in all files. A changed digit of a
# DOS or of a lattice vector that no second file repeats cannot be found, and nothing is asserted of it.


@FEW
@given(data=st.data())
@pytest.mark.parametrize("name", ["Si_aiida/vasprun.xml", "MgO_vise/vasprun.xml"])
def test_cut_vasprun_is_damaged(unpacked: Path, tmp_path: Path, name: str, data: st.DataObject) -> None:
    content = (unpacked / name).read_bytes().rstrip()
    (tmp_path / "vasprun.xml").write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    assert reason_of(tmp_path) == "damaged_file"


def overwrite(content: bytes, data: st.DataObject) -> bytes:
    """Some bytes changed: digits for digits, any for any, a stretch or the rest of a line left out."""
    changed = bytearray(content)
    start = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 1500))
    kind = data.draw(st.sampled_from(["byte", "digits", "gap", "line"]))
    if kind == "byte":
        changed[start] = data.draw(st.integers(0, 255))
    elif kind == "gap":
        changed[start : start + data.draw(st.integers(1, 500))] = b""
    elif kind == "line":
        end = content.find(b"\n", start)
        changed[start:end] = b""
    else:
        digits = [i for i in range(start, min(start + 400, len(content))) if chr(content[i]).isdigit()]
        for i in digits[:: data.draw(st.integers(1, 20))]:
            changed[i] = ord(data.draw(st.sampled_from("0123456789")))
    return bytes(changed)


@pytest.mark.slow
@settings(FEW, max_examples=12)
@given(data=st.data())
@pytest.mark.parametrize("name", ["CHG", "AECCAR0", "AECCAR2"])
def test_changed_density_never_gives_a_wrong_charge(
    unpacked: Path, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    source = unpacked / "NaMgF3_pydefect"
    for other in ("CHG", "AECCAR0", "AECCAR2"):
        (tmp_path / other).write_bytes((source / other).read_bytes())
    (tmp_path / name).write_bytes(overwrite((source / name).read_bytes(), data))
    try:
        calculation = vasp.read(tmp_path, SETTINGS)
    except LabelError:
        return
    assert calculation.bader_charge is not None
    np.testing.assert_allclose(calculation.bader_charge, CHARGES, atol=0.06)


@FEW
@given(data=st.data())
@pytest.mark.parametrize("name", ["MgO_vise", "Si_aiida"])
def test_changed_vasprun_keeps_its_electrons_or_is_refused(
    unpacked: Path, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    (tmp_path / "vasprun.xml").write_bytes(overwrite((unpacked / name / "vasprun.xml").read_bytes(), data))
    try:
        calculation = vasp.read(tmp_path, SETTINGS)
    except LabelError:
        return
    assert isinstance(calculation.findings, list) and all(isinstance(f, Finding) for f in calculation.findings)
    if calculation.dos is None:  # the gap is left, of eigenvalues that are sound
        assert refusals(calculation)["total_dos"] and "dft_band_gap" in calculation.properties
        return
    total, sites = integral(calculation, -100)
    electrons = calculation.record["nelect"]
    assert abs(total - electrons) < 0.1 * electrons
    assert sites is None or np.isfinite(sites).all()
    if "dft_band_gap" in calculation.properties:
        assert 0 <= calculation.properties["dft_band_gap"] < 100


def test_k_points_on_lines_give_no_dos(vasp_data: Path) -> None:
    run = read_vasprun(vasp_data / "MgO_vise" / "vasprun.xml.gz")
    run.kpoints = SimpleNamespace(style="Line_mode")
    with pytest.raises(LabelError, match="lines") as caught:
        vasp_dos.raw_dos(run, 3.45)
    assert caught.value.reason == "bad_dos"
