"""What each crystal was asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.evaluation.candidates import read_candidates
from mattergen_e.evaluation.spectra.targets import find_targets, parse_request


@pytest.fixture
def run(dos_run: Callable[..., Path], solids: dict[str, Any], tmp_path: Path) -> Path:
    """Six crystals, two for a curve, and two that failed."""
    return dos_run(tmp_path / "run", list(solids.values())[:6], failed=2)


def test_a_run_says_it_itself(run: Path, peaks: Any) -> None:
    found = find_targets(run, read_candidates(run))
    assert found is not None
    # the failed ones come after the others, and begin with the first curve again
    assert found.curve == {0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 2, 6: 0, 7: 0}
    np.testing.assert_array_equal(found.values, peaks)
    digest = hashlib.sha256(peaks.tobytes() + b"one\ntwo\nthree").hexdigest()
    assert found.sha256 == digest and found.condition == f"3 curves ({digest[:10]})"
    assert found.about()["bins_asked"] == 1.0 and not found.given


def test_a_run_without_targets(dos_run: Callable[..., Path], solids: dict[str, Any], tmp_path: Path) -> None:
    run = dos_run(tmp_path / "plain", list(solids.values())[:2], told=False)
    assert find_targets(run, read_candidates(run)) is None


def test_told_afterwards_it_is_as_in_a_generation(run: Path, tmp_path: Path) -> None:
    request = {"file": run / "target_dos.npz", "per_curve": 1, "window": [-4, 4]}
    found = find_targets(run, read_candidates(run), request)
    own = find_targets(run, read_candidates(run))
    assert found is not None and own is not None
    assert [found.curve[i] for i in range(8)] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert np.isnan(found.values[:, 0]).all() and found.about()["bins_asked"] == pytest.approx(0.4, abs=0.01)
    assert found.given and found.condition != own.condition
    again = find_targets(run, read_candidates(run), {"file": run / "target_dos.npz", "per_curve": 2})
    assert again is not None and again.condition == own.condition and again.curve == own.curve


def test_a_window_of_the_run_is_kept(run: Path, peaks: Any) -> None:
    part = peaks.copy()
    part[:, :100] = np.nan
    np.savez(run / "target_dos.npz", dos=part, names=np.array(["one", "two", "three"]))
    found = find_targets(run, read_candidates(run))
    assert found is not None
    np.testing.assert_array_equal(found.values, part)


def test_curves_of_another_run(run: Path, peaks: Any) -> None:
    np.savez(run / "target_dos.npz", dos=peaks, names=np.array(["three", "one", "two"]))
    with pytest.raises(UserError, match="crystal 0 was asked for the curve 'one', which is not in its place"):
        find_targets(run, read_candidates(run))
    (run / "target_dos.npz").unlink()
    with pytest.raises(UserError, match=r"target_dos.npz is missing.*--dos-target FILE"):
        find_targets(run, read_candidates(run))


def test_the_option() -> None:
    assert parse_request(None) is None
    assert parse_request("a b.npz") == {"file": "a b.npz"}
    assert parse_request("{'file': 'x.npz', 'per_curve': 4}") == {"file": "x.npz", "per_curve": 4}


@pytest.mark.parametrize("text", ["{", "{'per_curve': 4}", "{'file': 'x', 'per_curve': 0}", "{'file': 'x', 'no': 1}"])
def test_mistakes_of_the_option(text: str) -> None:
    with pytest.raises(UserError, match="--dos-target"):
        parse_request(text)
