"""Spectra of sites as pymatgen's density of states."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pymatgen.core import Element

from mattergen_e.errors import UserError
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.spectra.objects import SiteDos, complete_dos

GRID = EnergyGrid(minimum=-4, maximum=2, points=6)


@pytest.fixture
def spectra(solids):
    return np.random.default_rng(0).uniform(0, 3, (len(solids["TiO2"]), 6)).astype(np.float32)


@pytest.fixture
def dos(solids, spectra):
    return complete_dos(solids["TiO2"], spectra, GRID)


def test_total_is_the_sum_and_the_fermi_energy_is_zero(dos, spectra):
    assert np.allclose(dos.get_densities(), spectra.sum(axis=0))
    assert dos.energies.tolist() == [-3.5, -2.5, -1.5, -0.5, 0.5, 1.5]
    assert dos.efermi == 0.0


def test_sites_and_elements(dos, solids, spectra):
    structure = solids["TiO2"]
    for site, spectrum in zip(structure, spectra, strict=True):
        assert np.allclose(dos.get_site_dos(site).get_densities(), spectrum)
    oxygen = [site.specie.symbol == "O" for site in structure]
    found = dos.get_element_dos()
    assert set(found) == {Element("Ti"), Element("O")}
    assert np.allclose(found[Element("O")].get_densities(), spectra[oxygen].sum(axis=0))


@pytest.mark.parametrize("name", ["get_spd_dos", "get_band_center"])
def test_orbitals_are_not_invented(dos, name):
    with pytest.raises(UserError, match="not resolved by orbital"):
        getattr(dos, name)()


def test_orbitals_of_sites_and_elements(dos, solids):
    with pytest.raises(UserError, match="not resolved by orbital"):
        dos.get_element_spd_dos("O")
    with pytest.raises(UserError, match="not resolved by orbital"):
        dos.get_site_spd_dos(solids["TiO2"][0])


def test_there_and_back_as_json(dos, solids, spectra):
    again = SiteDos.from_dict(json.loads(json.dumps(dos.as_dict())))
    assert isinstance(again, SiteDos)
    assert np.allclose(again.get_densities(), spectra.sum(axis=0))
    assert np.allclose(again.get_site_dos(again.structure[3]).get_densities(), spectra[3])


@pytest.mark.parametrize("shape", [(5, 6), (6, 7), (6,)])
def test_shapes_that_do_not_fit(solids, shape):
    with pytest.raises(UserError, match="give one spectrum per site on that grid"):
        complete_dos(solids["TiO2"], np.zeros(shape), GRID)
