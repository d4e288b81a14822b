"""One crystal of `mattergen-e data compute`: GPAW in a process of its own, then Bader charges and their checks here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from mattergen_e import provenance
from mattergen_e.crystals.checks import EntryError, check_cell, check_distances
from mattergen_e.crystals.findings import Finding, LabelError
from mattergen_e.files import replacing
from mattergen_e.labels.bader import find_basins
from mattergen_e.labels.checks import check_charges, equivalent_sites
from mattergen_e.labels.computed.folder import DENSITY_SUFFIX, work_folder
from mattergen_e.labels.settings import BaderSettings
from mattergen_e.labels.vasp.files import read_density

if TYPE_CHECKING:
    from pymatgen.core import Structure

FAILURES = {
    "not_converged": "the electronic steps did not converge",
    "missing_setup": "GPAW has no PAW setup for an element",
    "memory": "the memory did not suffice",
    "timeout": "the calculation took longer than allowed",
    "bad_structure": "the structure cannot be computed",
    "failed": "the calculation ended with another error",
}
WORKER = Path(__file__).with_name("worker.py")
POLL_SECONDS = 0.2
#: GPAW's name of it and ours.
FUNCTIONAL = "PBE"
#: What started this process; a process of a pool that has another parent later has lost its run.
_PARENT = os.getppid()


class ComputeSettings(BaseModel):
    """What shapes the result of a calculation.

    Attributes:
        calculator: The code.
        cutoff: Kinetic energy of the largest plane wave, eV.
        kpoint_density: k-points per Å^-1 along each axis; the meshes are even and hold the Γ point.
        smearing: Width of the Fermi-Dirac occupation, eV.
        spin: Spin-polarised, from ferromagnetic moments: the site property `magmom` where the structure has it, else
            3 (d block), 5 (f block) or 0.6 Bohr magnetons.
        bands: Bands of the self-consistent steps, as a multiple of the occupied ones.
        dos_to: The DOS has all bands up to this energy, eV relative to the Fermi energy.
        dos_width: w of the broadening exp(-(E/w)^2) of the DOS, eV; its standard deviation is w / sqrt(2).
        refinement: Points of the all-electron density per point of GPAW's coarse grid, along each axis.
        bader: Partition of the density and checks of the charges.
        max_iterations: Most electronic steps; does not shape a converged result.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    calculator: Literal["gpaw"] = "gpaw"
    cutoff: float = Field(default=350.0, ge=100, le=5000)
    kpoint_density: float = Field(default=2.5, gt=0, le=50)
    smearing: float = Field(default=0.05, gt=0, le=5)
    spin: bool = False
    bands: float = Field(default=1.4, ge=1.1, le=20)
    dos_to: float = Field(default=5.0, ge=-15, le=10)
    dos_width: float = Field(default=0.1, gt=0, le=5)
    refinement: Literal[2, 4] = 4
    bader: BaderSettings = BaderSettings()
    max_iterations: int = Field(default=333, ge=1)

    def hash(self) -> str:
        """SHA-256 of all that shapes a result."""
        return _digest(self.model_dump(mode="json", exclude={"max_iterations"}))


@dataclass(frozen=True)
class Job:
    """One crystal to compute, as it is sent to a worker of joblib; it holds only what can be pickled cheaply."""

    id: str
    cell: list[list[float]]
    numbers: list[int]
    frac: list[list[float]]
    magmoms: list[float]
    formula: str
    out: str
    python: str
    settings: ComputeSettings
    timeout: float
    keep_density: bool
    main: int

    def input_hash(self) -> str:
        """SHA-256 of the crystal and, where they matter, its initial moments."""
        moments = self.magmoms if self.settings.spin else None
        return _digest([(np.round([*self.cell, *self.frac], 8) + 0.0).tolist(), self.numbers, moments])


class _Failed(Exception):
    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason, self.sentence = reason, sentence


def run_one(job: Job) -> dict[str, Any]:
    """Compute one crystal and write its .npz; runs in a worker of joblib and raises nothing.

    Args:
        job: The crystal.

    Returns:
        Its line for manifest.jsonl or failed.jsonl, or {"stop": sentence} where going on makes no sense.
    """
    _end_with_run(job)
    start = time.perf_counter()
    line: dict[str, Any] = {"material_id": job.id, "formula": job.formula, "num_atoms": len(job.numbers)}
    line |= {"settings_hash": job.settings.hash(), "input_hash": job.input_hash()}
    try:
        work = work_folder(Path(job.out))
        try:
            line |= _calculate(job, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except _Failed as error:
        line |= {"status": "failed", "reason": error.reason, "sentence": error.sentence}
    except OSError as error:
        return {"stop": f"{job.id} cannot be computed in {job.out} ({error.strerror or error}): mend it and rerun."}
    except Exception as error:
        line |= {"status": "failed", "reason": "failed", "sentence": f"{type(error).__name__}: {error}"}
    return line | {"seconds": round(time.perf_counter() - start, 1)}


def _calculate(job: Job, work: Path) -> dict[str, Any]:
    structure = _checked(job)
    versions = _run_worker(job, work)
    with np.load(work / ".result.npz", allow_pickle=False) as archive:
        result = {name: archive[name] for name in archive.files}
    order = result.pop("site_order")
    spread, findings = None, []
    try:
        charges, spread, findings = _bader(work / "CHGCAR", structure, order, job.settings.bader)
        result |= {name: values.astype(np.float32) for name, values in charges.items()}
    except LabelError as error:
        findings = [Finding("bader", error.reason, error.sentence, refused=True)]
    result |= {"cell": np.array(job.cell), "numbers": np.array(job.numbers), "frac": np.array(job.frac)}
    if job.keep_density:
        (work / "CHGCAR").replace(Path(job.out) / f"{job.id}{DENSITY_SUFFIX}")
    with replacing(Path(job.out) / f"{job.id}.npz") as file:
        np.savez_compressed(file, **result)
    return {
        "status": "done",
        "source": "gpaw",
        "method": {"functional": FUNCTIONAL, "spin": job.settings.spin},
        "even_mesh": True,
        "n_kpts": int(result["n_kpts"]),
        "complete_to": round(float(result["complete_to"]), 4),
        "broadening": round(float(result["broadening"]), 6),
        "has_bader": "bader" in result,
        "max_spread_equivalent_sites": spread,
        "findings": [vars(finding) for finding in findings],
        "settings": job.settings.model_dump(mode="json"),
        "versions": versions | provenance.versions(("mattergen-e", "baderkit")),
    }


def _checked(job: Job) -> Structure:
    """The crystal of a job.

    Raises:
        _Failed: If it is disordered, or no calculation could be made of its cell.
    """
    from pymatgen.core import Element, Lattice, Structure

    if 0 in job.numbers:
        site = job.numbers.index(0)
        raise _Failed("bad_structure", f"site {site} is shared, partly occupied or no element: order the structure")
    structure = Structure(Lattice(job.cell), [Element.from_Z(number) for number in job.numbers], job.frac)
    try:
        check_cell(structure)
        check_distances(structure)
    except EntryError as error:
        raise _Failed("bad_structure", error.sentence) from None
    return structure


def _run_worker(job: Job, work: Path) -> dict[str, str]:
    """Run GPAW; afterwards the folder holds .result.npz and CHGCAR.

    Returns:
        Versions of the packages in GPAW's Python.

    Raises:
        _Failed: If the calculation fails.
    """
    spin = {"magmoms": job.magmoms} if job.settings.spin else {"magmoms": None}
    content = {"cell": job.cell, "numbers": job.numbers, "frac": job.frac, **spin}
    content["settings"] = job.settings.model_dump(mode="json", exclude={"bader", "calculator"}) | {"xc": FUNCTIONAL}
    (work / "job.json").write_text(json.dumps(content), encoding="utf-8")
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(
            [job.python, str(WORKER), "job.json", "."],
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")},
            start_new_session=True,  # an interruption from the keyboard reaches this process only, which ends the other
        )
        try:
            code = _wait(process, job)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    try:
        status = json.loads((work / "status.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        raise _died(code, work / "log") from None
    if status["status"] != "ok":
        raise _Failed(status["reason"], status["sentence"])
    return status["versions"]


def _wait(process: subprocess.Popen[bytes], job: Job) -> int:
    """Wait for a worker, up to the time that it has and as long as the run itself lives."""
    end = time.monotonic() + job.timeout
    while time.monotonic() < end:
        try:
            return process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            _end_with_run(job, process)
    raise _Failed("timeout", f"it took longer than {job.timeout:g} s (--timeout)")


def _end_with_run(job: Job, process: subprocess.Popen[bytes] | None = None) -> None:
    """End this process of a pool, and GPAW's, if the run that it works for was killed."""
    if os.getpid() != job.main and os.getppid() != _PARENT:
        if process is not None:
            process.kill()
        os._exit(1)


def _died(code: int, log: Path) -> _Failed:
    """What a worker that left no status died of."""
    if code == -signal.SIGKILL:
        return _Failed("memory", "GPAW was killed, most likely because the memory ran out: use fewer --jobs")
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = f": {lines[-1][:200]}" if lines else ""
    if any("MemoryError" in text or "Cannot allocate" in text for text in lines):
        return _Failed("memory", f"the memory did not suffice{last}")
    return _Failed("failed", f"GPAW's process ended with code {code}{last}")


# -- charges ----------------------------------------------------------------------------------------------------------


def _bader(
    chgcar: Path, structure: Structure, order: NDArray[np.int64], settings: BaderSettings
) -> tuple[dict[str, NDArray[np.float64]], float, list[Finding]]:
    """Partition the all-electron density, which is also what is integrated, and check the charges.

    Args:
        chgcar: The density, core included.
        structure: The crystal.
        order: Entry i is the structure's index of the file's site i.
        settings: Method and tolerances.

    Returns:
        bader, (n_sites,) charges in e, positive where electrons are lost, and bader_volume, (n_sites,) Å^3; the largest
        difference between charges of equivalent sites in e; and warnings.

    Raises:
        LabelError: As `check_charges` does.
    """
    density = read_density(chgcar)
    found = find_basins(density.structure, density.values, None, settings.method)
    electrons, volumes = np.empty(len(order)), np.empty(len(order))
    electrons[order], volumes[order] = found.site_electrons, found.site_volumes
    protons = np.array([site.specie.Z for site in structure], dtype=np.float64)
    spread = _spread(protons - electrons, equivalent_sites(structure, settings.symprec))
    total, basins = float(density.values.mean()), (found.electrons, found.distances)
    charges, findings = check_charges(structure, electrons, protons, settings, total=total, basins=basins)
    return {"bader": charges, "bader_volume": volumes}, round(spread, 4), findings


def _spread(charges: NDArray[np.float64], orbits: NDArray[np.int64]) -> float:
    """Largest difference between charges of equivalent sites, e."""
    low, high = np.full(len(charges), np.inf), np.full(len(charges), -np.inf)
    np.minimum.at(low, orbits, charges)
    np.maximum.at(high, orbits, charges)
    return float((high - low)[orbits].max())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
