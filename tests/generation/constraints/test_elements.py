"""Elements, positions and a cell in the constraints file: what it may say, and one sentence for everything else."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import yaml
from pymatgen.core import Lattice, Structure

from mattergen_e.diffusion.elements import ElementRules
from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader
from mattergen_e.generation.constraints.reading import read_constraints
from mattergen_e.generation.draw import draw
from mattergen_e.generation.store import read_crystals


@pytest.fixture
def write(tmp_path):
    def write(name="constraints.yaml", **content):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


@pytest.fixture
def read(write):
    return lambda **content: read_constraints(write(**content))


def test_elements(read):
    assert read(elements=["B", "C", "N"]).rules == ElementRules(allowed=frozenset({5, 6, 7}))
    assert read(elements="B-C-N", all_elements=True).rules == ElementRules(allowed=frozenset({5, 6, 7}), every=True)
    rules = read(exclude=["O", "Pb"]).rules
    assert rules.excluded == {8, 82} and {8, 82}.isdisjoint(rules.possible) and {5, 83} <= rules.possible
    assert read(num_atoms=3).rules is None


@pytest.mark.parametrize(
    ("composition", "formula", "sizes"),
    [
        ({"Na": 1, "Cl": 1}, {11: 1, 17: 1}, [2]),
        ({"Na": 4, "Cl": 4}, {11: 4, 17: 4}, [8]),
        ("Ca(OH)2", {20: 1, 8: 2, 1: 2}, [5]),
        ({"formula": "NaCl", "z": 2}, {11: 1, 17: 1}, [4]),
        ({"formula": "TiO2", "z": [2, 1]}, {22: 1, 8: 2}, [3, 6]),
    ],
)
def test_compositions(read, composition, formula, sizes):
    found = read(composition=composition)
    assert found.rules == ElementRules(formula=formula)
    values, weights = found.sizes("ALEX_MP_20")
    assert values.tolist() == sizes and weights.tolist() == [1 / len(sizes)] * len(sizes)
    assert read(composition=composition, num_atoms=sizes).sizes("ALEX_MP_20")[0].tolist() == sizes


def test_a_distribution_is_cut_to_what_fits(read):
    found = read(composition={"formula": "NaCl", "z": [1, 2, 3]}, num_atoms="ALEX_MP_20")
    assert set(found.sizes("ALEX_MP_20")[0].tolist()) <= {2, 4, 6, 8, 10, 12, 14, 16, 18, 20}
    found = read(elements="B-C-N", all_elements=True, sites=[{"site": 0, "element": "B"}])
    assert min(found.sizes("ALEX_MP_20")[0]) == 3


def test_cells(read, write, tmp_path):
    lattice = Lattice.from_parameters(3, 4, 5, 80, 95, 110)
    Structure(lattice, ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(str(tmp_path / "host.cif"), fmt="cif")
    found = [
        read(cell=cell, num_atoms=4).cell
        for cell in (lattice.matrix.tolist(), [3, 4, 5, 80, 95, 110], {"file": "host.cif"})
    ]
    for cell in found:
        assert np.allclose(Lattice(cell).parameters, lattice.parameters, atol=1e-5)


def test_positions(read):
    found = read(sites=[{"site": 2, "position": [0.25, 1.5, -0.25]}, {"site": 0, "element": "O"}])
    assert found.positions[2].tolist() == [0.25, 0.5, 0.75] and found.numbers == {0: 8}
    assert found.values == {}


def test_a_file_of_before_has_the_hash_of_before(read):
    """So that a run of before can be resumed: the hash that the version of before gave."""
    sites = [{"site": 0, "element": "Mg", "bader_charge": 1.6}, {"site": 1, "element": "O"}]
    before = "29f00891895f074140029833ea971a2bbb5be754768d7d976b0343364c7a1644"
    assert read(num_atoms=[4, 6], sites=sites).sha256 == before
    later = [
        {"elements": ["Mg", "O"]},
        {"exclude": ["C"]},
        {"composition": {"formula": "MgO", "z": [2, 3]}},
        {"cell": [4, 4, 4, 90, 90, 90]},
        {"cell": [4, 4, 5, 90, 90, 90]},
        {"elements": ["Mg", "O"], "all_elements": True},
    ]
    found = {read(num_atoms=[4, 6], sites=sites, **words).sha256 for words in later}
    moved = [dict(sites[0], position=[0, 0, 0]), sites[1]]
    found |= {before, read(num_atoms=[4, 6], sites=moved).sha256}
    assert len(found) == len(later) + 2


def test_a_host_that_changed_is_another_request(write, tmp_path):
    digests = set()
    for a in (4.0, 4.1):
        Structure(Lattice.cubic(a), ["Mg"], [[0, 0, 0]]).to(str(tmp_path / "host.cif"), fmt="cif")
        digests.add(read_constraints(write(cell={"file": "host.cif"})).sha256)
    assert len(digests) == 2


NA, OXYGEN, NACL = {"site": 0, "element": "Na"}, {"site": 1, "element": "O"}, {"Na": 1, "Cl": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"elements": ["B", "Xq"]}, "elements: 'Xq' is no element"),
        ({"elements": ["He"]}, "elements: He is an element that MatterGen does not generate"),
        ({"elements": ["boron"]}, "elements.0: 'boron' is no symbol of an element"),
        ({"elements": []}, "elements"),
        ({"exclude": ["Ne"]}, "exclude: Ne is an element that MatterGen does not generate"),
        ({"elements": ["B", "O"], "exclude": ["O"]}, "O is in exclude and in elements"),
        ({"composition": NACL, "exclude": ["Cl"]}, "Cl is in exclude and in the composition"),
        ({"composition": NACL, "elements": ["Na"]}, "the composition has Cl, which is not in elements"),
        ({"composition": NACL, "elements": "Na-Cl-O", "all_elements": True}, "all_elements asks for O, which the comp"),
        ({"elements": ["B"], "sites": [NA]}, "site 0 is Na, which elements does not have"),
        ({"exclude": ["Na"], "sites": [NA]}, "site 0 is Na, which exclude forbids"),
        ({"composition": NACL, "sites": [OXYGEN]}, "site 1 is O, which the composition does not have"),
        ({"composition": NACL, "sites": [NA, {"site": 1, "element": "Na"}]}, "2 sites are fixed as Na, but 1 formula"),
        ({"composition": NACL, "num_atoms": 3}, "the composition Na1 Cl1 has 2 sites, but num_atoms gives .* 3 sites"),
        ({"composition": NACL, "num_atoms": [2, 4]}, "the composition gives crystals of 2 sites, but num_atoms of 4"),
        ({"composition": {"Na": 0}}, "composition.counts.Na: .*greater than or equal to 1"),
        ({"composition": {"Na": 1.5}}, "composition.counts.Na"),
        ({"composition": {}}, "composition"),
        ({"composition": ["Na"]}, "composition: give numbers of sites as"),
        ({"composition": "NaCl1.5"}, "'NaCl1.5' is no formula with whole numbers"),
        ({"composition": "sodium"}, "'sodium' is no formula"),
        ({"composition": {"formula": "NaCl", "z": 0}}, "composition.z.0: .*greater than or equal to 1"),
        ({"composition": {"formula": "NaCl", "Z": 2}}, "composition.Z: there is no such key"),
        ({"composition": "XeF2"}, "composition: Xe is an element that MatterGen does not generate"),
        ({"composition": NACL, "sites": [{"site": 2, "element": "Na"}]}, "site 2 is constrained, but the composition"),
        ({"elements": "B-C-N", "all_elements": True, "num_atoms": 2}, "for all 3 elements, but num_atoms .* 2 sites"),
        (
            {
                "elements": "Na-C-N",
                "all_elements": True,
                "num_atoms": 3,
                "sites": [NA, {"site": 1, "element": "Na"}],
            },
            "all 3 elements, but num_atoms gives crystals of 3 sites, of which 2 are fixed",
        ),
        ({"all_elements": 3}, "all_elements"),
        ({"sites": [{"site": 0, "position": [0, 0]}]}, "sites.0.position"),
        ({"sites": [{"site": 0, "position": [0, 0, float("inf")]}]}, "sites.0.position.2: .*finite"),
        ({"sites": [{"site": 0, "position": [0, 0, 0]}, {"site": 3, "position": [1, 0, 2]}]}, "sites 0 and 3 have the"),
        ({"cell": [3, 3, 3, 90, 90]}, "cell: give three lattice vectors"),
        ({"cell": [3, 3, 3, 90, 90, 190]}, "cell: this is no cell"),
        ({"cell": [[1, 0, 0], [2, 0, 0], [0, 0, 1]]}, "cell: this is no cell"),
        ({"cell": {"file": "none.cif"}}, "none.cif does not exist"),
        ({"cell": [3, 3, 3, 90, 90, 90], "num_atoms": 40}, "the cell is too small for the 40 sites"),
        (
            {
                "cell": [3, 3, 3, 90, 90, 90],
                "sites": [{"site": 0, "position": [0, 0, 0]}, {"site": 1, "position": [0.1, 0, 0]}],
            },
            "sites 0 and 1 have the same position",
        ),
    ],
)
def test_what_is_refused(read, content, words):
    with pytest.raises(UserError, match=words) as caught:
        read(**content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "system", "words"),
    [
        ({"elements": ["B", "O"]}, "B-N", "elements has O, but the chemical system asked for is B-N"),
        ({"composition": NACL}, ["Na", "F"], "the composition has Cl, but the chemical system asked for is Na-F"),
        ({"exclude": ["O"]}, "Li-O", "exclude has O, but the chemical system"),
        ({"sites": [OXYGEN]}, "Li-F", "site 1 is O, but the chemical system asked for is Li-F"),
        ({"all_elements": True}, None, "give elements, or a chemical_system"),
        ({"all_elements": True, "num_atoms": 2}, "Li-O-F", "for all 3 elements, but .* 2 sites"),
        ({"all_elements": True, "composition": NACL}, "Na-Cl-O", "all_elements asks for O of the chemical system"),
    ],
)
def test_what_the_chemical_system_contradicts(write, content, system, words):
    properties = None if system is None else {"chemical_system": system}
    with pytest.raises(UserError, match=words):
        ConditionLoader(2, 2, properties=properties, constraints=write(**content))


def test_every_element_of_the_chemical_system_that_is_asked_for(write):
    loader = ConditionLoader(20, 2, properties={"chemical_system": "Ba-Te-O"}, constraints=write(all_elements=True))
    assert loader.constraints and loader.constraints.rules and loader.constraints.rules.allowed == {56, 52, 8}
    assert loader.num_atoms().min() >= 3


def test_numbers_of_sites_of_the_command(write):
    with pytest.raises(UserError, match=r"Na1 Cl1 has 2 sites, but condition_loader_partial.num_atoms gives .* 3"):
        ConditionLoader(2, 2, num_atoms=3, constraints=write(composition=NACL))


# -- what is written --------------------------------------------------------------------------------------------------


def test_written_crystals_and_a_resumed_run(make_joint, make_sampler, write, tmp_path):
    """A composition with a site, a position and a cell, in what is written; killed after a batch, and gone on with."""
    path = write(
        composition={"formula": "NaCl", "z": 2},
        cell=[3.5, 4.0, 5.0, 90, 90, 90],
        sites=[{"site": 3, "element": "Na", "position": [0.5, 0.5, 0.5]}],
    )
    model = make_joint()

    def run(folder, **output):
        sampler = make_sampler(model, constraints=path, **({"output": output} if output else {}))
        loader = ConditionLoader(6, 2, constraints=path, seed=1)
        return sampler, lambda: draw(sampler, loader, {}, output_path=tmp_path / folder)

    _, whole = run("whole")
    whole()
    crystals = [crystal.structure for crystal in read_crystals(tmp_path / "whole")]
    assert len(crystals) == 6
    for structure in crystals:
        assert Counter(site.specie.symbol for site in structure) == {"Na": 2, "Cl": 2}
        assert structure[3].specie.symbol == "Na" and structure[3].frac_coords.tolist() == [0.5, 0.5, 0.5]
        assert np.allclose(structure.lattice.parameters, [3.5, 4.0, 5.0, 90, 90, 90], atol=1e-4)
    sampler, broken = run("broken")
    original, calls = sampler.sample, []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    sampler.sample = interrupted
    with pytest.raises(KeyboardInterrupt):
        broken()
    run("broken", existing="resume")[1]()
    for a, b in zip(crystals, read_crystals(tmp_path / "broken"), strict=True):
        assert a == b.structure
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert record["settings"]["constraints"]["content"]["composition"] == {"counts": {"Na": 1, "Cl": 1}, "z": [2]}
