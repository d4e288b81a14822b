"""Relaxations of an evaluation, and energies relative to the elements."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mattergen_e.energies.relaxation import RelaxSettings
from mattergen_e.errors import UserError
from mattergen_e.evaluation.candidates import read_candidates
from mattergen_e.evaluation.steps import Context
from mattergen_e.reference.folder import Reference, ReferenceManifest
from mattergen_e.screening import energies

SETTINGS = RelaxSettings()


@pytest.fixture
def make_context(textbook: dict[str, Any], write_output: Callable, tmp_path: Path) -> Callable[..., Context]:
    """Makes the context of a screening of some crystals, which are in the folder `out`."""

    def make(*names: str) -> Context:
        output = write_output(tmp_path / "out", {name: textbook[name] for name in names})
        (tmp_path / "short").mkdir(exist_ok=True)
        return Context(tmp_path / "short", read_candidates(output), None, jobs=1)  # type: ignore[arg-type]

    return make


def test_formation_energies_by_hand(make_context: Callable, zero_elements: Callable, tmp_path: Path) -> None:
    """Mg2Si at -4 eV/atom with Mg at -1.5 and Si at -5.4: -4 - (2 x -1.5 - 5.4) / 3 = -1.2 eV/atom."""
    context = make_context("Mg2Si", "NaI")
    zero_elements(tmp_path / "short", Mg=-1.5, Si=-5.4, I=None)
    first, second = (candidate.key for candidate in context.candidates)
    found = {key: {"ok": True, "energy_per_atom": -4.0} for key in (first, second)}
    result = energies.formation(context, found, SETTINGS)
    assert result[first]["formation_energy_per_atom"] == pytest.approx(-1.2, abs=1e-12)
    assert result[first]["energy_above_hull"] is None and result[first]["sentence"] is None
    assert result[second]["formation_energy_per_atom"] is None
    assert result[second]["sentence"] == "chgnet gives no energy of the element I"
    assert context.computed["elements"] == 0


def test_relaxations_of_an_evaluation_are_taken(make_context: Callable, evaluated: Callable, tmp_path: Path) -> None:
    context = make_context("NaI", "MgSe")
    folder = evaluated(tmp_path / "out", {"NaI": -1.5, "MgSe": None})
    (file,) = (folder / "stages").iterdir()
    file.write_bytes(b'{"key": broken}\n{"seconds": 3.0}\n' + file.read_bytes() + b'{"key": "torn", "resu')
    found, taken = energies.relaxed(context, SETTINGS, folder)
    assert taken == 2 and context.computed["relaxation"] == 0
    assert [result["energy_per_atom"] for result in found.values()] == [-1.5, None]
    assert energies.relaxed(context, SETTINGS, folder)[1] == 0  # it has them by now


def test_relaxations_with_other_settings_are_not(make_context: Callable, evaluated: Callable, tmp_path: Path) -> None:
    context = make_context("NaI")
    folder = evaluated(tmp_path / "out", {"NaI": -1.5}, fmax=0.1)
    assert energies._take(context, SETTINGS, folder) == 0
    assert energies._take(context, RelaxSettings(fmax=0.1), folder) == 1
    assert energies._take(context, SETTINGS, tmp_path / "nothing") == 0


def reference(**source: Any) -> Reference:
    manifest = ReferenceManifest(
        created=datetime.now(UTC), structures=1, settings={}, sources=[], energy_source=source, elements={},
        elements_source=None, missing_elements=[], without_energy=0, dropped_by_reason={}, arrays={}, provenance={},
    )  # fmt: skip
    return Reference(Path("ref"), manifest)


def test_energies_of_a_reference_must_be_of_the_same_kind() -> None:
    assert energies.check_reference(reference(kind="calculator", name="chgnet"), SETTINGS) is None
    assert "another source (file)" in str(energies.check_reference(reference(kind="file"), SETTINGS))
    with pytest.raises(UserError, match="ref has no energies to refer to"):
        energies.check_reference(reference(kind="none"), SETTINGS)
    with pytest.raises(UserError, match="by sevenn, those of the crystals would be by chgnet"):
        energies.check_reference(reference(kind="calculator", name="sevenn"), SETTINGS)
