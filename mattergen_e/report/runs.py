"""What a report is made of: evaluated runs, read from their folders."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from mattergen_e.crystals.entries import read_entries
from mattergen_e.errors import UserError, first_problem
from mattergen_e.evaluation.candidates import read_candidates
from mattergen_e.evaluation.schema import (
    CURVES,
    FOLDER,
    FORMAT,
    JSON_LINES,
    RELAXED,
    SITES,
    SUMMARY,
    Evaluation,
    parse,
)
from mattergen_e.limits import open_npz

if TYPE_CHECKING:
    from pymatgen.core import Structure

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SitePairs:
    """Generated descriptors of sites beside their labels.

    Attributes:
        crystal: (n_pairs,) index of the crystal.
        site: (n_pairs,) number of the site in it.
        number: (n_pairs,) atomic number.
        sun: (n_pairs,) whether the crystal is stable, unique and new.
        generated: (n_pairs,) numbers, (n_pairs, dim) vectors, or (n_pairs, points) spectra in states/eV.
        reference: The same of the labels.
        distance: (n_pairs,) Wasserstein distance in eV, for spectra.
        energies: (points,) eV relative to the Fermi energy, for spectra.
    """

    crystal: NDArray[np.int64]
    site: NDArray[np.int64]
    number: NDArray[np.int64]
    sun: NDArray[np.bool_]
    generated: Floats
    reference: Floats
    distance: Floats | None = None
    energies: Floats | None = None

    def __len__(self) -> int:
        return len(self.crystal)


@dataclass(frozen=True, eq=False)
class TargetCurves:
    """Spectra of crystals beside what they were asked for.

    Attributes:
        energies: (points,) eV relative to the Fermi energy.
        crystal: (n,) index of the crystal.
        curve: (n,) row of its target.
        generated: (n, points) states/eV per atom.
        targets: (curves, points) likewise, NaN where nothing is asked.
        names: Of the targets.
        cosine: (n,) of the two.
        random: Cosines of mismatched pairs.
    """

    energies: Floats
    crystal: NDArray[np.int64]
    curve: NDArray[np.int64]
    generated: Floats
    targets: Floats
    names: list[str]
    cosine: Floats
    random: Floats


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """One run and what `mattergen-e evaluate` found of it.

    Attributes:
        name: Of the run; no two of a report are the same.
        folder: The run's folder.
        summary: evaluation.json.
        rows: crystals.jsonl, one for every crystal that was asked for.
        structures: Generated crystals by index, with their site properties.
        relaxed: Relaxed ones by index.
        pairs: Generated values beside their labels, by the prefix of their arrays.
        curves: Densities of states beside what the crystals were asked for.
    """

    name: str
    folder: Path
    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    structures: dict[int, Structure] = field(default_factory=dict)
    relaxed: dict[int, Structure] = field(default_factory=dict)
    pairs: dict[str, SitePairs] = field(default_factory=dict)
    curves: TargetCurves | None = None

    def values(self, key: str, only: str | None = None) -> Floats:
        """Known values of a column.

        Args:
            key: Name of the column.
            only: Name of a flag that the crystals must have.
        """
        return known(row.get(key) for row in self.rows if only is None or row.get(only) is True)

    def properties(self, name: str, only: str | None = None) -> Floats:
        """Known values of a property, as `values`."""
        rows = [row for row in self.rows if only is None or row.get(only) is True]
        return known(_of_property(row, name).get("value") for row in rows)

    def property_sources(self, name: str) -> list[str]:
        """Where the values of a property come from."""
        sources = (_of_property(row, name).get("source") for row in self.rows)
        return list(dict.fromkeys(str(source) for source in sources if source))

    def property_names(self) -> list[str]:
        """Properties that any crystal has, in the order in which they turn up."""
        names = (name for row in self.rows if isinstance(row.get("properties"), dict) for name in row["properties"])
        return list(dict.fromkeys(names))

    def asked(self) -> int:
        """Number of crystals asked for."""
        return int(self.summary.get("asked", len(self.rows)))

    def part(self, *keys: str) -> dict[str, Any]:
        """A part of evaluation.json; empty where it has none."""
        found: Any = self.summary
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}


def known(values: Any) -> Floats:
    """Those of some values that are finite numbers."""
    return np.array([value for value in values if number(value) is not None], dtype=float)


def number(value: Any) -> float | None:
    """A finite number, or None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _of_property(row: dict[str, Any], name: str) -> dict[str, Any]:
    properties = row.get("properties")
    found = properties.get(name) if isinstance(properties, dict) else None
    return found if isinstance(found, dict) else {}


# -- reading ----------------------------------------------------------------------------------------------------------


def read_runs(paths: Sequence[Path]) -> list[EvaluatedRun]:
    """Read evaluated runs; of runs of the same name all but the first get a number.

    Args:
        paths: Folders of runs that hold a folder evaluation, or such folders themselves.

    Raises:
        UserError: If one was not evaluated, or a file is damaged.
    """
    runs: list[EvaluatedRun] = []
    for path in paths:
        run = read_run(path)
        taken, name, again = {other.name for other in runs}, run.name, 2
        while name in taken:
            name, again = f"{run.name} ({again})", again + 1
        runs.append(replace(run, name=name))
    return runs


def read_run(path: Path) -> EvaluatedRun:
    """Read one evaluated run.

    Args:
        path: The run's folder, or the folder that `mattergen-e evaluate` wrote; NAME= before it gives it a name.

    Raises:
        UserError: If it was not evaluated, or a file is damaged.
    """
    given, equals, rest = str(path).partition("=")
    if equals and not path.exists():
        return replace(read_run(Path(rest)), name=given)
    folder = path / FOLDER if (path / FOLDER / SUMMARY).is_file() else path
    if not (folder / SUMMARY).is_file():
        raise UserError(f"{path} holds no {FOLDER}/{SUMMARY}: run `mattergen-e evaluate {path} --reference REF` first.")
    run = path.parent if folder == path and path.name == FOLDER else path
    with _sound(folder / SUMMARY):
        summary = parse((folder / SUMMARY).read_bytes())
        evaluation = _valid(summary)
    with _sound(folder / JSON_LINES):
        rows = [json.loads(line) for line in (folder / JSON_LINES).read_bytes().splitlines() if line.strip()]
        if not all(isinstance(row, dict) and isinstance(row.get("index"), int) for row in rows):
            raise ValueError("a line has no index")
    with _sound(folder / SITES):
        pairs = _site_pairs(folder / SITES)
    with _sound(folder / CURVES):
        curves = _target_curves(folder / CURVES)
    return EvaluatedRun(
        name=evaluation.name or run.resolve().name,
        folder=run,
        summary=summary,
        rows=rows,
        structures=_structures(run, evaluation, {row["index"]: row.get("key") for row in rows}),
        relaxed=_relaxed(folder / RELAXED),
        pairs=pairs,
        curves=curves,
    )


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """What a missing or damaged file makes its readers raise becomes a `UserError`."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `mattergen-e evaluate` again, which writes it anew.") from None
    except (OSError, ValueError, LookupError, TypeError, EOFError, RecursionError, zipfile.BadZipFile) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path} is damaged ({reason}): run `mattergen-e evaluate` again, which writes it anew."
        ) from error


def _valid(summary: Any) -> Evaluation:
    """Evaluation.json, which for a report need not be complete."""
    if not isinstance(summary, dict):
        raise ValueError("it is no object")
    try:
        return Evaluation.model_validate({"format": FORMAT, "asked": 0, "rates": {}} | summary)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None


def _structures(run: Path, evaluation: Evaluation, keys: dict[int, Any]) -> dict[int, Structure]:
    """Generated crystals by index, those that were evaluated; from the run's folder or the evaluation's first input."""
    places = [run, *(Path(name) for name in list(evaluation.provenance.inputs)[:1])]
    for place in places:
        try:
            found = {one.index: one.structure for one in read_candidates(place) if one.key == keys.get(one.index)}
        except UserError:
            continue
        if any(structure is not None for structure in found.values()):
            return {index: structure for index, structure in found.items() if structure is not None}
    return {}


def _relaxed(path: Path) -> dict[int, Structure]:
    """Relaxed crystals by the index in their comment lines."""
    if not path.is_file() or not path.stat().st_size:
        return {}
    found = {}
    with _sound(path):
        for entry in read_entries(path):
            if entry.structure is None or entry.index is None:
                raise ValueError(f"{entry.place} {entry.problem or 'has no index'}")
            found[entry.index] = entry.structure
    return found


def _site_pairs(path: Path) -> dict[str, SitePairs]:
    if not path.is_file():
        return {}
    with open_npz(path) as arrays:
        found = dict(arrays)
    names = [name.removesuffix("_generated") for name in found if name.endswith("_generated")]
    return {name: pairs for name in names if (pairs := _pairs(found, name)) is not None}


def _target_curves(path: Path) -> TargetCurves | None:
    """None where there is no such file, or nothing in it with a cosine."""
    if not path.is_file():
        return None
    with open_npz(path) as arrays:
        floats = {name: arrays[name].astype(float) for name in ("energies", "generated", "targets", "cosine")}
        numbers = {name: arrays[name].astype(int) for name in ("crystal", "curve")}
        names, random = arrays["names"].tolist(), arrays["random_cosine"].astype(float)
    found = TargetCurves(**floats, **numbers, names=[str(name) for name in names], random=random)
    n, points, curves = len(found.crystal), len(found.energies), len(found.names)
    shapes = (found.generated.shape, found.targets.shape, found.curve.shape, found.cosine.shape)
    if shapes != ((n, points), (curves, points), (n,), (n,)) or not np.isin(found.curve, np.arange(curves)).all():
        raise ValueError("its arrays do not fit each other")
    return found if np.isfinite(found.cosine).any() else None


def _pairs(arrays: dict[str, Any], name: str) -> SitePairs | None:
    """Pairs of one descriptor from the arrays <name>_<field>, those with a distance; None where there are none."""
    if f"{name}_generated" not in arrays:
        return None
    kinds = {"crystal": int, "site": int, "number": int, "sun": bool, "generated": float, "reference": float}
    if f"{name}_distance" in arrays:
        kinds["distance"] = float
    fields = {key: np.asarray(arrays[f"{name}_{key}"]).astype(kind) for key, kind in kinds.items()}
    if len({len(values) for values in fields.values()}) != 1:
        raise ValueError(f"the arrays {name}_... have different lengths")
    rows = np.isfinite(fields["distance"] if "distance" in fields else fields["crystal"])
    if not rows.any():
        return None
    energies = np.asarray(arrays[f"{name}_energies"], dtype=float) if "distance" in fields else None
    return SitePairs(**{key: values[rows] for key, values in fields.items()}, energies=energies)
