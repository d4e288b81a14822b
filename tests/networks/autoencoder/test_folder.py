"""Files of an autoencoder: what is read is what was written, or it is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mattergen_e.errors import UserError
from mattergen_e.networks.autoencoder.folder import DESCRIPTION, WEIGHTS, describe, exists, load, save
from mattergen_e.networks.autoencoder.model import Autoencoder
from mattergen_e.networks.autoencoder.network import Network, NetworkSettings

Make = Callable[..., Autoencoder]


@pytest.fixture
def written(make_autoencoder: Make, tmp_path: Path) -> Path:
    return save(make_autoencoder(), tmp_path / "ae")


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(folder: Path, **values: Any) -> None:
    path = folder / DESCRIPTION
    found = yaml.safe_load(path.read_text())
    for key, value in values.items():
        place = found
        for part in key.split("__")[:-1]:
            place = place[part]
        place[key.split("__")[-1]] = value
    path.write_text(yaml.safe_dump(found))


def test_round_trip(make_autoencoder: Make, written: Path) -> None:
    original, found = make_autoencoder(), load(written)
    assert found.fingerprint == original.fingerprint == describe(written).fingerprint
    assert (found.settings, found.processing, found.record) == (original.settings, original.processing, original.record)
    spectra = np.random.default_rng(0).exponential(size=(5, 64))
    np.testing.assert_array_equal(found.reconstruct(spectra), original.reconstruct(spectra))
    assert sorted(file.name for file in written.iterdir()) == [WEIGHTS, DESCRIPTION]


def test_loading_takes_no_random_numbers(written: Path) -> None:
    state = torch.random.get_rng_state()
    load(written)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_nothing_is_replaced_unasked(make_autoencoder: Make, written: Path) -> None:
    other = make_autoencoder(seed=1)
    with pytest.raises(UserError, match="holds an autoencoder already"):
        save(other, written)
    save(other, written, overwrite=True)
    assert load(written).fingerprint == other.fingerprint


def test_other_weights(make_autoencoder: Make, written: Path) -> None:
    torch.save(make_autoencoder(seed=1).network.state_dict(), written / WEIGHTS)
    assert "was changed" in refusal(written)


def test_weights_that_are_no_numbers(written: Path) -> None:
    state = torch.load(written / WEIGHTS)
    next(iter(state.values())).view(-1)[0] = float("nan")
    torch.save(state, written / WEIGHTS)
    assert "NaN or infinite" in refusal(written)


@pytest.mark.parametrize(
    "values",
    [
        {"processing__smearing": 0.2},
        {"processing__grid__minimum": -10.0},
        {"network__slope": 0.3},
        {"fingerprint": "0" * 64},
    ],
)
def test_changed_description(written: Path, values: dict) -> None:
    change(written, **values)
    assert "was changed" in refusal(written)


def test_record_is_no_part_of_the_identity(written: Path) -> None:
    change(written, record={"note": "evaluated"})
    assert load(written).record == {"note": "evaluated"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"format_version": 2}, "format_version"),
        ({"network__latents": 7}, "weights of this autoencoder"),
        ({"network__channels": [8]}, "network"),
        ({"fingerprint": "short"}, "fingerprint"),
    ],
)
def test_wrong_description(written: Path, values: dict, words: str) -> None:
    change(written, **values)
    assert words in refusal(written)


def test_damaged_files(written: Path, tmp_path: Path) -> None:
    assert "does not exist: give the folder" in refusal(tmp_path / "nothing")
    good = (written / WEIGHTS).read_bytes()
    for bad in (good[:100], b"", b"text", torch.zeros(0).numpy().tobytes()):
        (written / WEIGHTS).write_bytes(bad)
        assert "does not hold the weights" in refusal(written)
    (written / WEIGHTS).unlink()
    assert "only a part" in refusal(written) and exists(written)
    (written / DESCRIPTION).write_text("a: [")
    assert "cannot be read" in refusal(written)
    (written / DESCRIPTION).write_text("just text")
    assert "does not describe" in refusal(written)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_nothing_is_unpickled(written: Path, tmp_path: Path, writer: str) -> None:
    mark = tmp_path / "mark"
    if writer == "torch":
        torch.save({"trap": Trap(mark)}, written / WEIGHTS)
    else:
        (written / WEIGHTS).write_bytes(pickle.dumps(Trap(mark)))
    assert "does not hold the weights" in refusal(written)
    assert not mark.exists()


def test_default_autoencoder_is_small(tmp_path: Path, make_autoencoder: Make) -> None:
    from mattergen_e.spectra.processing import AtomicDosSettings

    folder = save(Autoencoder(Network(NetworkSettings()), AtomicDosSettings()), tmp_path / "default")
    assert (folder / WEIGHTS).stat().st_size < 16e6
