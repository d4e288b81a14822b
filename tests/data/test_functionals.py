"""Labels of several functionals are no data set, unless somebody says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from vasprun import insulator

from mattergen_e.cli.data import app
from mattergen_e.data.build import build_cache
from mattergen_e.data.cache import load_manifest
from mattergen_e.errors import UserError
from mattergen_e.labels.run import label

ELEMENTS = ("Be", "Mg", "Ca", "Sr", "Ba", "Zn")
HSE: dict[str, Any] = {"LHFCALC": True, "AEXX": 0.25, "HFSCREEN": 0.2}


def run(folder: Path, i: int, spins: int = 1, **parameters: Any) -> None:
    made = insulator((ELEMENTS[i],), {ELEMENTS[i]: 2}, (-5.0, 1.0, 2.0), 1, efermi=-1.0, sigma=0.1)
    made.parameters = parameters
    if spins == 2:
        made.levels, made.filling = (value.repeat(2, axis=0) for value in (made.levels, made.filling))
    made.write(folder / f"run{i}")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Three of PBE, one of them with two spins; one of HSE06; two of PBE+U."""
    runs = tmp_path / "runs"
    run(runs, 0)
    run(runs, 1)
    run(runs, 2, spins=2)
    run(runs, 3, **HSE)
    run(runs, 4, LDAU=True, LDAUL=[2], LDAUU=[4.0], LDAUJ=[0.0])
    run(runs, 5, LDAU=True, LDAUL=[2], LDAUU=[5.0], LDAUJ=[0.0])
    label([runs], tmp_path / "labels", jobs=1, progress=False)
    return tmp_path / "labels"


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]


def test_a_mix_is_refused_with_its_counts(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"3 functionals \(PBE 3, PBE\+U 2, HSE06 1\).*--functional NAME") as caught:
        build_cache([labels], tmp_path / "cache", jobs=1, progress=False)
    assert "--mix-functionals" in str(caught.value) and not (tmp_path / "cache").exists()


def test_a_mix_that_was_asked_for(labels: Path, tmp_path: Path) -> None:
    manifest = build_cache([labels], tmp_path / "cache", mix_functionals=True, jobs=1, progress=False)
    assert manifest.crystals == 6 and manifest.functionals == {"PBE": 3, "PBE+U": 2, "HSE06": 1}
    assert manifest.spin_polarised == 1 and load_manifest(tmp_path / "cache") == manifest


def test_one_functional_is_selected(labels: Path, tmp_path: Path) -> None:
    manifest = build_cache([labels], tmp_path / "cache", functionals=["pbe"], jobs=1, progress=False)
    assert manifest.functionals == {"PBE": 3} and manifest.dropped_by_reason == {"other_functional": 3}
    assert "HSE06, which was not asked for" in " ".join(item.sentence for item in manifest.dropped)
    two = build_cache([labels], tmp_path / "two", functionals=["PBE", "HSE06"], strict=True, jobs=1, progress=False)
    assert two.functionals == {"PBE": 3, "HSE06": 1}
    with pytest.raises(UserError, match="No entry is left"):
        build_cache([labels], tmp_path / "none", functionals=["SCAN"], jobs=1, progress=False)


def test_two_values_of_u_for_one_element_are_a_mix(labels: Path, tmp_path: Path) -> None:
    manifest = build_cache([labels], tmp_path / "cache", functionals=["PBE+U"], jobs=1, progress=False)
    assert manifest.functionals == {"PBE+U": 2}  # barium and zinc have a U of their own each
    lines = lines_of(labels)
    lines[5]["record"]["method"]["u"] = {"Ba": 5.0}
    (labels / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=r"Ba has U = 4 eV in 'run4' and 5 eV in 'run5'"):
        build_cache([labels], tmp_path / "other", functionals=["PBE+U"], jobs=1, progress=False)


def test_labels_of_older_versions_are_of_an_unknown_functional(labels: Path, tmp_path: Path) -> None:
    """Their record has pymatgen's name of the run, or none at all; they go with any functional, and with each other."""
    lines = lines_of(labels)
    for i, line in enumerate(lines):
        line["record"] = {} if i == 2 else {"functional": "GGA"} if i != 0 else line["record"]
    (labels / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest = build_cache([labels], tmp_path / "cache", jobs=1, progress=False)
    assert manifest.functionals == {"unknown": 5, "PBE": 1} and manifest.dropped == []
    chosen = build_cache([labels], tmp_path / "chosen", functionals=["PBE"], jobs=1, progress=False)
    assert chosen.functionals == {"PBE": 1}
    both = build_cache([labels], tmp_path / "both", functionals=["PBE", "unknown"], jobs=1, progress=False)
    assert both.crystals == 6


def test_lines_of_others_may_tell(tmp_path: Path) -> None:
    cell, sites = [[4.12, 0, 0], [0, 4.12, 0], [0, 0, 4.12]], [[0, 0, 0], [2.06, 2.06, 2.06]]
    entry = {"species": ["Cs", "Cl"], "cell": cell, "positions": sites, "bader_charge": [0.8, -0.8]}
    told = [{"functional": "PBE"}, {"functional": "R2SCAN"}, {"functional": 7}, {"method": "relax"}, {}]
    entries = [entry | {"material_id": str(i)} | one for i, one in enumerate(told)]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in entries))
    with pytest.raises(UserError, match=r"2 functionals \(PBE 1, R2SCAN 1\)"):
        build_cache([path], tmp_path / "cache", jobs=1, progress=False)
    path.write_text("".join(json.dumps(line) + "\n" for line in (entries[0], *entries[2:])))
    manifest = build_cache([path], tmp_path / "cache", jobs=1, progress=False)
    assert manifest.functionals == {"unknown": 3, "PBE": 1}


def test_the_commands_count_and_select(labels: Path, tmp_path: Path) -> None:
    def printed(*words: str | Path) -> str:
        result = CliRunner().invoke(app, list(map(str, words)))
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    counts = "Functionals: PBE 3, PBE+U 2, HSE06 1; 1 of them spin-polarised"
    assert counts in printed("label", tmp_path / "runs", "-o", labels, "--jobs", "1")
    assert counts in printed("build", labels, "-o", tmp_path / "all", "--mix-functionals", "--jobs", "1")
    assert counts in printed("show", tmp_path / "all")
    chosen = printed("build", labels, "-o", tmp_path / "one", "--functional", "HSE06", "--jobs", "1")
    assert "Functionals: HSE06 1" in chosen and "other_functional" in chosen
    result = CliRunner().invoke(app, ["build", str(labels), "-o", str(tmp_path / "mix"), "--jobs", "1"])
    assert isinstance(result.exception, UserError) and "--mix-functionals" in str(result.exception)


def test_flipped_signs_are_a_warning(tmp_path: Path) -> None:
    cell, sites = [[4.12, 0, 0], [0, 4.12, 0], [0, 0, 4.12]], [[0, 0, 0], [2.06, 2.06, 2.06]]
    path = tmp_path / "x.jsonl"
    for sign, n in ((1, 0), (-1, 1)):
        entry = {"species": ["Cs", "Cl"], "cell": cell, "positions": sites, "bader_charge": [0.8 * sign, -0.8 * sign]}
        path.write_text("".join(json.dumps(entry | {"material_id": str(i)}) + "\n" for i in range(3)))
        manifest = build_cache([path], tmp_path / str(n), jobs=1, progress=False)
        assert manifest.crystals == 3 and len(manifest.warnings) == n
    assert "The charges of 3 of 3 crystals oppose electronegativity" in manifest.warnings[0]
    result = CliRunner().invoke(app, ["show", str(tmp_path / "1")])
    assert "oppose electronegativity" in " ".join(result.output.split())
