"""Building a reference set: chunk by chunk into files, put together at the end, so that a kill costs one chunk.

Energies are single points of the crystals as they are. Those of Materials Project or Alexandria are minima of PBE, near
the minima of potentials that were trained on them, and generated crystals are relaxed with the same calculator; a hull
of relaxed reference crystals would lie slightly lower.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mattergen_e.energies import calculators
from mattergen_e.energies.given import Energies, read_energies
from mattergen_e.errors import UserError
from mattergen_e.files import LOCK_NAME, Lock, add_array, remove_temporary, replacing
from mattergen_e.parallel import in_parallel
from mattergen_e.progress import bar
from mattergen_e.reference import assemble, reduced
from mattergen_e.reference.chunks import ChunkTask, compute_chunk, one_thread, shared_calculator
from mattergen_e.reference.folder import MANIFEST_NAME, PROPERTIES_FOLDER, ReferenceManifest, read_manifest
from mattergen_e.reference.sources import SPLITS, Crystals, read_sources, take

PARTS_FOLDER = "parts"
STAMP_NAME = "settings.json"
CHUNK = 256


class BuildSettings(BaseModel):
    """What a reference set is built with.

    Attributes:
        splits: Of the caches; a test for novelty with respect to training crystals takes train alone.
        calculator: Of the energies, see `evaluation.calculators`; None for energies from a file or none at all.
        energies: File with energies, see `evaluation.energies`; an element's symbol as a name gives the energy of the
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
    lock = _open(out)
    try:
        if _find(out, stamp, overwrite):
            return _up_to_date(out, settings, jobs, backend), True
        _compute(crystals, out / PARTS_FOLDER, settings, jobs, backend)
        manifest = _finish(crystals, out, settings, stamp, given)
        manifest = reduced.complete(out, manifest, out / PARTS_FOLDER, settings.chunk, jobs, backend)
        return _write_manifest(out, manifest), False
    finally:
        lock.release()


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
    from mattergen_e.reference.fingerprints import AMD_NEIGHBOURS

    return {
        "splits": list(settings.splits),
        "limit": settings.limit,
        "chunk": settings.chunk,
        "amd_neighbours": AMD_NEIGHBOURS,
        "energies": _source(settings, given),
        "sources": crystals.sources,
    }


def _open(out: Path) -> Lock:
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not (out / MANIFEST_NAME).is_file() and not (out / PARTS_FOLDER / STAMP_NAME).is_file():
            others = [p.name for p in out.iterdir() if p.name not in (LOCK_NAME, PARTS_FOLDER)]
            if others:
                raise UserError(f"{out} holds no reference but {others[0]}: choose another --out.")
        return Lock(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written to ({error.strerror or error}): choose another --out.") from None


def _find(out: Path, stamp: dict[str, Any], overwrite: bool) -> bool:
    """Whether the reference is there; otherwise the folder is ready to be built in."""
    remove_temporary(out)
    parts = out / PARTS_FOLDER
    found = None
    if (out / MANIFEST_NAME).is_file():
        if overwrite:  # whatever is wrong with it
            (out / MANIFEST_NAME).unlink()
            return _find(out, stamp, overwrite)
        found = read_manifest(out).settings
        if found == stamp:
            return True
    elif (parts / STAMP_NAME).is_file():
        with suppress(OSError, ValueError):
            found = json.loads((parts / STAMP_NAME).read_bytes())
    if found is not None and found != stamp:
        if not overwrite:
            differing = next(key for key in stamp if found.get(key) != stamp[key])
            raise UserError(
                f"{out} holds a reference with other {differing}: choose another --out, or replace it with --overwrite."
            )
        shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(exist_ok=True)
    remove_temporary(parts)
    with replacing(parts / STAMP_NAME) as file:
        file.write(json.dumps(stamp).encode())
    return False


def _compute(crystals: Crystals, parts: Path, settings: BuildSettings, jobs: int | None, backend: str) -> None:
    """Computes the chunks that are missing."""
    starts = range(0, len(crystals), settings.chunk)
    missing = [i for i in range(len(starts)) if not part_file(parts, i).is_file()]
    done = len(crystals) - sum(min(settings.chunk, len(crystals) - starts[i]) for i in missing)
    calculator = settings.calculator if settings.energies is None else None
    with bar("Reference", len(crystals), done) as advance:
        tasks = _tasks(crystals, starts, missing, settings, calculator)
        with closing(in_parallel(compute_chunk, tasks, jobs, backend)) as results:
            for number, arrays in results:
                if isinstance(arrays, str):
                    raise UserError(f"Crystals {starts[number]} and following could not be computed ({arrays}).")
                _write_part(part_file(parts, number), arrays)
                advance(len(arrays["formulas"]))


def _tasks(
    crystals: Crystals, starts: range, missing: Sequence[int], settings: BuildSettings, calculator: str | None
) -> Iterator[ChunkTask]:
    offsets = np.concatenate([[0], np.cumsum(crystals.num_atoms)])
    for number in missing:
        start = starts[number]
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


def part_file(parts: Path, number: int) -> Path:
    """Where the results of a chunk are."""
    return parts / f"part_{number:06d}.npz"


def _write_part(path: Path, arrays: dict[str, Any]) -> None:
    from zipfile import ZipFile

    with replacing(path) as file, ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            add_array(archive, name, array)


def _finish(
    crystals: Crystals, out: Path, settings: BuildSettings, stamp: dict[str, Any], given: Energies | None
) -> ReferenceManifest:
    """Puts the chunks together."""
    from mattergen_e.provenance import hardware, versions

    parts = [part_file(out / PARTS_FOLDER, i) for i in range(math.ceil(len(crystals) / settings.chunk))]
    computed = assemble.load_small(parts)
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
        arrays[f"{name}.npy"] = assemble.join(out / f"{name}.npy", parts, name, len(crystals))
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
    shutil.rmtree(out / PARTS_FOLDER, ignore_errors=True)
    return manifest


def _up_to_date(out: Path, settings: BuildSettings, jobs: int | None, backend: str) -> ReferenceManifest:
    """The manifest of a reference that is there; what an earlier version did not write is added."""
    manifest = read_manifest(out)
    if not reduced.is_complete(manifest):
        manifest = reduced.complete(out, manifest, out / PARTS_FOLDER, settings.chunk, jobs, backend)
        return _write_manifest(out, manifest)
    shutil.rmtree(out / PARTS_FOLDER, ignore_errors=True)
    return manifest


def _occurring(crystals: Crystals) -> list[str]:
    from pymatgen.core import Element

    return sorted(Element.from_Z(int(z)).symbol for z in np.unique(crystals.atomic_numbers))


def _elements(
    crystals: Crystals, settings: BuildSettings, given: Energies | None
) -> tuple[dict[str, float], str | None]:
    """Energies of elements that complete the hull, in eV/atom, and where they come from."""
    from mattergen_e.energies.elements import SOURCE, element_energies

    if given is not None:
        from pymatgen.core import Element

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
