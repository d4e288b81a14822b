"""`mattergen-e plot dos`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mattergen_e.cli.plot import app, draw
from mattergen_e.errors import UserError
from mattergen_e.generation.formats import Generated
from mattergen_e.generation.store import RunStore
from mattergen_e.spectra.objects import CrystalSpectra


@pytest.fixture(scope="module")
def crystals(solids, dos_processing):
    rng = np.random.default_rng(0)
    found = []
    for index, name in enumerate(("TiO2", "NaCl")):
        structure = solids[name]
        spectra = rng.uniform(0, 2, (len(structure), 64)).astype(np.float32)
        item = CrystalSpectra(spectra, dos_processing.grid, np.zeros((len(structure), 4), np.float32), "0" * 64)
        found.append(Generated(index, 0, structure, {}, 1, spectra=item if name == "TiO2" else None))
    return found


@pytest.fixture
def out(crystals, tmp_path) -> Path:
    with RunStore.open(tmp_path / "out", existing="refuse", settings={"seed": 1}, provenance={}) as store:
        store.write_batch(0, crystals, seconds=0, dropped=0, failed=0)
    return tmp_path / "out"


def test_panels_show_the_sums(crystals):
    spectra = crystals[0].spectra.spectra
    total, by_element, by_site = draw(crystals[0]).axes
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in by_element.get_lines()}
    assert {"Ti", "O"} <= set(lines)
    assert np.allclose(lines["Ti"] + lines["O"], spectra.sum(axis=0), atol=1e-5)
    sites = [np.asarray(line.get_ydata()) for line in by_site.get_lines() if not line.get_label().startswith("_")]
    assert np.array_equal(sites, spectra)
    top = total.collections[0].get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(spectra.sum(axis=0).max())
    assert "eV" in by_site.get_xlabel() and "states/eV" in by_element.get_ylabel()


def test_command_draws(out, tmp_path):
    result = CliRunner().invoke(app, ["dos", str(out), "--index", "0", "--to", str(tmp_path / "figures" / "x.png")])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("crystal 0, TiO2:")
    assert (tmp_path / "figures" / "x.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("index", "figure", "sentence"),
    [
        ("5", "x.png", "has no crystal 5: give one of the 2 indices"),
        ("1", "x.png", "have no spectra: generate with a model of the descriptor atomic_dos"),
        ("0", "x.docx", "cannot be drawn"),
    ],
)
def test_what_cannot_be_drawn(out, tmp_path, index, figure, sentence):
    result = CliRunner().invoke(app, ["dos", str(out), "--index", index, "--to", str(tmp_path / figure)])
    assert isinstance(result.exception, UserError) and sentence in str(result.exception)
