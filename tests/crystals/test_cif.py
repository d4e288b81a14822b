"""CIFs of others: what is read is what the file says, or it is refused in one sentence.

Right numbers of sites are those of textbooks, and gemmi and ASE, which share no code with pymatgen's reader, agree.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from pymatgen.symmetry.groups import SpaceGroup

from mattergen_e.crystals.cif import blocks, read_block, read_text
from mattergen_e.crystals.fields import read_cif

GRAPHITE = ("P 63/m m c", 194, (2.461, 2.461, 6.708, 90, 90, 120))
SILICON = (5.431, 5.431, 5.431, 90, 90, 90)


def operators(number: int) -> list[str]:
    return [operation.as_xyz_str() for operation in SpaceGroup.from_int_number(number).symmetry_ops]


def cif(cell: Any, rows: list[str], columns: str = "label x y z", ops: list[str] | None = None, **keys: Any) -> str:
    """A CIF; columns x, y, z are coordinates, the others are named as CIF names them, and `H_M` is the space group."""
    names = {"x": "fract_x", "y": "fract_y", "z": "fract_z", "type": "type_symbol"}
    named = {"H_M": "_symmetry_space_group_name_H-M", "number": "_symmetry_Int_Tables_number"}
    named |= {"formula": "_chemical_formula_sum", "Z": "_cell_formula_units_Z"}
    edges = zip(("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"), cell, strict=True)
    lines = ["data_x", *(f"_cell_{name} {value}" for name, value in edges)]
    lines += [f"{named[key]} '{value}'" for key, value in keys.items()]
    if ops is not None:
        lines += ["loop_", "_symmetry_equiv_pos_as_xyz", *(f"'{op}'" for op in ops)]
    lines += ["loop_", *(f"_atom_site_{names.get(column, column)}" for column in columns.split()), *rows]
    return "\n".join(lines) + "\n"


def gemmi_sites(text: str) -> int:
    """Number of sites that gemmi finds in the cell."""
    gemmi = pytest.importorskip("gemmi")
    small = gemmi.make_small_structure_from_block(gemmi.cif.read_string(text).sole_block())
    return len(small.get_all_unit_cell_sites())


# -- coordinates of finite precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("digits", [2, 3, 4, 5, 8])
def test_graphite_has_four_atoms_however_its_thirds_are_rounded(digits):
    rows = ["C1 0 0 0.25", f"C2 {1 / 3:.{digits}f} {2 / 3:.{digits}f} 0.25"]
    text = cif(GRAPHITE[2], rows, ops=operators(194), H_M=GRAPHITE[0])
    found = read_text(text)
    assert found.composition.formula == "C4" and gemmi_sites(text) == 4
    known = Structure.from_spacegroup(
        "P6_3/mmc", Lattice.hexagonal(2.461, 6.708), ["C", "C"], [[0, 0, 0.25], [1 / 3, 2 / 3, 0.25]]
    )
    assert StructureMatcher(ltol=1e-3, stol=1e-3, angle_tol=0.1).fit(found, known)
    third = found.frac_coords[np.abs(found.frac_coords[:, 0]) > 0.1][:, :2] % 1
    assert np.abs(3 * third - np.round(3 * third)).max() < 1e-12  # on the special position itself
    assert len(read_cif(text)) == 4


def test_a_plane_that_rounding_leaves():
    """MgZn2 (C14): twelve atoms. Zn is on (x, 2x, 1/4), and 0.83053 and 0.66106 are off by the fifth digit."""
    rows = ["Mg 0.3333 0.6667 0.0620", "Zn1 0 0 0", "Zn2 0.8305 0.6611 0.25"]
    text = cif((5.223, 5.223, 8.566, 90, 90, 120), rows, ops=operators(194))
    found = read_text(text)
    assert found.composition.formula == "Mg4 Zn8" and gemmi_sites(text) == 12
    x, y = found[[s.specie.symbol for s in found].index("Mg")].frac_coords[:2]
    assert abs(3 * x - round(3 * x)) < 1e-12 and abs(3 * y - round(3 * y)) < 1e-12


@pytest.mark.parametrize("refine", [True, False])
def test_zinc_oxide_of_pymatgen_with_symmetry(refine):
    zno = Structure.from_spacegroup(
        "P6_3mc", Lattice.hexagonal(3.25, 5.207), ["Zn", "O"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.3819]]
    )
    text = str(CifWriter(zno, symprec=0.01, refine_struct=refine))
    found = read_text(text)
    assert found.composition.formula == "Zn2 O2" and gemmi_sites(text) == 4
    assert StructureMatcher().fit(found, zno)


@pytest.mark.parametrize("name", ["NaCl", "TiO2", "BaTiO3", "ZnS", "Mg2Si"])
@pytest.mark.parametrize("figures", [3, 4, 8])
def test_known_solids_with_symmetry_keep_their_sites(conventional, name, figures):
    text = str(CifWriter(conventional[name], symprec=0.01, significant_figures=figures))
    found = read_text(text)
    assert found.composition == conventional[name].composition
    assert len(found) == gemmi_sites(text)
    if figures > 3:  # ASE makes twelve sites of three digits
        assert len(found) == len(ase.io.read(io.StringIO(text), format="cif"))


def test_without_symmetry_nothing_moves():
    """Next to a third, and next to one another: as they stand, to the last digit."""
    close = Structure(np.eye(3) * 4, ["Na", "Na", "Cl"], [[0.33331, 0.1, 0.5], [0.33336, 0.1, 0.5], [0.66664, 0, 0]])
    found = read_text(str(CifWriter(close)))
    assert sorted(found.frac_coords[:, 0].tolist()) == [0.33331, 0.33336, 0.66664]


def test_a_table_of_crystals_is_read_as_matter_gen_reads_it():
    crystal = Structure(Lattice.hexagonal(3.0, 5.0), ["B", "N"], [[0.33333333, 0.66666667, 0.1], [0, 0, 0.1]])
    from pymatgen.io.cif import CifParser

    from mattergen_e.crystals.alignment import reduce_cell

    text = str(CifWriter(crystal))
    theirs = reduce_cell(CifParser.from_str(text).parse_structures(primitive=False, on_error="ignore")[0])
    assert np.array_equal(read_cif(text).frac_coords, theirs.frac_coords)


# -- symmetry that is named only --------------------------------------------------------------------------------------

DIAMOND = {"1": "0 0 0", "2": "0.125 0.125 0.125"}


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("F d -3 m :1", "1"),
        ("F d -3 m:2", "2"),
        ("F d -3 m S", "1"),
        ("F d -3 m Z", "2"),
        ("Fd-3m:1", "1"),
        ("F d 3 m :2", "2"),
    ],
)
def test_silicon_by_the_name_of_its_space_group(name, origin):
    found = read_text(cif(SILICON, [f"Si {DIAMOND[origin]}"], H_M=name))
    assert len(found) == 8 and min(found.distance_matrix[0][1:]) == pytest.approx(5.431 * 3**0.5 / 4)


@pytest.mark.parametrize("origin", ["1", "2"])
@pytest.mark.parametrize("keys", [{"H_M": "F d -3 m"}, {"number": 227}])
def test_the_composition_tells_the_origin(origin, keys):
    found = read_text(cif(SILICON, [f"Si {DIAMOND[origin]}"], formula="Si", Z=8, **keys))
    assert len(found) == 8 and min(found.distance_matrix[0][1:]) == pytest.approx(5.431 * 3**0.5 / 4)


def test_an_origin_that_nothing_tells():
    with pytest.raises(ValueError, match="'F d -3 m' has several settings that would fit: name the origin"):
        read_text(cif(SILICON, ["Si 0 0 0"], H_M="F d -3 m"))


def test_a_space_group_that_is_none():
    with pytest.raises(ValueError, match="'F q -9' but gives no operators"):
        read_text(cif(SILICON, ["Si 0 0 0"], H_M="F q -9"))


@pytest.mark.parametrize(
    ("cell", "name", "count"),
    [
        ((4.546, 4.546, 11.862, 90, 90, 120), "R -3 m H", 6),  # bismuth, hexagonal axes
        ((4.546, 4.546, 11.862, 90, 90, 120), "R -3 m", 6),  # the cell tells the axes
        ((4.746, 4.746, 4.746, 57.23, 57.23, 57.23), "R -3 m", 2),
        ((4.746, 4.746, 4.746, 57.23, 57.23, 57.23), "R -3 m :R", 2),
    ],
)
def test_bismuth_in_both_choices_of_axes(cell, name, count):
    rows = ["Bi 0 0 0.2339" if count == 6 else "Bi 0.2339 0.2339 0.2339"]
    assert len(read_text(cif(cell, rows, H_M=name))) == count


@pytest.mark.parametrize(
    ("name", "number", "cell"),
    [
        ("P 21/c", 14, (5, 6, 7, 90, 101, 90)),
        ("P 1 21/n 1", 14, (5, 6, 7, 90, 101, 90)),
        ("P 21/n", 14, (5, 6, 7, 90, 101, 90)),
        ("C 2/c", 15, (5, 6, 7, 90, 101, 90)),
        ("P n m a", 62, (5, 6, 7, 90, 90, 90)),
        ("P b n m", 62, (5, 6, 7, 90, 90, 90)),
        ("C m c a", 64, (5, 6, 7, 90, 90, 90)),
        ("P 42/m n m", 136, (5, 5, 7, 90, 90, 90)),
        ("I 41/a m d :2", 141, (5, 5, 7, 90, 90, 90)),
        ("P m -3 m", 221, (5, 5, 5, 90, 90, 90)),
        ("F m 3 m", 225, (5, 5, 5, 90, 90, 90)),
    ],
)
def test_a_named_group_makes_as_many_copies_as_gemmi_has_operators(name, number, cell):
    gemmi = pytest.importorskip("gemmi")
    found = read_text(cif(cell, ["Xe 0.117 0.233 0.379"], H_M=name))
    group = gemmi.find_spacegroup_by_name(name.replace("F m 3 m", "F m -3 m"))
    assert len(found) == len(group.operations()) and group.number == number
    images = np.array([op.apply_to_xyz([0.117, 0.233, 0.379]) for op in group.operations()])
    shifts = found.frac_coords[:, None] - images[None]
    assert (np.abs(shifts - np.round(shifts)).max(axis=2).min(axis=1) < 1e-9).all()


def test_operators_that_are_missing_though_a_group_is_named():
    """Every atom may stand there, or one of eight: only the formula can tell."""
    with pytest.raises(ValueError, match=r"'F d -3 m', which has 192 operators, but gives 1: give all of them"):
        read_text(cif(SILICON, ["Si 0 0 0"], ops=["x, y, z"], H_M="F d -3 m"))
    with pytest.raises(ValueError, match=r"its formula is Si, but its sites give Si, and not 8 of it"):
        read_text(cif(SILICON, ["Si 0 0 0"], ops=["x, y, z"], H_M="F d -3 m", formula="Si", Z=8))
    places = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.431), ["Si"], [[0, 0, 0]]).frac_coords
    rows = [f"Si{i} {x:.4f} {y:.4f} {z:.4f}" for i, (x, y, z) in enumerate(places)]
    assert len(read_text(cif(SILICON, rows, ops=["x, y, z"], H_M="F d -3 m", formula="Si", Z=8))) == 8


def test_no_symmetry_at_all_is_none():
    assert len(read_text(cif(SILICON, ["Si 0 0 0", "C 0.5 0.5 0.5"]))) == 2
    assert len(read_text(cif(SILICON, ["Si 0 0 0"], H_M="?"))) == 1


@pytest.mark.parametrize("operator", ["x,y,z" + "0" * 5000, "x,y", "x,y,w", "__import__('os'),y,z", "x,x,z", "2x,y,z"])
def test_an_operator_that_is_none(operator):
    """pymatgen's expression for an operator takes forever for thousands of digits."""
    text = cif(SALMIAC, ["Cs 0 0 0"], ops=["PLACE"]).replace("'PLACE'", f'"{operator}"')
    with pytest.raises(ValueError, match=r"its symmetry operator .* cannot be read"):
        read_text(text)


def test_more_images_than_can_be_read():
    rows = [f"C{i} {i / 601:.6f} 0.1 0.2" for i in range(600)]
    with pytest.raises(ValueError, match="make 115200 images, more than 50000 are not read"):
        read_text(cif(SALMIAC, rows, ops=operators(227)))


# -- species ----------------------------------------------------------------------------------------------------------

SALMIAC = (3.868, 3.868, 3.868, 90, 90, 90)


@pytest.mark.parametrize("group", ["NH4", "OH", "H2O", "Wat", "OH2", "NO3", "Va", "X"])
@pytest.mark.parametrize("column", ["label", "type"])
def test_a_group_of_atoms_is_no_site(group, column):
    columns = "label x y z" if column == "label" else "label type x y z"
    rows = [f"{group} 0 0 0", "Cl 0.5 0.5 0.5"]
    rows = rows if column == "label" else [f"A1 {group} 0 0 0", "A2 Cl 0.5 0.5 0.5"]
    with pytest.raises(ValueError, match=f"{group}.* is no single element: give each atom"):
        read_text(cif(SALMIAC, rows, columns, ops=operators(221)))


def test_salmiac_whose_hydrogen_is_attached():
    """NH4Cl holds six atoms; without its hydrogen NCl is read as a crystal that does not exist."""
    columns = "label type x y z attached_hydrogens"
    rows = ["N1 N 0 0 0 4", "Cl1 Cl 0.5 0.5 0.5 0"]
    with pytest.raises(ValueError, match="site 'N1' carries hydrogen that has no place of its own"):
        read_text(cif(SALMIAC, rows, columns, ops=operators(221)))
    with pytest.raises(
        ValueError, match=r"its formula is Cl H4 N, but its sites give Cl N \(site 'N1' carries hydrogen"
    ):
        read_text(cif(SALMIAC, rows, columns, ops=operators(221), formula="Cl H4 N", Z=1))
    rows = ["N1 N 0 0 0 0", "Cl1 Cl 0.5 0.5 0.5 0", "H1 H 0.15 0.15 0.15 0"]
    whole = read_text(cif(SALMIAC, rows, columns, ops=operators(215), formula="Cl H4 N", Z=1))
    assert whole.composition.reduced_formula == "H4NCl" and len(whole) == 6


def test_the_formula_knows_of_hydrogen_without_a_site():
    with pytest.raises(ValueError, match="its formula is Ca H2 O2, but its sites give Ca O2"):
        read_text(cif(SALMIAC, ["Ca 0 0 0", "O1 0.3 0.6 0.2", "O2 0.6 0.3 0.8"], formula="Ca H2 O2"))


@pytest.mark.parametrize(
    ("units", "problem"), [(4, None), (2, "its sites give Cl4 Na4, and not 2 of it"), (8, "and not 8 of it")]
)
def test_the_number_of_units_in_the_cell(units, problem):
    text = cif(
        (5.64, 5.64, 5.64, 90, 90, 90), ["Na 0 0 0", "Cl 0.5 0.5 0.5"], ops=operators(225), formula="Na Cl", Z=units
    )
    if problem is None:
        assert len(read_text(text)) == 8
    else:
        with pytest.raises(ValueError, match=problem):
            read_text(text)


@pytest.mark.parametrize(
    ("label", "element"),
    [
        ("Fe1", "Fe"),
        ("O1A", "O"),
        ("Na(1)", "Na"),
        ("C1'", "C"),
        ("SI2", "Si"),
        ("cl1", "Cl"),
        ("O_1", "O"),
        ("D3", "H"),
    ],
)
def test_labels_that_are_elements(label, element):
    (site,) = read_text(cif(SALMIAC, [f"{label} 0 0 0"]))
    assert site.specie.symbol == element


@pytest.mark.parametrize(
    ("symbol", "element"),
    [("Fe3+", "Fe"), ("O2-", "O"), ("H1+", "H"), ("O-2", "O"), ("Na+", "Na"), ("C0+", "C"), ("D1+", "H"), ("CL", "Cl")],
)
def test_types_that_are_elements(symbol, element):
    (site,) = read_text(cif(SALMIAC, [f"X1 {symbol} 0 0 0"], "label type x y z"))
    assert site.specie.symbol == element


def test_capitals_that_may_be_two_atoms():
    """CO is cobalt in a file whose formula has cobalt."""
    with pytest.raises(ValueError, match="'CO1'.* no single element"):
        read_text(cif(SALMIAC, ["CO1 0 0 0"]))
    assert read_text(cif(SALMIAC, ["CO1 0 0 0"], formula="Co")).composition.formula == "Co1"
    assert read_text(cif(SALMIAC, ["CO1 0 0 0", "OC1 0.3 0 0"], formula="C O")).composition.formula == "C1 O1"


def test_letters_that_number_sites():
    """As the American Mineralogist's database labels them."""
    rows = ["MgM1 0 0 0", "SiA 0.5 0.5 0.5", "Oa1 0.3 0 0", "Ob1 0 0.3 0", "OC2 0 0 0.3"]
    assert read_text(cif(SALMIAC, rows, formula="Mg Si O3")).composition.formula == "Mg1 Si1 O3"
    repeated = cif(SALMIAC, rows, formula="Mg Si O3").replace("loop_", "_chemical_formula_sum ''\nloop_")
    assert read_text(repeated).composition.formula == "Mg1 Si1 O3"
    with pytest.raises(ValueError, match="'MgM1', which is no single element"):
        read_text(cif(SALMIAC, rows))
    with pytest.raises(ValueError, match="its formula is Ca H2 O2, but its sites give Ca O2"):
        read_text(cif(SALMIAC, ["Ca 0 0 0", "OH1 0.3 0 0", "OH2 0 0.3 0"], formula="Ca (O H)2"))


def test_deuterium_beside_hydrogen_is_hydrogen():
    found = read_text(cif(SALMIAC, ["D1 0 0 0", "H1 0.5 0 0", "O1 0.2 0.5 0.5"], formula="D H O"))
    assert found.composition.formula == "H2 O1" and {site.specie.symbol for site in found} == {"H", "O"}


# -- occupancies and places -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1.0001", "1.000(5)", "0.9999", ".", "?", "1"])
def test_a_site_that_is_whole(text):
    for as_written in (False, True):
        (block,) = blocks(cif(SALMIAC, [f"Na 0 0 0 {text}"], "label x y z occupancy"))
        found = read_block(block, as_written=as_written)
        assert found.is_ordered and found.composition.formula == "Na1"


def test_sites_that_are_shared_stay_shared():
    rows = ["Na 0 0 0 0.5", "K 0 0 0 0.5"]
    found = read_text(cif(SALMIAC, rows, "label x y z occupancy"))
    assert len(found) == 1 and found[0].species.get_atomic_fraction("K") == 0.5


def test_two_atoms_in_one_place():
    with pytest.raises(ValueError, match="the occupancies of sites at one place add up to 2"):
        read_text(cif(SALMIAC, ["Na 0 0 0", "K 0 0 0"]))


def test_an_occupancy_of_nothing():
    rows = ["Na 0 0 0 1", "Li 0.5 0.5 0.5 0"]
    with pytest.raises(ValueError, match="site 'Li' has the occupancy 0, and no formula says"):
        read_text(cif(SALMIAC, rows, "label x y z occupancy"))
    with pytest.raises(ValueError, match="its formula is Li Na, but its sites give Na"):
        read_text(cif(SALMIAC, rows, "label x y z occupancy", formula="Na Li"))
    assert len(read_text(cif(SALMIAC, rows, "label x y z occupancy", formula="Na"))) == 1


@pytest.mark.parametrize("text", ["-0.2", "inf", "half"])
def test_an_occupancy_that_is_none(text):
    with pytest.raises(ValueError, match=f"the occupancy of site 'Na' is '{text}'"):
        read_text(cif(SALMIAC, [f"Na 0 0 0 {text}"], "label x y z occupancy"))


def test_question_marks_where_nothing_is_known():
    columns = "label type x y z occupancy attached_hydrogens"
    text = cif(SALMIAC, ["Cs1 Cs 0 0 0 ? ?", "Cl1 Cl 0.5 0.5 0.5 1.0 ."], columns, H_M="?", formula="?", Z="?")
    assert read_text(text).composition.formula == "Cs1 Cl1"


def test_a_place_that_is_not_known():
    with pytest.raises(ValueError, match=r"the place of site 'H1' is not known: a coordinate is '\?'"):
        read_text(cif(SALMIAC, ["O1 0 0 0", "H1 ? ? ?"]))
    with pytest.raises(ValueError, match=r"_cell_length_a is '\?', no number"):
        read_text(cif(("?", 4, 4, 90, 90, 90), ["O1 0 0 0"]))


# -- blocks -----------------------------------------------------------------------------------------------------------


def test_every_block_with_sites_is_found():
    one, two = cif(SALMIAC, ["Na 0 0 0"]), cif(SILICON, ["Si 0 0 0"])
    text = f"data_global\n_journal_year 1921\n_note\n;\ndata_inside of a text\n;\n{one}{two}"
    assert [block.name for block in blocks(text)] == ["x", "x"]
    assert [read_block(block).composition.formula for block in blocks(text)] == ["Na1", "Si1"]
    with pytest.raises(ValueError, match=r"it holds 2 crystals \(x, x\), where one is needed"):
        read_text(text)


@pytest.mark.parametrize(("text", "words"), [("", "no data block"), ("data_a\n_cell_length_a 3\n", "holds sites")])
def test_nothing_to_read(text, words):
    with pytest.raises(ValueError, match=words):
        blocks(text)


# -- magnetism --------------------------------------------------------------------------------------------------------

ANTIFERROMAGNET = """data_NiO
_cell_length_a 4
_cell_length_b 4
_cell_length_c 8
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_space_group_symop_magn_operation.id
_space_group_symop_magn_operation.xyz
1 x,y,z,+1
loop_
_space_group_symop_magn_centering.id
_space_group_symop_magn_centering.xyz
1 x,y,z,+1
2 x,y,z+1/2,-1
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Ni1 Ni 0 0 0
loop_
_atom_site_moment.label
_atom_site_moment.crystalaxis_x
_atom_site_moment.crystalaxis_y
_atom_site_moment.crystalaxis_z
Ni1 0 0 1.9
"""


def test_magnetic_operators_are_followed():
    found = read_text(ANTIFERROMAGNET)
    assert sorted(round(float(np.asarray(m.moment)[2]), 6) for m in found.site_properties["magmom"]) == [-1.9, 1.9]


def test_moments_without_their_operators():
    text = cif(SALMIAC, ["Ni1 0 0 0"], ops=operators(221))
    text += "loop_\n_atom_site_moment_label\n_atom_site_moment_crystalaxis_z\nNi1 1.0\n"
    with pytest.raises(ValueError, match="magnetic moments but no magnetic symmetry operators"):
        read_text(text)


def test_names_of_cif_in_other_spellings():
    """Names are the same in capitals, and in the newer dictionaries with a dot."""
    text = cif(SALMIAC, ["Cs 0 0 0"], H_M="P m -3 m").replace("_atom_site_", "_atom_site.").replace("_cell_", "_CELL_")
    assert read_text(text).composition.formula == "Cs1"


def test_what_is_cut_off_is_not_read(tmp_path: Path):
    whole = cif(SALMIAC, ["Na 0 0 0", "Cl 0.5 0.5 0.5"])
    with pytest.raises(ValueError, match="a part of its columns"):
        read_text(whole.rstrip()[:-8])
