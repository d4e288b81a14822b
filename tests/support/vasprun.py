"""Makes vasprun.xml files of crystals whose levels, and so whose states and gaps, are known by construction.

The columns of the DOS are made as VASP makes them: the integral counts every level; the DOS, of the cell and of the
sites, is the difference of a level's smeared step between neighbouring energies, taken only at energies within eight
widths of the level, so that a level which fits between two energies is in neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass
class Run:
    """A calculation to be written.

    Attributes:
        species: Element of each site.
        valence: Electrons of the potential by element.
        levels: (spins, k-points, bands) eV.
        filling: (spins, k-points, bands) from 0 to 1.
        parts: (bands, sites) part of a level on a site; None without projections.
        weights: (k-points,) of the k-points; None: all alike.
        efermi: As VASP would print it; None leaves the DOS without.
        electrons: NELECT; None: of the neutral cell.
        energies: First, last and number of energies of the DOS; None leaves the DOS out.
        parameters: Further parameters, by name.
        incar: What INCAR held.
        projected: Whether the projections of the bands are there, beside those of the DOS.
        steps: Electronic steps.
        structure: Whether the calculation repeats the structure, as those of GW and responses do not.
        cell: Edge of the cubic cell, Å.
        titles: Titles of the potentials by element, where they are not those of PBE.
    """

    species: Sequence[str]
    valence: Mapping[str, float]
    levels: Array
    filling: Array
    parts: Array | None = None
    weights: Array | None = None
    efermi: float | None = 0.0
    electrons: float | None = None
    energies: tuple[float, float, int] | None = (-30.0, 15.0, 301)
    sigma: float = 0.05
    ismear: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    incar: Mapping[str, Any] = field(default_factory=dict)
    projected: bool = True
    steps: int = 5
    structure: bool = True
    cell: float = 4.0
    titles: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write vasprun.xml into a folder, which is made, and return the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vasprun.xml").write_text(self.text())
        return folder

    @property
    def spins(self) -> int:
        return len(self.levels)

    @property
    def shares(self) -> Array:
        """(k-points,) weights that add up to 1."""
        weights = np.ones(self.levels.shape[1]) if self.weights is None else np.asarray(self.weights, dtype=float)
        return weights / weights.sum()

    def states(self) -> Array:
        """(spins, k-points, bands) electrons that each level can hold."""
        return np.broadcast_to(2 / self.spins * self.shares[None, :, None], self.levels.shape)

    def on_sites(self) -> Array:
        """(sites,) electrons of the filled levels on each site: what the labels have to hold."""
        assert self.parts is not None
        return np.einsum("skb,bi->i", self.states() * self.filling, self.parts)

    def dos(self) -> tuple[Array, Array, Array, Array]:
        """Energies, and of each spin the DOS, its integral, and (spins, sites, n) the DOS of the sites."""
        assert self.energies is not None
        low, high, n = self.energies
        energies = np.linspace(low, high, n)
        step = energies[1] - energies[0]
        total, integral = np.zeros((2, self.spins, n))
        sites = np.zeros((self.spins, len(self.species), n))
        states = self.states()
        for spin, k, band in np.ndindex(*self.levels.shape):
            level, held = self.levels[spin, k, band], states[spin, k, band]
            below = 0.5 * (1 + np.vectorize(math.erf)((energies - level) / self.sigma))
            integral[spin] += held * below
            first = max(int((level - 8 * self.sigma - low) / step), 0)
            last = min(int((level + 8 * self.sigma - low) / step), n - 1)
            told = np.zeros(n)
            if first <= last:
                told[first : last + 1] = np.diff(below[first : last + 1], prepend=0.0) * held / step
            total[spin] += told
            if self.parts is not None:
                sites[spin] += self.parts[band][:, None] * told
        return energies, total, integral, sites

    # -- XML ----------------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """The file."""
        kinds = list(dict.fromkeys(self.species))
        neutral = sum(self.valence[symbol] for symbol in self.species)
        parameters: dict[str, Any] = {
            "NELECT": float(neutral if self.electrons is None else self.electrons),
            "ISPIN": self.spins, "ISMEAR": self.ismear, "SIGMA": self.sigma, "NELM": 60, "ENMAX": 400.0,
            "LNONCOLLINEAR": False, "LSORBIT": False, "GGA": "--", "LHFCALC": False, "LDAU": False, "AEXX": 0.0,
            "HFSCREEN": 0.0, "LUSE_VDW": False, "NSW": 0, "IBRION": -1,
        } | dict(self.parameters)  # fmt: skip
        atoms = "".join(f"<rc><c>{s}</c><c>{kinds.index(s) + 1}</c></rc>" for s in self.species)
        types = "".join(
            f"<rc><c>{list(self.species).count(s)}</c><c>{s}</c><c>1.0</c><c>{self.valence[s]:.8f}</c>"
            f"<c>{self.titles.get(s, f'PAW_PBE {s} 01Jan2000')}</c></rc>"
            for s in kinds
        )
        points = np.zeros((self.levels.shape[1], 3))
        points[:, 0] = np.linspace(0, 0.5, len(points))
        weights = np.ones(len(points)) / len(points) if self.weights is None else np.asarray(self.weights)
        last = self._structure() if self.structure else ""
        return (
            "<?xml version='1.0'?><modeling><generator><i name='version' type='string'>6.3.2</i></generator>"
            f"<incar>{_items(self.incar)}</incar><kpoints><generation param='Gamma'>"
            "<v type='int' name='divisions'>2 2 2</v></generation>"
            f"{_varray('kpointlist', points)}{_varray('weights', weights[:, None])}</kpoints>"
            f"<parameters>{_items(parameters)}</parameters>"
            f"<atominfo><array name='atoms'><set>{atoms}</set></array>"
            f"<array name='atomtypes'><set>{types}</set></array></atominfo>"
            f"{self._structure('initialpos')}<calculation>{self._scf() * self.steps}{last}"
            "<energy><i name='e_fr_energy'>-1.0</i><i name='e_wo_entrp'>-1.0</i><i name='e_0_energy'>-1.0</i></energy>"
            f"{self._eigenvalues()}{self._dos()}{self._projected()}</calculation>"
            f"{self._structure('finalpos')}</modeling>"
        )

    def _structure(self, name: str = "") -> str:
        n = len(self.species)
        positions = np.arange(n)[:, None] / n * np.ones(3)
        named = f" name='{name}'" if name else ""
        basis = _varray("basis", self.cell * np.eye(3))
        return f"<structure{named}><crystal>{basis}</crystal>{_varray('positions', positions)}</structure>"

    def _scf(self) -> str:
        return "<scstep><energy><i name='e_fr_energy'>-1.0</i></energy></scstep>"

    def _eigenvalues(self) -> str:
        spins = ""
        for spin in range(self.spins):
            points = ""
            for k in range(self.levels.shape[1]):
                rows = zip(self.levels[spin, k], self.filling[spin, k], strict=True)
                text = "".join(f"<r>{level:.4f} {filling:.4f}</r>" for level, filling in rows)
                points += f"<set comment='kpoint {k + 1}'>{text}</set>"
            spins += f"<set comment='spin {spin + 1}'>{points}</set>"
        return f"<eigenvalues><array><set>{spins}</set></array></eigenvalues>"

    def _dos(self) -> str:
        if self.energies is None:
            return ""
        energies, total, integral, sites = self.dos()
        spins = [
            f"<set comment='spin {s + 1}'>{_rows(energies, total[s], integral[s])}</set>" for s in range(self.spins)
        ]
        efermi = "" if self.efermi is None else f"<i name='efermi'>{self.efermi:.8f}</i>"
        partial = ""
        if self.parts is not None:
            ions = ""
            for i in range(len(self.species)):
                of_spin = (_rows(energies, sites[s, i]) for s in range(self.spins))
                inner = "".join(f"<set comment='spin {s + 1}'>{text}</set>" for s, text in enumerate(of_spin))
                ions += f"<set comment='ion {i + 1}'>{inner}</set>"
            fields = "<field>energy</field><field>s</field>"
            partial = f"<partial><array>{fields}<set>{ions}</set></array></partial>"
        return f"<dos>{efermi}<total><array><set>{''.join(spins)}</set></array></total>{partial}</dos>"

    def _projected(self) -> str:
        if self.parts is None or not self.projected:
            return ""
        bands = "".join(
            f"<set comment='band {b + 1}'>{''.join(f'<r>{part:.4f}</r>' for part in self.parts[b])}</set>"
            for b in range(len(self.parts))
        )
        points = "".join(f"<set comment='kpoint {k + 1}'>{bands}</set>" for k in range(self.levels.shape[1]))
        spins = "".join(f"<set comment='spin{s + 1}'>{points}</set>" for s in range(self.spins))
        return f"<projected><array><field>s</field><set>{spins}</set></array></projected>"


def insulator(
    species: Sequence[str], valence: Mapping[str, float], bands: Sequence[float], filled: int, **changes: Any
) -> Run:
    """A run without spins at four k-points whose bands are flat but for some meV.

    Args:
        species: Element of each site.
        valence: Electrons of the potential by element.
        bands: Lowest energy of each band, eV; its highest is 6 meV above.
        filled: Number of filled bands.
        changes: Other fields of the run.
    """
    levels = np.array(bands)[None, None, :] + 0.002 * np.arange(4)[None, :, None]
    filling = np.broadcast_to((np.arange(len(bands)) < filled).astype(float), levels.shape)
    return Run(species, valence, levels, filling, **changes)


def _items(values: Mapping[str, Any]) -> str:
    text = ""
    for name, value in values.items():
        if isinstance(value, bool):
            text += f"<i type='logical' name='{name}'>{'T' if value else 'F'}</i>"
        elif isinstance(value, list):
            kind = " type='int'" if all(isinstance(v, int) for v in value) else ""
            text += f"<v{kind} name='{name}'>{' '.join(map(str, value))}</v>"
        elif isinstance(value, int):
            text += f"<i type='int' name='{name}'>{value}</i>"
        elif isinstance(value, float):
            text += f"<i name='{name}'>{value}</i>"
        else:  # VASP's asterisks stand where a number should
            kind = "int" if "*" in value else "string"
            text += f"<i type='{kind}' name='{name}'>{value}</i>"
    return text


def _varray(name: str, rows: Array) -> str:
    text = "".join(f"<v>{' '.join(f'{x:.8f}' for x in row)}</v>" for row in rows)
    return f"<varray name='{name}'>{text}</varray>"


def _rows(*columns: Array) -> str:
    return "".join(f"<r>{' '.join(f'{x:.4f}' for x in row)}</r>" for row in zip(*columns, strict=True))
