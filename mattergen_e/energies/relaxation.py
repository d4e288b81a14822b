"""Relaxation of crystals with an interatomic potential, one crystal per process and thread.

MatterGen's evaluation relaxes with MatterSim in batches on a GPU (mattergen.evaluation.utils.relaxation); here any ASE
calculator does, and a crystal that fails in whatever way costs nothing but itself. Cell and positions move together in
ASE's FrechetCellFilter, whose matrix logarithm takes ten times as long with two BLAS threads as with one.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mattergen_e.crystals.cells import physical_cell
from mattergen_e.crystals.checks import EntryError, check_cell
from mattergen_e.energies import calculators
from mattergen_e.energies.guarded import CannotStart, Crashed, Pool, TimeLimit
from mattergen_e.errors import UserError
from mattergen_e.parallel import in_parallel
from mattergen_e.quiet import quiet

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

REASONS = {
    "bad_structure": "the cell has no physical size, or sites are shared",
    "unknown_element": "the calculator does not know an element",
    "raised": "the calculator or the optimiser raised an error",
    "not_finite": "the calculator gave an energy, force or stress that is no finite number",
    "exploded": "the volume became ten times larger or smaller",
    "too_close": "two atoms are closer than 0.3 Å",
    "time_limit": "it took longer than allowed",
    "crashed": "the process ended, for lack of memory for instance",
}

LARGEST_GROWTH = 10.0
SHORTEST_DISTANCE = 0.3
WORKER = "mattergen_e.energies.relaxation:worker"


class RelaxError(ValueError):
    """A crystal that cannot be relaxed.

    Attributes:
        reason: One of the keys of `REASONS`.
        sentence: What is wrong, for people.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence


class RelaxSettings(BaseModel):
    """How crystals are relaxed.

    Attributes:
        calculator: Name, see `mattergen_e.energies.calculators`.
        device: cpu or cuda.
        optimizer: BFGS needs about half of FIRE's steps on generated crystals.
        fmax: Largest force in eV/Å, and as large a force on the cell, of a converged crystal.
        steps: Most steps; a crystal that has not converged by then counts as relaxed but not converged.
        seconds: Time limit of a crystal.
        cell: Whether the cell relaxes too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    calculator: str = calculators.DEFAULT
    device: str = "cpu"
    optimizer: Literal["bfgs", "fire"] = "bfgs"
    fmax: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    steps: int = Field(default=500, ge=1)
    seconds: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    cell: bool = True


@dataclass(frozen=True)
class Relaxed:
    """A relaxed crystal.

    Attributes:
        structure: The crystal, its sites in the order in which they were given.
        energy_per_atom: eV/atom.
        converged: Whether the forces fell below `fmax`.
        steps: Steps that it took.
        seconds: Time that it took.
        rmsd: Displacement of the atoms, in Å, see `displacement`; None if it cannot be found.
    """

    structure: Structure
    energy_per_atom: float
    converged: bool
    steps: int
    seconds: float
    rmsd: float | None


def relax(structure: Structure, settings: RelaxSettings | None = None, calculator: Any = None) -> Relaxed:
    """Relaxes a crystal in this process.

    The time limit is looked at between steps: a step that hangs is not interrupted (`relax_many` does).

    Args:
        structure: n sites; species without oxidation states or with, it makes no difference.
        settings: How.
        calculator: ASE calculator to use instead of making the one that the settings name.

    Returns:
        The relaxed crystal.

    Raises:
        RelaxError: If it cannot be relaxed.
        UserError: If the calculator cannot be made.
    """
    from threadpoolctl import threadpool_limits

    settings = settings or RelaxSettings()
    structure = compact(structure)
    atoms = _to_atoms(structure, settings.calculator if calculator is None else "")
    started = time.monotonic()
    made = calculators.make(settings.calculator, settings.device) if calculator is None else calculator
    atoms.calc = made
    with threadpool_limits(1), warnings.catch_warnings(), calculators.silent():
        warnings.simplefilter("ignore")
        converged, steps = _minimise(atoms, settings, started)
        energy = float(atoms.get_potential_energy()) / len(atoms)
        relaxed = _to_structure(atoms)
        rmsd = displacement(structure, relaxed)
    return Relaxed(relaxed, energy, converged, steps, time.monotonic() - started, rmsd)


def compact(structure: Structure) -> Structure:
    """The crystal in a reduced cell, if its own is more than twice as long: sites in their order, nothing else moved.

    A search for neighbours visits all images of a long and flat cell, and such a cell can take all memory.
    """
    reduced = physical_cell(structure) if structure.is_ordered else ""
    if isinstance(reduced, str):
        return structure
    return reduced if max(structure.lattice.abc) > 2 * max(reduced.lattice.abc) else structure


def displacement(structure: Structure, relaxed: Structure) -> float | None:
    """Root mean square distance of the atoms of two crystals, as MatterGen's metric of relaxation computes it.

    It is that of mattergen.evaluation.utils.utils.compute_rmsd_angstrom, with the given crystal made primitive first.
    MatterGen gives crystals that cannot be aligned the largest distance that its matcher allows, 0.5 (V/n)^(1/3).

    Args:
        structure: As generated.
        relaxed: As relaxed.

    Returns:
        Å, or None if the comparison fails.
    """
    with quiet():
        compare, reduce = _matcher()
        try:
            try:
                primitive = reduce(structure)
            except Exception:  # spglib finds no cell
                primitive = structure
            found = float(compare(relaxed, primitive))
        except Exception:  # the matcher's lattices can fail on a cell of strange shape
            return None
    return found if np.isfinite(found) else None


def _matcher() -> tuple[Callable[..., float], Callable[..., Any]]:
    from mattergen.evaluation.utils.utils import compute_rmsd_angstrom, preprocess_structure

    return compute_rmsd_angstrom, preprocess_structure


def relax_many(
    items: Iterable[tuple[str, Structure]],
    settings: RelaxSettings | None = None,
    jobs: int | None = None,
    backend: str = "loky",
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Relaxes crystals, each in a process that is killed when the time of the crystal is over.

    Args:
        items: Names and crystals; taken one by one, only a few ahead of the workers.
        settings: How.
        jobs: Processes at a time, of one thread each; None for one per core, or one on a GPU.
        backend: loky or threading for processes of this machine, dask[:ADDRESS] or ray[:ADDRESS] for a cluster, whose
            workers start such processes themselves.

    Yields:
        Name and result, in no fixed order, as plain JSON: ok, reason, sentence, energy_per_atom (eV/atom), converged,
        steps, seconds, rmsd (Å), structure (pymatgen's dictionary).

    Raises:
        UserError: If the calculator or the device is not there, or the backend cannot be used.
    """
    settings = settings or RelaxSettings()
    calculators.require(settings.calculator)
    calculators.check_device(settings.device)
    if settings.device != "cpu" and jobs is None:
        jobs = 1
    setup = settings.model_dump(mode="json")
    local = backend in ("loky", "threading")
    with closing(Pool(WORKER, setup)) as pool:
        work = partial(_guarded, pool.ask if local else partial(_ask_there, setup), setup)
        with closing(in_parallel(work, items, jobs, "threading" if local else backend)) as results:
            for key, result in results:
                if result["reason"] == "no_calculator":
                    raise UserError(result["sentence"])
                yield key, result


Ask = Callable[[dict[str, Any], float], dict[str, Any]]


def _guarded(ask: Ask, setup: dict[str, Any], item: tuple[str, Structure]) -> tuple[str, dict[str, Any]]:
    """One crystal in a process; never raises."""
    key, structure = item
    seconds, started = setup["seconds"], time.monotonic()
    try:
        structure = compact(structure)
        atoms = _to_atoms(structure, setup["calculator"])
        task = {
            "numbers": atoms.numbers.tolist(),
            "frac": structure.frac_coords.tolist(),
            "cell": np.asarray(atoms.cell).tolist(),
        }
        result = ask(task, seconds)
    except RelaxError as error:
        result = _failed(error.reason, error.sentence)
    except TimeLimit:
        result = _failed("time_limit", f"it took longer than {seconds:g} s and was stopped")
    except Crashed as error:
        result = _failed("crashed", str(error))
    except CannotStart as error:
        result = _failed("no_calculator", f"No relaxation can be started: {error}")
    except Exception as error:
        result = _failed("raised", f"the crystal could not be handed over ({_brief(error)})")
    return key, {**result, "seconds": round(time.monotonic() - started, 3)}


def _ask_there(setup: dict[str, Any], task: dict[str, Any], seconds: float) -> dict[str, Any]:
    """On a worker of a cluster, which keeps its processes from task to task."""
    return _pool_there(json.dumps(setup, sort_keys=True)).ask(task, seconds)


@cache
def _pool_there(setup: str) -> Pool:
    return Pool(WORKER, json.loads(setup))


def worker(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """In the process: makes the calculator once, and gives the function that relaxes one crystal after the other."""
    import torch

    torch.set_num_threads(1)
    settings = RelaxSettings.model_validate(setup)
    calculator = calculators.make(settings.calculator, settings.device)
    _matcher()  # so that the first crystal does not pay for the import
    return partial(_relax_task, settings, calculator)


def _relax_task(settings: RelaxSettings, calculator: Any, task: dict[str, Any]) -> dict[str, Any]:
    from pymatgen.core import Lattice, Structure

    structure = Structure(Lattice(task["cell"]), task["numbers"], task["frac"])
    try:
        found = relax(structure, settings, calculator)
    except RelaxError as error:
        return _failed(error.reason, error.sentence)
    except Exception as error:
        return _failed("raised", f"the relaxation raised {_brief(error)}")
    return {
        "ok": True,
        "reason": None,
        "sentence": None,
        "energy_per_atom": found.energy_per_atom,
        "converged": found.converged,
        "steps": found.steps,
        "rmsd": found.rmsd,
        "structure": found.structure.as_dict(),
    }


def _failed(reason: str, sentence: str) -> dict[str, Any]:
    unknown = dict.fromkeys(("energy_per_atom", "steps", "rmsd", "structure"))
    return {"ok": False, "reason": reason, "sentence": sentence, "converged": False, **unknown}


def _to_atoms(structure: Structure, calculator: str) -> Atoms:
    """Plain atoms of a crystal that can be relaxed.

    Raises:
        RelaxError: With reason bad_structure, unknown_element or too_close.
    """
    from ase import Atoms

    if len(structure) == 0 or not structure.is_ordered:
        raise RelaxError("bad_structure", "the crystal has no sites, or sites that are shared or partly occupied")
    try:
        check_cell(structure)
    except EntryError as error:
        raise RelaxError("bad_structure", error.sentence) from None
    known = calculators.known_elements(calculator)
    for site in structure:
        number = getattr(getattr(site.specie, "element", site.specie), "Z", None)
        if type(site.specie).__name__ == "DummySpecies" or number is None or (known and number not in known):
            raise RelaxError("unknown_element", f"{calculator or 'the calculator'} does not know {site.species_string}")
    atoms = Atoms(
        [site.specie.Z for site in structure],
        scaled_positions=structure.frac_coords,
        cell=structure.lattice.matrix,
        pbc=True,
    )
    _check(atoms, atoms.get_volume())
    return atoms


def _to_structure(atoms: Atoms) -> Structure:
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice(np.asarray(atoms.cell)), atoms.numbers.tolist(), atoms.get_scaled_positions(wrap=False))


def _minimise(atoms: Atoms, settings: RelaxSettings, started: float) -> tuple[bool, int]:
    """Moves the atoms to the minimum.

    Returns:
        Whether it converged, and the number of steps.

    Raises:
        RelaxError: If anything goes wrong.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS, FIRE

    volume, converged = atoms.get_volume(), False
    target: Any = FrechetCellFilter(atoms) if settings.cell else atoms
    optimizer = {"bfgs": BFGS, "fire": FIRE}[settings.optimizer](target, logfile=None)
    try:
        for now in optimizer.irun(fmax=settings.fmax, steps=settings.steps):
            converged = bool(now)
            _check(atoms, volume)
            _check_finite(atoms, settings.cell)
            if time.monotonic() - started > settings.seconds:
                raise RelaxError("time_limit", f"it took longer than {settings.seconds:g} s")
    except RelaxError:
        raise
    except Exception as error:
        _check(atoms, volume)
        raise RelaxError("raised", f"step {optimizer.nsteps} raised {_brief(error)}") from error
    return converged, int(optimizer.nsteps)


def _check(atoms: Atoms, volume: float) -> None:
    """Stops a crystal that flies apart or falls together.

    Raises:
        RelaxError: With reason not_finite, exploded or too_close.
    """
    from ase.neighborlist import neighbor_list

    if not (np.isfinite(atoms.positions).all() and np.isfinite(np.asarray(atoms.cell)).all()):
        raise RelaxError("not_finite", "positions or cell are no finite numbers any more")
    growth = atoms.get_volume() / volume
    if not 1 / LARGEST_GROWTH < growth < LARGEST_GROWTH:
        raise RelaxError("exploded", f"the volume became {growth:.3g} times what it was")
    close = neighbor_list("d", atoms, SHORTEST_DISTANCE)
    if len(close):
        raise RelaxError("too_close", f"two atoms are {close.min():.2g} Å apart")


def _check_finite(atoms: Atoms, cell: bool) -> None:
    parts = [atoms.get_potential_energy(), atoms.get_forces(), *([atoms.get_stress()] if cell else [])]
    if not all(np.isfinite(part).all() for part in parts):
        raise RelaxError("not_finite", "the calculator gave an energy, force or stress that is no finite number")


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
