"""Densities of states of real calculations, as the tests of this folder read them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mattergen_e.labels.record import RawDos

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Run:
    """A VASP run: its DOS and its integrated DOS as written, and the gap between its eigenvalues in eV."""

    raw: RawDos
    integrated: np.ndarray
    gap: float
    symbols: list[str]


@pytest.fixture(scope="session")
def read_vasp(real_data: Path) -> Callable[[str], Run]:
    """Reads the vasprun.xml of a folder by pymatgen; spins and orbitals summed here, by hand."""
    from pymatgen.io.vasp import Vasprun

    def read(name: str) -> Run:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = Vasprun(str(real_data / "vasp" / name / "vasprun.xml.gz"), parse_potcar_file=False)
        sites = [sum(sum(spins.values()) for spins in orbitals.values()) for orbitals in run.pdos]
        raw = RawDos(
            energies=run.tdos.energies - run.efermi,
            total=np.array(sum(run.tdos.densities.values())),
            sites=np.array(sites) if sites else None,
        )
        gap = run.eigenvalue_band_properties[0]
        assert isinstance(gap, float)
        symbols = [site.specie.symbol for site in run.final_structure]
        return Run(raw, np.array(sum(run.idos.densities.values())), float(gap), symbols)

    return read


@pytest.fixture(scope="session")
def gpaw_runs(real_data: Path) -> dict[str, RawDos]:
    """The first 40 stored GPAW calculations by id."""
    found = {}
    for file in sorted((real_data / "gpaw").glob("*.npz"))[:40]:
        with np.load(file, allow_pickle=False) as data:
            sites = data["pdos"].astype(float).sum(axis=1)
            found[file.stem] = RawDos(data["energy_grid"].astype(float), data["dos"].astype(float), sites)
    return found
