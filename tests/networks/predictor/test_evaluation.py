"""Figures of a predictor beside baselines that are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.networks.predictor.data import read_processing, read_split
from mattergen_e.networks.predictor.evaluation import ELEMENT_MEAN, PREDICTOR, RANDOM, element_sums, evaluate
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.spectra.metrics import wasserstein
from mattergen_e.spectra.processing import AtomicDosSettings

Make = Callable[..., Any]


def test_figures(make_cache: Make, make_predictor: Make) -> None:
    cache, predictor = make_cache(), make_predictor()
    found = evaluate(predictor, cache)
    assert (found.crystals, found.n_sites, found.split) == (8, 27, "test")
    assert list(found.sites) == [PREDICTOR, ELEMENT_MEAN, RANDOM] and list(found.total) == [PREDICTOR, ELEMENT_MEAN]
    test = read_split(cache / "test", predictor.processing)
    predicted = predictor.predict(test.structures)
    distances = wasserstein(predicted.sites, test.sites, predictor.grids.sites)
    assert found.sites[PREDICTOR].errors["wasserstein"].mean == pytest.approx(distances.mean())
    oxygen = distances[test.atomic_numbers == 8]
    assert found.sites[PREDICTOR].by_element["O"].median == pytest.approx(np.median(oxygen))
    assert found.total[PREDICTOR]["mae"].mean == pytest.approx(np.abs(predicted.total - test.total).mean(), rel=1e-5)
    assert json.loads(json.dumps(found.to_json()))["total"]["predictor"]["cosine"]["pairs"] == 8


def test_a_perfect_predictor(make_cache: Make, make_predictor: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, predictor = make_cache(), make_predictor()
    truth = read_split(cache / "test", predictor.processing)
    answer = predictor.predict(truth.structures)
    perfect = type(answer)(np.array(truth.sites), np.array(truth.total), answer.n_sites)
    monkeypatch.setattr(type(predictor), "predict", lambda *_: perfect)
    found = evaluate(predictor, cache)
    assert found.sites[PREDICTOR].errors["wasserstein"].mean == pytest.approx(0.0, abs=1e-6)
    assert found.total[PREDICTOR]["cosine"].mean == pytest.approx(1.0)
    chance = found.total[PREDICTOR]["cosine"].random
    assert chance is not None and chance < 0.9


def test_sums_of_elements(make_cache: Make) -> None:
    def additive(split: str, sites: np.ndarray, total: np.ndarray) -> None:
        rng = np.random.default_rng(0)
        spectra = rng.random((120, 32))
        numbers = [[11, 17], [55, 17], [12, 8], [30, 30, 16, 16], [22, 22, 8, 8, 8, 8], [56, 22, 8, 8, 8], [3, 3, 8],
                   [12, 12, 14]]  # fmt: skip
        total[:] = [spectra[n].mean(0) for n in numbers]

    cache = make_cache(change=additive)
    train = read_split(cache / "train", read_processing(cache))
    mean = np.abs(train.total.mean(0) - train.total).mean()
    assert np.abs(element_sums(train, train) - train.total).mean() < 0.5 * mean


def test_unknown_spectra_are_left_out(make_cache: Make, make_predictor: Make) -> None:
    def change(split: str, sites: np.ndarray, total: np.ndarray) -> None:
        sites[:2], total[0] = np.nan, np.nan

    found = evaluate(make_predictor(), make_cache(change=change))
    assert (found.crystals, found.n_sites) == (7, 25)


def test_refusals(make_cache: Make, make_predictor: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a split of a cache"):
        evaluate(make_predictor(), make_cache(), split="nothing")
    other = AtomicDosSettings(grid=EnergyGrid(minimum=-15, maximum=5, points=64), smearing=0.2)
    with pytest.raises(UserError, match="'atomic_dos' was made with smearing 0.2, but 0.5 is needed"):
        evaluate(make_predictor(), make_cache("b", atomic_dos=other))
