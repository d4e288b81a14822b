"""The stages of an evaluation that are about energy: relaxation, and the place on the hull."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mattergen_e.energies.calculators import describe
from mattergen_e.energies.hull import HullError
from mattergen_e.energies.relaxation import relax_many
from mattergen_e.errors import UserError
from mattergen_e.evaluation.steps import Context, Items, Results

if TYPE_CHECKING:
    from mattergen_e.energies.given import Energies
    from mattergen_e.energies.relaxation import RelaxSettings
    from mattergen_e.evaluation.candidates import Candidate


def chosen(
    context: Context, which: str, unique: Mapping[int, int], novelty: Mapping[str, Mapping[str, Any]]
) -> list[Candidate]:
    """The crystals that are relaxed: `un` (unique and novel), `all` or `none`."""
    if which == "none":
        return []
    if which == "all":
        return context.candidates.readable
    return [
        candidate
        for candidate in context.candidates.readable
        if unique[candidate.index] == candidate.index and novelty[candidate.key]["match"] is None
    ]


def relaxation(context: Context, crystals: Iterable[Candidate], settings: RelaxSettings) -> Results:
    """Relaxed structures and energies in eV/atom, or why there are none."""

    def compute(items: Items) -> Iterator[tuple[str, Any]]:
        for key, result in relax_many(items, settings, jobs=context.jobs, backend=context.backend):
            yield key, finite(result)

    structures = context.structures(crystals)
    if not structures:
        return {}
    made = {"settings": settings.model_dump(mode="json"), "calculator": describe(settings.calculator)}
    return context.run("relaxation", made, structures, compute, "Relaxation")


def finite(value: Any) -> Any:
    """Plain JSON in which numbers that are not finite have become None."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def relaxed_energies(relaxed: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """eV/atom by key, of the relaxations that gave one."""
    return {key: result["energy_per_atom"] for key, result in relaxed.items() if result["ok"]}


def given_energies(
    candidates: Iterable[Candidate], energies: Energies, needed: Iterable[Candidate]
) -> dict[str, float | None]:
    """eV/atom by key from a file that names crystals by their index or key; None for a needed one that it lacks.

    Raises:
        UserError: If it has none of the crystals.
    """
    found: dict[str, float | None] = {}
    for candidate in candidates:
        energy = energies.find(candidate.key, candidate.index, candidate.name)
        if math.isfinite(energy):
            found[candidate.key] = energy
    if not found:
        raise UserError(
            f"{energies.source['name']} has energies of none of the crystals: name them by index or key, as in "
            "crystals.csv."
        )
    return {**{candidate.key: None for candidate in needed if candidate.key not in found}, **found}


def hull(context: Context, energies: Mapping[str, float | None]) -> Results:
    """Energy above the hull and formation energy by key, eV/atom, or why there is none."""
    structures = context.structures()
    known = {key: energy for key, energy in energies.items() if energy is not None and key in structures}

    def compute(items: Items) -> Iterator[tuple[str, Any]]:
        places = context.reference.hull()
        for name, structure in items:
            energy, formula = known[name.partition("/")[0]], structure.composition
            found: dict[str, Any] = {"energy_per_atom": energy, "reason": None, "sentence": None}
            try:
                found["energy_above_hull"] = places.energy_above_hull(formula, energy)
                found["formation_energy_per_atom"] = places.formation_energy(formula, energy)
            except HullError as error:
                found |= dict.fromkeys(("energy_above_hull", "formation_energy_per_atom"))
                found |= {"reason": error.reason, "sentence": error.sentence}
            yield name, found

    # the energy is a part of the name, so that another one gives another result
    named = {f"{key}/{energy!r}": structures[key] for key, energy in known.items()}
    results = context.run("hull", {"reference": context.reference.hash}, named, compute, "Hull")
    nothing = dict.fromkeys(("energy_per_atom", "energy_above_hull", "formation_energy_per_atom"))
    missing = {**nothing, "reason": "no_energy", "sentence": "The file of energies does not have it."}
    return {key: results.get(f"{key}/{energy!r}", missing) for key, energy in energies.items()}
