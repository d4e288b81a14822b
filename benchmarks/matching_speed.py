"""Uniqueness and novelty: time beside MatterGen's evaluator's, on the same crystals in one run, and whether they agree.

    mattergen-e reference build CACHE --no-energies --out REFERENCE
    OMP_NUM_THREADS=1 python benchmarks/matching_speed.py REFERENCE [--generated FOLDER] [--crystals 1024] [--pool N]

FOLDER is the output of a run; without it the generated crystals are reference crystals that were perturbed, strained,
repeated, turned, or had elements exchanged or replaced, so that formulas coincide as often as they do for a good model.
Prints the seconds of both, the number of verdicts that differ, and a table over the size of the reference. Counted is
all that either does with the crystals and with the reference once that is there: MatterGen groups it anew in each run,
this package finds the formulas and the reduced cells in its folder.

What bounds the gain: MatterGen groups by formula too, so both make the same comparisons up to the first match. What is
left is, per comparison, some dozens of numpy calls (0.4 ms; pymatgen takes 3 to 30 ms); and for the generated crystals
that are laid upon, or whose elements share sites so that their cell gets smaller, pymatgen's Niggli reduction (0.3 ms)
and its search for a primitive cell (1 ms), together a third of the time for real output and a quarter without
--generated; on top of that 0.03 ms per crystal.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Lattice, Structure
from rich.console import Console
from rich.table import Table

from mattergen_e.matching import ReferenceIndex, prepare, unique
from mattergen_e.reference import Reference

#: Whether seconds are of processor time: for machines that are busy with other things.
PROCESSOR = False
#: Elements that take the place of others; most pairs are substitutable by MatterGen's rule.
REPLACED: dict[str, str] = dict(
    zip(
        ("Na", "K", "Cl", "Br", "F", "S", "Se", "Mg", "Ca", "Sr", "Fe", "Co", "Ni", "Ti", "Zr", "O", "Si"),
        ("K", "Rb", "Br", "I", "Cl", "Se", "Te", "Ca", "Sr", "Ba", "Co", "Ni", "Fe", "Zr", "Hf", "S", "Ge"),
        strict=True,
    )
)


class Part:
    """Some crystals of a reference, as `ReferenceIndex` takes them."""

    def __init__(self, reference: Reference, count: int) -> None:
        """Every k-th crystal."""
        self._reference = reference
        self._chosen: list[int] = np.linspace(0, len(reference) - 1, count).astype(int).tolist()
        self._place = {index: place for place, index in enumerate(self._chosen)}
        self.ids, self.formulas = reference.ids[self._chosen], reference.formulas[self._chosen]

    def structure(self, index: int) -> Structure:
        return self._reference.structure(self._chosen[index])

    def sites(self, index: int) -> Any:
        return self._reference.sites(self._chosen[index])

    def reduced(self, index: int) -> Any:
        return self._reference.reduced(self._chosen[index])

    def members(self, formulas: Sequence[str]) -> dict[str, list[int]]:
        found = self._reference.members(formulas)
        kept = {name: [self._place[i] for i in known if i in self._place] for name, known in found.items()}
        return {name: known for name, known in kept.items() if known}


def make_crystals(reference: Reference | Part, count: int, seed: int, pool: int | None = None) -> list[Structure]:
    """Crystals made from those of a reference (of `pool` of them, if given); a fifth of them from one another."""
    rng = np.random.default_rng(seed)
    sources = rng.permutation(len(reference.ids))[:pool]
    changes = (_perturbed, _strained, _replaced, _exchanged, _repeated, _turned, _random)
    crystals: list[Structure] = []
    while len(crystals) < count:
        source = reference.structure(int(rng.choice(sources)))
        if crystals and rng.random() < 0.2:
            source = crystals[int(rng.integers(len(crystals)))].copy()
        change = changes[int(rng.choice(len(changes), p=(0.3, 0.2, 0.2, 0.1, 0.05, 0.1, 0.05)))]
        crystals.append(change(source, rng))
    return crystals


def _perturbed(crystal: Structure, rng: np.random.Generator) -> Structure:
    return crystal.perturb(float(rng.choice([0.02, 0.1, 0.3, 0.6])), seed=int(rng.integers(2**31)))


def _strained(crystal: Structure, rng: np.random.Generator) -> Structure:
    return crystal.apply_strain(rng.normal(scale=0.06, size=3), inplace=False)


def _replaced(crystal: Structure, rng: np.random.Generator) -> Structure:
    symbols = sorted({site.specie.symbol for site in crystal})
    symbol = symbols[int(rng.integers(len(symbols)))]
    crystal.replace_species({symbol: REPLACED.get(symbol, "Y")})
    return crystal


def _exchanged(crystal: Structure, rng: np.random.Generator) -> Structure:
    i, j = (int(k) for k in rng.integers(len(crystal), size=2))
    one, two = crystal[i].specie, crystal[j].specie
    crystal[i], crystal[j] = two, one
    return crystal


def _repeated(crystal: Structure, rng: np.random.Generator) -> Structure:
    return crystal if len(crystal) > 10 else crystal.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]], in_place=False)


def _turned(crystal: Structure, rng: np.random.Generator) -> Structure:
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return Structure(Lattice(crystal.lattice.matrix @ turn), crystal.species, crystal.frac_coords + rng.random(3))


def _random(crystal: Structure, rng: np.random.Generator) -> Structure:
    return Structure(crystal.lattice, crystal.species, rng.random((len(crystal), 3)))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the seconds that it took, of the clock or (with `PROCESSOR`) of this process's processor time."""
    clock = time.process_time if PROCESSOR else time.perf_counter
    start = clock()
    result = work()
    return result, clock() - start


def ours(crystals: list[Structure], reference: Reference | Part, jobs: int) -> dict[str, Any]:
    """Verdicts and seconds of this package."""
    undecided: dict[int, str] = {}
    index, indexing = timed(lambda: ReferenceIndex(reference))
    prepared, preparing = timed(lambda: prepare(crystals))
    representatives, u = timed(lambda: unique(prepared, jobs=jobs, undecided=undecided.__setitem__))
    found, n = timed(lambda: index.find(prepared, jobs=jobs, undecided=undecided.__setitem__))
    unique_ones = [i == j for i, j in enumerate(representatives)]
    novel = [not names for names in found]
    return {"U": unique_ones, "N": novel, "seconds": (preparing + u, indexing + n), "undecided": undecided}


def upstream(crystals: list[Structure], reference: Reference | Part) -> dict[str, Any]:
    """Verdicts and seconds of MatterGen's evaluator; building its reference entries is not counted."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        from mattergen.evaluation.metrics.evaluator import MetricsEvaluator
        from mattergen.evaluation.reference.reference_dataset import ReferenceDataset
        from pymatgen.entries.computed_entries import ComputedStructureEntry

        entries = [
            ComputedStructureEntry(reference.structure(i), np.nan, data={"material_id": str(name)})
            for i, name in enumerate(reference.ids)
        ]
        dataset = ReferenceDataset.from_entries("reference", entries)
        evaluator, preparing = timed(lambda: MetricsEvaluator.from_structures(crystals, dataset))
        unique_ones, u = timed(lambda: evaluator.is_unique.tolist())
        novel, n = timed(lambda: evaluator.is_novel.tolist())
    return {"U": unique_ones, "N": novel, "seconds": (preparing + u, n)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path, help="Folder of `mattergen-e reference build`.")
    parser.add_argument("--generated", type=Path, help="Output folder of a run with a joint model.")
    parser.add_argument("--crystals", type=int, default=1024)
    parser.add_argument("--pool", type=int, help="Make the crystals from so many reference crystals only.")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="*", default=[5000, 10000, 25000])
    parser.add_argument("--processor-time", action="store_true", help="For a busy machine; with --jobs 1 only.")
    arguments = parser.parse_args()
    globals()["PROCESSOR"] = arguments.processor_time
    reference = Reference.open(arguments.reference)
    if arguments.generated is not None:
        from mattergen_e.generation.store import read_crystals

        crystals = [generated.structure for generated in read_crystals(arguments.generated)]
    else:
        crystals = make_crystals(reference, arguments.crystals, arguments.seed, arguments.pool)
    unique(crystals[:2])  # imports and caches are not part of it
    table = Table("reference", "ours: U, N (s)", "MatterGen: U, N (s)", "ratio", "U, N", "differing", "undecided")
    for size in sorted({*(s for s in arguments.sizes if s < len(reference)), len(reference)}):
        part = reference if size == len(reference) else Part(reference, size)
        mine, theirs = ours(crystals, part, arguments.jobs), upstream(crystals, part)
        differing = sum(a != b for key in "UN" for a, b in zip(mine[key], theirs[key], strict=True))
        seconds = [", ".join(f"{s:.2f}" for s in result["seconds"]) for result in (mine, theirs)]
        ratio = sum(theirs["seconds"]) / sum(mine["seconds"])
        rates = ", ".join(f"{np.mean(mine[key]):.3f}" for key in "UN")
        table.add_row(str(size), *seconds, f"{ratio:.1f}", rates, str(differing), str(len(mine["undecided"])))
    Console(width=120).print(f"{len(crystals)} crystals, {arguments.jobs} workers at most", table)


if __name__ == "__main__":
    main()
