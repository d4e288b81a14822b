from __future__ import annotations

import logging
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure

from mattergen_e.crystals.findings import LabelError
from mattergen_e.errors import UserError
from mattergen_e.labels.bader import find_basins, partition
from mattergen_e.labels.settings import BaderSettings
from mattergen_e.labels.vasp.files import read_density

Array = NDArray[np.float64]
VALENCE = np.repeat([1.0, 2.0, 7.0], [4, 4, 12])


@pytest.fixture(scope="module")
def nmf(vasp_data: Path) -> tuple[Structure, Array, Array]:
    """NaMgF3: structure, CHG, AECCAR0 + AECCAR2."""
    folder = vasp_data / "NaMgF3_pydefect"
    chg, core, valence = (read_density(folder / f"{name}.gz") for name in ("CHG", "AECCAR0", "AECCAR2"))
    return chg.structure, chg.values, core.values + valence.values


def on_grid(structure: Structure, charge: Array, reference: Array) -> Array:
    """Electrons by the on-grid method (Henkelman et al. 2006): every point climbs to its best neighbour."""
    shape = np.array(charge.shape)
    index = np.arange(charge.size).reshape(charge.shape)
    best, target = np.zeros(charge.shape), index.copy()
    for step in product((-1, 0, 1), repeat=3):
        if any(step):
            axes = (0, 1, 2)
            length = np.linalg.norm(np.array(step) / shape @ structure.lattice.matrix)
            back = tuple(-s for s in step)
            slope = (np.roll(reference, back, axes) - reference) / length
            better = slope > best
            best, target = np.where(better, slope, best), np.where(better, np.roll(index, back, axes), target)
    ends = target.ravel()
    while not np.array_equal(ends, ends[ends]):
        ends = ends[ends]
    maxima, label = np.unique(ends, return_inverse=True)
    place = np.array(np.unravel_index(maxima, charge.shape)).T / shape
    site = structure.lattice.get_all_distances(place, structure.frac_coords).argmin(axis=1)
    weights = charge.ravel() / charge.size
    return np.bincount(site[label.ravel()], weights=weights, minlength=len(structure)).astype(np.float64)


def test_real_charges(nmf: tuple[Structure, Array, Array]) -> None:
    structure, chg, reference = nmf
    charges, findings = partition(structure, chg, reference, VALENCE, BaderSettings())
    assert findings == []
    np.testing.assert_allclose(charges, np.repeat([0.83, 1.66, -0.83], [4, 4, 12]), atol=0.005)
    np.testing.assert_allclose(charges, VALENCE - on_grid(structure, chg, reference), atol=0.02)
    assert abs(charges.sum()) < 0.01


def test_all_electrons_on_a_coarse_grid_are_refused(nmf: tuple[Structure, Array, Array]) -> None:
    structure, _, reference = nmf
    with pytest.raises(LabelError) as caught:
        partition(structure, reference, None, VALENCE, BaderSettings())
    assert caught.value.reason == "electrons_missing"


def test_valence_density_with_maxima_at_bonds_is_refused(vasp_data: Path) -> None:
    density = read_density(vasp_data / "Si_aiida" / "CHGCAR.gz")
    for settings in (BaderSettings(), BaderSettings(average_equivalent=True)):
        with pytest.raises(LabelError, match="bonds") as caught:
            partition(density.structure, density.values, None, [4.0, 4.0], settings)
        assert caught.value.reason == "maximum_off_atom"
    loose = BaderSettings(maximum_distance=5.0)
    with pytest.raises(LabelError) as caught:
        partition(density.structure, density.values, None, [4.0, 4.0], loose)
    assert caught.value.reason == "sites_differ"
    electrons = find_basins(density.structure, density.values).site_electrons
    np.testing.assert_allclose(np.sort(electrons - 4), [-0.95, 0.95], atol=0.02)


def test_two_gaussians_share_a_cell() -> None:
    """CsCl's arrangement with equal Gaussians: half of the electrons each, by symmetry; unequal grids and axes too."""
    structure = Structure(Lattice.orthorhombic(4.0, 4.4, 5.0), ["Cs", "Cs"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    frac = np.stack(np.meshgrid(*(np.arange(n) / n for n in (24, 30, 32)), indexing="ij"), axis=-1)
    delta = frac[..., None, :] - structure.frac_coords
    squares = (((delta - np.round(delta)) @ structure.lattice.matrix) ** 2).sum(axis=-1)
    density = np.exp(-squares / (2 * 0.7**2)).sum(axis=-1)
    density *= 6 / density.mean()
    charges, _ = partition(structure, density, None, [3.0, 3.0], BaderSettings())
    np.testing.assert_allclose(charges, 0, atol=1e-3)
    charges, _ = partition(structure, density, None, [3.3, 2.7], BaderSettings(equivalent_tolerance=1.0))
    np.testing.assert_allclose(charges, [0.3, -0.3], atol=1e-3)


def test_grids_that_cannot_be_partitioned() -> None:
    structure = Structure(Lattice.cubic(4.0), ["Na"], [[0, 0, 0]])
    good = np.random.default_rng(0).random((8, 8, 8))
    bad = good.copy()
    bad[3, 3, 3] = np.nan
    for charge, reference, reason in (
        (good, np.ones((8, 8, 9)), "other_structure"),
        (bad, good, "damaged_file"),
        (good, bad, "damaged_file"),
        (np.ones((8, 8, 8)), None, "damaged_file"),
        (good[:2], None, "damaged_file"),
    ):
        with pytest.raises(LabelError) as caught:
            find_basins(structure, charge, reference)
        assert caught.value.reason == reason


def test_nothing_is_printed_and_logging_stays(
    nmf: tuple[Structure, Array, Array], capfd: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level, root.manager.disable, np.random.get_state()[1].tolist()  # type: ignore
    find_basins(*nmf)
    assert capfd.readouterr() == ("", "")
    assert before == (list(root.handlers), root.level, root.manager.disable, np.random.get_state()[1].tolist())  # type: ignore


def test_cation_that_loses_its_basin_is_refused(nmf: tuple[Structure, Array, Array]) -> None:
    """Without cores, Mg of NaMgF3 has no maximum of its own: +2.00 e where +1.66 e is right, and all sums agree."""
    structure, charge, _ = nmf
    with pytest.raises(LabelError, match=r"(Mg|Na)\) keeps .* of its valence electrons") as caught:
        partition(structure, charge, None, VALENCE, BaderSettings())
    assert caught.value.reason == "maximum_off_atom"


def test_missing_baderkit_is_one_sentence(nmf: tuple[Structure, Array, Array], monkeypatch: pytest.MonkeyPatch) -> None:
    structure, charge, reference = nmf
    monkeypatch.setitem(sys.modules, "baderkit", None)
    with pytest.raises(UserError, match="pip install --no-deps baderkit"):
        find_basins(structure, charge, reference)
