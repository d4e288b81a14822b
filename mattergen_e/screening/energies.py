"""Relaxed crystals and their energies: from an evaluation where it has them, otherwise computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mattergen_e.energies.calculators import describe, make
from mattergen_e.energies.elements import SOURCE, element_energies
from mattergen_e.errors import UserError
from mattergen_e.evaluation import stability
from mattergen_e.evaluation.stages import Stage
from mattergen_e.evaluation.steps import Context, Results

if TYPE_CHECKING:
    from mattergen_e.energies.relaxation import RelaxSettings
    from mattergen_e.reference import Reference

NO_FORMATION = dict.fromkeys(("formation_energy_per_atom", "energy_above_hull", "reason", "sentence"))


def check_reference(reference: Reference, relaxation: RelaxSettings) -> str | None:
    """Whether energies of a reference and of crystals that are relaxed here can be compared.

    Returns:
        A warning, if they can but come from different sources.

    Raises:
        UserError: If the reference has no energies, or those of another calculator.
    """
    source = reference.energy_source
    if source["kind"] == "none":
        raise UserError(
            f"{reference.path} has no energies to refer to: build it with --calculator {relaxation.calculator}, or "
            "leave --reference away for formation energies alone."
        )
    if source["kind"] != "calculator":
        return (
            f"Energies of the crystals come from {relaxation.calculator}, those of the reference from another source "
            f"({source['kind']}): formation energies mean something only if both are on the same footing."
        )
    reference.check_calculator(relaxation.calculator)
    return None


def relaxed(context: Context, settings: RelaxSettings, evaluation: Path | None) -> tuple[Results, int]:
    """Results of relaxing all crystals, by key, and how many of them an evaluation had already."""
    taken = 0 if evaluation is None else _take(context, settings, evaluation)
    return stability.relaxation(context, context.candidates.readable, settings), taken


def _take(context: Context, settings: RelaxSettings, evaluation: Path) -> int:
    """Copies results of the same crystals, calculator and settings; the name of the stage's file tells that."""
    made = {"settings": settings.model_dump(mode="json"), "calculator": describe(settings.calculator)}
    with Stage(context.folder, "relaxation", made) as mine, Stage(evaluation, "relaxation", made, True) as theirs:
        missing = mine.missing(context.structures())
        known = [key for key in missing if key in theirs.results]
        for key in known:
            mine.add(key, theirs.results[key])
    return len(known)


def formation(context: Context, found: Results, settings: RelaxSettings) -> Results:
    """Formation energy and, with a reference, energy above the hull by key, eV/atom; or why there is none.

    Without a reference, formation energies refer to the elements' crystals of `evaluation.elements`, computed with the
    same calculator.
    """
    energies = stability.relaxed_energies(found)
    if context.reference is not None:
        return stability.hull(context, energies)
    structures = context.structures()
    compositions = {key: structures[key].composition.element_composition for key in energies}
    symbols = sorted({element.symbol for composition in compositions.values() for element in composition.elements})
    elements = _elements(context, symbols, settings)
    results: dict[str, Any] = {}
    for key, energy in energies.items():
        shares = compositions[key].fractional_composition.get_el_amt_dict()
        results[key] = dict(NO_FORMATION)
        if missing := sorted(shares.keys() - elements.keys()):
            sentence = f"{settings.calculator} gives no energy of the element {', '.join(missing)}"
            results[key] |= {"reason": "missing_element", "sentence": sentence}
        elif energy is not None:
            reference = sum(share * elements[symbol] for symbol, share in shares.items())
            results[key]["formation_energy_per_atom"] = energy - reference
    return results


def _elements(context: Context, symbols: Iterable[str], settings: RelaxSettings) -> Mapping[str, float]:
    """eV/atom of the elements by symbol, those that there are."""
    with Stage(context.folder, "elements", {"calculator": describe(settings.calculator), "source": SOURCE}) as stage:
        missing = stage.missing(symbols)
        if missing:
            with stage.timed():
                found = element_energies(make(settings.calculator, settings.device), missing)
                for symbol in missing:
                    stage.add(symbol, found.get(symbol))
        context.timings["elements"] = stage.seconds
        context.computed["elements"] = len(missing)
        return {symbol: stage.results[symbol] for symbol in symbols if stage.results[symbol] is not None}
