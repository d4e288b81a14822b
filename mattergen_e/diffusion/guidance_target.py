"""Guidance targets: the spectra that a predictor pulls a generation to, read and checked before a model is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mattergen_e.diffusion.site_conditions import SiteCondition
from mattergen_e.errors import UserError, first_problem
from mattergen_e.networks.predictor.folder import describe
from mattergen_e.spectra.curves import NOT_GIVEN, Curve, check_curve, check_window, inside, on_grid
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.targets.files import read_curves
from mattergen_e.targets.targets import Request, Targets

#: Key of the sampling settings, and name of the target in a run's output.
NAME = "classifier"
#: What sites are asked for by this name in a constraints file, the classifier is asked for where the model takes none.
SITES = "site_dos"
#: Batch entry with the target spectra, (n_crystals, points) states/eV per atom; NaN where anything will do.
TARGET = "classifier_target"


class ClassifierSettings(BaseModel):
    """`sampler_partial.classifier`.

    Attributes:
        predictor: Folder of a predictor trained with --noisy.
        target: Spectra of crystals, a file of one of the kinds that `conditioning.files` reads; None where the sites of
            a constraints file are asked for theirs.
        strength: What the gradient is multiplied with.
        clip: Largest norm of what is added to a score, in norms of that score; chosen: 1, so that the crystal's own
            score is never outweighed.
        per_curve: As of `Request`.
        window: As of `Request`.
        smearing: As of `Request`.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    predictor: Path
    target: Path | None = None
    strength: float = Field(default=1.0, ge=0)
    clip: float = Field(default=1.0, gt=0)
    per_curve: int = Field(default=1, ge=1)
    window: tuple[float, float] | None = None
    smearing: float | None = Field(default=None, ge=0, le=5)


@dataclass(frozen=True, eq=False)
class GuidanceTarget:
    """Guidance by a predictor, as it was asked for.

    Attributes:
        settings: As given.
        targets: The spectra of crystals on the grid of the predictor's totals; None where none are asked for.
        grid: Of the predictor's spectra of sites.
        fingerprint: Of the predictor.
    """

    settings: ClassifierSettings
    targets: Targets | None
    grid: EnergyGrid
    fingerprint: str

    def record(self) -> dict[str, Any]:
        """What a resumed run must have in common with the run that it resumes."""
        own = {"strength": self.settings.strength, "clip": self.settings.clip, "predictor": self.fingerprint}
        return own if self.targets is None else {**self.targets.settings(), **own}

    def sites(self, taken: Collection[str]) -> dict[str, SiteCondition]:
        """What sites can be asked for of the classifier, by name; nothing that the model itself takes."""
        return {} if SITES in taken else {SITES: GuidedSites(name=NAME, dim=self.grid.points, grid=self.grid)}

    def require_targets(self, sites: bool) -> None:
        """Checks that there is something to be guided to: spectra of crystals, or of `sites`.

        Raises:
            UserError: If there is nothing.
        """
        if self.targets is None and not sites:
            raise UserError(
                f"sampler_partial.{NAME} has a predictor and nothing to guide to: give target: FILE, or {SITES} of "
                "sites in a constraints file, for a model that does not take that itself."
            )


@dataclass(frozen=True, kw_only=True)
class GuidedSites(SiteCondition):
    """Spectra of sites, states/eV on the `grid`, that are no condition of the model but a guidance target."""

    grid: EnergyGrid


def read_guidance(settings: Mapping[str, Any] | None) -> GuidanceTarget | None:
    """Reads what `sampler_partial.classifier` asks for, without the predictor's weights.

    Args:
        settings: As given; None, or no predictor and no target, asks for nothing.

    Raises:
        UserError: If a value makes no sense, the folder holds no predictor of noised crystals, or the file no spectrum
            that asks for anything.
    """
    plain = OmegaConf.to_container(settings, resolve=True) if isinstance(settings, DictConfig) else settings
    given = {k: v for k, v in plain.items() if v is not None} if isinstance(plain, Mapping) else plain
    if not given or (isinstance(given, dict) and not {"predictor", "target"} & set(given)):
        return None
    try:
        checked = ClassifierSettings.model_validate(given)
    except ValidationError as error:
        raise UserError(
            f"{first_problem(error, under=('sampler_partial', NAME))}; give {{predictor: FOLDER, target: FILE}}, and "
            "if wanted strength, clip, per_curve, window: [LOW, HIGH] (eV) or smearing (eV)."
        ) from None
    description = describe(checked.predictor)
    if not description.network.noisy:
        raise UserError(
            f"{checked.predictor} knows clean crystals only: give a predictor that was trained with --noisy."
        )
    grids = description.network.grids
    targets = None if checked.target is None else _targets(checked, checked.target, grids.total)
    return GuidanceTarget(checked, targets, grids.sites, description.fingerprint)


def _targets(settings: ClassifierSettings, file: Path, grid: EnergyGrid) -> Targets:
    """The spectra on the grid of the predictor."""
    if settings.window is not None:
        check_window(settings.window, grid, f"sampler_partial.{NAME}")
    curves = read_curves(file)
    values = np.stack([_asked(curve, settings, grid) for curve in curves])
    names = tuple(curve.name for curve in curves)
    digest = hashlib.sha256(values.tobytes() + "\n".join(names).encode()).hexdigest()
    request = Request(file=file, per_curve=settings.per_curve, window=settings.window, smearing=settings.smearing)
    return Targets(NAME, request, names, values, digest, grid)


def _asked(curve: Curve, settings: ClassifierSettings, grid: EnergyGrid) -> np.ndarray:
    """One curve on the grid, (points,); `NOT_GIVEN` where nothing is asked."""
    where = f"{settings.target}, curve '{curve.name}'"
    check_curve(curve, where)
    values = on_grid(curve if settings.smearing is None else replace(curve, smearing=settings.smearing), grid)
    low, high = settings.window or (grid.minimum, grid.maximum)
    values = np.where(inside(grid, low, high), values, np.float32(NOT_GIVEN))
    if not (values >= 0).any():
        raise UserError(
            f"{where} is given from {curve.energies[0]:.4g} to {curve.energies[-1]:.4g} eV, which leaves nothing "
            f"between {low:g} and {high:g} eV: energies are relative to the Fermi energy."
        )
    return values


def values_of(targets: Targets, crystals: Iterable[int]) -> torch.Tensor:
    """Spectra of crystals by their number in the run, (n, points); NaN where nothing is asked."""
    values = torch.from_numpy(targets.values[[targets.curve_of(i) for i in crystals]])
    return torch.where(values < 0, torch.nan, values)
