"""`evaluation.json` as far as a comparison needs it: rates, and what they rest on."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mattergen_e.errors import UserError, first_problem
from mattergen_e.evaluation.schema import ALL, FOLDER, SUMMARY, UNITS, Evaluation, Rate, parse

#: What is compared: the key in evaluation.json, and the head of its column.
COLUMNS = {"un": "UN", "sun": "SUN", "vsun": "VSUN", "success": "success"}

#: How a source names a file: perhaps what it holds, then its name and hash.
_FILE = re.compile(r"(?:(?P<held>.*), )?.+ \(sha256 [0-9a-f]+\)", re.DOTALL)
A_FILE = "a file"


@dataclass(frozen=True, eq=False)
class Run:
    """An evaluated run.

    Attributes:
        name: For people.
        path: Of its evaluation.json.
        evaluation: What that says.
    """

    name: str
    path: Path
    evaluation: Evaluation

    @property
    def condition(self) -> str:
        """What generation was conditioned on, for people; runs with the same text are tested against each other."""
        found = sorted(self.evaluation.conditions.items())
        return ", ".join(f"{name} = {_value(value)}{_unit(name)}" for name, value in found) or "ab initio"

    def rate(self, column: str, success: str = ALL) -> Rate:
        """The rate of one of `COLUMNS`; `success` names the property of the success rate."""
        evaluation = self.evaluation
        found = evaluation.success.get(success) if column == "success" else evaluation.rates.get(column)
        if found is not None:
            return found
        reason = "no property has a target" if column == "success" and success == ALL else "not evaluated"
        return Rate(total=evaluation.asked, reason=reason)

    def sources(self, column: str) -> dict[str, Any]:
        """What a rate rests on besides the crystals: two rates are comparable if these are equal.

        Values from files are taken to be computed alike, unless the files say otherwise.
        """
        evaluation, settings = self.evaluation, self.evaluation.settings
        found: dict[str, Any] = {"reference": evaluation.reference.hash or evaluation.reference.name}
        if column == "un":
            return found
        found["energies of the reference"] = evaluation.reference.energy_source
        found["energies of the crystals"] = A_FILE if settings.get("energies") else self.relaxation
        found["largest energy above hull of a stable crystal"] = settings.get("stable")
        if column != "success":
            return found
        for name, rate in sorted(evaluation.success.items()):
            if name != ALL:
                found[f"source of {name}"] = _without_files(rate.source)
                found[f"tolerance of {name}"] = rate.tolerance
                found[f"target of {name}"] = rate.target
        return found

    @property
    def relaxation(self) -> dict[str, Any]:
        """How crystals were relaxed, whatever the device."""
        found = self.evaluation.settings.get("relaxation")
        return {key: value for key, value in found.items() if key != "device"} if isinstance(found, dict) else {}


def differing(run: Run, other: Run, column: str) -> list[str]:
    """What the rates of two runs rest on that is not the same; comparable rates give an empty list."""
    sources, others = run.sources(column), other.sources(column)
    return [name for name in {**sources, **others} if sources.get(name) != others.get(name)]


def read_run(word: str) -> Run:
    """Reads an evaluated run.

    Args:
        word: Its output folder, the folder of the evaluation, or evaluation.json; NAME= before it gives it a name.

    Raises:
        UserError: If it does not exist, was not evaluated, or its evaluation.json is damaged.
    """
    path, name = Path(word), ""
    if not path.exists() and "=" in word:
        name, _, rest = word.partition("=")
        path = Path(rest)
    if not path.exists():
        raise UserError(f"{path} does not exist: give the output folder of an evaluated run, or NAME=FOLDER.")
    file = _summary_of(path)
    return Run(" ".join((name or _folder_name(file)).split()), file, _read(file))


def _summary_of(path: Path) -> Path:
    if path.is_file():
        return path
    for file in (path / FOLDER / SUMMARY, path / SUMMARY):
        if file.is_file():
            return file
    raise UserError(f"{path} has not been evaluated: run `mattergen-e evaluate {path} --reference REF` first.")


def _folder_name(file: Path) -> str:
    folder = file.resolve().parent
    return (folder.parent if folder.name == FOLDER else folder).name


def _read(file: Path) -> Evaluation:
    try:
        return Evaluation.model_validate(parse(file.read_bytes()))
    except ValidationError as error:
        raise UserError(f"{file} is no evaluation of this version ({first_problem(error)}): evaluate again.") from None
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} is not JSON ({reason}): give an evaluated run, or evaluate again.") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}).") from None


def _value(value: Any) -> str:
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value:.10g}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _without_files(source: Any) -> Any:
    """Sources with "a file" in the place of the file's name and hash."""
    if isinstance(source, list):
        return sorted({str(_without_files(item)) for item in source})
    found = _FILE.fullmatch(source) if isinstance(source, str) else None
    if found is None:
        return source
    return A_FILE if found["held"] is None else f"{found['held']}, {A_FILE}"


def _unit(name: str) -> str:
    return f" {UNITS[name]}" if name in UNITS else ""
