"""A cache whose crystals have predicted spectra where nobody calculated one, to train conditional models on.

Spectra are calculated for few crystals, and a model that is conditioned on them needs many. The predictor's are close
to calculated ones, and wrong in its own way: what was trained on them must be judged with calculated targets, and by
another predictor or by calculations.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.data.cache import (
    CRYSTALS_FOLDER,
    MANIFEST_NAME,
    SiteStatistics,
    SiteValue,
    hash_array,
    load_array,
    load_manifest,
    open_crystals,
)
from mattergen_e.data.dataset import JointCrystalDataset
from mattergen_e.errors import UserError
from mattergen_e.files import appearing
from mattergen_e.journal import claim
from mattergen_e.networks.predictor.model import Predictor
from mattergen_e.progress import bar

TOTAL = "total_dos"
UNIT = "states/eV/atom"


@dataclass(frozen=True)
class Filled:
    """How many crystals of a split have a calculated spectrum, a predicted one, or none because it is withheld."""

    calculated: int
    predicted: int
    withheld: int


def fill(
    predictor: Predictor,
    cache: str | Path,
    out: str | Path,
    *,
    calculated: str | Path | None = None,
    batch_size: int = 64,
    progress: bool = False,
) -> dict[str, Filled]:
    """Write a copy of a cache with the total DOS of all its crystals.

    Args:
        predictor: Gives the spectra.
        cache: Structures.
        out: New cache.
        calculated: Cache with calculated spectra: those of its `train` split take the place of predicted ones, and the
            crystals of its other splits get none, so that they stay unseen as targets.
        batch_size: Crystals per network call.
        progress: Whether to show a progress bar.

    Returns:
        Counts by split.

    Raises:
        UserError: If a cache is missing or damaged, the calculated spectra were made another way than the predictor's,
            or `out` exists.
    """
    cache, out = Path(cache), Path(out)
    manifest = load_manifest(cache)
    if out.exists():
        raise UserError(f"{out} exists: give another --out, or remove it first.")
    if out.resolve().is_relative_to(cache.resolve()):
        raise UserError(f"{out} is in {cache}, of which it is to be a copy: give another --out.")
    if calculated is not None:
        predictor.require_cache(calculated)
    known, withheld = _calculated(calculated)
    with claim(out):
        if out.exists():  # as a killed process left it, or another one
            raise UserError(f"{out} exists: give another --out, or remove it first.")
        with appearing(out) as part:
            shutil.copytree(cache, part, dirs_exist_ok=True)
            counts, splits, statistics = {}, {}, {}
            for name, split in manifest.splits.items():
                values, counts[name] = _spectra(predictor, part / name, known, withheld, batch_size, progress)
                (part / name / CRYSTALS_FOLDER).mkdir(exist_ok=True)
                np.save(part / name / CRYSTALS_FOLDER / f"{TOTAL}.npy", values, allow_pickle=False)
                hashes = split.arrays_sha256 | {f"{CRYSTALS_FOLDER}/{TOTAL}": hash_array(values)}
                splits[name] = split.model_copy(update={"arrays_sha256": hashes})
                statistics[name] = _statistics(values, load_array(part / name / "num_atoms.npy"))
            made_by: dict[str, Any] = {"predictor": predictor.fingerprint}
            if calculated is not None:
                made_by["calculated"] = {k: s.ids_sha256 for k, s in load_manifest(calculated).splits.items()}
            value = SiteValue(unit=UNIT, dim=predictor.grids.total.points, column="predicted", splits=statistics)
            filled = manifest.model_copy(
                update={
                    "splits": splits,
                    "crystal_values": manifest.crystal_values | {TOTAL: value},
                    "processing": manifest.processing | {TOTAL: predictor.processing.total_dos.model_dump(mode="json")},
                    "settings": manifest.settings | {"filled": made_by},
                }
            )
            (part / MANIFEST_NAME).write_text(filled.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return counts


def _calculated(cache: str | Path | None) -> tuple[dict[str, NDArray[np.float32]], set[str]]:
    """Spectra of training crystals by id, and the ids of the other splits."""
    known: dict[str, NDArray[np.float32]] = {}
    withheld: set[str] = set()
    for name in load_manifest(cache).splits if cache is not None else ():
        folder = Path(cache or "") / name
        ids = load_array(folder / "structure_id.npy").tolist()
        if name == "train":
            spectra = open_crystals(folder, TOTAL)
            known = {id_: row for id_, row in zip(ids, spectra, strict=True) if np.isfinite(row).all()}
        else:
            withheld |= set(ids)
    return known, withheld


def _spectra(
    predictor: Predictor,
    folder: Path,
    known: dict[str, NDArray[np.float32]],
    withheld: set[str],
    batch_size: int,
    progress: bool,
) -> tuple[NDArray[np.float32], Filled]:
    """(crystals, points) of a split, NaN for those that are withheld."""
    dataset: Any = JointCrystalDataset.from_cache_path(str(folder))
    ids = load_array(folder / "structure_id.npy").tolist()
    values = np.full((len(ids), predictor.grids.total.points), np.nan, dtype=np.float32)
    for row in (row for row, id_ in enumerate(ids) if id_ in known):
        values[row] = known[ids[row]]
    rows = [row for row, id_ in enumerate(ids) if id_ not in known and id_ not in withheld]
    with bar(f"Predicting {folder.name}", len(rows), wanted=progress) as advance:
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            values[chosen] = predictor.predict([dataset[row] for row in chosen], batch_size).total
            advance(len(chosen))
    calculated = sum(id_ in known for id_ in ids)
    return values, Filled(calculated, len(rows), len(ids) - calculated - len(rows))


def _statistics(values: NDArray[np.float32], num_atoms: NDArray[Any]) -> SiteStatistics:
    labelled = np.isfinite(values).all(axis=1)
    return SiteStatistics(
        labelled_crystals=int(labelled.sum()),
        labelled_sites=int(num_atoms[labelled].sum()),
        coverage=float(labelled.mean()),
        rms=float(np.sqrt(np.mean(values[labelled].astype(np.float64) ** 2))) if labelled.any() else None,
    )
