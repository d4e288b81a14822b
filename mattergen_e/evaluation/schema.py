"""What the files of an evaluation hold: the keys of evaluation.json and the columns of crystals.csv and crystals.jsonl.

`mattergen-e evaluate` writes by it; `mattergen-e compare` and `mattergen-e report` read by it. Files of older versions
lack some parts, which then have their defaults, and those of newer ones may hold more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT = 1
FOLDER = "evaluation"
SUMMARY, CSV, JSON_LINES = "evaluation.json", "crystals.csv", "crystals.jsonl"
RELAXED, SITES, CURVES = "relaxed.extxyz", "descriptor_sites.npz", "dos_targets.npz"

MAX_CRYSTALS = 10**9

#: The success rate for all properties of a condition at once.
ALL = "all"

#: Units of properties that may be a condition.
UNITS = {"dft_band_gap": "eV", "formation_energy_per_atom": "eV/atom", "energy_above_hull": "eV/atom"}


# -- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column of crystals.csv and crystals.jsonl.

    Attributes:
        name: Key in the JSON lines and, but for kind `properties` and `success`, head in the CSV.
        kind: Of its values; every value may also be null, not evaluated. `properties` and `success` are an entry per
            property, which are columns of their own in the CSV.
        meaning: Of a value.
        unit: Of a value, empty where it has none.
    """

    name: str
    kind: Literal["number", "count", "flag", "text", "properties", "success"]
    meaning: str
    unit: str = ""


TABLE = (
    Column("index", "count", "number of the crystal in the run, from 0"),
    Column("key", "text", "hash of the crystal"),
    Column("name", "text", "name that the input gives it"),
    Column("formula", "text", "reduced formula"),
    Column("sites", "count", "number of sites"),
    Column("elements", "count", "number of elements"),
    Column("space_group", "text", "symbol of the space group, tolerance 0.1 Å"),
    Column("volume_per_site", "number", "volume of the cell by its sites", "Å^3"),
    Column("readable", "flag", "whether there is a crystal"),
    Column("reason", "text", "why there is none"),
    Column("structure_valid", "flag", "no two atoms are closer than 0.5 Å"),
    Column("structure_reason", "text", "why it is not valid"),
    Column("unique", "flag", "the first of its kind in the run"),
    Column("duplicate_of", "count", "index of the crystal that it is the same as"),
    Column("novel", "flag", "not in the reference"),
    Column("match", "text", "id of the reference crystal that it is the same as"),
    Column("valid", "flag", "charges can balance"),
    Column("valid_reason", "text", "why they cannot"),
    Column("relaxed", "flag", "whether a relaxation came to an end"),
    Column("converged", "flag", "whether forces fell below their limit"),
    Column("relax_steps", "count", "steps of the relaxation"),
    Column("relax_seconds", "number", "time of the relaxation", "s"),
    Column("relax_reason", "text", "why it failed"),
    Column("rmsd", "number", "of the sites to those of the relaxed crystal", "Å"),
    Column("energy_per_atom", "number", "energy by atoms", "eV/atom"),
    Column("energy_above_hull", "number", "above the hull of the reference", "eV/atom"),
    Column("formation_energy_per_atom", "number", "from the elements of the reference", "eV/atom"),
    Column("hull_reason", "text", "why there is no energy above the hull"),
    Column("stable", "flag", "not too far above the hull"),
    Column("stable_reason", "text", "why it is not"),
    Column("properties", "properties", "each with its value, target, tolerance, verdict and source"),
    Column("un", "flag", "unique and novel"),
    Column("sun", "flag", "stable and UN"),
    Column("vsun", "flag", "valid and SUN"),
    Column("success", "success", "by property with a target: VSUN and within the tolerance"),
    Column("success_all", "flag", "the same for all these at once"),
    Column("novelty_magpie", "number", "Euclidean distance to the nearest reference crystal in composition"),
    Column("nearest_magpie", "text", "id of that crystal"),
    Column("novelty_amd", "number", "Chebyshev distance to the nearest reference crystal in structure", "Å"),
    Column("nearest_amd", "text", "id of that crystal"),
    Column("charge_mae", "number", "mean absolute error of its charges", "e"),
    Column("dos_wasserstein", "number", "mean Wasserstein distance of its sites' spectra", "eV"),
    Column("dos_target", "text", "name of the curve that it was asked for"),
    Column("dos_cosine", "number", "cosine of its spectrum and that curve"),
    Column("dos_gap_error", "number", "absolute difference of their gaps", "eV"),
    Column("dos_composition_match", "flag", "its composition is that of the crystal that the curve is of"),
    Column("dos_structure_match", "flag", "its structure likewise"),
    Column("problem", "text", "what went wrong, in sentences"),
)

#: Their names, in the order of the files. Other descriptors add a column each, by their `Measure`.
COLUMNS = tuple(column.name for column in TABLE)

#: Parts of an entry of `properties`.
PROPERTY_PARTS = ("value", "target", "tolerance", "within", "source")

#: Verdicts that are False, not unknown, of a crystal that cannot be judged.
JUDGED = ("structure_valid", "unique", "novel", "valid", "stable")

#: Verdicts with a rate each in evaluation.json.
RATED = ("unique", "novel", "stable", "valid", "structure_valid", "un", "sun", "vsun")

#: Fingerprints with a column novelty_<name> and nearest_<name> each.
NOVELTIES = ("magpie", "amd")


# -- evaluation.json --------------------------------------------------------------------------------------------------


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Rate(_Part):
    """A count of crystals, its fraction and the ends of its interval; with no count, the reason."""

    count: int | None = Field(default=None, ge=0)
    total: int = Field(ge=0, le=MAX_CRYSTALS)
    fraction: float | None = None
    low: float | None = None
    high: float | None = None
    evaluated: int | None = None
    reason: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.count is not None and self.count > self.total:
            raise ValueError(f"the count {self.count} is more than the total {self.total}")
        return self


class SuccessRate(Rate):
    """A success rate, and what it rests on."""

    target: Any = None
    tolerance: Any = None
    source: Any = None


class Distribution(_Part):
    """Of numbers by crystal; `quantiles` by their fraction."""

    crystals: int = 0
    mean: float | None = None
    median: float | None = None
    quantiles: dict[str, float] = {}
    reason: str | None = None


class Relaxation(_Part):
    """How relaxations went: crystals, reasons of failure, RMSD in Å, energies above the hull in eV/atom."""

    asked: int = 0
    finished: int = 0
    converged: int = 0
    failures: dict[str, int] = {}
    steps: Distribution = Distribution()
    seconds: Distribution = Distribution()
    rmsd: Distribution = Distribution()
    energy_above_hull: Distribution = Distribution()


class Distances(_Part):
    """To the nearest reference crystal, by fingerprint; AMD in Å."""

    magpie: Distribution = Distribution()
    amd: Distribution = Distribution()


class Novelty(Distances):
    """The same of all crystals, and of the VSUN ones."""

    vsun: Distances = Distances()


class Accuracy(_Part):
    """Of a generated descriptor: its distance from labels over all rows, those of SUN crystals, and by element.

    `measure` holds the fields of `descriptors.measure.Measure` that are text, and the place of the rows.
    """

    all: dict[str, Any] = {}
    sun: dict[str, Any] = {}
    by_element: dict[str, dict[str, Any]] = {}
    compared: int | None = None
    not_compared: int | None = None
    source: str | None = None
    measure: dict[str, Any] = {}


class Reference(_Part):
    """The reference set, by its hash, and where its energies are from."""

    name: str | None = None
    structures: int | None = None
    hash: str | None = None
    energy_source: Any = None


class Provenance(_Part):
    """With what the evaluation was made; inputs are SHA-256 by path."""

    versions: dict[str, str] = {}
    hardware: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    command: list[str] = []
    seed: int | None = None


class Interval(_Part):
    """A mean and the ends of its interval."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Metric(Interval):
    """The same, beside that of mismatched pairs, and the difference of the two."""

    random: float | None = None
    random_low: float | None = None
    random_high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


class Share(_Part):
    """A rate of crystals."""

    fraction: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


class Truth(_Part):
    """Errors and match rates of DOSMatGen."""

    crystals: int = 0
    mae_generated_target: Interval = Interval()
    mae_generated_predicted: Interval = Interval()
    mae_predicted_target: Interval = Interval()
    cosine_predicted_target: Interval = Interval()
    structure_match: Share = Share()
    composition_match: Share = Share()


class Targets(_Part):
    """What the crystals were held against."""

    file: str | None = None
    curves: int | None = None
    sha256: str | None = None
    given: bool = False


class DosTargets(_Part):
    """Spectra against what crystals were asked for; a metric that is not there was not evaluated."""

    source: str
    asked: int = Field(default=0, ge=0)
    crystals: int = Field(default=0, ge=0)
    targets: Targets = Targets()
    structures: dict[str, int] = {}
    interval: dict[str, Any] = {}
    cosine: Metric = Metric()
    pearson: Metric = Metric()
    js_divergence: Metric = Metric()
    band_gap: Metric = Metric()
    dos_at_fermi: Metric = Metric()
    states_below_fermi: Metric = Metric()
    mae: Metric = Metric()
    te_filter: Share = Share()
    truth: Truth | None = None

    def metric(self, name: str) -> Metric:
        """One of the metrics, by its key."""
        return getattr(self, name)


class Evaluation(BaseModel):
    """evaluation.json, in the order in which it is written."""

    model_config = ConfigDict(extra="allow")

    format: Literal[1]
    name: str | None = None
    model: dict[str, Any] = {}
    conditions: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    provenance: Provenance = Provenance()
    reference: Reference = Reference()
    asked: int = Field(ge=0, le=MAX_CRYSTALS)
    readable: int | None = None
    failures: dict[str, int] = {}
    rates: dict[str, Rate]
    success: dict[str, SuccessRate] = {}
    relaxation: Relaxation = Relaxation()
    novelty: Novelty = Novelty()
    descriptors: dict[str, Accuracy] = {}
    dos_targets: DosTargets | None = None
    warnings: list[str] = []
    timings: dict[str, float] = {}


def parse(content: bytes) -> Any:
    """Evaluation.json as plain JSON, whatever it holds.

    Raises:
        ValueError: If it is not JSON; NaN and Infinity are no numbers of it.
        RecursionError: If it is nested too deep.
    """
    return json.loads(content, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def checked[T: Mapping[str, Any]](summary: T) -> T:
    """What is about to be written as evaluation.json, if those who read it understand it.

    Raises:
        ValueError: If a part is not as declared here, which is a mistake in the program.
    """
    undeclared = Evaluation.model_validate(summary).model_extra
    if undeclared:
        raise ValueError(f"{SUMMARY} would hold what is not declared: {', '.join(undeclared)}")
    return summary
