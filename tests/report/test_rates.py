"""Finding and reading evaluation.json."""

from __future__ import annotations

import json

import pytest

from mattergen_e.errors import UserError
from mattergen_e.evaluation.schema import Rate
from mattergen_e.evaluation.summary import summarise
from mattergen_e.report.rates import read_run

CONTENT = {
    "format": 1,
    "name": "written",
    "conditions": {},
    "asked": 4,
    "rates": {"un": {"count": 2, "total": 4, "fraction": 0.5, "low": 0.1, "high": 0.9}},
    "added later": {"by": "another version"},
}


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "base_gap3" / "evaluation"
    inside.mkdir(parents=True)
    (inside / "evaluation.json").write_text(json.dumps(CONTENT))
    return tmp_path / "base_gap3"


def test_all_ways_to_name_a_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for word in (str(folder), str(folder / "evaluation"), str(folder / "evaluation" / "evaluation.json"), "."):
        run = read_run(word)
        assert (run.name, run.rate("un")) == ("base_gap3", Rate(count=2, total=4, fraction=0.5, low=0.1, high=0.9)), (
            word
        )
    assert read_run(f"my model={folder}").name == "my model"
    assert read_run(f"two\nlines ={folder}").name == "two lines"


def test_a_folder_whose_name_has_an_equals_sign(folder):
    other = folder.parent / "gap=3"
    folder.rename(other)
    assert read_run(str(other)).name == "gap=3"
    assert read_run(f"x={other}").name == "x"


def test_what_is_written_of_rows_is_read(folder):
    rows = [{"readable": True, "unique": True, "novel": True, "stable": None, "valid": True, "properties": {}}]
    file = folder / "evaluation" / "evaluation.json"
    file.write_text(json.dumps({"format": 1, "conditions": {}, **summarise(rows)}))
    run = read_run(str(folder))
    assert (run.rate("un").count, run.rate("sun").count, run.rate("sun").reason) == (1, None, "not evaluated")
    assert run.rate("success").reason == "no property has a target"


@pytest.mark.parametrize(
    ("conditions", "shown"),
    [
        ({}, "ab initio"),
        ({"dft_band_gap": 3}, "dft_band_gap = 3 eV"),
        (
            {"energy_above_hull": 0.0, "dft_band_gap": 2.5},
            "dft_band_gap = 2.5 eV, energy_above_hull = 0 eV/atom",
        ),
        ({"chemical_system": "Li-O"}, "chemical_system = Li-O"),
        ({"dos": [1.0, 2.0]}, "dos = [1.0, 2.0]"),
    ],
)
def test_conditions_for_people(folder, conditions, shown):
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps({**CONTENT, "conditions": conditions}))
    assert read_run(str(folder)).condition == shown


def test_not_evaluated(tmp_path):
    with pytest.raises(UserError, match=r"has not been evaluated: run `mattergen-e evaluate .* --reference REF` first"):
        read_run(str(tmp_path))
    with pytest.raises(UserError, match="nowhere does not exist"):
        read_run("name=nowhere")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"asked": NaN}', "NaN is no number of JSON"),
        ("[]", "is no evaluation of this version"),
        (json.dumps({**CONTENT, "format": 2}), r"\(format: "),
        (json.dumps({**CONTENT, "asked": -1}), r"\(asked: "),
        (json.dumps({**CONTENT, "rates": {"un": {"count": 5, "total": 4}}}), "the count 5 is more than the total 4"),
        (json.dumps({**CONTENT, "rates": {"un": {"count": 10**400, "total": 10**400}}}), r"\(rates.un.total: "),
    ],
)
def test_damaged_files(folder, text, sentence):
    (folder / "evaluation" / "evaluation.json").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_run(str(folder))
