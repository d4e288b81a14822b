"""What is computed of some crystals of a reference at a time, by a worker of one thread."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.energies import calculators
from mattergen_e.reference.fingerprints import amd, magpie


@dataclass(frozen=True)
class ChunkTask:
    """Consecutive crystals of a reference: their arrays, and the calculator of their energies, if any."""

    number: int
    num_atoms: NDArray[np.int64]
    cell: NDArray[np.float64]
    frac_coords: NDArray[np.float64]
    atomic_numbers: NDArray[np.int64]
    calculator: str | None
    device: str

    def structures(self) -> list[Any]:
        """The crystals."""
        from pymatgen.core import Lattice, Structure

        ends = np.cumsum(self.num_atoms)
        return [
            Structure(Lattice(cell), self.atomic_numbers[end - n : end].tolist(), self.frac_coords[end - n : end])
            for cell, n, end in zip(self.cell, self.num_atoms, ends, strict=True)
        ]


def compute_chunk(task: ChunkTask) -> tuple[int, dict[str, NDArray[Any]] | str]:
    """Formulas, energies and fingerprints of a chunk; never raises.

    Returns:
        Number of the chunk and, by name, formulas and chemical_systems (n,), energies (n,) in eV/atom, magpie (n, 132)
        and amd (n, k) in Å; or what went wrong.
    """
    try:
        with one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structures = task.structures()
            compositions = [structure.composition for structure in structures]
            energies = np.full(len(structures), np.nan)
            if task.calculator is not None:
                energies = calculators.energies(shared_calculator(task.calculator, task.device), structures)
            return task.number, {
                "formulas": np.array([composition.reduced_formula for composition in compositions]),
                "chemical_systems": np.array([composition.chemical_system for composition in compositions]),
                "energies": energies,
                "magpie": np.asarray(magpie(structures), dtype=np.float32),
                "amd": np.asarray(amd(structures), dtype=np.float32),
            }
    except Exception as error:
        return task.number, " ".join(str(error).split()) or type(error).__name__


@cache
def shared_calculator(name: str, device: str) -> Any:
    """The calculator of this process, made once."""
    return calculators.make(name, device)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch and BLAS: workers do not get in each other's way, and sums have one order."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
