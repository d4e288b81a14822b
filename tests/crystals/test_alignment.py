"""Values follow their sites into the reduced cell, however the cell is written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Element, Lattice, PeriodicSite, Structure
from scipy.spatial.transform import Rotation

from mattergen_e.crystals.alignment import AlignmentError, match_sites, merge_site_values, reduce_with_map

NAMES = ["NaCl", "CsCl", "GaAs", "Si", "CaF2", "BaTiO3", "TiO2", "MgAl2O4", "ZnS", "La2O3"]
SUPERCELLS = [
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    [[2, 0, 0], [0, 1, 0], [0, 0, 1]],
    [[1, 1, 0], [0, 1, 1], [1, 0, 1]],
    [[1, 0, 2], [0, 3, 1], [0, 0, 1]],
    [[-1, 1, 1], [1, -1, 1], [1, 1, -1]],
    [[0, 1, 0], [1, 0, 0], [0, 0, 1]],  # left-handed
    [[2, 1, 0], [-1, 1, 0], [0, 0, 1]],
    [[1, 4, -3], [0, 1, 5], [0, 0, 1]],  # the same lattice, very skewed
]


def disguise(
    structure: Structure, matrix: list[list[int]], seed: int, noise: float = 0.0
) -> tuple[Structure, list[int]]:
    """Another cell of the same crystal: supercell, rotated, moved, permuted; also the tag of each site."""
    rng = np.random.default_rng(seed)
    tagged = structure.copy(site_properties={"tag": list(range(len(structure)))})
    tagged.make_supercell(matrix, to_unit_cell=bool(rng.integers(2)))
    order = rng.permutation(len(tagged))
    rotation = Rotation.random(random_state=seed).as_matrix()
    cart = tagged.cart_coords @ rotation.T + rng.uniform(-20, 20, 3) + rng.uniform(-noise, noise, (len(tagged), 3))
    other = Structure(
        Lattice(tagged.lattice.matrix @ rotation.T),
        [tagged[i].specie for i in order],
        cart[order],
        coords_are_cartesian=True,
    )
    return other, [tagged[i].properties["tag"] for i in order]


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from(NAMES), matrix=st.sampled_from(SUPERCELLS), seed=st.integers(0, 2**32 - 1))
def test_values_follow_their_sites(crystals, name, matrix, seed):
    primitive = crystals[name].get_primitive_structure()
    other, tags = disguise(primitive, matrix, seed)
    reduced, site_map = reduce_with_map(other)

    assert len(reduced) == len(primitive)
    # by pymatgen's own periodic distance
    for site, target in zip(other, site_map, strict=True):
        moved = PeriodicSite(site.specie, site.coords, reduced.lattice, coords_are_cartesian=True)
        assert moved.distance(reduced[target]) < 1e-3
        assert moved.specie == reduced[target].specie
    # every site of the primitive cell has its own value: the reduced cell must have each of them once, and the
    # distances between sites that carry two values must be those of the original crystal
    values = np.array(tags, dtype=float)[:, None]
    merged = merge_site_values(values, site_map, len(reduced), tolerance=0.0)[:, 0].astype(int)
    assert sorted(merged) == list(range(len(primitive)))
    np.testing.assert_allclose(reduced.distance_matrix, primitive.distance_matrix[np.ix_(merged, merged)], atol=1e-3)


@settings(deadline=None, max_examples=25)
@given(
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 2**32 - 1),
    matrix=st.sampled_from([SUPERCELLS[i] for i in (0, 5, 7)]),
)
def test_sites_with_a_species_of_their_own_name_themselves(crystals, name, seed, matrix):
    primitive = crystals[name].get_primitive_structure()
    fake = Structure(primitive.lattice, [Element.from_Z(3 + i) for i in range(len(primitive))], primitive.frac_coords)
    other, _ = disguise(fake, matrix, seed)
    reduced, site_map = reduce_with_map(other)
    assert [reduced[i].specie for i in site_map] == [site.specie for site in other]
    assert sorted(site_map) == list(range(len(other)))


@settings(deadline=None, max_examples=15)
@given(name=st.sampled_from(["NaCl", "TiO2", "ZnS", "BaTiO3"]), seed=st.integers(0, 2**32 - 1))
def test_small_displacements_are_averaged(crystals, name, seed):
    primitive = crystals[name].get_primitive_structure()
    other, tags = disguise(primitive, SUPERCELLS[1], seed, noise=0.02)
    reduced, site_map = reduce_with_map(other)
    assert len(reduced) == len(primitive)
    values = np.array(tags, dtype=float)[:, None]
    merged = merge_site_values(values, site_map, len(reduced), tolerance=0.0)
    assert sorted(merged[:, 0]) == list(range(len(primitive)))


def test_a_reduced_cell_is_left_alone(crystals):
    for structure in crystals.values():
        once = structure.get_primitive_structure().get_reduced_structure()
        expected = once.get_primitive_structure().get_reduced_structure()
        reduced, site_map = reduce_with_map(once)
        assert np.array_equal(reduced.frac_coords, expected.frac_coords)
        assert np.array_equal(reduced.lattice.matrix, expected.lattice.matrix)
        assert site_map.dtype == np.int64
        values = np.arange(len(once), dtype=float)[:, None]
        assert np.array_equal(merge_site_values(values, site_map, len(once), 0.0)[site_map], values)


def test_real_crystals_keep_their_charges(real_data):
    from mattergen_e.data.sources import read_entries

    for number, entry in enumerate(read_entries(real_data / "bader_aflow.jsonl.gz")):
        if number % 24:
            continue
        reduced, site_map = reduce_with_map(entry.structure)
        for i, site in enumerate(entry.structure):
            moved = PeriodicSite(site.specie, site.coords, reduced.lattice, coords_are_cartesian=True)
            distances = [moved.distance(other) if other.specie == site.specie else np.inf for other in reduced]
            assert int(np.argmin(distances)) == site_map[i]
            assert min(distances) < 0.1


def test_a_site_without_partner_is_named(crystals):
    primitive = crystals["NaCl"].get_primitive_structure().get_sorted_structure()
    moved = primitive.copy()
    moved.translate_sites([1], [0.3, 0.3, 0.3], to_unit_cell=False)
    with pytest.raises(AlignmentError, match=r"site 1 \(Cl\) has no counterpart .* Å away"):
        match_sites(moved, primitive)
    other = primitive.copy()
    other.replace(0, "K")
    with pytest.raises(AlignmentError, match=r"site 0 \(K\) has no counterpart"):
        match_sites(other, primitive)


def test_sites_that_share_a_partner_unevenly_are_refused():
    cell = Lattice.cubic(4.0)
    reduced = Structure(cell, ["Na", "Na"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    crowded = Structure(cell, ["Na", "Na"], [[0, 0, 0], [0.05, 0, 0]])
    with pytest.raises(AlignmentError, match=r"stands for 2 of the 2 input sites, but 1 were expected"):
        match_sites(crowded, reduced)


def test_merging_averages_within_the_tolerance():
    site_map = np.array([0, 1, 0, 1])
    values = np.array([[1.0], [-1.0], [1.02], [-1.02]])
    np.testing.assert_allclose(merge_site_values(values, site_map, 2, 0.02), [[1.01], [-1.01]])
    with pytest.raises(
        AlignmentError, match=r"input sites \[0, 2\] are one site \(0\).*spread over 0.02.*tolerance of 0.005"
    ):
        merge_site_values(values, site_map, 2, 0.005)


def test_merging_several_components():
    values = np.arange(12.0).reshape(4, 3)
    merged = merge_site_values(values, np.array([2, 0, 3, 1]), 4, 0.0)
    assert np.array_equal(merged[[2, 0, 3, 1]], values)


def test_unknown_values_stay_unknown_only_together():
    site_map = np.array([0, 0, 1, 1])
    both = np.array([[np.nan], [np.nan], [2.0], [2.0]])
    merged = merge_site_values(both, site_map, 2, 0.01)
    assert np.isnan(merged[0, 0])
    assert merged[1, 0] == 2.0
    with pytest.raises(AlignmentError, match="only 1 of the 2 input sites that become site 0"):
        merge_site_values(np.array([[np.nan], [1.0], [2.0], [2.0]]), site_map, 2, 0.01)


@pytest.mark.parametrize("shape", [(3, 1), (4,)])
def test_values_of_another_shape_are_refused(shape):
    with pytest.raises(AlignmentError, match="do not belong to 4 sites"):
        merge_site_values(np.zeros(shape), np.array([0, 0, 1, 1]), 2, 0.01)


def test_joined_spectra_are_compared_by_area() -> None:
    site_map = np.array([0, 0, 1, 1])
    spectra = np.array([[4.0, 0.0, 0.0], [3.0, 1.0, 0.0], [0.0, 2.0, 2.0], [0.0, 2.0, 2.0]])
    # |[4,0,0] - [3.5,0.5,0]| has the area 1.0, the mean has 4.0: a quarter.
    merged = merge_site_values(spectra, site_map, 2, 0.25, by_area=True)
    np.testing.assert_allclose(merged, [[3.5, 0.5, 0.0], [0.0, 2.0, 2.0]])
    with pytest.raises(AlignmentError, match=r"areas deviate by 25\.0%, more than the merge tolerance of 0\.24"):
        merge_site_values(spectra, site_map, 2, 0.24, by_area=True)
