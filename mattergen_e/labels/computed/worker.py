"""Runs GPAW on one crystal; `mattergen_e.labels.computed.compute` starts it, one process per crystal.

    python gpaw_worker.py JOB.json FOLDER
    python gpaw_worker.py --versions

GPAW often lives in another Python than mattergen_e (Debian's, for one), so this file stands alone: it needs Python 3.9,
numpy, scipy, ase and gpaw, and imports nothing of mattergen_e.

JOB.json holds cell (3 x 3, Å), numbers, frac, magmoms (null, or the initial moments in Bohr magnetons) and settings.
FOLDER gets status.json ({"status": "ok", ...} or {"status": "failed", "reason": ..., "sentence": ...}) and, where the
calculation went well, .result.npz and CHGCAR: the all-electron density, core included, sites in the order `site_order`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

ENERGY_WINDOW = (-15.0, 10.0)  # eV relative to the Fermi energy
ENERGY_POINTS = 1001
DENSITY_POINTS = 32
ORBITALS = 4  # s, p, d, f
ROUNDS = 5  # attempts to reach the energy up to which the DOS shall be complete
GROWTH = 1.5  # more bands in each


def write_chgcar(path: Path, cell: Any, symbols: list[str], frac: Any, density: Any) -> list[int]:
    """Write a density in the format of VASP's CHGCAR, which groups sites by element.

    Args:
        path: The file.
        cell: (3, 3), rows are the lattice vectors in Å, right-handed.
        symbols: Element of each site.
        frac: (n_sites, 3) fractional coordinates.
        density: (nx, ny, nz) electrons per Å^3 on a grid that starts at the origin; the three numbers may differ.

    Returns:
        The sites in the order of the file: entry i is the input's index of the file's site i.
    """
    elements = sorted(set(symbols), key=symbols.index)
    order = sorted(range(len(symbols)), key=lambda i: elements.index(symbols[i]))
    lines = ["all-electron density", "1.0"]
    lines += [" ".join(f"{x:.12f}" for x in row) for row in cell]
    lines += [" ".join(elements), " ".join(str(symbols.count(element)) for element in elements), "Direct"]
    lines += [" ".join(f"{x:.12f}" for x in frac[i]) for i in order]
    lines += ["", " ".join(map(str, density.shape))]
    values = (density * abs(np.linalg.det(cell))).ravel(order="F")  # x runs fastest
    with open(path, "w", encoding="utf-8") as handle:
        handle.write("\n".join(lines) + "\n")
        for start in range(0, len(values), 50_000):
            chunk = values[start : start + 50_000]
            rows, rest = divmod(len(chunk), 5)
            handle.write(("%.10E %.10E %.10E %.10E %.10E\n" * rows) % tuple(chunk[: 5 * rows]))
            if rest:
                handle.write(" ".join(f"{x:.10E}" for x in chunk[-rest:]) + "\n")
    return order


def resample(density: Any, points: int) -> Any:
    """Resample a periodic function by its Fourier series, which keeps its mean and so its integral.

    Args:
        density: (nx, ny, nz) values.
        points: Points along each axis of the result.
    """
    from scipy.signal import resample as along

    for axis in range(3):
        density = along(density, points, axis=axis)
    return density


def right_handed(cell: Any, frac: Any) -> tuple[Any, Any, bool]:
    """The same crystal in a right-handed cell: GPAW and VASP's files want no other.

    Args:
        cell: (3, 3), rows are the lattice vectors.
        frac: (n_sites, 3) fractional coordinates.

    Returns:
        Cell, coordinates, and whether all three vectors were turned around.
    """
    if np.linalg.det(cell) > 0:
        return cell, frac, False
    return -cell, -frac, True


def turned(density: Any) -> Any:
    """Values on the grid of a cell, given those on the grid of the cell with all three vectors turned around."""
    return np.roll(density[::-1, ::-1, ::-1], 1, axis=(0, 1, 2))


def run_gpaw(atoms: Any, settings: dict[str, Any], log: Path) -> Any:
    """Converge the density of one crystal.

    Args:
        atoms: The `ase.Atoms`, with initial magnetic moments where it shall be spin-polarised.
        settings: xc, cutoff, kpoint_density, smearing, bands, max_iterations and spin of the job.
        log: GPAW's text output.

    Returns:
        The converged calculator.
    """
    import gpaw  # type: ignore[import-not-found]

    calculator = gpaw.GPAW(
        mode=gpaw.PW(settings["cutoff"]),
        xc=settings["xc"],
        kpts={"density": settings["kpoint_density"], "gamma": True, "even": True},
        occupations=gpaw.FermiDirac(settings["smearing"]),
        nbands=f"{100 * settings['bands']:g}%",
        maxiter=settings["max_iterations"],
        spinpol=settings["spin"],
        txt=str(log),
    )
    atoms.calc = calculator
    atoms.get_potential_energy()
    return calculator


def eigenvalues(calculator: Any) -> Any:
    """(spins, k-points, bands) eigenvalues in eV, not shifted."""
    spins, kpoints = range(calculator.get_number_of_spins()), range(len(calculator.get_ibz_k_points()))
    return np.array([[calculator.get_eigenvalues(kpt=k, spin=s) for k in kpoints] for s in spins])


def complete_bands(calculator: Any, fermi: float, up_to: float, log: Path) -> tuple[Any, float]:
    """Add empty bands at the converged density until none is missing below an energy.

    Args:
        calculator: The converged calculator.
        fermi: Its Fermi energy, eV.
        up_to: The energy, eV relative to the Fermi energy.
        log: GPAW's text output.

    Returns:
        A calculator with the bands, and the energy below which none is missing, eV relative to the Fermi energy.
    """
    reached = float(eigenvalues(calculator)[..., -1].min()) - fermi
    bands = calculator.get_number_of_bands()
    found = calculator
    for _ in range(ROUNDS):
        if reached >= up_to:
            break
        bands = int(GROWTH * bands) + 2
        spare = max(3, bands // 10)  # the highest bands converge slowly: they are computed and not used
        found = calculator.fixed_density(nbands=bands + spare, convergence={"bands": bands}, txt=str(log))
        reached = float(eigenvalues(found)[..., bands - 1].min()) - fermi
    return found, reached


def spectra(calculator: Any, fermi: float, width: float, n_sites: int) -> tuple[Any, Any, Any]:
    """Densities of states, spins summed.

    Args:
        calculator: With all bands.
        fermi: Fermi energy of the converged density, eV.
        width: w of GPAW's Gaussian exp(-(E/w)^2) in eV; its standard deviation is w / sqrt(2).
        n_sites: Number of sites.

    Returns:
        Energies (points,) in eV relative to the Fermi energy, total DOS (points,) and projections (sites, 4, points)
        on s, p, d and f in states/eV.
    """
    energies = np.linspace(*ENERGY_WINDOW, ENERGY_POINTS)
    dos = calculator.dos(shift_fermi_level=False)
    total = dos.raw_dos(energies + fermi, width=width)
    sites = [
        [dos.raw_pdos(energies + fermi, a=site, l=orbital, width=width) for orbital in range(ORBITALS)]
        for site in range(n_sites)
    ]
    return energies, total, np.array(sites)


def compute(job: dict[str, Any], folder: Path) -> None:
    """Run a job and write .result.npz and CHGCAR.

    Args:
        job: As in JOB.json.
        folder: Where to write.
    """
    from ase import Atoms

    start = time.perf_counter()
    settings = job["settings"]
    cell, frac, flipped = right_handed(np.array(job["cell"]), np.array(job["frac"]))
    atoms = Atoms(numbers=job["numbers"], cell=cell, scaled_positions=frac, pbc=True)
    if settings["spin"]:
        atoms.set_initial_magnetic_moments(job["magmoms"])
    calculator = run_gpaw(atoms, settings, folder / "gpaw.txt")
    fermi = float(calculator.get_fermi_level())
    full = calculator.get_all_electron_density(gridrefinement=settings["refinement"])
    order = write_chgcar(folder / "CHGCAR", cell, atoms.get_chemical_symbols(), frac, full)
    pseudo = resample(calculator.get_pseudo_density(), DENSITY_POINTS)
    result = {
        "density": (turned(pseudo) if flipped else pseudo).astype(np.float32),
        "efermi": fermi,
        "total_energy": float(atoms.get_potential_energy()),
        "n_valence": round(float(calculator.get_number_of_electrons())),
        "n_kpts": len(calculator.get_ibz_k_points()),
        "magmom": float(atoms.get_magnetic_moment()) if settings["spin"] else 0.0,
        "site_order": np.array(order),
        "grid": np.array(full.shape),
    }
    with_bands, reached = complete_bands(calculator, fermi, settings["dos_to"], folder / "bands.txt")
    energies, total, sites = spectra(with_bands, fermi, settings["dos_width"], len(atoms))
    result.update(
        energy_grid=energies.astype(np.float32),
        dos=total.astype(np.float32),
        pdos=sites.astype(np.float32),
        complete_to=reached,
        broadening=settings["dos_width"] / np.sqrt(2),
        seconds=time.perf_counter() - start,
    )
    np.savez(folder / ".result.npz", **result)


def failure(error: BaseException, job: dict[str, Any]) -> tuple[str, str]:
    """Reason code and sentence of an error that ended a calculation."""
    import gpaw  # type: ignore[import-not-found]

    text = str(error).strip()
    first = text.splitlines()[0] if text else ""
    if isinstance(error, gpaw.KohnShamConvergenceError):
        return (
            "not_converged",
            f"the electronic steps did not converge in {job['settings']['max_iterations']} iterations",
        )
    if isinstance(error, MemoryError):
        return "memory", "the calculation needs more memory than there is"
    if isinstance(error, (FileNotFoundError, RuntimeError)) and "PAW dataset" in text:
        name = text.split('"')[1].split(".")[0] if text.count('"') > 1 else "an element"
        return "missing_setup", f"GPAW has no PBE setup for {name}: install gpaw-data or set GPAW_SETUP_PATH"
    return "failed", f"GPAW ended with {type(error).__name__}: {first}"


def versions() -> dict[str, str]:
    """Versions of what shapes a result."""
    import ase
    import gpaw  # type: ignore[import-not-found]

    # By hand: mattergen_e.provenance is not there in the Python that runs this file.
    numbers = {"python": ".".join(map(str, sys.version_info[:3]))}
    return {**numbers, "gpaw": gpaw.__version__, "ase": ase.__version__, "numpy": np.__version__}


def end_with_parent() -> None:
    """End this process when the one that started it is gone, be it killed."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> None:
    """Run a job, or say the versions."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != here]  # the modules beside this file
    if arguments == ["--versions"]:
        print(json.dumps(versions()))
        return
    end_with_parent()
    folder = Path(arguments[1])
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    try:
        compute(job, folder)
        status: dict[str, Any] = {"status": "ok", "versions": versions()}
    except Exception as error:
        reason, sentence = failure(error, job)
        status = {"status": "failed", "reason": reason, "sentence": sentence, "versions": versions()}
    (folder / "status.json").write_text(json.dumps(status) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
