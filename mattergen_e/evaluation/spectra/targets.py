"""Which density of states each crystal was asked for: as its run wrote it down, or as told afterwards.

A run with the condition `dos` leaves its curves in `target_dos.npz`, and each crystal the row that is its own. Any
other run, above all an unconditional one, can be held against the same curves in the same order (`--dos-target`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.errors import UserError, first_problem
from mattergen_e.limits import load_yaml
from mattergen_e.spectra.grid import TOTAL_GRID, EnergyGrid
from mattergen_e.targets.targets import Request, file_name, read_target

if TYPE_CHECKING:
    from mattergen_e.evaluation.candidates import Candidate, Candidates
    from mattergen_e.targets.targets import Targets

CONDITION = "dos"
_SHOWN = 10


@dataclass(frozen=True, eq=False)
class DosTargets:
    """The curves of a run.

    Attributes:
        file: Where they come from.
        names: Of the curves.
        values: (curves, points) states/eV per atom, NaN where nothing is asked.
        sha256: Of names and values, as the run wrote it down.
        curve: Row of a crystal's curve, by its index; a crystal that was asked for none is missing.
        given: Whether they were told afterwards instead of read from the run.
        grid: Of the values.
    """

    file: Path
    names: tuple[str, ...]
    values: NDArray[np.float32]
    sha256: str
    curve: Mapping[int, int]
    given: bool
    grid: EnergyGrid = TOTAL_GRID

    @property
    def condition(self) -> str:
        """For people; the same for runs with the same curves."""
        what = self.names[0] if len(self.names) == 1 else f"{len(self.names)} curves"
        return f"{what} ({self.sha256[:_SHOWN]})"

    def about(self) -> dict[str, Any]:
        """For evaluation.json."""
        return {
            "file": self.file.name,
            "curves": len(self.names),
            "sha256": self.sha256,
            "given": self.given,
            "bins_asked": float((~np.isnan(self.values)).mean()),
        }


def find_targets(path: Path, candidates: Candidates, request: Mapping[str, Any] | None = None) -> DosTargets | None:
    """The targets of a run's crystals.

    Args:
        path: What is evaluated.
        candidates: Its crystals.
        request: Of --dos-target, which takes the place of what the run says.

    Returns:
        None if no crystal was asked for a density of states.

    Raises:
        UserError: If the curves are missing, of no use, or not those that a crystal names.
    """
    if request is not None:
        found = _read(dict(request))
        return _targets(found, found.request.file, {one.index: found.curve_of(one.index) for one in candidates}, True)
    asked = [one for one in candidates if one.conditions.get(CONDITION) is not None]
    if not asked:
        return None
    file = (path if path.is_dir() else path.parent) / file_name(CONDITION)
    if not file.is_file():
        raise UserError(
            f"{file} is missing, which holds the densities of states that the crystals were asked for: copy it to "
            "them, or give --dos-target FILE."
        )
    found = _read({"file": file})
    return _targets(found, file, {one.index: _row(one, found.names, file) for one in asked}, False)


def parse_request(text: str | None) -> dict[str, Any] | None:
    """The value of --dos-target: a file, or a dictionary as in a generation's condition.

    Raises:
        UserError: If it is neither.
    """
    if text is None:
        return None
    if not text.lstrip().startswith("{"):
        return {"file": text}
    import yaml

    try:
        found = load_yaml(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"--dos-target {text!r} is wrong: give a FILE, or \"{{'file': FILE, 'per_curve': 4}}\".")
    _request(found)
    return found


def _request(given: Mapping[str, Any]) -> None:
    """Whether this is a request.

    Raises:
        UserError: If it is not.
    """
    from pydantic import ValidationError

    try:
        Request.model_validate(dict(given))
    except ValidationError as error:
        raise UserError(
            f"--dos-target: {first_problem(error, 'its value')}; give a FILE, or {{'file': FILE}} with 'per_curve', "
            "'window': [LOW, HIGH] (eV) or 'smearing' (eV)."
        ) from None


def _read(given: dict[str, Any]) -> Targets:
    _request(given)
    return read_target(CONDITION, given)


def _targets(found: Targets, file: Path, curve: Mapping[int, int], given: bool) -> DosTargets:
    values = np.where(found.values < 0, np.nan, found.values).astype(np.float32)
    return DosTargets(file, found.names, values, found.sha256, curve, given, found.grid)


def _row(candidate: Candidate, names: Sequence[str], file: Path) -> int:
    """Row of the curve that a crystal was asked for; one that was never made has what the run says."""
    told = candidate.conditions[CONDITION]
    if isinstance(told, Mapping) and "curve" not in told and isinstance(told.get("per_curve"), int):
        return candidate.index // max(told["per_curve"], 1) % len(names)
    row = told.get("curve") if isinstance(told, Mapping) else None
    name = told.get("name") if isinstance(told, Mapping) else None
    if not isinstance(row, int) or not 0 <= row < len(names) or names[row] != (name or names[row]):
        raise UserError(
            f"crystal {candidate.index} was asked for the curve {name or row!r}, which is not in its place in {file}: "
            "put back the file of this run, or give --dos-target FILE."
        )
    return row
