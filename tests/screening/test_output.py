"""Files of a shortlist: replaced, removed when they are stale, left alone when somebody changed them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.screening import output
from mattergen_e.screening.ranking import COLUMNS

FIRST = {"shortlist.csv": b"a", "crystals/gen_1.cif": b"1", "vasp/gen_1/relax/INCAR": b"i", "gpaw_dos.py": b"g"}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_rerun_replaces_and_removes(tmp_path: Path) -> None:
    assert output.write(tmp_path, FIRST, {"x": 1}) == []
    second = {"shortlist.csv": b"b", "crystals/gen_2.cif": b"2"}
    (tmp_path / "notes.txt").write_text("mine")
    assert output.write(tmp_path, second, {"x": 2}) == []
    left = files(tmp_path)
    assert json.loads(left.pop("screening.json"))["x"] == 2
    assert left == {**second, "notes.txt": b"mine"} and not (tmp_path / "vasp").exists()


def test_inputs_and_results_of_others_stay(tmp_path: Path) -> None:
    output.write(tmp_path, FIRST, {})
    relax = tmp_path / "vasp" / "gen_1" / "relax"
    (relax / "INCAR").write_bytes(b"changed")
    (relax / "OUTCAR").write_bytes(b"hours of work")
    (tmp_path / "shortlist.csv").write_bytes(b"spoilt")
    for _ in range(2):
        assert output.write(tmp_path, FIRST, {}) == ["vasp/gen_1/relax/INCAR"]
        assert (relax / "INCAR").read_bytes() == b"changed" and (tmp_path / "shortlist.csv").read_bytes() == b"a"
    output.write(tmp_path, {"shortlist.csv": b"c"}, {})
    assert sorted(files(tmp_path)) == [
        "screening.json", "shortlist.csv", "vasp/gen_1/relax/INCAR", "vasp/gen_1/relax/OUTCAR"
    ]  # fmt: skip


def test_nothing_outside_of_the_folder_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "short"
    out.mkdir()
    (tmp_path / "precious").write_bytes(b"p")
    digest = output._hash(b"p")
    (out / "screening.json").write_text(
        json.dumps({"files": {"../precious": digest, str(tmp_path / "precious"): digest}})
    )
    output.write(out, {}, {})
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"files": []}', '{"files": {"a": 1}}'])
def test_a_damaged_summary_is_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "screening.json").write_text(content)
    output.write(tmp_path, {"shortlist.csv": b"a"}, {})
    assert json.loads((tmp_path / "screening.json").read_text())["files"] == {"shortlist.csv": output._hash(b"a")}


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "crystals").mkdir()
    with pytest.raises(UserError, match="holds crystals, but is no shortlist"), output.held(tmp_path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["crystals"]
    with pytest.raises(UserError, match="cannot be written to"), output.held(Path("/proc/nowhere/short")):
        pass


def test_a_folder_is_held_once(tmp_path: Path) -> None:
    with output.held(tmp_path / "a"), pytest.raises(UserError, match="is in use"), output.held(tmp_path / "a"):
        pass
    with output.held(tmp_path / "a"):
        pass


def test_table() -> None:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"rank": 1, "name": "=1+1", "distance": 0.1 + 0.2, "converged": True}
    (found,) = csv.DictReader(io.StringIO(output.to_csv([row]).decode()))
    assert found["rank"] == "1" and found["name"] == "'=1+1" and float(found["distance"]) == 0.1 + 0.2
    assert found["converged"] == "true" and found["site"] == "" and list(found) == list(COLUMNS)
    assert output.to_csv([]).decode().strip() == ",".join(COLUMNS)


def test_cif_keeps_the_sites_and_their_charges(textbook: dict[str, Any], tmp_path: Path) -> None:
    from mattergen_e.crystals.reading import read_structures

    crystal = textbook["Al2O3"].copy()
    crystal.add_site_property("vector", [[0.0, 1.0]] * len(crystal))
    (tmp_path / "gen_9.cif").write_bytes(output.to_cif(crystal))
    (found,) = read_structures([tmp_path])
    assert found.id == "gen_9" and found.structure.species == crystal.species
    assert np.allclose(found.structure.frac_coords % 1, crystal.frac_coords % 1, atol=1e-4)
    text = (tmp_path / "gen_9.cif").read_text()
    column = [float(line.split()[-1]) for line in text.splitlines() if line.split()[:1] in (["Al"], ["O"])]
    assert column == crystal.site_properties["bader_charge"] and "vector" not in text
