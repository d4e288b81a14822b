"""The stage of an evaluation that finds the properties that a success is judged by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import batched
from typing import TYPE_CHECKING, Any

import numpy as np

from mattergen_e.crystals.dictionary import read_dictionary
from mattergen_e.evaluation.candidates import structure_key
from mattergen_e.evaluation.steps import CHUNK, Context, Items

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from mattergen_e.evaluation.properties import GivenProperties, Predictor

Properties = dict[int, dict[str, dict[str, Any]]]


def properties(
    context: Context,
    given: GivenProperties | None,
    predictor: Predictor | None,
    relaxed: Mapping[str, Mapping[str, Any]],
) -> Properties:
    """Properties of all crystals that can be judged, {name: {value, source}} by index.

    A property that the file has for any crystal comes from the file only: values of two origins are never mixed under
    one name.

    Args:
        context: Of the evaluation.
        given: Properties of a file.
        predictor: Of the others; it works on the relaxed crystal where there is one.
        relaxed: Results of the relaxation, by key.
    """
    readable = context.candidates.readable
    in_file = {name for values in given.values.values() for name in values} if given is not None else set()
    predicted = _predicted(context, predictor, relaxed) if predictor is not None else {}
    found: Properties = {}
    for candidate in readable:
        own = {name: item for name, item in predicted.get(candidate.index, {}).items() if name not in in_file}
        known = given.find(candidate.index, candidate.key, candidate.name) if given is not None else {}
        found[candidate.index] = {**own, **known}
    return found


def _predicted(context: Context, predictor: Predictor, relaxed: Mapping[str, Mapping[str, Any]]) -> Properties:
    def compute(items: Items) -> Iterator[tuple[str, Any]]:
        for chunk in batched(items, CHUNK):
            values = predictor.predict([structure for _, structure in chunk])
            for place, (key, _) in enumerate(chunk):
                yield key, {name: _number(array[place]) for name, array in values.items()}

    readable = context.candidates.readable
    structures = {c.index: best(c.structure, relaxed.get(c.key)) for c in readable if c.structure is not None}
    keys = {index: structure_key(structure) for index, structure in structures.items()}
    # by the key of the very structure: a crystal that is relaxed another way is predicted anew, and no other
    by_key = {keys[index]: structure for index, structure in structures.items()}
    results = context.run("properties", {"predictor": predictor.source}, by_key, compute, "Properties")
    sources = predictor.sources
    return {
        index: {
            name: {"value": value, "source": sources.get(name, predictor.source) if value is not None else None}
            for name, value in results[key].items()
        }
        for index, key in keys.items()
    }


def best(generated: Structure, relaxed: Mapping[str, Any] | None) -> Structure:
    """The relaxed crystal where there is one, else the generated."""
    return read_dictionary(relaxed["structure"]) if relaxed is not None and relaxed["ok"] else generated


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
