"""Spectra of the sites of one crystal, and pymatgen's object of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pymatgen.core import Structure
from pymatgen.electronic_structure.core import Orbital, Spin
from pymatgen.electronic_structure.dos import CompleteDos, Dos

from mattergen_e.errors import UserError
from mattergen_e.spectra.grid import EnergyGrid


@dataclass(frozen=True, eq=False)
class CrystalSpectra:
    """Spectra of the sites of one crystal.

    Attributes:
        spectra: (n_sites, points) states/eV, spins summed.
        grid: Their energies.
        latents: (n_sites, dim) what they were decoded from.
        fingerprint: Of the autoencoder that decoded them.
    """

    spectra: NDArray[np.float32]
    grid: EnergyGrid
    latents: NDArray[np.float32]
    fingerprint: str


class SiteDos(CompleteDos):
    """pymatgen's `CompleteDos` of spectra that are resolved by site and not by orbital.

    `get_site_dos`, `get_element_dos` and the total (the sum over the sites) work as usual. What asks for orbitals, band
    centres among it, raises a `UserError`.
    """

    def _refuse(self, *arguments: Any, **named: Any) -> NoReturn:
        raise UserError("these spectra are not resolved by orbital: ask for sites or elements")

    get_site_orbital_dos = get_site_spd_dos = get_site_t2g_eg_resolved_dos = _refuse
    get_spd_dos = get_element_spd_dos = _refuse

    def as_dict(self) -> dict[str, Any]:
        """As pymatgen's, without a part by orbital; `from_dict` reads it."""
        return {
            "@module": type(self).__module__,
            "@class": type(self).__name__,
            "efermi": self.efermi,
            "structure": self.structure.as_dict(),
            "energies": self.energies.tolist(),
            "densities": {str(int(spin)): values.tolist() for spin, values in self.densities.items()},
            "pdos": [
                {
                    str(orbital): {"densities": {str(int(spin)): np.asarray(v).tolist() for spin, v in parts.items()}}
                    for orbital, parts in self.pdos[site].items()
                }
                for site in self.structure
            ],
        }


def complete_dos(structure: Structure, spectra: ArrayLike, grid: EnergyGrid) -> SiteDos:
    """Spectra of sites as pymatgen's density of states.

    Args:
        structure: The crystal.
        spectra: (n_sites, points) states/eV, in the order of its sites.
        grid: Their energies; the Fermi energy is 0.

    Returns:
        The object, with a copy of the structure; its total is the sum over the sites.

    Raises:
        UserError: If the number of sites or points is another.
    """
    values = np.asarray(spectra, dtype=np.float64)
    if values.shape != (len(structure), grid.points):
        raise UserError(
            f"the spectra have the shape {values.shape}, but the crystal has {len(structure)} sites and the grid "
            f"{grid}: give one spectrum per site on that grid"
        )
    bare = Structure.from_sites(list(structure))
    total = Dos(0.0, grid.energies, {Spin.up: values.sum(axis=0)})
    # pymatgen sums over the orbitals of a site: one entry stands for all of them
    by_site = {site: {Orbital.s: {Spin.up: row}} for site, row in zip(bare, values, strict=True)}
    return SiteDos(bare, total, by_site)
