"""What is written down about a run, and comparing the settings of a run and its resume."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mattergen_e.errors import UserError, first_problem

RUN_NAME = "run.json"
#: Key of the settings that a resume may increase.
NUM_SAMPLES = "num_samples"
START_ANEW = "set MATTERGEN_E_EXISTING=overwrite to start anew"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


#: Most crystals of a run: what a file says beyond that is not believed.
MAX_CRYSTALS = 10**7
Count = Annotated[int, Field(ge=0, le=MAX_CRYSTALS)]


class BatchRecord(_Model):
    """One finished batch.

    Attributes:
        batch: Number of the batch, from 0.
        crystals: Number of crystals written.
        seconds: Wall-clock time that the batch took, in s.
        dropped: Number of degenerate draws.
        failed: Number of crystals that are missing because every draw was degenerate.
    """

    batch: Count
    crystals: Count
    seconds: float = Field(ge=0, allow_inf_nan=False)
    dropped: Count
    failed: Count


class ShardRecord(_Model):
    """batch.json inside a batch's file, by which it is known as one of its run.

    Attributes:
        record: Number and counts.
        indices: Of its crystals.
        seed: Of the run; None in batches of earlier versions.
        settings_sha256: Of the run's settings, see `hash_settings`; None in batches of earlier versions.
    """

    record: BatchRecord
    indices: list[Count]
    seed: int | None = None
    settings_sha256: str | None = None


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
    crystals: Count = 0
    dropped: Count = 0
    failed: Count = 0
    batches: list[BatchRecord] = []
    outputs: dict[str, str] = {}


def hash_settings(settings: dict[str, Any]) -> str:
    """SHA-256 over all settings that a batch depends on: how many batches there are is none of them."""
    shaping = {name: value for name, value in settings.items() if name != NUM_SAMPLES}
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


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
