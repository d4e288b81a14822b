"""Reading structures from whatever a user has."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import ase.io
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter

from mattergen_e.crystals.entries import read_entries
from mattergen_e.crystals.reading import NamedStructure, read_readable, read_structures
from mattergen_e.errors import UserError
from mattergen_e.generation.formats import Generated, batch_files


@pytest.fixture
def bare(solids):
    """The solids without site properties."""
    found = {}
    for name, structure in solids.items():
        found[name] = Structure(structure.lattice, structure.species, structure.frac_coords)
    return found


def assert_same_crystal(a: Structure, b: Structure, tolerance: float = 1e-4) -> None:
    assert np.allclose(a.lattice.abc, b.lattice.abc, atol=tolerance)
    assert np.allclose(a.lattice.angles, b.lattice.angles, atol=1e-2)
    assert [s.specie.symbol for s in a] == [s.specie.symbol for s in b]
    difference = a.frac_coords - b.frac_coords
    assert np.abs(difference - np.round(difference)).max() < tolerance


def lines(path: Path, *entries) -> Path:
    path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in entries), encoding="utf-8")
    return path


# -- formats ----------------------------------------------------------------------------------------------------------


def test_cif(tmp_path, bare):
    CifWriter(bare["BaTiO3"]).write_file(tmp_path / "mine.cif")
    (found,) = read_structures([tmp_path / "mine.cif"])
    assert found.id == "mine"
    assert_same_crystal(found.structure, bare["BaTiO3"])


@pytest.mark.parametrize(
    ("name", "id"), [("x.vasp", "x"), ("y.poscar", "y"), ("POSCAR", "run"), ("CONTCAR_3", "CONTCAR_3")]
)
def test_poscar(tmp_path, bare, name, id):
    (tmp_path / "run").mkdir()
    bare["TiO2"].to(filename=str(tmp_path / "run" / name), fmt="poscar")
    (found,) = read_structures([tmp_path / "run" / name])
    assert found.id == id
    assert_same_crystal(found.structure, bare["TiO2"])


def test_extxyz_with_several_frames(tmp_path, bare):
    atoms = [AseAtomsAdaptor.get_atoms(bare[name]) for name in ("NaCl", "ZnS")]
    atoms[1].info["id"] = "wurtzite"
    ase.io.write(tmp_path / "two.extxyz", atoms, format="extxyz")
    first, second = read_structures([tmp_path / "two.extxyz"])
    assert (first.id, second.id) == ("two_0", "wurtzite")
    assert_same_crystal(first.structure, bare["NaCl"])
    assert_same_crystal(second.structure, bare["ZnS"])


def test_one_frame_goes_by_the_files_name(tmp_path, bare):
    ase.io.write(tmp_path / "one.xyz", AseAtomsAdaptor.get_atoms(bare["NaCl"]), format="extxyz")
    assert [s.id for s in read_structures([tmp_path / "one.xyz"])] == ["one"]


def test_json_lines(tmp_path, bare):
    path = lines(
        tmp_path / "set.jsonl",
        {"id": "a", "structure": bare["MgO"].as_dict()},
        "",
        {"material_id": "mp-1", "structure": bare["Li2O"].as_dict()},
        bare["CsCl"].as_dict(),
        {"id": 7, "structure": bare["NaCl"].as_dict()},
    )
    found = read_structures([path])
    assert [s.id for s in found] == ["a", "mp-1", "set_4", "7"]
    for named, name in zip(found, ("MgO", "Li2O", "CsCl", "NaCl"), strict=True):
        assert_same_crystal(named.structure, bare[name], 1e-9)


def test_json_file_of_pymatgen(tmp_path, bare):
    bare["MgO"].to(filename=str(tmp_path / "mgo.json"))
    (found,) = read_structures([tmp_path / "mgo.json"])
    assert found.id == "mgo_1"


def test_folders_are_searched_in_order_of_names(tmp_path, bare):
    (tmp_path / "deep").mkdir()
    for name in ("b.cif", "a.cif", "deep/c.cif"):
        CifWriter(bare["MgO"]).write_file(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a structure")
    (tmp_path / "OUTCAR").write_text("not a structure")
    assert [s.id for s in read_structures([tmp_path])] == ["a", "b", "c"]
    assert [s.id for s in read_structures([tmp_path / "deep", str(tmp_path / "b.cif")])] == ["c", "b"]


def test_results_are_named_structures(tmp_path, bare):
    bare["TiO2"].to(filename=str(tmp_path / "POSCAR"), fmt="poscar")
    assert all(isinstance(s, NamedStructure) for s in read_structures([tmp_path]))


# -- what others have, as they have it --------------------------------------------------------------------------------


def several(bare, *names) -> str:
    return "".join(str(CifWriter(bare[name])).replace("data_", "data_phase_") for name in names)


def test_every_block_of_a_cif_is_read(tmp_path, bare):
    (tmp_path / "two.cif").write_text(several(bare, "NaCl", "MgO"))
    (tmp_path / "alike.cif").write_text(several(bare, "NaCl", "NaCl"))
    found = read_structures([tmp_path / "two.cif", tmp_path / "alike.cif"])
    assert [one.id for one in found] == ["two_phase_NaCl", "two_phase_MgO", "alike_0", "alike_1"]
    assert_same_crystal(found[1].structure, bare["MgO"], 1e-7)


def test_one_broken_block_costs_itself_only(tmp_path, bare):
    (tmp_path / "two.cif").write_text(several(bare, "NaCl", "MgO").replace("0.50000000", "?", 1))
    first, second = read_entries(tmp_path / "two.cif")
    assert first.place == "block phase_NaCl" and "is not known" in first.problem
    assert second.structure is not None
    with pytest.raises(UserError, match=r"two\.cif, block phase_NaCl cannot be read: the place of site 'Cl0'"):
        read_structures([tmp_path / "two.cif"])


def test_blocks_of_a_cif_in_a_zip(tmp_path, bare):
    with ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("gen_4.cif", several(bare, "NaCl", "MgO"))
        archive.writestr("gen_5.cif", several(bare, "NaCl"))
    found = list(read_entries(tmp_path / "some.zip"))
    assert [one.id for one in found] == ["gen_4_phase_NaCl", "gen_4_phase_MgO", "gen_5"]
    assert [one.index for one in found] == [None, None, 5]


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])
def test_packed_files(tmp_path, bare, ending):
    opener = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}[ending]
    contents = {
        "a.cif": str(CifWriter(bare["MgO"])),
        "run/POSCAR": bare["MgO"].to(fmt="poscar"),
        "c.jsonl": json.dumps({"id": "line", "structure": bare["MgO"].as_dict()}),
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with opener(f"{tmp_path / name}{ending}", "wt") as file:
            file.write(content)
    found = read_structures([tmp_path])
    assert [one.id for one in found] == ["a", "line", "run"]
    for one in found:
        assert_same_crystal(one.structure, bare["MgO"], 1e-6)


def test_packed_file_that_was_cut_off(tmp_path, bare):
    content = gzip.compress(str(CifWriter(bare["MgO"])).encode())
    (tmp_path / "a.cif.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"a\.cif\.gz is damaged"):
        read_structures([tmp_path / "a.cif.gz"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", ["cif", "poscar", "extxyz", "json"])
def test_a_mark_before_the_text(tmp_path, bare, encoding, kind):
    path = tmp_path / f"x.{kind}"
    if kind == "extxyz":
        ase.io.write(path, AseAtomsAdaptor.get_atoms(bare["MgO"]), format="extxyz")
    else:
        path.write_text(bare["MgO"].to(fmt=kind))
    path.write_bytes(path.read_text().encode(encoding))
    (found,) = read_structures([path])
    assert_same_crystal(found.structure, bare["MgO"], 1e-6)


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_pretty_printed_json(tmp_path, bare, suffix):
    entries = [{"id": name, "structure": bare[name].as_dict()} for name in ("MgO", "CsCl")]
    contents = {
        "one": json.dumps(entries[0], indent=2),
        "list": json.dumps(entries, indent=2),
        "behind": "\n".join(json.dumps(entry, indent=2) for entry in entries) + "\n",
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.{suffix}").write_text(content)
        found = read_structures([tmp_path / f"{name}.{suffix}"])
        assert [one.id for one in found] == (["MgO"] if name == "one" else ["MgO", "CsCl"])


def test_heavy_hydrogen_is_hydrogen(tmp_path, bare):
    """LiD in each format; ASE knows no element D."""
    light = Structure(np.eye(3) * 4, ["Li", "H"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    given = json.loads(json.dumps(light.as_dict()).replace('"H"', '"D"'))
    lines(tmp_path / "a.jsonl", {"id": "a", "structure": given})
    (tmp_path / "b.cif").write_text(str(CifWriter(light)).replace("  H  H1", "  D  D1"))
    comment = 'Lattice="4 0 0 0 4 0 0 0 4" Properties=tag:I:1:species:S:1:pos:R:3'
    (tmp_path / "c.extxyz").write_text(f"2\n{comment}\n1 Li 0 0 0\n1 D 2 2 2\n")
    (tmp_path / "d.xyz").write_text('2\nLattice="4 0 0 0 4 0 0 0 4"\nLi 0 0 0\nT 2 2 2\n')
    found = read_structures([tmp_path])
    assert [one.id for one in found] == ["a", "b", "c", "d"]
    assert all([site.specie.symbol for site in one.structure] == ["Li", "H"] for one in found)
    assert [len(one.structure.composition) for one in found] == [2] * 4


# -- folders of VASP --------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path, bare):
    """Three runs: one finished, one that left an empty CONTCAR, one that left none; and what else lies there."""
    for name, formula in (("first", "NaCl"), ("second", "MgO"), ("third", "CsCl")):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        bare[formula].to(filename=str(folder / "POSCAR"), fmt="poscar")
        for other in ("INCAR", "KPOINTS", "OUTCAR", "XDATCAR"):
            (folder / other).write_text("of VASP")
    last = bare["NaCl"].copy().apply_strain(0.02)
    last.to(filename=str(tmp_path / "runs" / "first" / "CONTCAR"), fmt="poscar")
    (tmp_path / "runs" / "second" / "CONTCAR").write_text("")
    return tmp_path / "runs"


def test_a_folder_of_runs_gives_a_crystal_each(runs, bare):
    found = read_structures([runs])
    assert [one.id for one in found] == ["first", "second", "third"]
    assert found[0].structure.lattice.a == pytest.approx(1.02 * bare["NaCl"].lattice.a)
    assert_same_crystal(found[1].structure, bare["MgO"])


def test_runs_by_their_files_go_by_their_folders(runs):
    found = read_structures([runs / name / "POSCAR" for name in ("first", "second")])
    assert [one.id for one in found] == ["first", "second"]


def test_the_same_name_in_two_folders(runs, bare):
    for name in ("first", "second"):
        CifWriter(bare["MgO"]).write_file(runs / name / "relaxed.cif")
        (runs / f"{name}s" / "first").mkdir(parents=True)
        bare["MgO"].to(filename=str(runs / f"{name}s" / "first" / "POSCAR"), fmt="poscar")
    found = [one.id for one in read_structures([runs])]
    assert found[:3] == ["runs_first", "first_relaxed", "firsts_first"]
    assert found[3:] == ["second", "second_relaxed", "seconds_first", "third"]


def test_one_broken_file_among_good_ones(runs, bare):
    (runs / "second" / "POSCAR").write_text("cut off\n1.0\n")
    (runs / "x.cif").write_text("data_x\n")
    lines(runs / "y.jsonl", {"id": "fine", "structure": bare["ZnS"].as_dict()}, "{")
    found, problems = read_readable([runs, runs / "third" / "INCAR"])
    assert [one.id for one in found] == ["first", "third", "fine"]
    assert [problem[len(str(runs)) + 1 :].partition(":")[0] for problem in problems] == [
        "second/POSCAR cannot be read",
        "x.cif cannot be read",
        "y.jsonl, line 2 cannot be read",
        "third/INCAR is of no known kind",
    ]


def test_nothing_that_can_be_read(runs):
    (runs / "x.cif").write_text("data_x\n")
    (runs / "y.cif").write_text("")
    with pytest.raises(UserError, match=r"x\.cif cannot be read: .* \(1 more cannot be read\): nothing is left"):
        read_readable([runs / "x.cif", runs / "y.cif"])
    with pytest.raises(UserError, match=r"gone\.cif does not exist"):
        read_readable([runs, runs / "gone.cif"])


# -- what a generation leaves -----------------------------------------------------------------------------------------

#: Indices of a run in which some draws failed; as text, 11 comes before 2.
INDICES = (0, 2, 11)


@pytest.fixture
def output(tmp_path, solids):
    """Output of a joint model: three crystals with charges, in each of its files, and what else lies there."""
    names = ("BaTiO3", "Mg2Si", "TiO2")
    crystals = [Generated(i, 0, solids[name], {"dft_band_gap": 3.0}, 7) for i, name in zip(INDICES, names, strict=True)]
    folder = tmp_path / "out"
    (folder / "evaluation").mkdir(parents=True)
    for name, content in batch_files(crystals).items():
        (folder / name).write_bytes(content)
    record = {"status": "finished", "command": [], "started": "2026-11-20T12:00:00Z", "seed": 7, "settings": {}}
    (folder / "run.json").write_text(json.dumps({**record, "provenance": {}, "crystals": 3}))
    (folder / "evaluation" / "relaxed.extxyz").write_bytes((folder / "generated_crystals.extxyz").read_bytes())
    return folder


@pytest.mark.parametrize(
    "name", ["", "generated_crystals.jsonl", "generated_crystals.extxyz", "generated_crystals_cif.zip"]
)
def test_every_file_of_a_generation_gives_the_same_crystals_and_ids(output, solids, name):
    found = read_structures([output / name])
    assert [s.id for s in found] == ["gen_0", "gen_2", "gen_11"]
    for named, formula in zip(found, ("BaTiO3", "Mg2Si", "TiO2"), strict=True):
        assert_same_crystal(named.structure, solids[formula], 1e-7)


def test_the_richest_file_of_a_generation_is_read(output):
    with_charges = read_structures([output])
    assert all("bader_charge" in s.structure.site_properties for s in with_charges)
    (output / "generated_crystals.jsonl").unlink()
    assert [s.id for s in read_structures([output])] == ["gen_0", "gen_2", "gen_11"]
    (output / "generated_crystals.extxyz").unlink()
    assert [s.id for s in read_structures([output])] == ["gen_0", "gen_2", "gen_11"]


def test_a_generation_inside_a_folder_is_read_once(output, bare, tmp_path):
    CifWriter(bare["MgO"]).write_file(tmp_path / "a.cif")
    CifWriter(bare["MgO"]).write_file(tmp_path / "z.cif")
    assert [s.id for s in read_structures([tmp_path])] == ["a", "gen_0", "gen_2", "gen_11", "z"]


def test_frames_of_matter_gen_alone_are_counted(tmp_path, bare):
    """MatterGen writes no index; its zip counts from 0."""
    atoms = [AseAtomsAdaptor.get_atoms(bare[name]) for name in ("NaCl", "ZnS")]
    ase.io.write(tmp_path / "generated_crystals.extxyz", atoms, format="extxyz")
    assert [s.id for s in read_structures([tmp_path])] == ["gen_0", "gen_1"]


def test_labels_of_any_file_find_their_crystals(output):
    from mattergen_e.evaluation.candidates import read_candidates
    from mattergen_e.evaluation.labels import Label, Labels, pair

    candidates = read_candidates(output, asked=3)
    for name in ("generated_crystals.extxyz", "generated_crystals_cif.zip", "."):
        named = read_structures([output / name])
        labels = Labels([Label(s.id, s.structure, None) for s in named], None, name, "")
        pairs, missing = pair(candidates.readable, labels)
        assert [(p.candidate.index, p.label.id) for p in pairs] == [(0, "gen_0"), (2, "gen_2"), (11, "gen_11")]
        assert not missing and all(p.order.tolist() == list(range(len(p.order))) for p in pairs)


def test_close_sites_of_a_generated_cif_stay_two(tmp_path):
    close = Structure(np.eye(3) * 4, ["Na", "Na"], [[0.333331, 0.1, 0.5], [0.333336, 0.1, 0.5]])
    with ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("gen_4.cif", str(CifWriter(close)))
    (found,) = read_structures([tmp_path / "some.zip"])
    assert found.id == "gen_4" and np.allclose(found.structure.frac_coords, close.frac_coords, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("member", "content", "words"),
    [
        ("notes.txt", "nothing", "holds no CIF"),
        ("gen_3.cif", "data_x\n_cell_length_a o\n", "gen_3.cif cannot be read"),
        ("gen_3.cif", " " * 20_000_001, "gen_3.cif cannot be read: it has 20000001 bytes"),
    ],
)
def test_broken_archive_is_named_in_one_sentence(tmp_path, member, content, words):
    with ZipFile(tmp_path / "some.zip", "w", ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    with pytest.raises(UserError) as error:
        read_structures([tmp_path / "some.zip"])
    assert "some.zip" in str(error.value) and words in str(error.value) and "\n" not in str(error.value)


def test_archive_that_was_cut_off(tmp_path, output):
    whole = (output / "generated_crystals_cif.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.zip is no zip file or is cut off"):
        read_structures([tmp_path / "cut.zip"])


# -- what cannot be read ----------------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"gone\.cif does not exist"):
        read_structures([tmp_path / "gone.cif"])


def test_unknown_kind(tmp_path):
    (tmp_path / "x.pdb").write_text("ATOM")
    with pytest.raises(UserError, match=r"x\.pdb is of no known kind: use CIF, a zip of CIFs, POSCAR, XDATCAR, extxyz"):
        read_structures([tmp_path / "x.pdb"])


def test_folder_without_structures(tmp_path):
    with pytest.raises(UserError, match="no structures found"):
        read_structures([tmp_path])
    with pytest.raises(UserError, match="no structures found"):
        read_structures([])


@pytest.mark.parametrize("name", ["x.cif", "x.vasp", "x.extxyz", "x.jsonl", "x.json", "POSCAR"])
@pytest.mark.parametrize("content", [b"", b"\n\n", b"nonsense\n", b"\xff\xfe\x00\x01", b"data_x\n_cell_length_a o\n"])
def test_broken_file_is_named_in_one_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read_structures([tmp_path / name])
    assert name in str(error.value) and "\n" not in str(error.value)


def test_crystal_without_periodicity(tmp_path):
    (tmp_path / "molecule.xyz").write_text("2\nwater gone wrong\nO 0 0 0\nH 0 0 1\n")
    with pytest.raises(UserError, match=r"frame 0 cannot be read: a crystal needs three periodic directions"):
        read_structures([tmp_path / "molecule.xyz"])


@pytest.mark.parametrize(
    "entry",
    [
        "{not json}",
        "[]",
        "1",
        '"text"',
        "null",
        "{}",
        '{"id": "x"}',
        '{"id": "x", "structure": null}',
        '{"id": "x", "structure": []}',
        '{"id": "x", "structure": {"lattice": {}, "sites": []}}',
        '{"id": "x", "structure": {"lattice": {"matrix": [[1, 0, 0]]}, "sites": []}}',
    ],
)
def test_broken_line_is_named(tmp_path, bare, entry):
    path = lines(tmp_path / "set.jsonl", {"id": "fine", "structure": bare["MgO"].as_dict()}, entry)
    with pytest.raises(UserError, match=r'set\.jsonl, line 2 cannot be read: expected \{"id"'):
        read_structures([path])


def test_line_without_sites(tmp_path, bare):
    entry = {"id": "void", "structure": {**bare["MgO"].as_dict(), "sites": []}}
    with pytest.raises(UserError, match=r"set\.jsonl, line 1 cannot be read: expected"):
        read_structures([lines(tmp_path / "set.jsonl", entry)])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), min_size=1, max_size=4),
    ascii_only=st.booleans(),
    blank=st.sampled_from(["", "\n", "  \n"]),
)
@example(ids=["a\u2028b", "c\x85d\u2029"], ascii_only=False, blank="")
def test_any_text_can_be_an_id(tmp_path, bare, ids, ascii_only, blank):
    """JSON may hold every character but control characters as it is, U+2028 and the like included."""
    path = tmp_path / "ids.jsonl"
    entry = bare["CsCl"].as_dict()
    text = blank.join(json.dumps({"id": i, "structure": entry}, ensure_ascii=ascii_only) + "\n" for i in ids)
    path.write_bytes(text.encode())
    assert [s.id for s in read_structures([path])] == ids


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "structure", "lattice", "sites", "matrix", "species", "abc", "element", "@class"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(JSON.map(json.dumps) | st.text(max_size=30), min_size=1, max_size=3))
def test_other_lines_end_in_a_sentence(tmp_path, content):
    path = tmp_path / "set.jsonl"
    path.write_bytes("\n".join(content).encode(errors="replace"))
    with pytest.raises(UserError) as error:
        read_structures([path])
    assert "set.jsonl" in str(error.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_structure_with_one_wrong_part_ends_in_a_sentence_or_is_read(tmp_path, bare, data):
    """Somewhere in the dictionary of a real structure stands something else."""
    entry = json.loads(json.dumps(bare["ZnS"].as_dict()))
    place = entry
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 3)) == 0:
            break
        place = inner
    place[key] = data.draw(JSON)
    path = lines(tmp_path / "set.jsonl", {"id": "x", "structure": entry})
    try:
        (found,) = read_structures([path])
    except UserError as error:
        assert "set.jsonl" in str(error)
    else:
        assert len(found.structure) > 0


@pytest.mark.parametrize("ending", ["", ".gz", ".bz2", ".xz"])
def test_a_file_that_holds_more_than_is_read(tmp_path, monkeypatch, ending):
    from mattergen_e import limits

    monkeypatch.setattr(limits, "TEXT", 1000)
    opener = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}[ending]
    with opener(tmp_path / f"x.cif{ending}", "wt") as file:
        file.write(" " * 1001)
    with pytest.raises(UserError, match=r"more than .*: split it"):
        read_structures([tmp_path / f"x.cif{ending}"])
