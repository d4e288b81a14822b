"""Whole screenings: the textbook crystals as generated ones, and three of them with CHGNet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.energies.relaxation import RelaxSettings
from mattergen_e.errors import UserError
from mattergen_e.screening.run import Screening, screen
from mattergen_e.screening.settings import ScreenSettings
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.spectra.objects import CrystalSpectra

#: Measured enthalpies of formation in eV/atom (CRC handbook, rounded); those of the elements are zero.
ENERGIES = {
    "MgSe": -1.41, "BaS": -2.38, "NaI": -1.49, "SrTe": -2.0, "AgBr": -0.52, "CsH": -0.28, "ZnSe": -0.85, "BeTe": -0.5,
    "CdTe": -0.48, "Mg2Si": -0.27, "HgF2": -1.46, "Al2O3": -3.47,
}  # fmt: skip


@pytest.fixture
def output(textbook: dict[str, Any], write_output: Callable, evaluated: Callable, tmp_path: Path) -> Path:
    """The twelve crystals as gen_3 to gen_14, relaxed by an evaluation except CsH; MgSe twice, in another cell too."""
    crystals = {**textbook, "again": textbook["MgSe"] * (1, 1, 2)}
    folder = write_output(tmp_path / "out", crystals)
    evaluated(folder, {**ENERGIES, "CsH": None})
    return folder


@pytest.fixture
def short(zero_elements: Callable, tmp_path: Path) -> Path:
    return zero_elements(tmp_path / "short")


@pytest.fixture
def run(output: Path, short: Path, predictor: Path, write_curve: Callable) -> Callable[..., Screening]:
    """Runs a screening with these settings."""

    def make(**settings: Any) -> Screening:
        given: dict[str, Any] = {"target": settings.pop("target", None) or write_curve(), "predictor": predictor}
        return screen(output, ScreenSettings(**given | settings), out=short, jobs=1)

    return make


def predicted(predictor: Path, *structures: Any) -> np.ndarray:
    from mattergen_e.crystals.reading import NamedStructure
    from mattergen_e.networks.predictor.folder import load
    from mattergen_e.networks.predictor.output import predict_structures

    found = predict_structures(load(predictor), [NamedStructure(str(i), s) for i, s in enumerate(structures)])
    return np.stack([item.total for item in found]).astype(float)


def test_the_crystal_that_has_the_target_is_found(
    run: Callable, predictor: Path, textbook: dict[str, Any], write_curve: Callable
) -> None:
    """The target is what the predictor says of MgSe; of crystals below -0.5 eV/atom, it comes first, and once."""
    stable = [name for name, energy in ENERGIES.items() if energy <= -0.5 and name != "CsH"]
    curves = predicted(predictor, *(textbook[name] for name in stable))
    grid = EnergyGrid(minimum=-10, maximum=10, points=32)
    wanted = curves[stable.index("MgSe")]
    found = run(target=write_curve(energies=grid.energies, dos=wanted), max_formation_energy=-0.5, top=3)
    by_hand = 1 - curves @ wanted / np.linalg.norm(curves, axis=1) / np.linalg.norm(wanted)
    order = np.argsort(by_hand, kind="stable")[:3]
    assert [row["formula"] for row in found.shortlist] == [stable[i] for i in order]
    assert found.shortlist[0]["formula"] == "MgSe" and found.shortlist[0]["distance"] < 1e-4
    assert [row["distance"] for row in found.shortlist] == pytest.approx(by_hand[order].tolist(), abs=1e-4)
    dropped = found.summary["counts"]["dropped"]
    assert dropped == {"not_relaxed": 1, "formation_energy_per_atom": 2, "duplicate": 1, "rank": 6}
    assert found.summary["counts"]["asked"] == 13 and found.summary["relaxations_of_evaluation"] == 13
    assert {row["id"]: row["duplicate_of"] for row in found.rows if row["duplicate_of"]} in (
        {"gen_15": "gen_3"}, {"gen_3": "gen_15"}
    )  # fmt: skip


def test_files(run: Callable, short: Path, output: Path) -> None:
    from mattergen_e.crystals.reading import read_structures
    from mattergen_e.evaluation.candidates import read_candidates
    from mattergen_e.evaluation.labels import Label, Labels, pair
    from mattergen_e.targets.files import read_curves

    found = run(top=2, max_formation_energy=-1.0)
    ids = [row["id"] for row in found.shortlist]
    summary = json.loads((short / "screening.json").read_text())
    assert summary["shortlist"] == found.shortlist == json.loads((short / "shortlist.json").read_text())
    written = {str(p.relative_to(short)) for p in short.rglob("*") if p.is_file() and p.parent.name != "stages"}
    assert set(summary["files"]) | {"screening.json"} == written
    assert {f"crystals/{ids[0]}.cif", f"plots/01_{ids[0]}.png", f"vasp/{ids[1]}/relax/POTCAR.spec"} < written
    assert summary["target"]["file"] == "target.csv" and len(summary["predictor"]["fingerprint"]) == 64
    assert summary["provenance"]["seed"] == 0 and summary["calculator"]["name"] == "chgnet"
    assert [curve.name for curve in read_curves(short / "spectra.npz")] == ids
    assert "_atom_site_bader_charge" in (short / f"crystals/{ids[0]}.cif").read_text()
    named = read_structures([short / "crystals"])  # as `mattergen-e data compute` does
    labels = Labels([Label(item.id, item.structure, None) for item in named], None, "computed", "")
    pairs, _ = pair(read_candidates(output).readable, labels)
    assert sorted(f"gen_{p.candidate.index}" for p in pairs) == sorted(ids)


def test_a_rerun_computes_nothing_and_writes_the_same(run: Callable, short: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in short.rglob("*") if p.is_file() and p.name != "screening.json"}

    first = run(top=3)
    before = contents()
    second = run(top=3)
    assert sum(first.computed.values()) == 12 and sum(second.computed.values()) == 0
    assert contents() == before
    fewer = run(top=1)
    assert sum(fewer.computed.values()) == 0 and len(list((short / "crystals").iterdir())) == 1


def test_none_passes(run: Callable, short: Path) -> None:
    run(top=2)
    found = run(max_formation_energy=-9.0)
    assert found.shortlist == [] and not (short / "crystals").exists()
    lowest = {"id": "gen_14", "formula": "Al2O3", "value": pytest.approx(-3.47)}
    assert found.summary["lowest"]["formation_energy_per_atom"] == lowest
    assert (short / "shortlist.csv").read_text().count("\n") == 1 and found.computed["spectra"] == 0


def test_sites_of_a_crystal(run: Callable, predictor: Path, textbook: dict[str, Any], write_curve: Callable) -> None:
    """The second site of BaS is the sulphur."""
    from mattergen_e.crystals.reading import NamedStructure
    from mattergen_e.networks.predictor.folder import load
    from mattergen_e.networks.predictor.output import predict_structures

    (sulphide,) = predict_structures(load(predictor), [NamedStructure("x", textbook["BaS"])])
    grid = EnergyGrid(minimum=-15, maximum=5, points=64)
    path = write_curve(energies=grid.energies, dos=sulphide.sites[1].astype(float))
    for site in ("any", 1):
        found = run(target=path, site=site, top=1)
        assert (found.shortlist[0]["formula"], found.shortlist[0]["site"]) == ("BaS", 1)
        assert found.shortlist[0]["distance"] < 1e-4


def test_generated_spectra(
    textbook: dict[str, Any], write_output: Callable, evaluated: Callable, zero_elements: Callable,
    write_curve: Callable, tmp_path: Path,
) -> None:  # fmt: skip
    """Per-atom means of the generated spectra of sites; CdTe's two peaks are at the target's -2 eV on average."""
    grid = EnergyGrid(minimum=-15, maximum=5, points=100)

    def made(*centres: float) -> CrystalSpectra:
        values = np.exp(-0.5 * (grid.energies - np.array(centres)[:, None]) ** 2).astype(np.float32)
        return CrystalSpectra(values, grid, np.zeros((len(centres), 2), np.float32), "x")

    spectra = {"NaI": made(-2.5, -2.5), "CdTe": made(-2.0, -2.0), "ZnSe": made(-6.0, -2.0)}
    folder = write_output(tmp_path / "out", {name: textbook[name] for name in spectra}, spectra)
    evaluated(folder, ENERGIES)
    settings = ScreenSettings(target=write_curve(), predictor=None, distance="wasserstein", window=(-14, 3))
    with pytest.raises(UserError, match=r"given from -10 to 10|none of the grid") as error:
        screen(folder, settings.model_copy(update={"window": (-20, 3)}), out=tmp_path / "none", jobs=1)
    assert "--window" in str(error.value) and not (tmp_path / "none").exists()
    found = screen(folder, settings, out=zero_elements(tmp_path / "short"), jobs=1)
    assert [row["formula"] for row in found.shortlist] == ["CdTe", "NaI", "ZnSe"]
    assert [row["wasserstein"] for row in found.shortlist] == pytest.approx([0.0, 0.5, 2.0], abs=0.01)
    assert found.summary["predictor"] == {"kind": "generated"}


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"predictor": Path("nowhere")}, "predictor.yaml does not exist"),
        ({"predictor": None}, "--generated needs crystals that a joint model generated"),
        ({"max_energy_above_hull": 0.1}, "--max-energy-above-hull needs a hull"),
        ({"target": Path("nowhere.csv")}, "nowhere.csv does not exist"),
        ({"window": (3, 30)}, "--window"),
    ],
)
def test_refused(
    output: Path, predictor: Path, write_curve: Callable, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    settings = {"target": write_curve(), "predictor": predictor} | changes
    with pytest.raises(UserError) as error:
        screen(output, ScreenSettings(**settings), out=tmp_path / "new", jobs=1)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


# -- with a reference -------------------------------------------------------------------------------------------------


@pytest.fixture
def reference(textbook: dict[str, Any], tmp_path: Path) -> Path:
    """Three crystals, and the elements but sodium: BaS lies on the hull, ZnSe 0.15 above a lower ZnSe."""
    from mattergen_e.reference.build import BuildSettings, build

    energies = {"BaS": -2.38, "ZnSe": -1.0, "CdTe": -0.48}
    lines = [json.dumps({"id": name, "structure": textbook[name].as_dict()}) for name in energies]
    (tmp_path / "known.jsonl").write_text("\n".join(lines) + "\n")
    elements = {site.specie.symbol for structure in textbook.values() for site in structure} - {"Na"}
    rows = [f"{name},{energy}" for name, energy in [*energies.items(), *((symbol, 0.0) for symbol in sorted(elements))]]
    (tmp_path / "energies.csv").write_text("\n".join(["id,energy_per_atom", *rows]) + "\n")
    build([tmp_path / "known.jsonl"], tmp_path / "ref", BuildSettings(energies=tmp_path / "energies.csv"), jobs=1)
    return tmp_path / "ref"


def test_energies_relative_to_a_reference(
    output: Path, reference: Path, predictor: Path, write_curve: Callable, tmp_path: Path
) -> None:
    settings = ScreenSettings(target=write_curve(), predictor=predictor, max_energy_above_hull=0.1)
    found = screen(output, settings, reference=reference, out=tmp_path / "short", jobs=1)
    rows = {row["formula"]: row for row in found.rows}
    assert rows["BaS"]["energy_above_hull"] == pytest.approx(0.0, abs=1e-9)
    assert rows["ZnSe"]["energy_above_hull"] == pytest.approx(0.15)
    assert rows["ZnSe"]["dropped"] == "energy_above_hull" and rows["NaI"]["dropped"] == "no_energy"
    assert "Na" in rows["NaI"]["reason"]
    assert rows["Al2O3"]["formation_energy_per_atom"] == pytest.approx(-3.47)
    assert "another source (file)" in found.summary["warnings"][0]
    assert found.summary["reference"]["name"] == "ref"


# -- with CHGNet ------------------------------------------------------------------------------------------------------


def test_three_crystals_with_chgnet(
    textbook: dict[str, Any], write_output: Callable, predictor: Path, write_curve: Callable, tmp_path: Path
) -> None:
    """CHGNet's formation energies are those of the handbook within 0.15 eV/atom; a second screening relaxes none."""
    pytest.importorskip("chgnet")
    names = ("MgSe", "NaI", "ZnSe")
    folder = write_output(tmp_path / "out", {name: textbook[name] for name in names})
    settings = ScreenSettings(target=write_curve(), predictor=predictor, max_formation_energy=-1.2)
    found = screen(folder, settings, out=tmp_path / "a", jobs=1)
    energies = [row["formation_energy_per_atom"] for row in found.rows]
    assert energies == pytest.approx([ENERGIES[name] for name in names], abs=0.15)
    assert {row["formula"] for row in found.shortlist} == {"MgSe", "NaI"}
    assert found.computed == {"relaxation": 3, "elements": 5, "spectra": 2}
    again = screen(folder, settings, out=tmp_path / "b", evaluation=tmp_path / "a", jobs=1)
    assert again.computed["relaxation"] == 0 and again.summary["relaxations_of_evaluation"] == 3
    assert [row["distance"] for row in again.shortlist] == [row["distance"] for row in found.shortlist]
    faster = RelaxSettings(steps=1)
    once = screen(folder, settings, faster, out=tmp_path / "b", evaluation=tmp_path / "a", jobs=1)
    assert once.computed["relaxation"] == 3 and once.summary["relaxations_of_evaluation"] == 0
