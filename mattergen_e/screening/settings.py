"""What a screening is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mattergen_e.errors import UserError

#: Where the forward predictor of this repository lies.
PREDICTOR = Path("checkpoints/dos_predictor")
ANY_SITE = "any"


class ScreenSettings(BaseModel):
    """Settings of `mattergen-e screen`; how a crystal is relaxed is in `evaluation.relaxation.RelaxSettings`.

    Attributes:
        target: File with the spectrum that crystals shall have.
        curve: Name of the curve, where the file holds several.
        window: Energies (eV relative to the Fermi energy) that are compared; None: all that the target gives.
        site: None compares the crystal's spectrum per atom, a number that site's, "any" that of the nearest site.
        distance: 1 - cosine, or the Wasserstein distance of spectra normalised to unit area, eV.
        max_formation_energy: Largest formation energy of a crystal that is kept, eV/atom (-1.5 in DOSMatGen).
        max_energy_above_hull: Likewise of the energy above the hull, eV/atom.
        top: Crystals of the shortlist (8 in DOSMatGen).
        predictor: Folder of the forward predictor; None takes the spectra that a joint model generated.
        seed: Written down; every step is deterministic.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: Path
    curve: str | None = None
    window: tuple[float, float] | None = None
    site: int | Literal["any"] | None = None
    distance: Literal["cosine", "wasserstein"] = "cosine"
    max_formation_energy: float | None = Field(default=None, allow_inf_nan=False)
    max_energy_above_hull: float | None = Field(default=None, allow_inf_nan=False)
    top: int = Field(default=8, ge=1)
    predictor: Path | None = PREDICTOR
    seed: int = 0

    @property
    def unit(self) -> str:
        """Unit of the distance."""
        return "eV" if self.distance == "wasserstein" else ""


def parse_site(word: str | None) -> int | Literal["any"] | None:
    """The value of --site.

    Raises:
        UserError: If it is neither a number from 0 nor "any".
    """
    if word is None or word == ANY_SITE:
        return word
    if word.isdecimal() and word.isascii():
        return int(word)
    raise UserError(f"--site {word!r} is no site: give its number, counted from 0, or any.")
