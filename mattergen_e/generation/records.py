"""What is written down about a run, and comparing the settings of a run and its resume."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mattergen_e.errors import UserError, first_problem

RUN_NAME = "run.json"
START_ANEW = "set MATTERGEN_E_EXISTING=overwrite to start anew"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class BatchRecord(_Model):
    """One finished batch.

    Attributes:
        batch: Number of the batch, from 0.
        crystals: Number of crystals written.
        seconds: Wall-clock time that the batch took, in s.
        dropped: Number of degenerate draws.
        failed: Number of crystals that are missing because every draw was degenerate.
    """

    batch: int = Field(ge=0)
    crystals: int = Field(ge=0)
    seconds: float = Field(ge=0, allow_inf_nan=False)
    dropped: int = Field(ge=0)
    failed: int = Field(ge=0)


class ShardRecord(_Model):
    """batch.json inside a batch's file; `indices` are those of its crystals."""

    record: BatchRecord
    indices: list[int]


class Resume(_Model):
    """One continuation of a run: when, by which command and on what."""

    started: datetime
    command: list[str]
    provenance: dict[str, Any]


class RunRecord(_Model):
    """run.json.

    Attributes:
        status: 'running' also after the process was killed; 'interrupted' when it ended before the last batch.
        command: Arguments of the process that began the run.
        settings: What a resume must agree with, without the seed.
        provenance: Versions, checkpoint and hardware of the process that began the run.
        fields: What is generated besides the structure, by descriptor: place, dim, unit, probes and label; a run of a
            version that did not write it has none.
        crystals, dropped, failed: Sums over `batches`.
        outputs: sha256 of each output file by name; empty until the run is finished.
    """

    format_version: Literal[1] = 1
    status: Literal["running", "finished", "interrupted"]
    command: list[str]
    started: datetime
    finished: datetime | None = None
    seed: int
    settings: dict[str, Any]
    provenance: dict[str, Any]
    fields: dict[str, Any] = {}
    resumes: list[Resume] = []
    crystals: int = Field(default=0, ge=0)
    dropped: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    batches: list[BatchRecord] = []
    outputs: dict[str, str] = {}


def load_record(folder: str | Path) -> RunRecord:
    """Reads run.json of a folder; needs no lock.

    Raises:
        UserError: If it is missing or damaged.
    """
    path = Path(folder) / RUN_NAME
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give the output folder of a run with a joint model.") from None
    except ValidationError as error:
        raise UserError(
            f"{path} is damaged ({first_problem(error)}): put back a copy of it, or {START_ANEW}."
        ) from None
