"""The stages of an evaluation: each reads what it knows from its file and computes what is missing."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mattergen_e.evaluation.stages import Stage
from mattergen_e.evaluation.validity import composition_valid, structure_valid
from mattergen_e.matching import ReferenceIndex, unique
from mattergen_e.progress import bar
from mattergen_e.provenance import versions
from mattergen_e.reference.fingerprints import amd, magpie, nearest

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from mattergen_e.evaluation.candidates import Candidate, Candidates
    from mattergen_e.reference import Reference

#: Crystals whose results are written together, by the stages that work on many at once.
CHUNK = 64
SYMMETRY_TOLERANCE = 0.1

Items = Sequence[tuple[str, "Structure"]]
Results = dict[str, Any]


@dataclass(eq=False)
class Context:
    """What all stages share.

    Attributes:
        folder: Of the evaluation.
        candidates: The crystals.
        reference: Of novelty and hull.
        jobs: Workers; None for one per core.
        backend: Of joblib.
        progress: Whether to show bars.
        timings: Gets the seconds of each stage, those of earlier runs included.
        computed: Gets the number of results that this run computed, by stage.
    """

    folder: Path
    candidates: Candidates
    reference: Reference
    jobs: int | None = None
    backend: str = "loky"
    progress: bool = True
    timings: dict[str, float] = field(default_factory=dict)
    computed: dict[str, int] = field(default_factory=dict)

    def reference_arrays(self, *names: str) -> dict[str, str]:
        """SHA-256 of arrays of the reference by name: what the results of a stage depend on, and no more."""
        arrays = self.reference.manifest.arrays
        return {name: arrays[f"{name}.npy"].sha256 for name in names}

    def structures(self, chosen: Iterable[Candidate] | None = None) -> dict[str, Structure]:
        """Structures by key, each once; by default of all crystals that can be judged."""
        some = self.candidates.readable if chosen is None else chosen
        return {candidate.key: candidate.structure for candidate in some if candidate.structure is not None}

    def run(
        self,
        name: str,
        settings: Mapping[str, Any],
        structures: Mapping[str, Structure],
        compute: Callable[[Items], Iterable[tuple[str, Any]]],
        title: str | None = None,
    ) -> Results:
        """Results of a stage for all structures, by key; only those that are missing are computed.

        Args:
            name: Of the stage.
            settings: All that the results depend on besides the crystal.
            structures: By key.
            compute: Gives results, plain JSON, for keys and structures, as they are known.
            title: Of the progress bar; None where `compute` shows one.
        """
        with Stage(self.folder, name, settings) as stage:
            missing = stage.missing(structures)
            done, wanted = len(structures) - len(missing), self.progress and title is not None and bool(missing)
            with stage.timed(), bar(title or "", len(structures), done, wanted) as advance:
                if missing:
                    results: Any = compute([(key, structures[key]) for key in missing])
                    with closing(results):
                        for key, result in results:
                            stage.add(key, result)
                            advance()
            self.timings[name] = self.timings.get(name, 0.0) + stage.seconds
            self.computed[name] = self.computed.get(name, 0) + len(missing)
            return {key: stage.results[key] for key in structures}


def geometry(context: Context) -> Results:
    """Formula, numbers of sites and elements, space group (tolerance 0.1 Å), volume per site in Å^3."""

    def compute(items: Items) -> Iterator[tuple[str, Any]]:
        yield from ((key, _geometry(structure)) for key, structure in items)

    settings = {"symprec": SYMMETRY_TOLERANCE}
    return context.run("geometry", settings, context.structures(), compute, "Geometry")


def _geometry(structure: Structure) -> dict[str, Any]:
    return {
        "formula": structure.composition.reduced_formula,
        "sites": len(structure),
        "elements": len(structure.composition.elements),
        "space_group": _space_group(structure),
        "volume_per_site": round(structure.volume / len(structure), 6),
    }


def _space_group(structure: Structure) -> str | None:
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return SpacegroupAnalyzer(structure, symprec=SYMMETRY_TOLERANCE).get_space_group_symbol()
    except Exception:  # spglib gives up on sites that lie on top of each other, in ways that change with its version
        return None


def structure_validity(context: Context) -> Results:
    """Whether distances and volume are those of a crystal."""

    def compute(items: Items) -> Iterator[tuple[str, Any]]:
        for key, structure in items:
            valid, reason = structure_valid(structure)
            yield key, {"valid": bool(valid), "reason": reason}

    settings = {"versions": versions(("mattergen-e", "pymatgen"))}
    return context.run("structure_validity", settings, context.structures(), compute, "Structure validity")


def composition_validity(context: Context) -> Results:
    """Whether charges can balance: SMACT by xtalmet."""

    def compute(items: Items) -> Iterator[tuple[str, Any]]:
        for chunk in batched(items, CHUNK):
            found = composition_valid([structure for _, structure in chunk])
            for (key, _), (valid, reason) in zip(chunk, found, strict=True):
                yield key, {"valid": bool(valid), "reason": reason}

    settings = {"versions": versions(("mattergen-e", "xtalmet", "smact"))}
    return context.run("composition_validity", settings, context.structures(), compute, "Composition validity")


def uniqueness(context: Context) -> tuple[dict[int, int], dict[int, str]]:
    """By index of each crystal the index of the one that stands for its set, and by index what could not be compared.

    It depends on all crystals, so that it is one result.
    """
    readable = context.candidates.readable
    settings = {"keys": [candidate.key for candidate in readable], "versions": versions(("pymatgen", "mattergen"))}
    with Stage(context.folder, "unique", settings) as stage:
        missing = bool(stage.missing(["all"]))
        if missing:
            undecided: dict[str, str] = {}
            with stage.timed():
                first = unique(
                    [candidate.structure for candidate in readable if candidate.structure is not None],
                    jobs=context.jobs,
                    backend=context.backend,
                    undecided=lambda place, sentence: undecided.update({str(place): sentence}),
                )
                stage.add("all", {"first": [int(place) for place in first], "undecided": undecided})
        context.timings["unique"] = stage.seconds
        context.computed["unique"] = len(readable) if missing else 0
        found = stage.results["all"]
    indices = [candidate.index for candidate in readable]
    first = {index: indices[place] for index, place in zip(indices, found["first"], strict=True)}
    return first, {indices[int(place)]: sentence for place, sentence in found["undecided"].items()}


def novelty(context: Context) -> Results:
    """The reference crystal that a crystal is the same as, if any."""

    def compute(items: Items) -> Iterator[tuple[str, Any]]:
        reference: Any = context.reference
        index = ReferenceIndex(reference)
        by_formula = sorted(items, key=lambda item: item[1].composition.reduced_formula)
        for chunk in batched(by_formula, CHUNK * 8):
            undecided: dict[int, str] = {}
            found = index.find(
                [structure for _, structure in chunk],
                jobs=context.jobs,
                backend=context.backend,
                undecided=undecided.__setitem__,
            )
            for place, ((key, _), matches) in enumerate(zip(chunk, found, strict=True)):
                yield key, {"match": matches[0] if matches else None, "sentence": undecided.get(place)}

    crystals = context.reference_arrays("ids", "num_atoms", "cell", "frac_coords", "atomic_numbers")
    settings = {"reference": crystals, "versions": versions(("pymatgen", "mattergen"))}
    return context.run("novelty", settings, context.structures(), compute)


def distances(context: Context) -> Results:
    """Distances to the nearest reference crystal in Magpie and AMD fingerprints, None where there is none."""
    reference = context.reference

    def compute(items: Items) -> Iterator[tuple[str, Any]]:
        for chunk in batched(items, CHUNK * 4):
            structures = [structure for _, structure in chunk]
            k = reference.amd.shape[1]
            found = {
                "magpie": nearest(magpie(structures), reference.magpie, "euclidean"),
                "amd": nearest(amd(structures, k), reference.amd, "chebyshev"),
            }
            for place, (key, _) in enumerate(chunk):
                yield key, {name: _nearest(far[place], at[place], reference) for name, (far, at) in found.items()}

    settings = {
        "reference": context.reference_arrays("ids", "magpie", "amd"),
        "versions": versions(("matminer", "average-minimum-distance")),
    }
    return context.run("distances", settings, context.structures(), compute, "Continuous novelty")


def _nearest(distance: float, place: int, reference: Reference) -> dict[str, Any]:
    known = place >= 0 and math.isfinite(distance)
    return {"distance": float(distance) if known else None, "id": str(reference.ids[place]) if known else None}
