"""Pictures of the shortlist."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from mattergen_e.screening.plots import _title, draw
from mattergen_e.screening.target import Target
from mattergen_e.spectra.grid import EnergyGrid

GRID = EnergyGrid(minimum=-10, maximum=10, points=100)
ROW: dict[str, Any] = {
    "rank": 3, "id": "gen_7", "formula": "NaI", "cosine_distance": 0.125, "wasserstein": 0.826, "site": None,
    "formation_energy_per_atom": -1.42, "energy_above_hull": None,
}  # fmt: skip


@pytest.mark.parametrize("site", [None, 2])
def test_a_picture_shows_spectrum_target_and_what_is_left_out(site: int | None) -> None:
    from matplotlib.image import imread

    values, mask = np.exp(-0.5 * GRID.energies**2), GRID.energies > -5
    target = Target("t", np.where(mask, values, 0), mask, GRID)
    content = draw({**ROW, "site": site}, 2 * values, target, "predicted")
    assert content == draw({**ROW, "site": site}, 2 * values, target, "predicted")
    pixels = imread(io.BytesIO(content))
    assert pixels.shape[0] > 500 and pixels.shape[1] > 1000
    assert (pixels[:5, :5, :3] == 1).all()  # white, not transparent
    colours = {tuple(np.rint(pixel * 255).astype(int)) for pixel in pixels[::2, ::2, :3].reshape(-1, 3)}
    assert {(0xC2, 0x4E, 0x00), (0x00, 0x72, 0xB2)} <= colours


def test_title() -> None:
    assert _title(ROW) == "3. NaI (gen_7), formation energy -1.42 eV/atom\n1 - cosine 0.125, Wasserstein 0.83 eV"
    words = _title({**ROW, "site": 2, "energy_above_hull": 0.031})
    assert "site 2" in words and "0.03 eV/atom above the hull" in words
