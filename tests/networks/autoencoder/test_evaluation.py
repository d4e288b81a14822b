"""Reconstructions beside principal components."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.networks.autoencoder.data import read_split
from mattergen_e.networks.autoencoder.evaluation import TRANSFORMS, check_figure, draw, evaluate, principal_components
from mattergen_e.networks.autoencoder.model import Autoencoder
from mattergen_e.spectra.metrics import wasserstein


@pytest.mark.parametrize("name", ["log1p", "plain", "sqrt"])
def test_principal_components_are_those_of_the_svd(make_cache: Callable[..., Path], name: str) -> None:
    def forget(split: str, spectra: np.ndarray) -> None:
        spectra[:4] = np.nan

    split = read_split(make_cache(change=forget) / "train")
    there, back = TRANSFORMS[name]
    mean, components = principal_components(split, 5, there)
    values = there(split.known.astype(float))
    np.testing.assert_allclose(mean, values.mean(0), atol=1e-12)
    _, _, directions = np.linalg.svd(values - values.mean(0), full_matrices=False)
    np.testing.assert_allclose(components.T @ components, directions[:5].T @ directions[:5], atol=1e-8)
    np.testing.assert_allclose(back(values), split.known, rtol=1e-5, atol=1e-6)


def test_figures_of_an_evaluation(
    make_autoencoder: Callable[..., Autoencoder], make_cache: Callable[..., Path]
) -> None:
    def forget(split: str, spectra: np.ndarray) -> None:
        if split == "test":
            spectra[20:24] = np.nan

    autoencoder, cache = make_autoencoder(), make_cache(change=forget)
    found = evaluate(autoencoder, cache, "test")
    assert (found.split, found.crystals, found.sites) == ("test", 12, 44)
    assert [method.name for method in found.methods] == ["autoencoder", "pca6_log1p", "pca6_plain", "pca6_sqrt"]
    spectra = read_split(cache / "test").known
    distances = wasserstein(autoencoder.reconstruct(spectra), spectra, autoencoder.grid)
    summary = found.methods[0].errors["wasserstein"]
    assert summary.median == pytest.approx(np.median(distances)) and summary.mean == pytest.approx(distances.mean())
    by_element = found.methods[0].by_element
    assert {symbol: s.sites for symbol, s in by_element.items()} == {"O": 22, "Ti": 11, "Sr": 11}
    assert by_element["Ti"].mean == pytest.approx(distances[1::4].mean())
    medians = [method.errors["wasserstein"].median or np.inf for method in found.methods]
    assert all(median < medians[0] for median in medians[1:])  # it was never trained
    latents = autoencoder.encode(spectra).astype(float)
    assert found.latents["rms"] == pytest.approx(np.sqrt((latents**2).mean()))
    assert found.latents["largest"] == pytest.approx(np.abs(latents).max()) and found.latents["largest"] < 1
    assert found.latents["smallest_deviation"] == pytest.approx(latents.std(0).min())
    assert found.latents["largest_deviation"] == pytest.approx(latents.std(0).max())
    written = json.loads(json.dumps(found.to_json()))
    assert written["methods"][0]["errors"]["mae"]["sites"] == 44 and "reconstructions" not in written


def test_examples_are_what_they_say(
    make_autoencoder: Callable[..., Autoencoder], make_cache: Callable[..., Path]
) -> None:
    def forget(split: str, spectra: np.ndarray) -> None:
        spectra[:8] = np.nan

    autoencoder, cache = make_autoencoder(), make_cache(change=forget)
    found = evaluate(autoencoder, cache, "val")
    values = read_split(cache / "val").values
    errors = [example["wasserstein"] for example in found.examples]
    assert errors == sorted(errors) and errors[0] < errors[-1]
    for example, (spectrum, rebuilt) in zip(found.examples, found.reconstructions, strict=True):
        np.testing.assert_array_equal(spectrum, values[example["site"]])
        assert wasserstein(rebuilt, spectrum, autoencoder.grid) == pytest.approx(example["wasserstein"], rel=1e-6)
        assert example["crystal"] == f"val-{example['site'] // 4}"
        assert example["element"] == ["O", "Ti", "O", "Sr"][example["site"] % 4]


def test_as_many_components_as_points_lose_nothing(
    make_autoencoder: Callable[..., Autoencoder], make_cache: Callable[..., Path]
) -> None:
    found = evaluate(make_autoencoder(latents=64), make_cache(), "test")
    for method in found.methods[1:]:
        assert method.errors["wasserstein"].quantiles["0.95"] < 1e-5


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_drawing(
    make_autoencoder: Callable[..., Autoencoder], make_cache: Callable[..., Path], tmp_path: Path, suffix: str
) -> None:
    autoencoder = make_autoencoder()
    figure = draw(evaluate(autoencoder, make_cache(), "test"), autoencoder)
    assert len(figure.axes) == 5 and "quantile 0.95" in figure.axes[-1].get_title()
    path = tmp_path / f"figure.{suffix}"
    check_figure(path)
    figure.savefig(path)
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(start)


def test_refusals(
    make_autoencoder: Callable[..., Autoencoder], make_cache: Callable[..., Path], processing: object
) -> None:
    with pytest.raises(UserError, match="ends in .png, .svg, .pdf"):
        check_figure(Path("figure.gif"))
    cache = make_cache()
    with pytest.raises(UserError, match="is not a split"):
        evaluate(make_autoencoder(), cache, "nothing")
    smoother = make_autoencoder().processing.model_copy(update={"smearing": 0.9})
    with pytest.raises(UserError, match="smearing 0.5, but 0.9 is needed"):
        evaluate(make_autoencoder(smoother), cache)
