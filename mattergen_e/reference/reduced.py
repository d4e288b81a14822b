"""What matching needs of a reference and does not depend on what it is compared with: reduced cells, and an index.

A reference without these, or with those of another pymatgen, is as good: the cells are reduced when they are needed
then. `reference build` adds them to a reference that was built without, and computes nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mattergen_e.journal import FileJournal
from mattergen_e.matching import Crystal
from mattergen_e.reference import assemble
from mattergen_e.reference.folder import DERIVED, Reference, ReferenceManifest, reducer

REDUCED = ("reduced_cell", "reduced_num_atoms", "reduced_frac_coords", "reduced_atomic_numbers")


@dataclass(frozen=True)
class _Task:
    number: int
    path: Path
    manifest: ReferenceManifest
    span: range


def is_complete(manifest: ReferenceManifest) -> bool:
    """Whether a reference has all of this, made by the pymatgen that is installed."""
    return manifest.reducer == reducer() and all(f"{name}.npy" in manifest.arrays for name in DERIVED)


def complete(
    path: Path, manifest: ReferenceManifest, parts: Path, chunk: int, jobs: int | None, backend: str
) -> ReferenceManifest:
    """Adds the arrays to a folder; the manifest that names them is returned, not written.

    Args:
        path: Folder with all other arrays.
        manifest: That names these.
        parts: Folder for intermediate results; what is there already is not computed again.
        chunk: Crystals per file of intermediate results.
        jobs: Workers of one thread each; None for one per core.
        backend: Of joblib.

    Raises:
        UserError: If an array or an intermediate result is damaged.
    """
    reference = Reference(path, manifest)
    journal = FileJournal(parts, f"reduced_{reducer()}_{{}}.npz")
    assemble.fill(
        journal,
        manifest.structures,
        chunk,
        lambda missing: _tasks(reference, missing, chunk),
        _reduce,
        title="Reduced cells",
        failure=f"of {path} could not be reduced",
        jobs=jobs,
        backend=backend,
    )
    files = [journal.path(number) for number in range(math.ceil(manifest.structures / chunk))]
    order = np.argsort(reference.formulas, kind="stable").astype(np.int64)
    added = {f"{name}.npy": assemble.join_all(path / f"{name}.npy", files, name) for name in REDUCED}
    added["formula_order.npy"] = assemble.write(path / "formula_order.npy", order)
    return manifest.model_copy(
        update={
            "arrays": {**manifest.arrays, **added},
            "provenance": {**manifest.provenance, "reduced_cells": {"pymatgen": reducer()}},
        }
    )


def _tasks(reference: Reference, missing: Sequence[int], chunk: int) -> Iterator[_Task]:
    for number in missing:
        span = range(number * chunk, min(number * chunk + chunk, len(reference)))
        yield _Task(number, reference.path, reference.manifest, span)


def _reduce(task: _Task) -> tuple[int, dict[str, NDArray[np.float64] | NDArray[np.int64]] | str]:
    """Reduced cells of some crystals, without sites where there is none; never raises."""
    try:
        reference = Reference(task.path, task.manifest)
        cells, positions, numbers = [], [np.zeros((0, 3))], []
        for structure in reference.structures(task.span):
            try:
                cell = Crystal(structure).cell.structure
            except Exception:
                cells.append(np.full((3, 3), np.nan))
                numbers.append([])
                continue
            cells.append(cell.lattice.matrix)
            positions.append(cell.frac_coords)
            numbers.append([site.specie.Z for site in cell])
    except Exception as error:
        return task.number, " ".join(str(error).split()) or type(error).__name__
    return task.number, {
        "reduced_cell": np.array(cells),
        "reduced_frac_coords": np.concatenate(positions),
        "reduced_atomic_numbers": np.array([z for site in numbers for z in site], dtype=np.int64),
        "reduced_num_atoms": np.array([len(site) for site in numbers], dtype=np.int64),
    }
