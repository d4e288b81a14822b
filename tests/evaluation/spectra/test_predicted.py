"""Spectra of the crystals: predicted, generated, and missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.evaluation.candidates import Candidate, Candidates
from mattergen_e.evaluation.spectra import predicted as spectra
from mattergen_e.evaluation.steps import Context
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.spectra.objects import CrystalSpectra

GRID = EnergyGrid(minimum=-10, maximum=10, points=16)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(tmp_path, Candidates((), (), {}), None, jobs=1)  # type: ignore[arg-type]


def lonely() -> Any:
    """A crystal whose atoms the network does not see from each other."""
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice.cubic(9.0), ["Cs"], [[0, 0, 0]])


def test_a_crystal_that_is_refused_costs_only_itself(
    context: Context, textbook: dict[str, Any], predictor: Path
) -> None:
    from mattergen_e.crystals.reading import NamedStructure
    from mattergen_e.networks.predictor.folder import load
    from mattergen_e.networks.predictor.output import predict_structures

    model = load(predictor)
    crystals = {4: textbook["NaI"], 1: lonely(), 7: textbook["Mg2Si"]}
    expected = predict_structures(model, [NamedStructure("x", textbook[name]) for name in ("NaI", "Mg2Si")])
    for of_sites, shape in ((False, (1, 32)), (True, (3, 64))):
        found = spectra.predicted(context, model, crystals, of_sites)
        assert list(found) == [4, 1, 7] and isinstance(found[1], str)
        assert found[1].startswith("the crystal has no neighbours within the 5 angstrom")
        first, last = ((item.sites if of_sites else item.total[None]) for item in expected)
        assert np.allclose(found[4], first, atol=1e-5) and np.allclose(found[7], last, atol=1e-5)
        assert found[7].shape == shape  # type: ignore[union-attr]
    assert context.computed["spectra"] == 6
    spectra.predicted(context, model, crystals, of_sites=True)
    assert context.computed["spectra"] == 6


def test_generated_spectra(textbook: dict[str, Any]) -> None:
    values = np.random.default_rng(0).random((3, 16)).astype(np.float32)
    own = CrystalSpectra(values, GRID, np.empty((3, 0), np.float32), "x")
    other = CrystalSpectra(values, EnergyGrid(minimum=-5, maximum=5, points=16), own.latents, "x")
    crystals = {i: Candidate(i, textbook["Mg2Si"], None, "k", spectra=s) for i, s in enumerate((own, None, other))}
    found = spectra.generated(crystals, GRID, of_sites=False)
    assert np.allclose(found[0], values.sum(axis=0)[None] / 3)
    assert "without a spectrum" in str(found[1])
    assert "another grid" in str(found[2])
    assert spectra.generated(crystals, GRID, of_sites=True)[0] is values


def test_curves_of_crystals(textbook: dict[str, Any], predictor: Path, tmp_path: Path) -> None:
    from mattergen_e.networks.predictor.folder import load

    textbook["NaI"].to(filename=str(tmp_path / "NaI.cif"))
    model = load(predictor)
    (curve,) = spectra.curves_of(model, tmp_path / "NaI.cif")
    assert curve.name == "NaI" and np.array_equal(curve.energies, model.grids.total.energies)
    assert curve.dos.shape == (32,) and (curve.dos > 0).any()
