"""Spectra from whatever a user has: npz, CSV, JSON lines, vasprun.xml, labels of others, a split of a cache.

    NAME.npz         `dos` (points,) or (curves, points), states/eV per atom, or `dos_per_cell` with `num_atoms` (one
                     number, or one per curve); `energies` (points,) in eV relative to the Fermi energy, without them
                     the 256 bins of the models; `names` (curves,)
    NAME.npz         with `energy_grid`: one crystal as `mattergen-e data label` takes it (`dos` of the cell, `numbers`)
    NAME.npz         of `mattergen-e dos-predictor predict`: `total` per atom on `total_energies`, `ids`
    NAME.csv         columns `energy`, and `dos` or `dos_per_cell` with `num_atoms`; `name` where there are many curves
    NAME.jsonl       a line per curve with the keys of the first npz and `name` or `id`
    vasprun.xml      also compressed, under any name that begins with vasprun
    <cache>/<split>  `total_dos` of the crystals of a cache

Nothing is asked of what is left out: empty fields in CSV, null in JSON, NaN in npz, energies beyond the first and last.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mattergen_e.crystals.findings import LabelError
from mattergen_e.data.cache import load_array
from mattergen_e.data.conditions import read_labels
from mattergen_e.errors import UserError, brief
from mattergen_e.labels.vasp import bands
from mattergen_e.labels.vasp import dos as vasp_dos
from mattergen_e.labels.vasp.vasprun import check_dos, read_vasprun
from mattergen_e.limits import open_npz, read_text
from mattergen_e.spectra.curves import Curve
from mattergen_e.spectra.grid import TOTAL_GRID
from mattergen_e.spectra.processing import FLOOR, TotalDosSettings
from mattergen_e.spectra.raw import RawDos

#: Gaussian that the labels of the training were smeared with, eV; calculations are given the same.
CALCULATED = TotalDosSettings().smearing
KINDS = "npz, CSV, JSON lines, vasprun.xml or a split of a cache"
STRUCTURES = (".cif", ".vasp", ".poscar", ".extxyz", ".xyz")
MAX_CURVES = 200_000
NPZ_KEYS = (
    "energies", "dos", "dos_per_cell", "num_atoms", "names", "energy_grid", "numbers", "complete_to", "total",
    "total_energies", "ids",
)  # fmt: skip

#: Makes curves of the crystals of a structure file: a forward predictor.
Predict = Callable[[Path], list[Curve]]


def read_curves(path: str | Path, predict: Predict | None = None) -> list[Curve]:
    """Read all spectra of a file.

    Args:
        path: Of one of the kinds above.
        predict: What supplies the spectra of a structure file; without, such a file is refused.

    Returns:
        The curves in the order of the file, not yet checked.

    Raises:
        UserError: If the file is missing, of an unknown kind, damaged, empty, or lacks what its kind needs.
    """
    path = Path(path)
    if path.is_dir():
        curves = list(_split(path))
    elif not path.is_file():
        raise UserError(f"{path} does not exist: give a file with a density of states ({KINDS}).")
    elif path.name.lower().startswith("vasprun"):
        curves = [_vasprun(path)]
    elif _is_structure(path):
        curves = curves_of_structures(path, predict)
    else:
        readers = {".npz": _npz, ".csv": _csv, ".jsonl": _json_lines, ".json": _json_lines}
        reader = readers.get(path.suffix.lower())
        if reader is None:
            raise UserError(f"{path} is of no known kind: give {KINDS}.")
        curves = list(reader(path))
    if not curves:
        raise UserError(f"{path} holds no spectrum: give a file with at least one.")
    if len(curves) > MAX_CURVES:
        raise UserError(f"{path} holds {len(curves)} spectra: give at most {MAX_CURVES} at once.")
    return curves


def curves_of_structures(path: Path, predict: Predict | None) -> list[Curve]:
    """Spectra of the crystals of a structure file, as a forward predictor gives them.

    Raises:
        UserError: If there is no predictor.
    """
    if predict is None:
        raise UserError(
            f"{path} is a structure, not a spectrum: name a forward predictor that makes its density of states, as in "
            "{'file': FILE, 'predictor': 'checkpoints/dos_predictor'}."
        )
    return predict(path)


def _is_structure(path: Path) -> bool:
    return path.suffix.lower() in STRUCTURES or path.name.upper().startswith(("POSCAR", "CONTCAR"))


# -- tables of numbers ------------------------------------------------------------------------------------------------


def _curves(fields: Mapping[str, Any], names: list[str], where: str) -> Iterator[Curve]:
    """Curves out of the keys of an npz or a JSON line: per atom, or per cell with the number of atoms."""
    per_cell = "dos_per_cell" in fields
    if per_cell == ("dos" in fields):
        raise UserError(f"{where} needs either 'dos' (states/eV per atom) or 'dos_per_cell' with 'num_atoms'.")
    dos = np.atleast_2d(_numbers(fields["dos_per_cell" if per_cell else "dos"], where))
    if dos.ndim != 2 or (names and len(names) != len(dos)):
        raise UserError(f"{where} has spectra of the shape {dos.shape} for {len(names)} names: give one row per curve.")
    if per_cell:
        sites = _numbers(fields.get("num_atoms", np.nan), where).reshape(-1, 1)
        if len(sites) not in (1, len(dos)) or not np.all(sites >= 1) or not np.isfinite(sites).all():
            raise UserError(f"{where} gives 'dos_per_cell' without its 'num_atoms', the number of sites of the cell.")
        dos = dos / sites
    if "energies" in fields:
        energies = _numbers(fields["energies"], where)
    elif dos.shape[1] == TOTAL_GRID.points:
        energies = TOTAL_GRID.energies
    else:
        raise UserError(f"{where} has {dos.shape[1]} values but no 'energies': add them, or give {TOTAL_GRID}.")
    for i, row in enumerate(dos):
        yield Curve(names[i] if names else str(i), energies, row)


def _numbers(values: Any, where: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where} holds what is no number, or rows of unequal length: give numbers.") from None


def _npz(path: Path) -> Iterator[Curve]:
    try:
        with open_npz(path) as content:
            arrays = {key: content[key] for key in NPZ_KEYS if key in content.files}
    except Exception as error:  # whatever a damaged zip or header leads to
        raise UserError(f"{path} is no npz file of plain arrays ({str(error).splitlines()[0][:80]}).") from None
    where = str(path)
    if {"total", "total_energies", "ids"} <= set(arrays):
        arrays = {"dos": arrays["total"], "energies": arrays["total_energies"], "names": arrays["ids"]}
    if "energy_grid" in arrays and {"dos", "numbers"} <= set(arrays):
        energies, total = (_numbers(arrays[key], where) for key in ("energy_grid", "dos"))
        limit = _numbers(arrays.get("complete_to", np.inf), where)
        raw = RawDos(energies, total, None, float(limit.min()) if limit.size else None)
        yield _calculated(path.stem, raw, arrays["numbers"].size, where)
        return
    yield from _curves(arrays, [str(name) for name in np.ravel(arrays.get("names", []))], where)


def _csv(path: Path) -> Iterator[Curve]:
    import pandas as pd

    try:
        table = pd.read_csv(path, skipinitialspace=True, dtype={"name": str})
    except (ValueError, OSError) as error:  # of pandas, all of its kinds
        raise UserError(f"{path} cannot be read as CSV ({str(error).splitlines()[0]}).") from None
    if "energy" not in table or not {"dos", "dos_per_cell"} & set(table):
        raise UserError(
            f"{path} needs a first line with the columns energy (eV relative to the Fermi energy) and dos (states/eV "
            f"per atom) or dos_per_cell and num_atoms; it has: {', '.join(map(str, table.columns[:8])) or 'none'}."
        )
    groups = table.groupby("name", sort=False) if "name" in table else [(path.stem, table)]
    for name, rows in groups:
        fields = {key: rows[key].to_numpy() for key in ("dos", "dos_per_cell") if key in rows}
        if "num_atoms" in rows:
            fields["num_atoms"] = rows["num_atoms"].to_numpy()[:1]
        yield from _curves({**fields, "energies": rows["energy"].to_numpy()}, [str(name)], f"{path}, curve '{name}'")


def _json_lines(path: Path) -> Iterator[Curve]:
    try:
        lines = read_text(path).split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): give JSON lines.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{where} is no JSON: give one curve per line.") from None
        if not isinstance(entry, dict):
            raise UserError(f"{where} is no JSON object: give one curve per line.")
        if "structure" in entry and not {"dos", "dos_per_cell"} & set(entry):
            curves_of_structures(path, None)
        name = next((str(entry[key]) for key in ("name", "id", "material_id") if key in entry), f"line {number}")
        if np.ndim(_numbers(entry.get("dos", entry.get("dos_per_cell", [])), where)) != 1:
            raise UserError(f"{where} holds no single curve: give one curve per line.")
        yield from _curves(entry, [name], where)


# -- calculations and caches ------------------------------------------------------------------------------------------


def _calculated(name: str, raw: RawDos, n_sites: int, where: str) -> Curve:
    """A calculation's curve: smeared as the labels are, empty below its first energy if it starts with nothing."""
    energies, total = np.asarray(raw.energies, dtype=np.float64), np.asarray(raw.total, dtype=np.float64)
    if total.ndim != 1 or energies.shape != total.shape or len(energies) < 2 or n_sites < 1:
        raise UserError(f"{where} has {total.size} values for {energies.size} energies and {n_sites} sites.")
    low = -math.inf if abs(total[0]) <= FLOOR else float(energies[0])
    high = float(energies[-1]) if raw.complete_to is None else min(float(energies[-1]), raw.complete_to)
    return Curve(name, energies, total / n_sites, CALCULATED, (low, high))


def _vasprun(path: Path) -> Curve:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = read_vasprun(path)
            check_dos(run)
            raw = vasp_dos.raw_dos(run, bands.fermi_energy(run))
    except LabelError as error:
        problem = error.sentence
    except Exception as error:  # pymatgen raises whatever the first missing entry leads to
        problem = brief(error)
    else:
        return _calculated(path.name, raw, len(run.final_structure), str(path))
    raise UserError(f"{path} has no density of states that can be used ({problem}).")


def _split(path: Path) -> Iterator[Curve]:
    if not (path / "structure_id.npy").is_file():
        raise UserError(f"{path} is a folder, but no split of a cache: give a file, or <cache>/test.")
    labels, names = read_labels(path, "dos"), load_array(path / "structure_id.npy")
    for name, row in zip(names.tolist(), labels, strict=True):
        if not np.isnan(row).all():
            values = np.where(row < 0, np.nan, row).astype(np.float64)
            yield Curve(str(name), TOTAL_GRID.energies, values)
