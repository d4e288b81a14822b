"""Predictions for structures as users have them: any cell, any order of the sites."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
from kills import kills
from pymatgen.core import DummySpecies, Lattice, Structure
from pymatgen.core.operations import SymmOp

from mattergen_e.crystals.alignment import reduce_cell
from mattergen_e.crystals.graphs import to_graph
from mattergen_e.crystals.reading import NamedStructure
from mattergen_e.descriptors import BaderCharge, Descriptor
from mattergen_e.errors import UserError
from mattergen_e.prediction.run import SitePrediction, predict, write_predictions
from mattergen_e.spectra.grid import EnergyGrid

#: No shell of neighbours is cut in two, so that equal sites get equal values.
WHOLE_SHELLS = {"cutoff": 4.2, "max_neighbors": 500, "max_cell_images_per_dim": 3}


@pytest.fixture(scope="module")
def model(make_joint):
    return make_joint({"bader_charge": BaderCharge(), "dos": Descriptor(name="dos", dim=3)}, **WHOLE_SHELLS)


def named(structures):
    return [NamedStructure(name, structure) for name, structure in structures.items()]


def values(model, structure, **settings):
    (found,) = predict(model, [NamedStructure("x", structure)], **{"samples": 1, "steps": 4, **settings})
    return found.mean["bader_charge"][:, 0]


def disguised(structure: Structure, seed: int) -> tuple[Structure, np.ndarray]:
    """A rotated and shifted 2x1x1 supercell with its sites in random order; and which site each one was."""
    rng = np.random.default_rng(seed)
    large = structure * (2, 1, 1)
    origin = np.repeat(np.arange(len(structure)), 2)
    order = rng.permutation(len(large))
    large = Structure.from_sites([large[i] for i in order])
    large.apply_operation(SymmOp.from_axis_angle_and_translation(rng.normal(size=3), rng.uniform(10, 170)))
    large.translate_sites(range(len(large)), rng.uniform(size=3))
    return large, origin[order]


# -- order of the sites -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sheared(solids):
    """The solids deformed to a lattice of no symmetry, which has one reduced cell only.

    MatterGen's network sees angles between bonds and lattice vectors, so that its values depend on the choice of the
    cell, and a symmetric lattice has several reduced ones.
    """
    shear = np.array([[1.0, 0.04, 0.09], [0.0, 1.05, 0.07], [0.0, 0.0, 1.11]])
    return {
        name: reduce_cell(Structure(s.lattice.matrix @ shear, s.species, s.frac_coords)) for name, s in solids.items()
    }


@pytest.mark.parametrize("name", ["NaCl", "BaTiO3", "TiO2", "ZnS"])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.usefixtures("no_noise")
def test_values_come_back_to_the_sites_of_the_input(model, sheared, name, seed):
    expected = values(model, sheared[name])
    large, origin = disguised(sheared[name], seed)
    assert [s.specie.Z for s in large] == [sheared[name][i].specie.Z for i in origin]
    found = values(model, large)
    assert np.ptp(expected) > 1e-3  # sites differ: a wrong order would be seen
    assert np.abs(found - expected[origin]).max() < 1e-4


@pytest.mark.parametrize("name", ["NaCl", "BaTiO3", "TiO2", "ZnS"])
def test_copies_of_a_site_get_exactly_the_same(model, solids, name):
    large, origin = disguised(solids[name], seed=2)
    (found,) = predict(model, [NamedStructure("x", large)], samples=3, steps=4)
    for array in (*found.mean.values(), *found.std.values()):
        assert len(array) == len(large)
        for site in range(len(solids[name])):
            assert (np.ptp(array[origin == site], axis=0) == 0).all()
    for array in found.mean.values():  # with noise, no two sites of the cell agree
        assert len(np.unique(array[:, 0])) == len(solids[name])
    assert abs(found.mean["bader_charge"].astype(float).sum()) < 1e-5
    assert all(a.specie.Z == b.specie.Z for a, b in zip(found.structure, large, strict=True))


@pytest.mark.usefixtures("no_noise")
def test_size_of_the_batches_does_not_matter(model, solids):
    one, all_at_once = (list(predict(model, named(solids), samples=1, steps=3, batch_size=n)) for n in (1, 64))
    assert [p.id for p in one] == [p.id for p in all_at_once] == list(solids)
    for a, b in zip(one, all_at_once, strict=True):
        assert np.abs(a.mean["bader_charge"] - b.mean["bader_charge"]).max() < 1e-4
        assert np.abs(a.mean["dos"] - b.mean["dos"]).max() < 1e-4


def test_seed_decides(model, solids):
    runs = [list(predict(model, named(solids), samples=2, steps=2, batch_size=3, seed=seed)) for seed in (1, 1, 2)]
    for a, b, c in zip(*runs, strict=True):
        assert np.array_equal(a.mean["bader_charge"], b.mean["bader_charge"])
        assert not np.array_equal(a.mean["bader_charge"], c.mean["bader_charge"])


def test_spread_of_one_sample_is_zero(model, solids):
    for prediction in predict(model, named(solids), samples=1, steps=2):
        assert not prediction.std["bader_charge"].any() and not prediction.std["dos"].any()


def test_input_is_left_alone(model, solids):
    before = solids["TiO2"].copy()
    values(model, solids["TiO2"])
    assert solids["TiO2"] == before and solids["TiO2"].site_properties == before.site_properties


@pytest.mark.usefixtures("no_noise")
def test_oxidation_states_and_magnetic_moments_do_not_matter(model, solids):
    decorated = solids["MgO"].copy()
    decorated.add_oxidation_state_by_element({"Mg": 2, "O": -2})
    decorated.add_site_property("magmom", [1.0, -1.0])
    assert np.array_equal(values(model, decorated), values(model, solids["MgO"]))


def test_graph_of_a_structure(solids):
    structure = solids["ZnS"].copy()
    structure.translate_sites([0], [-1e-12, 0, 0], to_unit_cell=False)  # a hair outside the cell
    graph = to_graph(structure)
    assert ((graph["pos"] >= 0) & (graph["pos"] < 1)).all()
    cell = graph["cell"][0]
    assert np.allclose(cell, cell.T, atol=1e-5)  # as in training
    matrix = structure.lattice.matrix
    assert np.allclose(cell @ cell.T, matrix @ matrix.T, atol=1e-3)  # the same crystal in another frame
    assert graph["atomic_numbers"].tolist() == [30, 30, 16, 16]


# -- what cannot be predicted -----------------------------------------------------------------------------------------


def refused(model, structure, sentence):
    fine = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    for batch_size in (1, 2):  # alone and beside another
        with pytest.raises(UserError, match=f"structure 'bad' {sentence}") as error:
            list(
                predict(
                    model,
                    [NamedStructure("fine", fine), NamedStructure("bad", structure)],
                    samples=1,
                    steps=1,
                    batch_size=batch_size,
                )
            )
        assert "\n" not in str(error.value)


def test_partial_occupation(model):
    refused(model, Structure(Lattice.cubic(3.6), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]]), "has partially occupied sites")
    refused(model, Structure(Lattice.cubic(3.6), [{"Cu": 0.9}], [[0, 0, 0]]), "has partially occupied sites")


def test_elements_that_mattergen_does_not_know(model):
    refused(model, Structure(Lattice.cubic(3.6), ["Rn"], [[0, 0, 0]]), "holds Rn")
    refused(model, Structure(Lattice.cubic(3.6), [DummySpecies("X")], [[0, 0, 0]]), "holds X")


def test_cells_that_are_none(model):
    flat = Lattice([[3, 0, 0], [0, 3, 0], [3, 3, 0]])
    refused(model, Structure(flat, ["Cu", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]), "has a cell without volume")
    nothing = Lattice([[3, 0, 0], [0, 3, 0], [0, 0, math.nan]])
    refused(model, Structure(nothing, ["Cu"], [[0, 0, 0]]), "has numbers that are not finite")
    lost = Structure(Lattice.cubic(3), ["Cu", "O"], [[0, 0, 0], [math.nan, 0.5, 0.5]])
    refused(model, lost, "has numbers that are not finite")


def test_sites_without_neighbours(model):
    refused(model, Structure(Lattice.cubic(20), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]), "has no neighbours")
    molecule = Structure(Lattice.cubic(20), ["Na", "Cl"], [[0, 0, 0], [0.1, 0, 0]])
    refused(model, molecule, "has no neighbours")


# -- the output file --------------------------------------------------------------------------------------------------


@pytest.fixture
def prediction(solids):
    return SitePrediction(
        id="mp-1",
        structure=solids["NaCl"],
        mean={"q": np.array([[0.86], [-0.86]], dtype=np.float32), "v": np.array([[1.0, 2.0], [3.0, 4.0]])},
        std={"q": np.array([[0.0123456789], [0.0]]), "v": np.zeros((2, 2))},
    )


def test_line_of_the_output(prediction):
    line = json.loads(json.dumps(prediction.as_line()))
    assert line["id"] == "mp-1"
    assert (line["q"], line["q_std"]) == ([0.86, -0.86], [0.012346, 0.0])
    assert (line["v"], line["v_std"]) == ([[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]])
    assert Structure.from_dict(line["structure"]) == prediction.structure


def test_file_has_a_line_per_structure(tmp_path, prediction):
    target = tmp_path / "new" / "out.jsonl"
    assert write_predictions(target, iter([prediction, prediction])) == 2
    assert [json.loads(line)["id"] for line in target.read_text().splitlines()] == ["mp-1", "mp-1"]
    assert [path.name for path in target.parent.iterdir()] == ["out.jsonl"]


def test_a_run_that_ends_early_leaves_what_was_there(tmp_path, prediction):
    target = tmp_path / "out.jsonl"
    target.write_text("old\n")

    def interrupted():
        yield prediction
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(target, interrupted())
    assert target.read_text() == "old\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_the_umask_decides_who_reads(tmp_path, prediction):
    before = os.umask(0o027)
    try:
        write_predictions(tmp_path / "out.jsonl", [prediction])
    finally:
        os.umask(before)
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o640


def test_killed_anywhere(tmp_path, prediction):
    """The lines never refer to arrays of another run, and nothing is left behind."""
    grid = EnergyGrid(minimum=-1, maximum=1, points=4)
    found = [
        replace(
            prediction, mean={**prediction.mean, "s": values}, std={**prediction.std, "s": values}, grids={"s": grid}
        )
        for values in (np.full((2, 4), 1.0), np.full((2, 4), 2.0))
    ]

    def consistent(folder):
        lines = (folder / "out.jsonl").read_text().splitlines()
        with np.load(folder / "out.npz") as arrays:
            return [float(arrays[json.loads(line)["s"]["mean"]].mean()) for line in lines]

    seen = set()
    for place in kills(
        lambda at: write_predictions(at / "out.jsonl", found[1:]),
        lambda at: write_predictions(at / "out.jsonl", found),
        tmp_path,
    ):
        if (place / "out.jsonl").exists():
            seen.add(tuple(consistent(place)))
        write_predictions(place / "out.jsonl", found)
        assert consistent(place) == [1.0, 2.0]
        assert sorted(path.name for path in place.iterdir()) == ["out.jsonl", "out.npz"]
    assert seen == {(1.0, 2.0), (2.0,)}


def test_predictions_can_be_read_again(tmp_path, model, solids):
    """The output is an input: ids, structures and order are the same."""
    from mattergen_e.crystals.reading import read_structures

    write_predictions(tmp_path / "out.jsonl", predict(model, named(solids), samples=1, steps=1))
    again = read_structures([tmp_path / "out.jsonl"])
    assert [s.id for s in again] == list(solids)
    assert all(s.structure == solids[s.id] for s in again)


def test_a_run_of_its_own_can_be_predicted(model, solids, tmp_path):
    """The columns that ASE reads are numpy's, which JSON does not know."""
    from mattergen_e.crystals.reading import read_structures
    from mattergen_e.generation.formats import Generated, batch_files

    crystals = [
        Generated(index=i, batch=0, structure=s, conditions={}, seed=0, values={"total": 1.5})
        for i, s in enumerate((solids["NaCl"], solids["MgO"]))
    ]
    (tmp_path / "generated_crystals.extxyz").write_bytes(batch_files(crystals)["generated_crystals.extxyz"])
    found = read_structures([tmp_path / "generated_crystals.extxyz"])
    assert write_predictions(tmp_path / "out.jsonl", predict(model, found, samples=1, steps=2)) == 2
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["gen_0", "gen_1"] and len(lines[0]["bader_charge"]) == 2


def test_results_of_the_crystal_and_of_a_grid(make_joint, solids, tmp_path):
    descriptors = {
        "total": Descriptor(name="total", place="crystal"),
        "rho": Descriptor(name="rho", place="grid", probes=(4, 4, 4)),
    }
    model = make_joint(descriptors, **WHOLE_SHELLS)
    large = solids["NaCl"] * (2, 1, 1)
    write_predictions(
        tmp_path / "out.jsonl", predict(model, named({"a": solids["MgO"], "b": large}), samples=2, steps=2)
    )
    first, second = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert set(first["values"]) == {"total", "total_std"} and isinstance(second["values"]["total"], float)
    with np.load(tmp_path / first["rho"]["file"]) as arrays:
        assert arrays[first["rho"]["mean"]].shape == arrays[second["rho"]["std"]].shape == (4, 4, 4, 1)
