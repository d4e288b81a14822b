"""What evaluation.json and the table of crystals are declared to hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mattergen_e.evaluation import schema
from mattergen_e.evaluation.schema import COLUMNS, TABLE, Evaluation
from mattergen_e.evaluation.summary import summarise, verdicts

DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"

ROW = {
    "index": 0, "readable": True, "unique": True, "novel": True, "stable": True, "valid": True, "structure_valid": True,
    "sites": 2, "charge_mae": 0.25, "dos_wasserstein": 0.5,
    "properties": {"dft_band_gap": {"value": 3.2, "target": 3.0, "tolerance": 0.5, "within": True, "source": "DFT"}},
}  # fmt: skip


def test_every_column_is_told_to_users():
    told = DOCS.read_text()
    heads = {"properties": "<property>", "success": "success_<property>"}
    assert [name for name in COLUMNS if f"`{heads.get(name, name)}`" not in told] == []
    assert len(set(COLUMNS)) == len(COLUMNS) and all(column.meaning for column in TABLE)
    assert {*schema.JUDGED, *schema.RATED} <= {column.name for column in TABLE if column.kind == "flag"}
    assert {f"novelty_{name}" for name in schema.NOVELTIES} < set(COLUMNS)


def test_parts_are_written_in_the_declared_order_and_read_as_they_are():
    summary: dict[str, Any] = {"format": 1, "name": "run", **summarise([ROW | verdicts(ROW)])}
    assert schema.checked(summary) is summary
    assert list(summary) == [name for name in Evaluation.model_fields if name in summary]
    read = Evaluation.model_validate(json.loads(json.dumps(summary)))
    assert read.rates["vsun"].model_dump(exclude_unset=True) == summary["rates"]["vsun"]
    assert read.success["dft_band_gap"].model_dump(exclude_unset=True) == summary["success"]["dft_band_gap"]
    assert read.relaxation.model_dump(exclude_unset=True) == summary["relaxation"]
    assert read.novelty.model_dump(exclude_unset=True) == summary["novelty"]
    # in the order of the table, whatever the order of the registered descriptors
    assert list(read.descriptors) == ["bader_charge", "atomic_dos"]
    assert read.descriptors["bader_charge"].all == {"mae": 0.25, "sites": 2, "crystals": 1}
    assert read.descriptors["atomic_dos"].sun == {"mean": 0.5, "sites": 2, "crystals": 1}


def test_what_is_not_declared_is_not_written():
    with pytest.raises(ValueError, match="evaluation.json would hold what is not declared: ratios"):
        schema.checked({"format": 1, "asked": 0, "rates": {}, "ratios": {}})
    with pytest.raises(ValueError, match="the count 5 is more than the total 4"):
        schema.checked({"format": 1, "asked": 4, "rates": {"un": {"count": 5, "total": 4}}})


def test_files_of_other_versions_are_read():
    old = Evaluation.model_validate({"format": 1, "asked": 4, "rates": {"un": {"count": 2, "total": 4}}})
    assert (old.dos_targets, old.descriptors, old.provenance.inputs, old.relaxation.asked) == (None, {}, {}, 0)
    new = Evaluation.model_validate({"format": 1, "asked": 0, "rates": {}, "added later": {"by": "another version"}})
    assert new.model_extra == {"added later": {"by": "another version"}}


@pytest.mark.parametrize(
    ("text", "words"),
    [(b"{", "Expecting property name"), (b"", "Expecting value"), (b'{"asked": -Infinity}', "-Infinity is no number")],
)
def test_what_is_no_json_is_refused(text: bytes, words: str):
    with pytest.raises(ValueError, match=words):
        schema.parse(text)
