"""Labels from open DFT: total and site DOS, density and Bader charges of crystals, computed with GPAW.

PBE with plane waves; each crystal in a process of its own, in a Python that has GPAW (`gpaw_worker`). The DOS comes
with as many empty bands as it needs to be complete up to `ComputeSettings.dos_to`. Bader charges are partitioned and
integrated on the all-electron density, core included, whose integral over a basin is compared with the atomic number.
Results are in `compute_folder`'s format, which `mattergen-e data label` reads.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mattergen_e.crystals.reading import read_structures
from mattergen_e.errors import UserError
from mattergen_e.files import check_name
from mattergen_e.labels.computed.calculation import WORKER, ComputeSettings, Job, run_one
from mattergen_e.labels.computed.folder import ComputeFolder
from mattergen_e.parallel import in_parallel
from mattergen_e.progress import bar

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from mattergen_e.crystals.reading import NamedStructure

REMEDY = (
    "install it (`apt-get install gpaw gpaw-data`, or `pip install 'mattergen-e[gpaw]'`), or name a Python that has it "
    "with --python"
)
PROBE_SECONDS = 120


@dataclass(frozen=True)
class Interpreter:
    """A Python that has GPAW, and the versions that it has."""

    path: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Summary:
    """What a run came to.

    Attributes:
        computed: Crystals computed now.
        present: Crystals that were there already.
        failed: Crystals that are in failed.jsonl.
        refused: Crystals without charges, among those in the folder.
    """

    computed: int
    present: int
    failed: int
    refused: int


def compute(
    sources: Iterable[str | Path | NamedStructure],
    out: str | Path,
    *,
    settings: ComputeSettings | None = None,
    python: str | Path | None = None,
    jobs: int | None = 1,
    backend: str = "loky",
    timeout: float = 14400.0,
    overwrite: bool = False,
    retry_failed: bool = False,
    keep_density: bool = False,
    progress: bool = True,
) -> Summary:
    """Compute crystals, those that are not in the folder yet.

    Args:
        sources: Files and folders as `read_structures` takes them, or structures with ids.
        out: Folder of the results.
        settings: How to compute.
        python: An interpreter with GPAW; None looks for one (`find_python`).
        jobs: Crystals at a time; None takes one per core. Each needs the memory of a calculation.
        backend: Of joblib, as in `in_parallel`.
        timeout: Longest time of a crystal, s.
        overwrite: Replace crystals that were computed with other settings, or from other structures of the same id.
        retry_failed: Compute crystals again that failed before.
        keep_density: Keep the all-electron density as <id>.CHGCAR.
        progress: Show a progress bar on stderr if it is a terminal.

    Raises:
        UserError: If an input, an option or the folder cannot be used, or there is no GPAW.
    """
    settings, out = settings or ComputeSettings(), Path(out)
    named = _named(sources)
    interpreter = find_python(python)
    shaping = settings.model_dump(mode="json", exclude={"max_iterations"})
    with ComputeFolder(out, settings.hash(), overwrite, shaping) as folder:
        tasks = [_job(item, out, interpreter.path, settings, timeout, keep_density) for item in named]
        todo = _todo(tasks, folder, overwrite, retry_failed)
        present = sum(job.id in folder.done for job in tasks) - sum(job.id in folder.done for job in todo)
        results = in_parallel(run_one, todo, jobs, backend)
        with bar("Computing crystals", len(todo), wanted=progress) as advance, closing(results):
            for line in results:
                if "stop" in line:
                    raise UserError(line["stop"])
                folder.add(line, failed=line["status"] == "failed")
                advance()
        ids = {job.id for job in tasks}
        return Summary(
            computed=sum(job.id in folder.done for job in todo),
            present=present,
            failed=len(ids & set(folder.failed)),
            refused=sum(not folder.done[name]["has_bader"] for name in ids & set(folder.done)),
        )


def _named(sources: Iterable[str | Path | NamedStructure]) -> list[NamedStructure]:
    sources, named = list(sources), []
    for source in sources:
        named += read_structures([source]) if isinstance(source, str | Path) else [source]
    seen: set[str] = set()
    for item in named:
        if item.id in seen:
            raise UserError(f"Two crystals have the id {item.id!r}: rename a file, or give JSON lines with ids.")
        try:
            check_name(item.id)
        except ValueError as error:
            raise UserError(f"The id {item.id[:80]!r} cannot be the name of a file: {error}.") from None
        seen.add(item.id)
    if not named:
        raise UserError("No crystals: name files or folders with structures.")
    return named


def _job(
    named: NamedStructure, out: Path, python: str, settings: ComputeSettings, timeout: float, keep_density: bool
) -> Job:
    structure = named.structure
    return Job(
        id=named.id,
        cell=structure.lattice.matrix.tolist(),
        numbers=[getattr(site.species.elements[0], "Z", 0) if site.is_ordered else 0 for site in structure],
        frac=structure.frac_coords.tolist(),
        magmoms=_moments(structure),
        formula=structure.composition.reduced_formula,
        out=str(out.resolve()),
        python=python,
        settings=settings,
        timeout=timeout,
        keep_density=keep_density,
        main=os.getpid(),
    )


def _moments(structure: Structure) -> list[float]:
    """Initial moments in Bohr magnetons."""
    given = structure.site_properties.get("magmom")
    if given is not None and all(isinstance(moment, int | float) for moment in given):
        return [float(moment) for moment in given]
    guess = {"d": 3.0, "f": 5.0}
    return [guess.get(getattr(site.species.elements[0], "block", "s"), 0.6) for site in structure]


def _todo(tasks: Sequence[Job], folder: ComputeFolder, overwrite: bool, retry_failed: bool) -> list[Job]:
    """Crystals that are neither finished nor known to fail."""
    todo, again = [], []
    for job in tasks:
        done, failed = folder.done.get(job.id), folder.failed.get(job.id)
        if done is not None and done["input_hash"] != job.input_hash():
            if not overwrite:
                raise UserError(
                    f"{folder.folder} holds {job.id} computed from another structure: rename the new one, choose "
                    "another --out, or replace it with --overwrite."
                )
            done = None
        if failed is not None and (retry_failed or failed["input_hash"] != job.input_hash()):
            again.append(job.id)
            failed = None
        if done is None and failed is None:
            todo.append(job)
    folder.forget(again)
    return todo


# -- the Python that has GPAW -----------------------------------------------------------------------------------------


def find_python(given: str | Path | None = None) -> Interpreter:
    """An interpreter that has GPAW.

    Args:
        given: The one to use; None tries this process's, then /usr/bin/python3, then python3 on the PATH.

    Raises:
        UserError: If there is none, or the given one has no GPAW.
    """
    if given is not None:
        found, reason = _probe(str(given))
        if found is None:
            raise UserError(f"{given} does not run GPAW ({reason}): {REMEDY}.")
        return found
    own = [sys.executable] if find_spec("gpaw") is not None else []
    on_path: str | None = shutil.which("python3")
    reasons = []
    candidates: list[str] = [*own, "/usr/bin/python3", *([on_path] if on_path else [])]
    for candidate in dict.fromkeys(candidates):
        if os.path.exists(candidate):
            found, reason = _probe(candidate)
            if found is not None:
                return found
            reasons.append(f"{candidate}: {reason}")
    raise UserError(f"GPAW is not found ({'; '.join(reasons) or 'no Python to look in'}): {REMEDY}.")


def _probe(path: str) -> tuple[Interpreter | None, str]:
    """The interpreter if it has GPAW, else the reason why not."""
    try:
        result = subprocess.run(
            [path, str(WORKER), "--versions"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
        )
        if result.returncode == 0:
            return Interpreter(path, json.loads(result.stdout.strip().splitlines()[-1])), ""
        return None, (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1][:200]
    except subprocess.TimeoutExpired:
        return None, f"no answer within {PROBE_SECONDS} s"
    except OSError as error:
        return None, error.strerror or str(error)
    except (ValueError, IndexError):
        return None, "no version in its answer"
