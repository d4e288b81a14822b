"""Building a reference set: chunk by chunk into files, put together at the end, so that a kill costs one chunk.

Energies are single points of the crystals as they are. Those of Materials Project or Alexandria are minima of PBE, near
the minima of potentials that were trained on them, and generated crystals are relaxed with the same calculator; a hull
of relaxed reference crystals would lie slightly lower.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from pymatgen.core import Element

from mattergen_e.energies import calculators
from mattergen_e.energies.elements import SOURCE, element_energies
from mattergen_e.energies.given import Energies, read_energies
from mattergen_e.errors import UserError
from mattergen_e.files import discard, replacing
from mattergen_e.journal import LOCK_NAME, FileJournal, difference, hold
from mattergen_e.provenance import hardware, versions
from mattergen_e.reference import assemble, reduced
from mattergen_e.reference.chunks import ChunkTask, compute_chunk, one_thread, shared_calculator
from mattergen_e.reference.fingerprints import AMD_NEIGHBOURS
from mattergen_e.reference.folder import MANIFEST_NAME, PROPERTIES_FOLDER, ReferenceManifest, read_manifest
from mattergen_e.reference.packed import is_packed
from mattergen_e.reference.sources import SPLITS, Crystals, read_sources, take

PARTS_FOLDER = "parts"
STAMP_NAME = "settings.json"
_CHUNK = re.compile(r"settings\.json|part_\d+\.npz|reduced_.+_\d+\.npz|\.mattergen_e-.+\.tmp")
CHUNK = 256


class BuildSettings(BaseModel):
    """What a reference set is built with.

    Attributes:
        splits: Of the caches; a test for novelty with respect to training crystals takes train alone.
        calculator: Of the energies, see `energies.calculators`; None for energies from a file or none at all.
        energies: File with energies, see `energies.given`; an element's symbol as a name gives the energy of the
            element.
        limit: First so many crystals only.
        device: cpu or cuda.
        chunk: Crystals per file of intermediate results.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    splits: tuple[str, ...] = SPLITS
    calculator: str | None = calculators.DEFAULT
    energies: Path | None = None
    limit: int | None = Field(default=None, ge=1)
    device: str = "cpu"
    chunk: int = Field(default=CHUNK, ge=1)


def build(
    sources: Sequence[Path],
    out: Path,
    settings: BuildSettings | None = None,
    *,
    jobs: int | None = None,
    backend: str = "loky",
    overwrite: bool = False,
) -> tuple[ReferenceManifest, bool]:
    """Builds a reference set, or goes on where an earlier run was stopped.

    Args:
        sources: Training caches, and .csv or .jsonl files of crystals.
        out: Folder to write.
        settings: What to build.
        jobs: Workers of one thread each; None for one per core, or one on a GPU.
        backend: Of joblib.
        overwrite: Replace a reference that is damaged, was built with other settings or of other sources.

    Returns:
        The manifest, and whether the reference was there already.

    Raises:
        UserError: If a source, the calculator or the file of energies is not usable, or the folder is not.
    """
    settings = settings or BuildSettings()
    given = _check(settings)
    if settings.device != "cpu" and settings.calculator and jobs is None:
        jobs = 1
    crystals = read_sources(sources, settings.splits, jobs, backend)
    if settings.limit is not None:
        crystals = take(crystals, np.arange(min(settings.limit, len(crystals))))
    stamp = _stamp(crystals, settings, given)
    _check_content(out)
    with hold(out, PARTS_FOLDER):
        if _find(out, stamp, overwrite):
            return _up_to_date(out, settings, jobs, backend), True
        parts = FileJournal(out / PARTS_FOLDER, "part_{}.npz")
        _compute(crystals, parts, settings, jobs, backend)
        manifest = _finish(crystals, out, parts, settings, stamp, given)
        manifest = reduced.complete(out, manifest, out / PARTS_FOLDER, settings.chunk, jobs, backend)
        return _write_manifest(out, manifest), False


def _check(settings: BuildSettings) -> Energies | None:
    unknown = [split for split in settings.splits if split not in SPLITS]
    if unknown or not settings.splits:
        raise UserError(f"The split {', '.join(unknown) or 'list'} is unknown: give some of {', '.join(SPLITS)}.")
    if settings.calculator is not None and settings.energies is None:
        calculators.require(settings.calculator)
        calculators.check_device(settings.device)
    return read_energies(settings.energies) if settings.energies is not None else None


def _source(settings: BuildSettings, given: Energies | None) -> dict[str, Any]:
    if given is not None:
        return given.source
    if settings.calculator is None:
        return {"kind": "none"}
    return {"kind": "calculator", **calculators.describe(settings.calculator), "task": "single point"}


def _stamp(crystals: Crystals, settings: BuildSettings, given: Energies | None) -> dict[str, Any]:
    return {
        "splits": list(settings.splits),
        "limit": settings.limit,
        "chunk": settings.chunk,
        "amd_neighbours": AMD_NEIGHBOURS,
        "energies": _source(settings, given),
        "sources": crystals.sources,
    }


def _check_content(out: Path) -> None:
    """Refuses a folder that holds something else: a reference is written over, and chunks of former ones removed."""
    if not out.is_dir():
        return
    if is_packed(out):
        raise UserError(f"{out} is a packed reference, which is not built on: choose another --out.")
    parts = out / PARTS_FOLDER
    chunks = [path.name for path in parts.iterdir()] if parts.is_dir() and not parts.is_symlink() else []
    foreign = [name for name in chunks if not _CHUNK.fullmatch(name)]
    if foreign or parts.is_symlink() or (parts.exists() and not parts.is_dir()):
        what = f"{parts.name}/{min(foreign)}" if foreign else parts.name
        raise UserError(f"{out} holds {what}, which is no part of a reference: choose another --out.")
    if _is_reference(out) or STAMP_NAME in chunks:
        return
    others = [path.name for path in out.iterdir() if path.name not in (LOCK_NAME, PARTS_FOLDER)]
    if others:
        raise UserError(f"{out} holds no reference but {min(others)}: choose another --out.")


def _is_reference(out: Path) -> bool:
    """Whether a folder holds a reference, even one whose manifest is damaged."""
    try:
        found = json.loads((out / MANIFEST_NAME).read_bytes())
    except (OSError, RecursionError):
        return False
    except ValueError:
        return all((out / f"{name}.npy").is_file() for name in ("ids", "num_atoms", "energies", "magpie"))
    return isinstance(found, dict) and {"structures", "energy_source", "arrays"} <= found.keys()


def _find(out: Path, stamp: dict[str, Any], overwrite: bool) -> bool:
    """Whether the reference is there; otherwise the folder is ready to be built in."""
    parts = out / PARTS_FOLDER
    found = None
    if (out / MANIFEST_NAME).is_file() and not overwrite:
        found = read_manifest(out).settings
        if found == stamp:
            return True
    else:
        (out / MANIFEST_NAME).unlink(missing_ok=True)  # whatever is wrong with it
        with suppress(OSError, ValueError):
            found = json.loads((parts / STAMP_NAME).read_bytes())
    differing = difference(found, stamp) if found is not None else None
    if differing is not None and not overwrite:
        raise UserError(
            f"{out} holds a reference with other {differing.key.partition('.')[0]} ({differing}): choose another "
            "--out, or replace it with --overwrite."
        )
    if found is None or differing is not None:  # chunks of unknown settings are not taken for ours
        _discard(parts)
    parts.mkdir(exist_ok=True)
    with replacing(parts / STAMP_NAME) as file:
        file.write(json.dumps(stamp).encode())
    return False


def _discard(parts: Path) -> None:
    if parts.exists():
        discard(parts)


def _compute(crystals: Crystals, parts: FileJournal, settings: BuildSettings, jobs: int | None, backend: str) -> None:
    """Computes the chunks that are missing."""
    assemble.fill(
        parts,
        len(crystals),
        settings.chunk,
        lambda missing: _tasks(crystals, missing, settings),
        compute_chunk,
        title="Reference",
        failure="could not be computed",
        jobs=jobs,
        backend=backend,
    )


def _tasks(crystals: Crystals, missing: Sequence[int], settings: BuildSettings) -> Iterator[ChunkTask]:
    calculator = settings.calculator if settings.energies is None else None
    offsets = np.concatenate([[0], np.cumsum(crystals.num_atoms)])
    for number in missing:
        start = number * settings.chunk
        end = min(start + settings.chunk, len(crystals))
        sites = slice(int(offsets[start]), int(offsets[end]))
        yield ChunkTask(
            number=number,
            num_atoms=crystals.num_atoms[start:end],
            cell=crystals.cell[start:end],
            frac_coords=crystals.frac_coords[sites],
            atomic_numbers=crystals.atomic_numbers[sites],
            calculator=calculator,
            device=settings.device,
        )


def _finish(
    crystals: Crystals,
    out: Path,
    parts: FileJournal,
    settings: BuildSettings,
    stamp: dict[str, Any],
    given: Energies | None,
) -> ReferenceManifest:
    """Puts the chunks together."""
    files = [parts.path(number) for number in range(math.ceil(len(crystals) / settings.chunk))]
    computed = assemble.load_small(files)
    energies = computed["energies"]
    if given is not None:
        energies = np.array([given.find(name) for name in crystals.ids.tolist()])
    elements, source = _elements(crystals, settings, given)
    (out / PROPERTIES_FOLDER).mkdir(exist_ok=True)
    whole = {
        "ids": crystals.ids,
        "split": crystals.split,
        "num_atoms": crystals.num_atoms,
        "cell": crystals.cell,
        "frac_coords": crystals.frac_coords,
        "atomic_numbers": crystals.atomic_numbers,
        "formulas": computed["formulas"],
        "chemical_systems": computed["chemical_systems"],
        "energies": energies,
        **{f"{PROPERTIES_FOLDER}/{name}": values for name, values in crystals.properties.items()},
    }
    arrays = {f"{name}.npy": assemble.write(out / f"{name}.npy", array) for name, array in whole.items()}
    for name in ("magpie", "amd"):
        arrays[f"{name}.npy"] = assemble.join(out / f"{name}.npy", files, name, len(crystals))
    return ReferenceManifest(
        created=datetime.now(UTC),
        structures=len(crystals),
        settings=stamp,
        sources=crystals.sources,
        energy_source=stamp["energies"],
        elements=elements,
        elements_source=source,
        missing_elements=_missing(crystals, computed["chemical_systems"], energies, elements),
        without_energy=int(np.isnan(energies).sum()),
        dropped_by_reason=crystals.dropped,
        arrays=arrays,
        provenance={"versions": versions(), "hardware": hardware()},
    )


def _write_manifest(out: Path, manifest: ReferenceManifest) -> ReferenceManifest:
    """Writes the manifest, which comes last."""
    with replacing(out / MANIFEST_NAME) as file:
        file.write(manifest.model_dump_json(indent=1).encode() + b"\n")
    _discard(out / PARTS_FOLDER)
    return manifest


def _up_to_date(out: Path, settings: BuildSettings, jobs: int | None, backend: str) -> ReferenceManifest:
    """The manifest of a reference that is there; what an earlier version did not write is added."""
    manifest = read_manifest(out)
    if not reduced.is_complete(manifest):
        manifest = reduced.complete(out, manifest, out / PARTS_FOLDER, settings.chunk, jobs, backend)
        return _write_manifest(out, manifest)
    _discard(out / PARTS_FOLDER)
    return manifest


def _occurring(crystals: Crystals) -> list[str]:
    return sorted(Element.from_Z(int(z)).symbol for z in np.unique(crystals.atomic_numbers))


def _elements(
    crystals: Crystals, settings: BuildSettings, given: Energies | None
) -> tuple[dict[str, float], str | None]:
    """Energies of elements that complete the hull, in eV/atom, and where they come from."""
    if given is not None:
        found = {name: energy for name, energy in given.values.items() if Element.is_valid_symbol(name)}
        return dict(sorted(found.items())), given.source["name"] if found else None
    if settings.calculator is None:
        return {}, None
    with one_thread():
        calculator = shared_calculator(settings.calculator, settings.device)
        return dict(sorted(element_energies(calculator, _occurring(crystals)).items())), SOURCE


def _missing(crystals: Crystals, systems: Any, energies: Any, elements: dict[str, float]) -> list[str]:
    known = set(systems[np.isfinite(energies)].tolist()) | set(elements)
    return [symbol for symbol in _occurring(crystals) if symbol not in known]
