"""How labels are made: every number that shapes them, recorded with them and compared when they are used."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from mattergen_e.spectra.processing import AtomicDosSettings, TotalDosSettings


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BaderSettings(_Settings):
    """Partition of the density and the checks of its charges.

    Attributes:
        method: baderkit's name of the partition.
        electron_tolerance: Largest difference between the integrated density and the electrons, e per site.
        neutrality_tolerance: Largest |sum of charges|, e per crystal.
        equivalent_tolerance: Largest difference between charges of symmetry-equivalent sites, e.
        maximum_distance: Largest distance of a basin's maximum from the nearest site, Å.
        symprec: spglib's tolerance on positions, Å.
        average_equivalent: Average over equivalent sites that differ by more than the tolerance, instead of refusing.
        valence: Electrons of the pseudopotentials by element, for calculations whose files do not tell them.
    """

    method: str = "neargrid-weight"
    electron_tolerance: float = Field(default=0.05, ge=0)
    neutrality_tolerance: float = Field(default=0.05, ge=0)
    equivalent_tolerance: float = Field(default=0.05, ge=0)
    maximum_distance: float = Field(default=0.5, gt=0)
    symprec: float = Field(default=0.01, gt=0)
    average_equivalent: bool = False
    valence: dict[str, float] = {}


class LabelSettings(_Settings):
    """Everything that shapes a label.

    Attributes:
        bader: Partition and checks of charges.
        atomic_dos: Spectra of the sites.
        total_dos: Spectrum of the crystal.
        allow_unconverged: Take calculations whose electronic steps did not converge.
    """

    bader: BaderSettings = BaderSettings()
    atomic_dos: AtomicDosSettings = AtomicDosSettings()
    total_dos: TotalDosSettings = TotalDosSettings()
    allow_unconverged: bool = False
