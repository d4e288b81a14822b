"""What the crystals of a run are asked for, one spectrum each: read and checked before a model is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mattergen_e.data.conditions import CACHED
from mattergen_e.errors import UserError, first_problem
from mattergen_e.files import add_array, replacing
from mattergen_e.spectra.curves import NOT_GIVEN, Curve, check_curve, check_window, inside, on_grid
from mattergen_e.spectra.grid import TOTAL_GRID, EnergyGrid
from mattergen_e.targets.files import Predict, read_curves
from mattergen_e.targets.structures import predicted_by


class Request(BaseModel):
    """The value of a condition that is a spectrum: a path, or a dictionary of these.

    Attributes:
        file: Of one of the kinds that `conditioning.files` reads.
        per_curve: Crystals per curve.
        window: Energies (eV) outside of which nothing is asked; None: all that the curve gives.
        smearing: Standard deviation of the Gaussian (eV) that curves are smeared with; None: none for curves, that of
            the training labels for calculations.
        predictor: Folder of a forward predictor, for a file of structures; their smearing is that of its labels.
    """

    model_config = ConfigDict(extra="forbid")

    file: Path
    per_curve: int = Field(default=1, ge=1)
    window: tuple[float, float] | None = None
    smearing: float | None = Field(default=None, ge=0, le=5)
    predictor: Path | None = None


@dataclass(frozen=True, eq=False)
class Targets:
    """The spectra of a run.

    Attributes:
        name: Of the condition: dos.
        request: Where they come from.
        names: Of the curves.
        values: (curves, points) states/eV per atom, `NOT_GIVEN` where nothing is asked.
        sha256: Of the curves as the model is told them: names and values.
    """

    name: str
    request: Request
    names: tuple[str, ...]
    values: NDArray[np.float32]
    sha256: str
    grid: EnergyGrid = TOTAL_GRID

    def curve_of(self, index: int) -> int:
        """Number of the curve of a crystal: `per_curve` crystals for each, then from the first again."""
        return index // self.request.per_curve % len(self.names)

    def record(self, index: int) -> dict[str, Any]:
        """What is written down with a crystal; the curve is the row `curve` of `target_dos.npz`."""
        curve = self.curve_of(index)
        return {"curve": curve, "name": self.names[curve], "file": file_name(self.name)}

    def settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the run that it resumes."""
        request = self.request.model_dump(mode="json")
        predictor = {} if self.request.predictor is None else {"predictor": self.request.predictor.name}
        del request["predictor"]
        names = {"file": self.request.file.name, "curves": len(self.names), "sha256": self.sha256}
        return {**request, **names, **predictor}

    def save(self, folder: Path) -> None:
        """Writes the curves into a run's folder, in the form of a file of curves; NaN where nothing is asked."""
        values = np.where(self.values < 0, np.nan, self.values).astype(np.float32)
        with replacing(folder / file_name(self.name)) as target, ZipFile(target, "w") as archive:
            add_array(archive, "energies", self.grid.energies)
            add_array(archive, "dos", values)
            add_array(archive, "names", np.array(self.names))


def file_name(condition: str) -> str:
    """Name of the file beside a run's crystals that holds the curves of a condition."""
    return f"target_{condition}.npz"


def read_targets(properties: Mapping[str, Any], predict: Predict | None = None) -> dict[str, Targets]:
    """Read the spectra among some conditions.

    Args:
        properties: Conditions by name; those that are numbers or words are left alone.
        predict: What supplies the spectra of structure files.

    Returns:
        Targets by name of the condition.

    Raises:
        UserError: If a value is no request, or its file or a curve in it is of no use.
    """
    return {name: read_target(name, value, predict) for name, value in properties.items() if name in CACHED}


def read_target(name: str, value: Any, predict: Predict | None = None) -> Targets:
    """Read the spectra of one condition; as `read_targets`."""
    request = _request(name, value)
    if request.window is not None:
        check_window(request.window, TOTAL_GRID, f"--properties_to_condition_on, '{name}'")
    if request.predictor is not None:
        predict = predicted_by(request.predictor)
    curves = read_curves(request.file, predict)
    values = np.stack([_told(curve, request) for curve in curves])
    names = tuple(curve.name for curve in curves)
    digest = hashlib.sha256(values.tobytes() + "\n".join(names).encode()).hexdigest()
    return Targets(name, request, names, values, digest)


def _request(name: str, value: Any) -> Request:
    try:
        return Request(**value) if isinstance(value, Mapping) else Request(file=value)
    except (ValidationError, TypeError) as error:
        whole = "its value"
        problem = first_problem(error, whole) if isinstance(error, ValidationError) else f"{whole}: {error}"
        raise UserError(
            f"--properties_to_condition_on, '{name}': {problem}; give a file with a spectrum, or "
            "{'file': FILE} with 'per_curve', 'window': [LOW, HIGH] (eV), 'smearing' (eV) or 'predictor': FOLDER."
        ) from None


def _told(curve: Curve, request: Request) -> NDArray[np.float32]:
    """A curve as the model is told it, (points,)."""
    where = f"{request.file}, curve '{curve.name}'"
    check_curve(curve, where)
    if request.smearing is not None:
        curve = replace(curve, smearing=request.smearing)
    values = on_grid(curve, TOTAL_GRID)
    if request.window is not None:
        values = np.where(inside(TOTAL_GRID, *request.window), values, np.float32(NOT_GIVEN))
    if not (values >= 0).any():
        low, high = request.window or (TOTAL_GRID.minimum, TOTAL_GRID.maximum)
        raise UserError(
            f"{where} is given from {curve.energies[0]:.4g} to {curve.energies[-1]:.4g} eV, which leaves nothing "
            f"between {low:g} and {high:g} eV: energies are relative to the Fermi energy."
        )
    return values
