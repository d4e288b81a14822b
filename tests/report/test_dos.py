"""Spectra against what was asked for: in the tables of a comparison, and in a report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.evaluation.schema import Evaluation
from mattergen_e.report import tables
from mattergen_e.report.compare import as_json, compare
from mattergen_e.report.dos_block import METRICS
from mattergen_e.report.page import render
from mattergen_e.report.rates import Run
from mattergen_e.report.runs import read_run

#: "Density of States-Intermediated Crystal Generation", table 3: of the model, and of random pairing.
PAPER = {
    "cosine": (0.722, 0.557),
    "pearson": (0.499, 0.197),
    "js_divergence": (0.184, 0.307),
    "band_gap": (1.107, 1.513),
    "dos_at_fermi": (0.359, 0.488),
    "states_below_fermi": (2.442, 2.942),
}


def block(source: str = "predictor 0123456789ab", **changes: Any) -> dict[str, Any]:
    """As in evaluation.json, with the numbers of the paper."""
    metrics = {
        name: {"value": value, "low": value - 0.01, "high": value + 0.01, "random": random}
        for name, (value, random) in PAPER.items()
    }
    return {
        "source": source,
        "asked": 1024,
        "crystals": 1000,
        "targets": {"file": "target_dos.npz", "curves": 256, "sha256": "e14fa71d30842a"},
        "structures": {"generated": 1000, "relaxed": 0},
        "interval": {"over": "targets"},
        **metrics,
        "te_filter": {"count": 100, "total": 1024, "fraction": 0.1129, "low": 0.09, "high": 0.13},
        **changes,
    }


#: DOSMatGen, table 2, classifier-free guidance from noise.
TRUTH = {
    "crystals": 256,
    "mae_generated_target": {"value": 0.2, "low": 0.1, "high": 0.3},
    "structure_match": {"fraction": 0.147},
    "composition_match": {"fraction": 0.587},
}


def run(name: str, dos: dict[str, Any] | None) -> Run:
    content = {"format": 1, "asked": 1024, "rates": {"un": {"count": 700, "total": 1024}}, "dos_targets": dos}
    return Run(name, Path(name) / "evaluation.json", Evaluation.model_validate(content))


def test_the_second_table_has_the_papers_numbers() -> None:
    comparison = compare([run("plain", None), run("a_b", block(truth=TRUTH))])
    text = tables.markdown(comparison)
    table = text.split("Densities of states against what was asked for:")[1].split("\n\n")[1].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert cells[0][:6] == ["a\\_b", "", "1000 of 1024", "0.722", "0.499", "0.184"] and cells[0][-1] == "11.3"
    assert cells[1][3] == "0.712–0.732" and cells[2][3:9] == ["0.557", "0.197", "0.307", "1.513", "0.488", "2.942"]
    assert cells[0][9] == "–"  # the paper has no MAE of the spectrum
    assert len(table) == 5  # the run without targets has no rows
    right = text.split("Generated crystals and those that the targets are of:")[1]
    assert "| 0.200 | – | – | 14.7 | 58.7 |" in right
    assert "Spectra: by predictor 0123456789ab, of generated crystals." in text
    latex = tables.latex(comparison)
    assert "0.712--0.732" in latex and latex.count(r"\begin{table}") == 4 - (comparison.tests == 0)
    assert any("cosine" in str(column.header) for part in tables.terminal(comparison) for column in columns(part))


def columns(part: Any) -> list[Any]:
    return getattr(part, "columns", [])


def test_without_targets_there_is_no_second_table() -> None:
    comparison = compare([run("plain", None)])
    assert "Densities of states" not in tables.markdown(comparison)
    assert as_json(comparison)["runs"][0]["dos_targets"] is None


def test_json_has_the_block() -> None:
    found = json.loads(json.dumps(as_json(compare([run("a", block())])), allow_nan=False))["runs"][0]["dos_targets"]
    assert found["cosine"]["value"] == 0.722 and found["cosine"]["random"] == 0.557 and found["truth"] is None
    assert set(METRICS) <= set(found)


def test_spectra_of_different_sources_are_said_to_be() -> None:
    notes = compare([run("a", block()), run("b", block("labels x"))]).notes
    assert "Spectra: by labels x, of generated crystals (b)." in notes
    assert "Spectra are not the same for all runs: their densities of states are not comparable." in notes
    assert not any(note.startswith("Targets are not") for note in notes)


def write_curves(folder: Path, **changes: Any) -> None:
    """Curves of twelve crystals with cosines of 0.05, 0.1, ..., 0.6."""
    energies = np.linspace(-10, 10, 256)
    targets = np.exp(-0.5 * (energies - np.array([[-2.0], [3.0]])) ** 2)
    targets[1, :50] = np.nan
    arrays = {
        "energies": energies,
        "crystal": np.arange(12),
        "curve": np.arange(12) % 2,
        "generated": np.abs(np.sin(energies))[None].repeat(12, 0),
        "targets": targets,
        "names": np.array(["<one>", "two"]),
        "cosine": 0.05 * np.arange(1, 13),
        "random_cosine": np.linspace(0, 0.4, 50),
    }
    np.savez(folder / "evaluation" / "dos_targets.npz", **{**arrays, **changes})


def section(page: str) -> str:
    found = re.search(r'<section id="targets".*?</section>', page, re.DOTALL)
    assert found is not None
    return found[0]


def test_the_section_of_a_report(evaluated: Any, tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "run", dos_targets=block(truth=TRUTH))
    write_curves(folder)
    found = section(render([read_run(folder)]))
    for words in (
        "0.722", "0.712–0.732", "0.557", "11.3 %", "14.7 %", "spectra by predictor 0123456789ab of 1,000 of 1,024",
        "50 mismatched pairs, median 0.200", "12 crystals with their own target, median 0.325", "90 %: 0.550",
        "for &lt;one&gt;",
    ):  # fmt: skip
        assert words in found, words
    assert found.count("<figure>") == 2 and "<one>" not in found


def test_targets_that_nothing_judged(evaluated: Any, tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "run", conditions={"dos": "3 curves (0123456789)"})
    assert "--dos-predictor MODEL" in section(render([read_run(folder)]))
    plain = evaluated(tmp_path / "plain")
    assert 'id="targets"' not in render([read_run(plain)])


@pytest.mark.parametrize("change", [{"curve": np.arange(12)}, {"cosine": np.ones(3)}, {"names": np.array(["one"])}])
def test_damaged_curves(evaluated: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    folder = evaluated(tmp_path / "run", dos_targets=block())
    write_curves(folder, **change)
    with pytest.raises(UserError, match=r"dos_targets.npz is damaged"):
        read_run(folder)
