"""A file of others is data: whatever it names is neither imported nor built, by which way ever it comes in."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from mattergen_e.crystals.checks import EntryError
from mattergen_e.crystals.findings import LabelError
from mattergen_e.errors import UserError

PACKAGE = Path(__file__).resolve().parents[2] / "mattergen_e"


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Names a class of a module that can be imported, whose import is remembered; at the end none was."""
    name = f"trap_{abs(hash(tmp_path))}"
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / f"{name}.py").write_text(
        "class Trap:\n    def __init__(self, *_): ...\n    @classmethod\n    def from_dict(cls, _): return cls()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    yield {"@module": name, "@class": "Trap", "a": 1}
    assert name not in sys.modules


@pytest.fixture
def hostile(trap: dict[str, Any]) -> list[dict[str, Any]]:
    """Dictionaries of CsCl that name the class, each at another place; the first two can be read without it."""
    crystal = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])

    def plain() -> dict[str, Any]:
        return json.loads(json.dumps(crystal.as_dict()))

    on_site, on_top, lattice, matrix, species, element, charge = (plain() for _ in range(7))
    on_site["sites"][0]["properties"] = {"magmom": trap, "bader_charge": 0.8}
    on_site["sites"][1]["properties"] = {"magmom": [trap], "bader_charge": -0.8}
    on_top["properties"] = {"note": trap, "deep": {"er": [trap]}, "energy": -3.0}
    lattice["lattice"] |= trap
    matrix["lattice"]["matrix"] = trap
    species["sites"][0]["species"][0] |= trap | {"oxidation_state": trap}
    element["sites"][0]["species"][0]["element"] = trap
    charge["charge"] = trap
    return [on_site, on_top, lattice, matrix, species, element, charge, {**plain(), **trap}]


def test_the_trap_snaps(trap: dict[str, Any], hostile: list[dict[str, Any]]) -> None:
    """What pymatgen's own reader does with the first of them."""
    Structure.from_dict(hostile[0])
    assert sys.modules.pop(trap["@module"])


def lines(path: Path, *entries: Any) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


# -- every way in -----------------------------------------------------------------------------------------------------


def predict(file: Path, _: dict[str, Any]) -> int:
    """As `predict`, `dos-predictor predict`, targets of spectra and `data compute` read crystals."""
    from mattergen_e.crystals.reading import read_readable, read_structures

    with suppress(UserError):
        read_structures([file])
    return len(read_readable([file])[0])


def evaluate(file: Path, _: dict[str, Any]) -> int:
    """As `evaluate`, `screen`, `compare` and `report` read crystals."""
    from mattergen_e.evaluation.candidates import read_candidates

    return len(read_candidates(file).readable)


def labels(file: Path, _: dict[str, Any]) -> int:
    """As `evaluate --labels`."""
    from mattergen_e.evaluation.labels import read_labels

    return len(read_labels(file).items)


def accuracy(file: Path, _: dict[str, Any]) -> int:
    from mattergen_e.prediction.accuracy import read_labelled

    return len(read_labelled(file, ["bader_charge"]))


def build(file: Path, _: dict[str, Any]) -> int:
    from mattergen_e.data.build import build_cache

    return build_cache([file], file.parent / "cache", jobs=1, split_fractions=(1, 0, 0)).crystals


def reference(file: Path, _: dict[str, Any]) -> int:
    from mattergen_e.reference.sources import read_sources

    return len(read_sources([file], ("train",), 1, "threading"))


def template(file: Path, _: dict[str, Any]) -> int:
    from mattergen_e.generation.constraints.reading import read_constraints

    (file.parent / "constraints.yaml").write_text(f"template: {{structure: {file.name}, time: 0.5}}\n")
    read_constraints(file.parent / "constraints.yaml")
    return 1


def compute(file: Path, _: dict[str, Any]) -> int:
    from mattergen_e.labels.computed.compute import compute as run

    with pytest.raises(UserError):
        run([file], file.parent / "computed", python=sys.executable + "-which-is-none")
    return 1


def download(file: Path, given: dict[str, Any]) -> int:
    """As `data label` reads what was fetched from the Materials Project."""
    from mattergen_e.labels.materials_project.files import read_material

    (file.parent / "material.json").write_text(json.dumps({"structure": given["structure"], "band_gap": 1.0}))
    read_material(file.parent)
    return 1


def run_file(_: Path, given: dict[str, Any]) -> int:
    """As `plot`, `demo` and a resumed generation read crystals."""
    from mattergen_e.generation.formats import parse_json_line

    line = {"index": 0, "batch": 0, "structure": given["structure"], "conditions": {}, "seed": 7, "redraws": 0}
    return len(parse_json_line(json.dumps(line)).structure) // 2


def kept_relaxation(_: Path, given: dict[str, Any]) -> int:
    """As `evaluate` and `report` read relaxed crystals of an evaluation that was begun elsewhere."""
    from mattergen_e.evaluation.output import relaxed_frames
    from mattergen_e.evaluation.predicted import best

    relaxed = {"ok": True, "structure": given["structure"]}
    row = dict.fromkeys(("index", "energy_per_atom", "energy_above_hull", "converged", "rmsd"), 0)
    relaxed_frames([row | {"key": "k"}], {"k": relaxed})
    return len(best(Structure(np.eye(3), ["H"], [[0, 0, 0]]), relaxed)) // 2


def shortlist(_: Path, given: dict[str, Any]) -> int:
    from mattergen_e.evaluation.candidates import Candidate, Candidates
    from mattergen_e.screening.run import _structures

    structure = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    candidates = Candidates((Candidate(0, structure, None, "k"),), (), {})
    return len(_structures(candidates, {"k": {"structure": given["structure"]}}, [{"index": 0}]))


def kept_label(file: Path, given: dict[str, Any]) -> int:
    from mattergen_e.crystals.fields import read_structure

    read_structure(given)
    return 1


WAYS = [
    predict, evaluate, labels, accuracy, build, reference, template, compute, download, run_file, kept_relaxation,
    shortlist, kept_label,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_no_entry_point_builds_what_a_dictionary_names(
    way: Callable[[Path, dict[str, Any]], int], hostile: list[dict[str, Any]], trap: dict[str, Any], tmp_path: Path
) -> None:
    read = 0
    for number, structure in enumerate(hostile):
        folder = tmp_path / str(number)
        folder.mkdir()
        given = {"id": f"x{number}", "structure": structure, "bader_charge": [0.8, -0.8], "split": "train"}
        file = lines(folder / "crystals.jsonl", given | {"note": trap})
        with suppress(UserError, EntryError, LabelError, KeyError, TypeError, ValueError, AttributeError):
            read += way(file, given) > 0
        assert trap["@module"] not in sys.modules, f"{way.__name__}, place {number}"
    assert read >= 3  # those that only carry a name at a place which nobody needs are read


def test_no_entry_point_builds_what_a_comment_of_extxyz_names(trap: dict[str, Any], tmp_path: Path) -> None:
    from mattergen_e.crystals.reading import read_structures
    from mattergen_e.evaluation.candidates import read_candidates
    from mattergen_e.report.runs import _relaxed

    told = json.dumps(trap).replace('"', '\\"')
    comment = f'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 index=0 note="_JSON {told}" pbc="T T T"'
    file = tmp_path / "relaxed.extxyz"
    file.write_text(f"2\n{comment}\nCs 0 0 0\nCl 2 2 2\n")
    (found,) = read_structures([file])
    assert found.structure.properties == {"index": 0}  # and nothing that a later reader would build
    assert len(read_candidates(file).readable) == 1
    assert list(_relaxed(file)) == [0] and _relaxed(file)[0].properties == {"index": 0}


def test_pickles_in_arrays_are_left_alone(tmp_path: Path, trap: dict[str, Any]) -> None:
    """An array of objects is a pickle, and unpickling runs what it names."""
    from mattergen_e.labels.arrays import read_arrays

    class Run:
        def __reduce__(self) -> Any:
            return __import__, (trap["@module"],)

    np.savez(tmp_path / "x.npz", numbers=np.array([Run()], dtype=object))
    with pytest.raises(LabelError):
        read_arrays(tmp_path / "x.npz", ("numbers",))


# -- and no new one ---------------------------------------------------------------------------------------------------

#: Readers that build what a file or dictionary names, or open whatever a path leads to.
BUILDERS = {
    "from_dict", "from_file", "loadfn", "MontyDecoder", "process_decoded", "load_class", "unpickle", "loads_pickle",
    "object_hook", "decode_result", "eval", "exec",
}  # fmt: skip
ALLOWED = {
    ("crystals/dictionary.py", "from_dict"),  # of what was made of numbers and texts before
    ("matching/verdict.py", "from_dict"),  # of settings that were never in a file
    ("labels/vasp/valence.py", "loadfn"),  # of a table in pymatgen's package
}


def test_only_the_reader_of_dictionaries_builds_structures() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = node.func
                name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                module_eval = isinstance(called, ast.Attribute) and name in ("eval", "exec")  # torch's module.eval()
                if name in BUILDERS and not module_eval:
                    found.add((path.relative_to(PACKAGE).as_posix(), name))
    assert found <= ALLOWED, "read foreign dictionaries with mattergen_e.crystals.dictionary"
