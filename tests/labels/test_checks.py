from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from mattergen_e.crystals.findings import LabelError
from mattergen_e.labels.checks import check_charges, check_equivalent, check_maxima, equivalent_sites
from mattergen_e.labels.settings import BaderSettings

SETTINGS = BaderSettings()
VALENCE = np.array([4.0, 4.0, 6.0, 6.0, 6.0, 6.0])
CHARGES = np.array([2.0, 2.0, -1.0, -1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def rutile() -> Structure:
    """Two titanium and four oxygen sites, in this order."""
    cell = Lattice.tetragonal(4.59, 2.96)
    return Structure.from_spacegroup("P4_2/mnm", cell, ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]])


def test_sound_charges_pass_unchanged(rutile: Structure) -> None:
    electrons = VALENCE - CHARGES + np.array([1e-3, 0, 0, 0, 0, 0])
    charges, findings = check_charges(rutile, electrons, VALENCE, SETTINGS, total=float(electrons.sum()))
    np.testing.assert_array_equal(charges, VALENCE - electrons)
    assert charges.sum() == pytest.approx(-1e-3) and findings == []  # the small rest is not spread


@pytest.mark.parametrize(
    ("electrons", "total", "reason"),
    [
        (VALENCE - CHARGES + 0.2, None, "electrons_missing"),  # 1.2 electrons more than 32, 0.3 allowed
        (VALENCE - CHARGES + 0.02, None, "not_neutral"),  # 0.12 e, within the integral's 0.3
        (VALENCE - CHARGES - 0.02, 32.0, "electrons_missing"),  # 0.12 e in no basin
        (VALENCE - CHARGES + np.array([0.1, -0.1, 0, 0, 0, 0]), 32.0, "sites_differ"),
        (np.array([np.nan, *(VALENCE - CHARGES)[1:]]), 32.0, "electrons_missing"),
        (VALENCE - CHARGES, np.nan, "electrons_missing"),
    ],
)
def test_each_failure_has_its_reason(
    rutile: Structure, electrons: np.ndarray, total: float | None, reason: str
) -> None:
    with pytest.raises(LabelError) as caught:
        check_charges(rutile, electrons, VALENCE, SETTINGS, total=total)
    assert caught.value.reason == reason


def test_averages_only_where_asked_and_says_so(rutile: Structure) -> None:
    charges = CHARGES + np.array([0.1, -0.1, 0.3, -0.1, -0.1, -0.1])
    settings = BaderSettings(average_equivalent=True)
    averaged, findings = check_equivalent(rutile, charges, settings)
    np.testing.assert_allclose(averaged, CHARGES, atol=1e-12)
    assert averaged.sum() == pytest.approx(charges.sum())
    assert [(f.reason, f.refused) for f in findings] == [("sites_differ", False)] and "averaged" in findings[0].sentence
    close = CHARGES + np.array([0.01, -0.01, 0, 0, 0, 0])
    np.testing.assert_array_equal(check_equivalent(rutile, close, settings)[0], close)


@pytest.mark.parametrize("group", ["P4_2/mnm", "P1"])
def test_equivalent_sites_as_pymatgen_finds_them(rutile: Structure, group: str) -> None:
    structure = rutile.copy()
    if group == "P1":
        structure = structure.perturb(0.2) or structure
    expected = SpacegroupAnalyzer(structure, 0.01).get_symmetry_dataset().equivalent_atoms
    np.testing.assert_array_equal(equivalent_sites(structure, 0.01), expected)
    assert len(set(expected)) == (2 if group == "P4_2/mnm" else 6)


def test_moments_do_not_make_sites_different(rutile: Structure) -> None:
    magnetic = rutile.copy(site_properties={"magmom": [2.0, -2.0, 0.0, 0.0, 0.0, 0.0]})
    assert set(equivalent_sites(magnetic, 0.01)) == {0, 2}


def test_two_sites_at_one_place_are_refused() -> None:
    structure = Structure(Lattice.cubic(4.0), ["Na", "Na"], [[0, 0, 0], [0, 0, 1e-4]])
    with pytest.raises(LabelError) as caught:
        equivalent_sites(structure, 0.01)
    assert caught.value.reason == "bad_structure"


def test_basins_must_lie_on_atoms() -> None:
    check_maxima([4.0, 4.0, 0.004, -0.004], [0.1, 0.49, 2.0, 2.0], 2, SETTINGS)
    for electrons, distances in (([4.0, 0.05], [0.1, 0.51]), ([4.0, 4.0], [0.1, np.nan]), ([9.0, -0.05], [0, 1.0])):
        with pytest.raises(LabelError) as caught:
            check_maxima(electrons, distances, 2, SETTINGS)
        assert caught.value.reason == "maximum_off_atom"


def test_a_site_keeps_its_core(rutile: Structure) -> None:
    """Neutral, symmetric and impossible: oxygen that takes three electrons from each side of titanium."""
    charges = np.array([6.0, 6.0, -3.0, -3.0, -3.0, -3.0])
    with pytest.raises(LabelError, match=r"beyond Ti's") as caught:
        check_charges(rutile, VALENCE - charges, VALENCE, SETTINGS)
    assert caught.value.reason == "bad_charge"


def test_wrong_lengths_are_a_mistake_of_the_caller(rutile: Structure) -> None:
    with pytest.raises(ValueError, match="for 6 sites"):
        check_charges(rutile, VALENCE[:5], VALENCE, SETTINGS)
