"""Reading generated crystals of any origin, broken ones among them."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.evaluation.candidates import NOT_GENERATED, Candidates, read_candidates, structure_key
from mattergen_e.generation.formats import CIF_ZIP_NAME, EXTXYZ_NAME, JSONL_NAME, Generated, batch_files
from mattergen_e.spectra.files import DOS_NAME


def write_run(folder: Path, structures: list[Any], *, failed: int = 0, **settings: Any) -> Path:
    """Output of a joint model, with run.json."""
    folder.mkdir(exist_ok=True)
    conditions = settings.get("conditions", {})
    crystals = [Generated(i, 0, s, conditions, 7) for i, s in enumerate(structures)]
    if crystals:
        for name, content in batch_files(crystals).items():
            (folder / name).write_bytes(content)
    else:
        (folder / JSONL_NAME).write_bytes(b"")
    record = {
        "status": "finished", "command": ["mattergen-generate"], "started": "2026-11-20T12:00:00Z", "seed": 7,
        "settings": settings, "provenance": {}, "crystals": len(crystals), "failed": failed,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def reasons(candidates: Candidates) -> list[str | None]:
    """Of all crystals."""
    return [candidate.reason for candidate in candidates]


def test_a_run_counts_the_crystals_that_failed(tmp_path: Path, solids: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", list(solids.values()), failed=3, conditions={"dft_band_gap": 3.0})
    found = read_candidates(run)
    assert len(found) == len(solids) + 3 and len(found.readable) == len(solids)
    assert [candidate.index for candidate in found] == list(range(11))
    assert reasons(found)[-3:] == [NOT_GENERATED] * 3
    assert found.conditions == {"dft_band_gap": 3.0} and found[-1].conditions == {"dft_band_gap": 3.0}
    assert [file.name for file in found.files] == [JSONL_NAME, "run.json"]
    charges = found[0].structure.site_properties["bader_charge"]
    assert charges == pytest.approx(next(iter(solids.values())).site_properties["bader_charge"])


def test_crystals_that_never_came_were_asked_for_their_own_values(tmp_path: Path, solids: dict[str, Any]) -> None:
    """Several values are given to crystals in turn, also to those that no draw gave."""
    run = write_run(tmp_path / "run", [solids["NaCl"]], failed=3, conditions={"dft_band_gap": [1.0, 3.0]})
    found = read_candidates(run)
    assert [candidate.conditions for candidate in found[1:]] == [{"dft_band_gap": value} for value in (3.0, 1.0, 3.0)]


def test_gaps_in_the_indices_are_the_failed_ones(tmp_path: Path, solids: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", list(solids.values()), failed=1)
    lines = (run / JSONL_NAME).read_text().splitlines()
    shifted = [json.dumps({**json.loads(line), "index": i + (i >= 2)}) for i, line in enumerate(lines)]
    (run / JSONL_NAME).write_text("\n".join(shifted) + "\n")
    found = read_candidates(run)
    assert [candidate.index for candidate in found if candidate.reason] == [2]


def test_all_forms_hold_the_same_crystals(tmp_path: Path, solids: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", list(solids.values()))
    by_form = [read_candidates(run / name) for name in (JSONL_NAME, EXTXYZ_NAME, CIF_ZIP_NAME)]
    for other in by_form[1:]:
        assert len(other) == len(solids)
        for first, second in zip(by_form[0], other, strict=True):
            assert first.index == second.index
            one, two = _in_order(first.structure), _in_order(second.structure)
            assert [site.specie for site in one] == [site.specie for site in two]
            shift = np.array([site.frac_coords for site in one]) - [site.frac_coords for site in two]
            assert np.allclose(shift - np.round(shift), 0, atol=1e-6)
            assert one[0].lattice.abc == pytest.approx(two[0].lattice.abc, abs=1e-6)


def _in_order(structure: Any) -> list[Any]:
    """Sites by element and position; a CIF has them in another order."""
    return sorted(structure, key=lambda site: (site.specie.Z, *site.frac_coords.round(4) % 1))


def test_plain_mattergen_output_needs_no_run_json(tmp_path: Path, solids: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", list(solids.values()))
    for name in (JSONL_NAME, "run.json"):
        (run / name).unlink()
    found = read_candidates(run, asked=10)
    assert len(found) == 10 and reasons(found).count(NOT_GENERATED) == 2
    (run / EXTXYZ_NAME).unlink()
    assert len(read_candidates(run)) == len(solids)


def test_a_folder_of_cifs_is_read_in_the_order_of_their_numbers(tmp_path: Path, solids: dict[str, Any]) -> None:
    for number in (10, 2, 1):
        solids["NaCl"].to(str(tmp_path / f"crystal_{number}.cif"))
    (tmp_path / "crystal_3.cif").write_text("data_broken\n_cell_length_a   ?\n")
    (tmp_path / "notes.txt").write_text("nothing")
    found = read_candidates(tmp_path)
    assert [candidate.name for candidate in found] == [f"crystal_{n}.cif" for n in (1, 2, 3, 10)]
    assert reasons(found) == [None, None, "broken_cif", None]
    assert "crystal_3.cif cannot be read" in str(found[2].sentence)
    assert len(read_candidates(tmp_path / "crystal_10.cif")) == 1


def test_a_broken_cif_in_the_zip_costs_itself_only(tmp_path: Path, solids: dict[str, Any]) -> None:
    file = tmp_path / "crystals.zip"
    with ZipFile(file, "w") as archive:
        archive.writestr("gen_0.cif", solids["MgO"].to(fmt="cif"))
        archive.writestr("gen_1.cif", "no CIF at all \x00\xff")
        archive.writestr("gen_2.cif", b"\xff\xfe\x00")
        archive.writestr("gen_11.cif", solids["NaCl"].to(fmt="cif"))
    found = read_candidates(file)
    assert [(c.index, c.reason) for c in found] == [(0, None), (1, "broken_cif"), (2, "broken_cif"), (11, None)]
    (tmp_path / "cut.zip").write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match="no zip file or is cut off"):
        read_candidates(tmp_path / "cut.zip")


def test_sites_on_top_of_each_other_stay_two(tmp_path: Path) -> None:
    from pymatgen.core import Lattice, Structure

    stacked = Structure(Lattice.cubic(4), ["Na", "Na", "Cl"], [[0, 0, 0], [0, 0, 0], [0.5, 0.5, 0.5]])
    run = write_run(tmp_path / "run", [stacked])
    for name in (JSONL_NAME, EXTXYZ_NAME):
        found = read_candidates(run / name)
        assert reasons(found) == [None] and len(found[0].structure) == 3, name
    assert reasons(read_candidates(run / CIF_ZIP_NAME)) == ["overlapping_sites"]  # the reader of CIFs joins them


def _line(structure: Any, **changes: Any) -> str:
    return json.dumps({"index": 0, "structure": {**structure.as_dict(), **changes}})


def test_cells_and_sites_that_are_none(tmp_path: Path, solids: dict[str, Any]) -> None:
    from pymatgen.core import Lattice, Structure

    nan_cell = solids["NaCl"].as_dict()["lattice"]
    nan_cell["matrix"] = [[math.nan] * 3, *nan_cell["matrix"][1:]]
    nan_site = solids["NaCl"].copy().as_dict()["sites"]
    nan_site[0]["abc"] = [math.nan, 0.0, 0.0]
    flat = Structure(Lattice.from_parameters(4, 4, 1e-4, 90, 90, 90), ["Na"], [[0, 0, 0]])
    shared = Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    dummy = Structure(Lattice.cubic(4), ["X"], [[0, 0, 0]])
    lines = [
        _line(solids["NaCl"]),
        _line(solids["NaCl"], lattice=nan_cell),
        _line(solids["NaCl"], sites=nan_site),
        _line(flat),
        _line(shared),
        _line(dummy),
        _line(solids["NaCl"], sites=[]),
        "{torn",
        "[]",
        _line(solids["NaCl"]).replace('"Na"', '"Qq"'),
    ]
    (tmp_path / JSONL_NAME).write_text("\n".join(lines) + "\n")
    found = read_candidates(tmp_path)
    assert reasons(found) == [
        None, "absurd_cell", "absurd_cell", "absurd_cell", "disordered", "unknown_element", "broken_entry",
        "broken_entry", "broken_entry", "broken_entry",
    ]  # fmt: skip
    assert all(candidate.sentence for candidate in found if candidate.reason)
    assert len({candidate.key for candidate in found}) == 10  # failed ones do not share a key


def test_a_sound_crystal_in_a_long_and_flat_cell_can_be_judged(tmp_path: Path, solids: dict[str, Any]) -> None:
    sheared = solids["NaCl"].copy()
    sheared.make_supercell([[1, 0, 0], [0, 1, 0], [80, 0, 1]])
    assert max(sheared.lattice.abc) ** 3 / sheared.volume > 1e5 and len(sheared) == 2
    found = read_candidates(write_run(tmp_path / "run", [sheared]))
    assert reasons(found) == [None]
    assert max(found[0].structure.lattice.abc) == pytest.approx(max(sheared.lattice.abc))  # as it was generated


def test_an_extxyz_keeps_the_indices_of_its_crystals(tmp_path: Path, solids: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", [solids["NaCl"], solids["MgO"]])
    file = tmp_path / "later.extxyz"
    file.write_text((run / EXTXYZ_NAME).read_text().replace("index=0", "index=7").replace("index=1", "index=4"))
    found = {c.index: c.structure.reduced_formula for c in read_candidates(file) if c.structure is not None}
    assert found == {7: "NaCl", 4: "MgO"}


def test_a_broken_count_of_sites_ends_an_extxyz(tmp_path: Path, solids: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", [solids["NaCl"], solids["MgO"], solids["CsCl"]])
    text = (run / EXTXYZ_NAME).read_text().splitlines()
    text[4] = "two"
    file = tmp_path / "broken.extxyz"
    file.write_text("\n".join(text))
    assert reasons(read_candidates(file, asked=3)) == [None, "broken_entry", NOT_GENERATED]
    file.write_text("\n".join([*text[:4], "2", 'Lattice="nan" pbc="T T T"', *text[6:]]))
    assert reasons(read_candidates(file)) == [None, "broken_entry", None]


def test_the_key_is_that_of_the_crystal(solids: dict[str, Any]) -> None:
    nacl = solids["NaCl"]
    bare = nacl.copy()
    bare.remove_site_property("bader_charge")
    assert structure_key(bare) == structure_key(nacl)
    assert structure_key(nacl.copy().scale_lattice(nacl.volume * 1.0001)) != structure_key(nacl)
    moved = nacl.copy()
    moved.translate_sites([0], [0, 0, 1e-9])
    assert structure_key(moved) != structure_key(nacl)
    assert len({structure_key(solid) for solid in solids.values()}) == len(solids)


def test_oxidation_states_are_dropped(tmp_path: Path, solids: dict[str, Any]) -> None:
    charged = solids["NaCl"].copy()
    charged.add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    (tmp_path / "a.jsonl").write_text(_line(charged) + "\n" + _line(solids["NaCl"]) + "\n")
    first, second = read_candidates(tmp_path / "a.jsonl")
    assert first.key == second.key and first.index != second.index


def test_spectra_come_along(tmp_path: Path, solids: dict[str, Any]) -> None:
    from mattergen_e.spectra.grid import EnergyGrid
    from mattergen_e.spectra.objects import CrystalSpectra

    grid = EnergyGrid(minimum=-15, maximum=5, points=16)
    spectra = CrystalSpectra(np.ones((2, 16), np.float32), grid, np.zeros((2, 4), np.float32), "f")
    crystals = [Generated(i, 0, solids["NaCl"], {}, 0, spectra=spectra if i else None) for i in range(2)]
    for name, content in batch_files(crystals).items():
        (tmp_path / name).write_bytes(content)
    found = read_candidates(tmp_path)
    assert found[0].spectra is None and np.array_equal(found[1].spectra.spectra, spectra.spectra)
    assert DOS_NAME in [file.name for file in found.files]


@pytest.mark.parametrize("make", ["nothing", "folder", "text", "empty_lines", "damaged_record"])
def test_what_holds_no_crystals_is_one_sentence(make: str, tmp_path: Path) -> None:
    path = tmp_path / "out"
    if make in ("folder", "empty_lines", "damaged_record"):
        path.mkdir()
        if make != "folder":
            (path / JSONL_NAME).write_text("\n")
        if make == "damaged_record":
            (path / "run.json").write_text("{}")
    if make == "text":
        path.write_text("hello")
    with pytest.raises(UserError) as caught:
        read_candidates(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_fewer_asked_for_than_there_are(tmp_path: Path, solids: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="--asked is 7"):
        read_candidates(write_run(tmp_path / "run", list(solids.values())), asked=7)


def test_a_run_in_which_every_draw_failed(tmp_path: Path) -> None:
    found = read_candidates(write_run(tmp_path / "run", [], failed=4, conditions={"dft_band_gap": 1.0}))
    assert reasons(found) == [NOT_GENERATED] * 4 and found.conditions == {"dft_band_gap": 1.0}


# -- files of others --------------------------------------------------------------------------------------------------


def test_crystals_of_others_keep_their_number_of_atoms(tmp_path: Path, conventional: dict[str, Any]) -> None:
    """Graphite and wurtzite, as databases round them, and a packed POSCAR."""
    from pymatgen.core import Lattice, Structure
    from pymatgen.io.cif import CifWriter

    graphite = Structure.from_spacegroup(
        "P6_3/mmc", Lattice.hexagonal(2.461, 6.708), ["C", "C"], [[0, 0, 0.25], [1 / 3, 2 / 3, 0.25]]
    )
    texts = {
        "graphite.cif": str(CifWriter(graphite, symprec=0.01, significant_figures=4)),
        "zns.cif": str(CifWriter(conventional["ZnS"], symprec=0.01)),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    with ZipFile(tmp_path / "some.zip", "w") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    (tmp_path / "POSCAR.gz").write_bytes(gzip.compress(conventional["MgO"].to(fmt="poscar").encode()))
    found = read_candidates(tmp_path)
    formulas = [candidate.structure.formula for candidate in found.readable]
    assert formulas == ["Mg4 O4", "C4", "C4", "Zn2 S2", "Zn2 S2"] and len(found) == 5
