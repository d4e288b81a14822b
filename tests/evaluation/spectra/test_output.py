"""What the terminal says of densities of states."""

from __future__ import annotations

from rich.console import Console

from mattergen_e.evaluation.spectra.output import sentences, table


def test_table_and_sentences() -> None:
    metric = {"value": 0.722, "low": 0.7, "high": 0.75, "random": 0.557, "unit": ""}
    single = {"value": 1.107, "low": None, "high": None, "random": None, "unit": "eV"}
    block = {
        "source": "predictor 01", "targets": {"curves": 58}, "asked": 232, "crystals": 230,
        "not_judged": {"not_generated": 2}, "structures": {"relaxed": 30, "generated": 200}, "cosine": metric,
        "band_gap": single, "te_filter": {"fraction": 0.5, "count": 116, "total": 232},
        "truth": {
            "structure_match": {"fraction": 0.0, "count": 0, "total": 232},
            "composition_match": {"fraction": None, "count": None, "total": 0},
        },
    }  # fmt: skip
    console = Console(width=100, record=True, quiet=False)
    with console.capture() as captured:
        console.print(table(block))
    shown = captured.get()
    assert "58 targets, 230 of 232 crystals" in shown and "0.700 to 0.750" in shown and "0.557" in shown
    assert [line.count("-") for line in shown.splitlines() if "band gap" in line] == [2]
    assert sentences(block) == [
        "Spectra by predictor 01 (30 relaxed, 200 generated).",
        "Without a spectrum: 2 not_generated.",
        "Filter for thermoelectric materials: 116 of 232 crystals pass.",
        "Same structure as the target's crystal: 0 of 232.",
    ]
