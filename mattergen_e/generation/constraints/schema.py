"""The constraints file: its keys, their types, and what contradicts itself in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

#: Largest number of sites that a constraints file may ask for.
MAX_SITES = 1000

Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=MAX_SITES)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SpectrumSource(_Model):
    """Where the density of states of a site stands.

    Attributes:
        file: Of one of the kinds that `conditioning.files` reads, or a split of a cache. A relative path starts at the
            folder of the constraints file.
        curve: Name or number (from 0) of the curve, if the file holds several.
        structure: Id of the crystal, for a split of a cache.
        site: Number of its site, from 0, for a split of a cache.
    """

    file: Path
    curve: int | str | None = None
    structure: str | None = None
    site: Annotated[int, Field(ge=0)] | None = None


Value = Finite | list[Finite] | SpectrumSource


class Site(BaseModel):
    """What is asked of one site: its element, and values of descriptors or conditions by their names.

    Attributes:
        site: Number of the site, from 0; sites keep their numbers in the output.
        element: Symbol of the element that it is and stays.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    # pydantic's own way to say the type of keys that have no field
    __pydantic_extra__: dict[str, Value]  # pyright: ignore[reportIncompatibleVariableOverride]

    site: Annotated[int, Field(ge=0, lt=MAX_SITES)]
    element: Annotated[str, StringConstraints(pattern=r"^[A-Z][a-z]?$")] | None = None

    @property
    def values(self) -> dict[str, Value]:
        """Values by name of the descriptor or condition."""
        return dict(self.__pydantic_extra__ or {})

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.element is None and not self.values:
            raise ValueError(f"site {self.site} asks for nothing: give an element or a descriptor")
        return self


class TemplateSource(_Model):
    """A structure to start from.

    Attributes:
        structure: File with one structure. A relative path starts at the folder of the constraints file.
        time: Share of the diffusion time that it is noised to: 0.2, 0.35 and 0.5 are the 200, 350 and 500 of 1000
            steps of DOSMatGen (section 3.2.2).
    """

    structure: Path
    time: Annotated[float, Field(gt=0, le=1)]


class ConstraintsFile(_Model):
    """The whole file.

    Attributes:
        num_atoms: Sites per crystal: one number, several to choose from evenly, numbers with weights, or the name of
            one of MatterGen's distributions.
        sites: What is asked of single sites.
        crystal: What is asked of fields of the crystal, by name: a number or a list for a value of the crystal, nested
            lists along a, b and c for a grid, in which null is free; or {file: FILE.npy} with such an array.
        template: What to start from, in place of pure noise.
    """

    num_atoms: Count | list[Count] | dict[Count, Annotated[float, Field(gt=0, allow_inf_nan=False)]] | str | None = None
    sites: list[Site] = []
    crystal: dict[str, Finite | SpectrumSource | list[Any]] = {}
    template: TemplateSource | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("the file asks for nothing: give num_atoms, sites, crystal or template")
        if isinstance(self.num_atoms, list | dict) and not self.num_atoms:
            raise ValueError("num_atoms is empty: give at least one number of sites")
        numbers = [site.site for site in self.sites]
        twice = sorted({n for n in numbers if numbers.count(n) > 1})
        if twice:
            raise ValueError(f"site {twice[0]} is given twice: write all that is asked of a site in one entry")
        return self

    @property
    def choices(self) -> list[int]:
        """Numbers of sites that are listed; empty if they come from elsewhere."""
        if isinstance(self.num_atoms, int):
            return [self.num_atoms]
        return list(self.num_atoms) if isinstance(self.num_atoms, list | dict) else []

    @property
    def constrained(self) -> int:
        """One more than the highest number of a constrained site."""
        return max((site.site + 1 for site in self.sites), default=1)
