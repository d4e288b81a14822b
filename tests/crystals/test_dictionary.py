"""Structures from dictionaries of others: nothing in them may name what is imported or built."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monty.json import MontyEncoder
from pymatgen.core import Lattice, Species, Structure

from mattergen_e.crystals.dictionary import read_dictionary


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A dictionary whose sites name a class of a module that can be imported."""
    name = f"trap_{tmp_path.name}"
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / f"{name}.py").write_text(
        "class Trap:\n    @classmethod\n    def from_dict(cls, d):\n        return cls()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    crystal = Structure(Lattice.cubic(5.6), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    given = crystal.as_dict()
    for site in given["sites"]:
        site["properties"] = {"magmom": {"@module": name, "@class": "Trap"}, "bader_charge": 0.5}
    yield json.loads(json.dumps(given))
    assert name not in sys.modules
    Structure.from_dict(given)
    assert name in sys.modules  # pymatgen's own reader does build it


def test_a_class_in_a_site_property_is_left_out(hostile):
    found = read_dictionary(hostile)
    assert found.site_properties == {"bader_charge": [0.5, 0.5]}


def test_read_structures(hostile, tmp_path):
    from mattergen_e.crystals.reading import read_structures

    file = tmp_path / "set.jsonl"
    file.write_text(json.dumps({"id": "x", "structure": hostile}) + "\n" + json.dumps(hostile) + "\n")
    assert [set(named.structure.site_properties) for named in read_structures([file])] == [{"bader_charge"}] * 2


def test_read_candidates(hostile, tmp_path):
    from mattergen_e.evaluation.candidates import read_candidates

    file = tmp_path / "set.jsonl"
    file.write_text(json.dumps({"index": 0, "structure": hostile}) + "\n")
    (found,) = read_candidates(file)
    assert found.structure is not None and set(found.structure.site_properties) == {"bader_charge"}


def test_read_labels(hostile, tmp_path):
    from mattergen_e.evaluation.labels import read_labels

    file = tmp_path / "labels.jsonl"
    file.write_text(json.dumps({"id": "x", "structure": hostile, "bader_charge": [0.5, -0.5]}) + "\n")
    assert [label.id for label in read_labels(file).items] == ["x"]


def test_read_entries_of_data(hostile, tmp_path):
    from mattergen_e.data.sources import ReadOptions, read_entries

    file = tmp_path / "set.jsonl"
    file.write_text(json.dumps({"id": "x", "structure": hostile}) + "\n")
    (entry,) = read_entries(file, ReadOptions())
    assert entry.site_values["bader_charge"].tolist() == [[0.5], [0.5]]


def test_lines_of_a_run(hostile):
    from mattergen_e.generation.formats import parse_json_line

    line = {"index": 0, "batch": 0, "structure": hostile, "conditions": {}, "seed": 7, "redraws": 0}
    assert set(parse_json_line(json.dumps(line)).structure.site_properties) == {"bader_charge"}


# -- what is read -----------------------------------------------------------------------------------------------------


def test_plain_properties_are_read_as_pymatgen_reads_them():
    crystal = Structure(
        Lattice.from_parameters(3, 4, 5, 80, 95, 110),
        [Species("Fe", 3, spin=5), Species("O", -2), "O"],
        [[0, 0, 0], [0.25, 0.5, 0.75], [0.1, 0.2, 0.3]],
        charge=1.0,
        site_properties={"q": [1.5, None, -2], "v": [[1, 2.5], [3, 4], [5, 6]], "kind": ["a", "b", "c"]},
        labels=["Fe1", "O1", "O2"],
        properties={"energy": -3.5, "tags": ["x", "y"]},
    )
    given = json.loads(json.dumps(crystal.as_dict()))
    with pytest.warns(UserWarning, match="Not all sites have property q"):
        expected = Structure.from_dict(json.loads(json.dumps(given)))
    found = read_dictionary(given)
    assert found == expected and found.labels == expected.labels
    assert found.site_properties == expected.site_properties and found.properties == expected.properties
    assert found.charge == 1.0


def test_disordered_and_labelled_sites_are_read():
    crystal = Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert read_dictionary(crystal.as_dict()) == crystal


def test_arrays_that_monty_wrote_are_lists():
    moments = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    crystal = Structure(np.eye(3) * 4, ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]], site_properties={"m": moments})
    given = json.loads(json.dumps(crystal.as_dict(), cls=MontyEncoder))
    assert read_dictionary(given).site_properties["m"] == moments.tolist()
