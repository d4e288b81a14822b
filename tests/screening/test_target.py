"""The target: which curve, which energies, and how far spectra are from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.screening.settings import ScreenSettings, parse_site
from mattergen_e.screening.target import read_target
from mattergen_e.spectra.curves import Curve
from mattergen_e.spectra.grid import EnergyGrid

GRID = EnergyGrid(minimum=-10, maximum=10, points=200)


def peak(centre: float, width: float = 0.5) -> np.ndarray:
    return np.exp(-0.5 * ((GRID.energies - centre) / width) ** 2)


def test_distances_are_those_of_the_definitions(write_curve: Callable[..., Path]) -> None:
    """A shift of 2 eV is a Wasserstein distance of 2 eV; of Gaussians, the cosine is exp(-shift^2 / 4 sigma^2)."""
    path = write_curve(energies=GRID.energies, dos=peak(-2.0))
    target = read_target(ScreenSettings(target=path), GRID)
    found = target.distances(np.stack([peak(-2.0), 3.0 * peak(0.0), np.zeros(200)]))
    assert found["wasserstein"][:2] == pytest.approx([0.0, 2.0], abs=1e-5)
    assert found["cosine"][:2] == pytest.approx([0.0, 1 - np.exp(-4.0)], abs=1e-6)
    assert np.isnan(found["wasserstein"][2]) and np.isnan(found["cosine"][2])


def test_a_window_leaves_out_the_rest(write_curve: Callable[..., Path]) -> None:
    path = write_curve(energies=GRID.energies, dos=peak(-1.0) + 5 * peak(-8.0))
    inside, whole = (read_target(ScreenSettings(target=path, window=window), GRID) for window in ((-3.0, 2.0), None))
    other = peak(-1.0) + 5 * peak(7.0)
    assert inside.distances(other[None])["cosine"][0] == pytest.approx(0.0, abs=1e-6)
    assert inside.distances(other[None])["wasserstein"][0] == pytest.approx(0.0, abs=1e-5)
    assert whole.distances(other[None])["cosine"][0] > 0.9
    assert inside.about() == {
        "curve": "target", "grid": {"minimum": -10.0, "maximum": 10.0, "points": 200}, "bins_compared": 50,
        "from_energy": -3.0, "to_energy": 2.0,
    }  # fmt: skip


def test_what_the_target_does_not_give_is_not_compared(write_curve: Callable[..., Path]) -> None:
    energies = np.linspace(-4, 1, 501)
    path = write_curve(energies=energies, dos=np.exp(-0.5 * ((energies + 2) / 0.5) ** 2))
    target = read_target(ScreenSettings(target=path), GRID)
    assert target.mask.sum() == 50 and (target.values[~target.mask] == 0).all()
    assert target.distances((peak(-2.0) + peak(5.0))[None])["cosine"][0] == pytest.approx(0.0, abs=1e-3)


def two_curves(folder: Path) -> Path:
    np.savez(folder / "two.npz", energies=GRID.energies, dos=np.stack([peak(-2.0), peak(3.0)]), names=["a", "b"])
    return folder / "two.npz"


def test_a_curve_is_chosen_by_its_name(tmp_path: Path) -> None:
    target = read_target(ScreenSettings(target=two_curves(tmp_path), curve="b"), GRID)
    assert target.name == "b" and GRID.energies[target.values.argmax()] == pytest.approx(3.0, abs=0.06)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "two.npz holds 2 curves: name one by --curve (a, b)"),
        ({"curve": "c"}, "has no curve 'c': give one of a, b"),
        ({"curve": "a", "window": (5, 2)}, "--window: the window [5, 2] eV"),
        ({"curve": "a", "window": (-30, 2)}, "--window: the window [-30, 2] eV"),
    ],
)
def test_what_cannot_be_a_target(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        read_target(ScreenSettings(target=two_curves(tmp_path), **changes), GRID)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_window_without_target(write_curve: Callable[..., Path]) -> None:
    energies = np.linspace(-4, 1, 51)
    path = write_curve(energies=energies, dos=np.where(energies < 0, 1.0, 0.0))
    with pytest.raises(UserError, match=r"given from -4 to 1 eV, which leaves nothing to compare between 3 and 6 eV"):
        read_target(ScreenSettings(target=path, window=(3, 6)), GRID)
    with pytest.raises(UserError, match=r"has no states between 0\.3 and 0\.9 eV"):
        read_target(ScreenSettings(target=path, window=(0.3, 0.9)), GRID)


def test_a_crystal_as_a_target(textbook: dict[str, Any], tmp_path: Path) -> None:
    textbook["NaI"].to(filename=str(tmp_path / "NaI.cif"))
    settings = ScreenSettings(target=tmp_path / "NaI.cif")
    target = read_target(settings, GRID, lambda path: [Curve(path.stem, GRID.energies, peak(1.0))])
    assert target.name == "NaI" and np.allclose(target.values, peak(1.0), atol=1e-6)
    with pytest.raises(UserError, match="is a structure, not a spectrum"):
        read_target(settings.model_copy(update={"site": "any"}), GRID, lambda path: [])


def test_sites() -> None:
    assert (parse_site(None), parse_site("any"), parse_site("12")) == (None, "any", 12)
    for word in ("-1", "first", "1.5", "²"):
        with pytest.raises(UserError, match="--site"):
            parse_site(word)
