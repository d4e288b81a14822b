"""Labels from open DFT, with GPAW itself on crystals of two atoms; skipped where no Python has GPAW."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from mattergen_e.crystals.reading import NamedStructure
from mattergen_e.errors import UserError
from mattergen_e.labels.arrays import read, read_manifest
from mattergen_e.labels.computed import compute as labels
from mattergen_e.labels.computed.calculation import run_one
from mattergen_e.labels.settings import BaderSettings, LabelSettings

FAST = labels.ComputeSettings(cutoff=250, kpoint_density=1.2, refinement=2)
A_LIH = 4.08  # Å, lattice constant of rock salt LiH


def lih(a: float = A_LIH) -> Structure:
    half = a / 2
    return Structure(Lattice([[0, half, half], [half, 0, half], [half, half, 0]]), ["Li", "H"], [[0] * 3, [0.5] * 3])


def left_handed() -> Structure:
    """Two cells of LiH as one left-handed cell, with the elements interleaved and hydrogen first."""
    cell = lih().copy()
    cell.make_supercell([1, 1, 2])
    swap, order = [1, 0, 2], np.argsort(cell.atomic_numbers, kind="stable")[[0, 2, 1, 3]]
    species = [cell[i].specie for i in order]
    return Structure(Lattice(cell.lattice.matrix[swap]), species, cell.frac_coords[order][:, swap])


@pytest.fixture(scope="session")
def gpaw() -> str:
    """A Python that has GPAW."""
    try:
        return labels.find_python().path
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def computed(gpaw, tmp_path_factory) -> Path:
    """A folder with LiH in two cells, and with failures of three kinds."""
    out = tmp_path_factory.mktemp("computed")
    close = lih()
    close.translate_sites([1], [-0.48] * 3)
    plutonium = Structure(Lattice.cubic(3.0), ["Pu"], [[0, 0, 0]])
    mixed = Structure(Lattice.cubic(4.0), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    named = {"LiH": lih(), "left": left_handed(), "Pu": plutonium, "close": close, "mixed": mixed}
    crystals = [NamedStructure(name, structure) for name, structure in named.items()]
    summary = labels.compute(crystals, out, settings=FAST, python=gpaw, keep_density=True)
    assert (summary.computed, summary.present, summary.failed, summary.refused) == (2, 0, 3, 0)
    return out


def arrays(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / f"{name}.npz", allow_pickle=False) as archive:
        return dict(archive)


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}


# -- physics ----------------------------------------------------------------------------------------------------------


def test_charges_of_lithium_hydride(computed):
    """LiH is ionic: 0.91 e in the molecule (Bader, Atoms in Molecules, 1990), a little less in the solid."""
    found = arrays(computed, "LiH")
    assert found["bader"][0] == pytest.approx(0.87, abs=0.05)
    assert abs(found["bader"].sum()) < 0.01
    assert found["bader_volume"].sum() == pytest.approx(lih().volume, rel=1e-4)


def test_spectra_hold_the_electrons(computed):
    """Two electrons per cell in the valence band of LiH; Li 1s is core, or lies 45 eV below, outside of the window."""
    found = arrays(computed, "LiH")
    energies, step = found["energy_grid"], 0.025
    assert (len(energies), energies[0], energies[-1]) == (1001, -15, 10)
    occupied = energies <= 0
    assert found["dos"][occupied].sum() * step == pytest.approx(2.0, abs=0.01)
    assert found["n_valence"] in (2, 4), "with Li 1s in the core or not"
    assert found["pdos"].shape == (2, 4, 1001) and (found["pdos"] >= 0).all()
    hydrogen, lithium = found["pdos"][1, 0, occupied].sum(), found["pdos"][0, 0, occupied].sum()
    assert hydrogen > 1.5 * lithium, "the valence band of LiH is hydrogen's 1s"
    assert found["complete_to"] >= FAST.dos_to
    assert found["broadening"] == pytest.approx(0.1 / np.sqrt(2))


def test_the_order_of_sites_and_the_handedness_of_the_cell_do_not_matter(computed):
    primitive, left = arrays(computed, "LiH"), arrays(computed, "left")
    assert np.linalg.det(left["cell"]) < 0 and left["numbers"].tolist() == [1, 3] * 2
    assert left["bader"].reshape(2, 2) == pytest.approx(np.tile(primitive["bader"][::-1], (2, 1)), abs=0.03)
    assert left["dos"].sum() == pytest.approx(2 * primitive["dos"].sum(), rel=0.05)
    hydrogen, lithium = (left["density"][tuple(np.round(32 * left["frac"][i]).astype(int) % 32)] for i in (0, 1))
    origin, middle = primitive["density"][0, 0, 0], primitive["density"][16, 16, 16]
    assert (hydrogen, lithium) == (pytest.approx(middle, rel=0.1), pytest.approx(origin, rel=0.1))


def test_bands_are_added_until_the_dos_is_complete(gpaw, computed, tmp_path):
    settings = FAST.model_copy(update={"dos_to": -15.0})
    labels.compute([NamedStructure("LiH", lih())], tmp_path, settings=settings, python=gpaw)
    fewer, more = arrays(tmp_path, "LiH"), arrays(computed, "LiH")
    assert fewer["complete_to"] < 5 <= more["complete_to"]
    shared = more["energy_grid"] < fewer["complete_to"] - 0.3
    assert np.abs(more["dos"] - fewer["dos"])[shared].max() < 0.01 * more["dos"].max()
    assert (more["dos"] - fewer["dos"]).sum() * 0.025 > 0.5, "states of the empty bands"


@pytest.mark.slow
def test_spin_of_iron(gpaw, tmp_path):
    """bcc iron carries 2.2 Bohr magnetons; a coarse mesh gives it within a few tenths."""
    iron = Structure(
        Lattice([[-1.435, 1.435, 1.435], [1.435, -1.435, 1.435], [1.435, 1.435, -1.435]]), ["Fe"], [[0] * 3]
    )
    settings = FAST.model_copy(
        update={"spin": True, "cutoff": 350, "kpoint_density": 2.0, "smearing": 0.1, "dos_to": 3.0}
    )
    labels.compute([NamedStructure("Fe", iron)], tmp_path, settings=settings, python=gpaw)
    found = arrays(tmp_path, "Fe")
    assert found["magmom"] == pytest.approx(2.2, abs=0.3)
    assert found["bader"] == pytest.approx(0, abs=0.01)
    window = found["energy_grid"] <= 0
    assert found["dos"][window].sum() * 0.025 == pytest.approx(8.0, abs=0.3), "both spins are summed"


# -- files ------------------------------------------------------------------------------------------------------------


def test_the_folder_is_a_source_of_labels(computed):
    manifest = read_manifest(computed)
    assert set(manifest) == {"LiH", "left"}
    line = manifest["LiH"]
    assert line["method"] == {"functional": "PBE", "spin": False}
    assert read(computed / "LiH.npz", line, LabelSettings()).record["method"] == line["method"]
    assert (line["formula"], line["num_atoms"], line["status"]) == ("LiH", 2, "done")
    assert line["max_spread_equivalent_sites"] == 0 and line["findings"] == []
    assert set(line["versions"]) >= {"gpaw", "ase", "baderkit", "mattergen-e"}
    found = read(computed / "LiH.npz", line, LabelSettings())
    assert found.dos is not None and found.dos.complete_to == pytest.approx(line["complete_to"], abs=1e-3)
    assert found.bader_charge is not None and found.structure == lih()


def test_failures_are_recorded_with_their_reasons(computed):
    failed = {line["material_id"]: line for line in map(json.loads, (computed / "failed.jsonl").open())}
    assert {name: line["reason"] for name, line in failed.items()} == {
        "Pu": "missing_setup",
        "close": "bad_structure",
        "mixed": "bad_structure",
    }
    assert "no PBE setup for Pu" in failed["Pu"]["sentence"]


def test_nothing_else_is_left_in_the_folder(computed):
    names = {path.name for path in computed.iterdir()}
    assert names == {"LiH.npz", "left.npz", "LiH.CHGCAR", "left.CHGCAR", "manifest.jsonl", "failed.jsonl"}


def test_a_rerun_computes_nothing(gpaw, computed):
    before = stamps(computed)
    crystals = [NamedStructure("LiH", lih()), NamedStructure("left", left_handed())]
    summary = labels.compute(crystals, computed, settings=FAST, python=gpaw)
    assert (summary.computed, summary.present, summary.failed) == (0, 2, 0)
    assert stamps(computed) == before


def test_other_settings_or_structures_are_not_mixed(gpaw, computed):
    crystal = NamedStructure("LiH", lih())
    with pytest.raises(UserError, match=r"other settings \(first: .*, 'cutoff' was .* and is now 300.0\).*--overwrite"):
        labels.compute([crystal], computed, settings=FAST.model_copy(update={"cutoff": 300.0}), python=gpaw)
    with pytest.raises(UserError, match="LiH computed from another structure"):
        labels.compute([NamedStructure("LiH", lih(4.2))], computed, settings=FAST, python=gpaw)
    assert stamps(computed).keys() == {"LiH.npz", "left.npz"}


def test_what_does_not_converge_is_retried_only_when_asked(gpaw, tmp_path):
    short = FAST.model_copy(update={"max_iterations": 2})
    crystal = [NamedStructure("LiH", lih())]
    summary = labels.compute(crystal, tmp_path, settings=short, python=gpaw)
    assert (summary.computed, summary.failed) == (0, 1) and not list(tmp_path.glob("*.npz"))
    (line,) = map(json.loads, (tmp_path / "failed.jsonl").open())
    assert line["reason"] == "not_converged" and "in 2 iterations" in line["sentence"]
    assert labels.compute(crystal, tmp_path, settings=FAST, python=gpaw).failed == 1, "known to fail, and left alone"
    again = labels.compute(crystal, tmp_path, settings=FAST, python=gpaw, retry_failed=True)
    assert (again.computed, again.failed) == (1, 0)
    assert (tmp_path / "failed.jsonl").read_text() == ""


def test_a_crystal_that_takes_too_long_fails(gpaw, tmp_path):
    summary = labels.compute([NamedStructure("LiH", lih())], tmp_path, settings=FAST, python=gpaw, timeout=0.3)
    assert summary.failed == 1
    assert json.loads((tmp_path / "failed.jsonl").read_text())["reason"] == "timeout"


def test_a_worker_that_is_killed_is_recorded(tmp_path):
    """A Python that dies as one does that the kernel ends for its memory."""
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    job = labels._job(NamedStructure("LiH", lih()), tmp_path, str(killed), FAST, 60.0, False)
    assert run_one(job)["reason"] == "memory"


def test_a_worker_that_crashes_is_recorded(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho something broke >&2\nexit 3\n")
    broken.chmod(0o755)
    line = run_one(labels._job(NamedStructure("LiH", lih()), tmp_path, str(broken), FAST, 60.0, False))
    assert (line["status"], line["reason"]) == ("failed", "failed")
    assert line["sentence"] == "GPAW's process ended with code 3: something broke"


RUN = """
import signal, sys
from pathlib import Path
from mattergen_e.cli.compute import command
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    command([Path(sys.argv[1])], Path(sys.argv[2]), python=Path(sys.argv[3]), cutoff=250, kpoint_density=1.2,
            refinement=2, jobs=int(sys.argv[4]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "jobs"), [(signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGINT, 2)])
def test_a_run_that_is_stopped_goes_on_where_it_was(gpaw, tmp_path, ending, jobs):
    crystals, out = tmp_path / "crystals.jsonl", tmp_path / "out"
    lines = [json.dumps({"id": f"x{i}", "structure": lih(4.0 + 0.05 * i).as_dict()}) for i in range(4)]
    crystals.write_text("\n".join(lines) + "\n")
    arguments = [sys.executable, "-c", RUN, str(crystals), str(out), gpaw, str(jobs)]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True)
    manifest = out / "manifest.jsonl"
    end = time.monotonic() + 240
    while not (manifest.exists() and manifest.read_text().count("\n")) and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(0.5)  # so that others are in flight
    os.kill(process.pid, ending)
    process.wait(30)
    if ending == signal.SIGINT:
        assert process.stderr is not None and "the same command goes on" in process.stderr.read()
    time.sleep(3)
    assert working_in(out) == [], "GPAW's processes end with the run"
    before = stamps(out)
    finished = set(read_manifest(out))
    assert finished and len(finished) < 4
    summary = labels.compute([crystals], out, settings=FAST, python=gpaw)
    assert (summary.present, summary.computed) == (len(finished), 4 - len(finished))
    after = stamps(out)
    assert all(after[f"{name}.npz"] == before[f"{name}.npz"] for name in finished)
    assert {path.name for path in out.iterdir()} == {*(f"x{i}.npz" for i in range(4)), "manifest.jsonl"}


def working_in(folder: Path) -> list[int]:
    """Processes whose working directory is below a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            here = os.readlink(entry / "cwd")
        except OSError:
            continue
        if here.startswith(str(folder)):
            found.append(int(entry.name))
    return found


# -- checks and errors ------------------------------------------------------------------------------------------------


def test_charges_of_a_bond_are_refused_and_the_spectra_kept(gpaw, tmp_path):
    """Silicon's two sites are equivalent, but a coarse density cannot tell; a tolerance of zero must refuse that."""
    half = 5.43 / 2
    cell = Lattice([[0, half, half], [half, 0, half], [half, half, 0]])
    silicon = NamedStructure("Si", Structure(cell, ["Si", "Si"], [[0] * 3, [0.25] * 3]))
    settings = FAST.model_copy(update={"bader": BaderSettings(equivalent_tolerance=0)})
    summary = labels.compute([silicon], tmp_path, settings=settings, python=gpaw)
    assert (summary.computed, summary.refused, summary.failed) == (1, 1, 0)
    found, line = arrays(tmp_path, "Si"), read_manifest(tmp_path)["Si"]
    assert "bader" not in found and found["pdos"].shape == (2, 4, 1001)
    (finding,) = line["findings"]
    assert (finding["part"], finding["reason"], finding["refused"]) == ("bader", "sites_differ", True)
    assert not line["has_bader"]


def test_a_cut_off_line_is_dropped(tmp_path):
    whole = {"material_id": "a", "settings_hash": FAST.hash(), "input_hash": "h"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(whole) + "\n" + json.dumps(whole)[:30])
    (tmp_path / "a.npz").write_bytes(b"")
    with labels.ComputeFolder(tmp_path, FAST.hash(), False) as folder:
        assert set(folder.done) == {"a"}
    assert (tmp_path / "manifest.jsonl").read_text() == json.dumps(whole) + "\n"


@pytest.mark.parametrize("content", ['{"material_id": "mp-1000", "formula": "BaTe"}\n', "not json\n", "[1]\n"])
def test_folders_of_others_are_left_alone(tmp_path, content):
    (tmp_path / "manifest.jsonl").write_text(content)
    with pytest.raises(UserError, match="was not written by"):
        labels.ComputeFolder(tmp_path, FAST.hash(), True)
    assert (tmp_path / "manifest.jsonl").read_text() == content


@pytest.mark.parametrize("name", ["../victim", "/tmp/victim", "a\\..\\victim", "nul\0", ".hidden", "", 7, None, ["a"]])
def test_a_manifest_of_others_removes_nothing(tmp_path, name):
    """Crystals of other settings are removed with --overwrite, by the ids that the manifest says."""
    folder, victim = tmp_path / "out", tmp_path / "victim.npz"
    folder.mkdir()
    victim.write_text("mine")
    line = {"material_id": name, "settings_hash": "other", "input_hash": "h"}
    (folder / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match="was not written by .* its material_id"):
        labels.ComputeFolder(folder, FAST.hash(), True)
    assert victim.read_text() == "mine"


def test_a_manifest_that_is_a_link_is_not_written(tmp_path):
    folder, victim = tmp_path / "out", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("")
    (folder / "manifest.jsonl").symlink_to(victim)
    line = {"material_id": "a", "settings_hash": FAST.hash(), "input_hash": "h"}
    with (
        pytest.raises(UserError, match="cannot be written"),
        labels.ComputeFolder(folder, FAST.hash(), False) as opened,
    ):
        opened.add(line, failed=False)
    assert victim.read_text() == ""


def test_only_work_folders_of_this_command_are_removed(tmp_path):
    for name in (".mattergen_e-work-1", ".work-mine"):
        (tmp_path / name).mkdir()
    labels.ComputeFolder(tmp_path, FAST.hash(), False).close()
    assert [path.name for path in tmp_path.iterdir()] == [".work-mine"]


def test_the_first_setting_that_differs_is_named(tmp_path):
    line = {
        "material_id": "a",
        "settings_hash": FAST.hash(),
        "input_hash": "h",
        "settings": FAST.model_dump(mode="json"),
    }
    with labels.ComputeFolder(tmp_path, FAST.hash(), False) as folder:
        (tmp_path / "a.npz").write_bytes(b"")
        folder.add(line, failed=False)
    other = FAST.model_copy(update={"dos_width": 0.3})
    with pytest.raises(UserError, match=r"first: a, 'dos_width' was [0-9.]+ and is now 0.3\): choose"):
        labels.ComputeFolder(tmp_path, other.hash(), False, other.model_dump(mode="json"))
    with labels.ComputeFolder(tmp_path, other.hash(), True) as folder:
        assert folder.done == {} and not (tmp_path / "a.npz").exists()


def test_two_runs_do_not_share_a_folder(tmp_path):
    with labels.ComputeFolder(tmp_path, FAST.hash(), False), pytest.raises(UserError, match="in use by another run"):
        labels.ComputeFolder(tmp_path, FAST.hash(), False)


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", " a", "new\nline", "x" * 300])
def test_ids_that_are_no_names_of_files(tmp_path, name):
    with pytest.raises(UserError, match="cannot be the name of a file"):
        labels.compute([NamedStructure(name, lih())], tmp_path / "out", python=sys.executable)
    assert not (tmp_path / "out").exists()


def test_ids_must_differ(tmp_path):
    with pytest.raises(UserError, match="Two crystals have the id 'x'"):
        labels.compute([NamedStructure("x", lih())] * 2, tmp_path / "out", python=sys.executable)


def test_a_python_without_gpaw_is_named_with_the_remedies(tmp_path):
    for path in (tmp_path / "nowhere", Path("/bin/false"), Path("/bin/true")):
        with pytest.raises(UserError) as caught:
            labels.find_python(path)
        text = str(caught.value)
        assert str(path) in text and "apt-get install gpaw" in text and "--python" in text and "\n" not in text


@pytest.mark.parametrize(
    ("option", "value"), [("cutoff", -1.0), ("refinement", 3), ("bands", 0.5), ("calculator", "vasp")]
)
def test_options_out_of_range_are_named(tmp_path, option, value):
    from mattergen_e.cli.compute import command

    with pytest.raises(UserError, match=f"^--{option} ") as caught:
        command([tmp_path], tmp_path / "out", **{option: value})
    assert "\n" not in str(caught.value)


def test_negative_numbers_in_a_density_are_read_right(tmp_path):
    """Plane waves ripple below zero in voids; baderkit's own reader of CHGCAR takes such numbers apart."""
    from mattergen_e.labels.computed.calculation import _bader
    from mattergen_e.labels.computed.worker import write_chgcar

    cell, frac = np.eye(3) * 4.0, np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    points = np.stack(np.meshgrid(*[np.arange(24) / 24] * 3, indexing="ij"), axis=-1)
    density = 2e-4 * np.cos(2 * np.pi * 6 * points).prod(-1)  # of no electrons
    for centre, electrons in zip(frac, (1.0, 3.0), strict=True):
        away = (points - centre + 0.5) % 1 - 0.5
        peak = np.exp(-0.5 * ((away @ cell) ** 2).sum(-1) / 0.4**2)
        density += electrons * peak / (peak.sum() * 64 / 24**3)
    order = write_chgcar(tmp_path / "CHGCAR", cell, ["H", "Li"], frac, density)
    assert density.min() < 0 and density.mean() * 64 == pytest.approx(4.0)
    made, _, _ = _bader(tmp_path / "CHGCAR", Structure(cell, ["H", "Li"], frac), np.array(order), BaderSettings())
    np.testing.assert_allclose(made["bader"], [0.0, 0.0], atol=0.05)
