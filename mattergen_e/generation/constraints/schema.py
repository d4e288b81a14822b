"""The constraints file: its keys, their types, and what contradicts itself in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

#: Largest number of sites that a constraints file may ask for.
MAX_SITES = 1000

Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=MAX_SITES)]
Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Z][a-z]?$")]
Vector = Annotated[list[Finite], Field(min_length=3, max_length=3)]
#: Keys that came later, which files without them do not have in their hash.
LATER = ("elements", "exclude", "composition", "all_elements", "cell")


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
    """What is asked of one site: its element and position, and values of descriptors or conditions by their names.

    Attributes:
        site: Number of the site, from 0; sites keep their numbers in the output.
        element: Symbol of the element that it is and stays.
        position: Fractional coordinates that it has.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    # pydantic's own way to say the type of keys that have no field
    __pydantic_extra__: dict[str, Value]  # pyright: ignore[reportIncompatibleVariableOverride]

    site: Annotated[int, Field(ge=0, lt=MAX_SITES)]
    element: Symbol | None = None
    position: Vector | None = None

    @property
    def values(self) -> dict[str, Value]:
        """Values by name of the descriptor or condition."""
        return dict(self.__pydantic_extra__ or {})

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.element is None and self.position is None and not self.values:
            raise ValueError(f"site {self.site} asks for nothing: give an element, a position or a descriptor")
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


class Composition(_Model):
    """Elements with their numbers of sites.

    Attributes:
        counts: Sites of each element in a formula unit, by its symbol.
        z: Numbers of formula units to choose from evenly.
    """

    counts: Annotated[dict[Symbol, Count], Field(min_length=1)]
    z: Annotated[list[Count], Field(min_length=1)] = [1]

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        if isinstance(given, str):
            given = {"formula": given}
        if not isinstance(given, dict):
            raise ValueError("give numbers of sites as {Na: 1, Cl: 1}, or {formula: NaCl, z: 2}")
        if "counts" in given:
            return given
        if "formula" not in given:
            return {"counts": given}
        z = given.get("z", 1)
        rest = {key: value for key, value in given.items() if key not in ("formula", "z")}
        return {"counts": _counts(given["formula"]), "z": z if isinstance(z, list) else [z], **rest}


def _counts(formula: Any) -> dict[str, int]:
    """Sites of each element in a formula as it is written."""
    from pymatgen.core import Composition as Parsed

    try:
        found = Parsed(str(formula)).get_el_amt_dict()
    except ValueError:
        found = {}
    if not found or any(n != int(n) for n in found.values()):
        raise ValueError(f"'{formula}' is no formula with whole numbers of sites")
    return {symbol: int(n) for symbol, n in found.items()}


class CellSource(_Model):
    """The cell of a structure in a file, such as a host.

    Attributes:
        file: With one structure. A relative path starts at the folder of the constraints file.
    """

    file: Path


def _symbols(given: Any) -> Any:
    """A system such as B-C-N as a list."""
    return given.split("-") if isinstance(given, str) else given


Symbols = Annotated[list[Symbol], Field(min_length=1), BeforeValidator(_symbols)]
#: Lattice vectors in rows, or a, b, c, alpha, beta, gamma, in Å and degrees.
Cell = CellSource | Annotated[list[Vector], Field(min_length=3, max_length=3)] | list[Finite]


class ConstraintsFile(_Model):
    """The whole file.

    Attributes:
        num_atoms: Sites per crystal: one number, several to choose from evenly, numbers with weights, or the name of
            one of MatterGen's distributions.
        elements: Symbols of the elements that sites may have, and no others.
        exclude: Symbols of elements that no site may have.
        composition: Numbers of sites of all elements, which the model distributes over the sites.
        all_elements: Whether each of `elements`, or of the chemical system that is asked for, occurs at least once.
        cell: That all crystals have: lattice vectors in rows (Å), or a, b, c, alpha, beta, gamma (Å, degrees), or
            {file: FILE} with a structure.
        sites: What is asked of single sites.
        crystal: What is asked of fields of the crystal, by name: a number or a list for a value of the crystal, nested
            lists along a, b and c for a grid, in which null is free; or {file: FILE.npy} with such an array.
        template: What to start from, in place of pure noise.
    """

    num_atoms: Count | list[Count] | dict[Count, Annotated[float, Field(gt=0, allow_inf_nan=False)]] | str | None = None
    elements: Symbols | None = None
    exclude: Symbols | None = None
    composition: Composition | None = None
    all_elements: bool = False
    cell: Cell | None = None
    sites: list[Site] = []
    crystal: dict[str, Finite | SpectrumSource | list[Any]] = {}
    template: TemplateSource | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(
                "the file asks for nothing: give num_atoms, elements, composition, cell, sites, crystal or template"
            )
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
