"""The elements that a constraints file asks for, and what contradicts itself among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from mattergen_e.diffusion.elements import NO_SYSTEM, ElementRules, formula_of
from mattergen_e.errors import UserError
from mattergen_e.generation.constraints.schema import ConstraintsFile


def atomic_number(symbol: str, where: str) -> int:
    """The atomic number of an element.

    Args:
        symbol: Of the element.
        where: What asks for it, as it begins a sentence.

    Raises:
        UserError: If there is none, or MatterGen does not generate it.
    """
    from mattergen.common.utils.globals import SELECTED_ATOMIC_NUMBERS
    from pymatgen.core import Element

    try:
        number = Element(symbol).Z
    except ValueError:
        raise UserError(f"{where}: '{symbol}' is no element.") from None
    if number not in SELECTED_ATOMIC_NUMBERS:
        raise UserError(f"{where}: {symbol} is an element that MatterGen does not generate.")
    return number


def read_rules(content: ConstraintsFile, numbers: Mapping[int, int], path: Path) -> ElementRules | None:
    """The rules of a constraints file; None where it has none.

    Args:
        content: Of the file.
        numbers: Atomic numbers of fixed sites.
        path: The file.

    Raises:
        UserError: If an element is none that MatterGen generates, or the rules contradict each other or a fixed site.
    """
    if not (content.elements or content.exclude or content.composition or content.all_elements):
        return None

    def of(key: str, symbols: Collection[str]) -> dict[str, int]:
        return {symbol: atomic_number(symbol, f"{path}, {key}") for symbol in symbols}

    allowed, excluded = of("elements", content.elements or ()), of("exclude", content.exclude or ())
    counts = {} if content.composition is None else content.composition.counts
    composed = of("composition", counts)
    rules = ElementRules(
        allowed=frozenset(allowed.values()) or None,
        excluded=frozenset(excluded.values()),
        formula={number: counts[symbol] for symbol, number in composed.items()},
        every=content.all_elements,
    )
    both = [symbol for symbol in [*allowed, *composed] if symbol in excluded]
    if both:
        key = "elements" if both[0] in allowed else "the composition"
        raise UserError(f"{path}: {both[0]} is in exclude and in {key}: leave it out of one of them.")
    others = [symbol for symbol in composed if allowed and symbol not in allowed]
    if others:
        raise UserError(f"{path}: the composition has {others[0]}, which is not in elements: leave elements out.")
    missing = [symbol for symbol in allowed if composed and symbol not in composed]
    if missing and rules.every:
        raise UserError(
            f"{path}: all_elements asks for {missing[0]}, which the composition does not have: leave elements out."
        )
    if not rules.possible:
        raise UserError(f"{path}: exclude leaves no element: take some of it out.")
    _check_fixed(rules, numbers, path)
    return rules


def _check_fixed(rules: ElementRules, numbers: Mapping[int, int], path: Path) -> None:
    """Refuses fixed sites of elements that there cannot be."""
    for site, number in numbers.items():
        if number not in rules.possible:
            key = "exclude" if number in rules.excluded else "the composition" if rules.formula else "elements"
            verb = "forbids" if number in rules.excluded else "does not have"
            raise UserError(f"{path}: site {site} is {symbol_of(number)}, which {key} {verb}: change one of them.")


def within(
    rules: ElementRules | None, numbers: Mapping[int, int], system: Collection[str] | None, path: Path
) -> ElementRules | None:
    """The rules within the chemical system that the crystals are asked for.

    Args:
        rules: Of the file.
        numbers: Atomic numbers of fixed sites.
        system: Symbols of the elements; None: none is asked for.
        path: The file.

    Raises:
        UserError: If they contradict it, or need one.
    """
    if system is None:
        if rules is not None and rules.every and rules.allowed is None:
            raise UserError(f"{path}: {NO_SYSTEM}")
        return rules
    named = "-".join(system)
    for site, number in numbers.items():
        if symbol_of(number) not in system:
            raise UserError(
                f"{path}: site {site} is {symbol_of(number)}, but the chemical system asked for is {named}."
            )
    if rules is None:
        return None
    asked = {"the composition has": rules.formula, "elements has": rules.allowed or ()}
    for words, found in asked.items():
        outside = [symbol_of(number) for number in sorted(found) if symbol_of(number) not in system]
        if outside:
            raise UserError(f"{path}: {words} {outside[0]}, but the chemical system asked for is {named}.")
    forbidden = [symbol for symbol in system if symbol in {symbol_of(number) for number in rules.excluded}]
    if forbidden:
        raise UserError(f"{path}: exclude has {forbidden[0]}, but the chemical system asked for is {named}.")
    if not rules.every:
        return rules
    whole = frozenset(atomic_number(symbol, "chemical_system") for symbol in system)
    lacking = sorted(whole - frozenset(rules.formula)) if rules.formula else []
    if lacking:
        raise UserError(
            f"{path}: all_elements asks for {symbol_of(lacking[0])} of the chemical system {named}, which the "
            "composition does not have."
        )
    return rules if rules.allowed is not None else replace(rules, allowed=whole)


def problem(rules: ElementRules | None, numbers: Mapping[int, int], n_sites: int, where: str) -> str | None:
    """What is wrong with crystals of so many sites under the rules; None: nothing.

    Args:
        rules: Of the file.
        numbers: Atomic numbers of fixed sites.
        n_sites: Sites of a crystal.
        where: What asks for so many.
    """
    if rules is None:
        return None
    fixed = Counter(numbers.values())
    if rules.formula:
        size = sum(rules.formula.values())
        units, rest = divmod(n_sites, size)
        named = formula_of(rules.formula)
        if rest:
            return f"the composition {named} has {size} sites, but {where} gives crystals of {n_sites} sites"
        for number, count in fixed.items():
            if count > units * rules.formula[number]:
                return (
                    f"{count} sites are fixed as {symbol_of(number)}, but {units} formula units {named} have "
                    f"{units * rules.formula[number]}"
                )
    elif rules.every and rules.allowed is not None:
        missing = sorted(rules.allowed - set(fixed))
        if len(missing) > n_sites - len(numbers):
            fixed_sites = f", of which {len(numbers)} are fixed" if numbers else ""
            return (
                f"all_elements asks for all {len(rules.allowed)} elements, but {where} gives crystals of {n_sites} "
                f"sites{fixed_sites}"
            )
    return None


def symbol_of(number: int) -> str:
    """The symbol of an element."""
    from pymatgen.core import Element

    return Element.from_Z(number).symbol
