"""Labels on disk: crash-safe, one calculation at a time.

    <labels>/settings.json             settings and versions; a rerun must have the same
    <labels>/items/<name>.json         outcome of one calculation: its label without arrays, or why it failed
    <labels>/arrays/<name>.npz         its arrays: atomic_dos (sites, points), total_dos (points,), float32, states/eV
    <labels>/labels.jsonl              all labels, one per line: what `mattergen-e data build` reads; written at the end
    <labels>/failed.jsonl              all calculations that gave none, with the reason; written at the end

Items and arrays are two `FileJournal`s: an item is written by the process that made it, its arrays first. So a kill at
any moment costs the calculations in flight, and nothing half-written is ever read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mattergen_e import provenance
from mattergen_e.errors import UserError
from mattergen_e.files import replacing
from mattergen_e.journal import FileJournal, difference, hold
from mattergen_e.labels.record import Label
from mattergen_e.labels.settings import LabelSettings

FORMAT_VERSION = 1
SETTINGS, LABELS, FAILED = "settings.json", "labels.jsonl", "failed.jsonl"
ITEMS, ARRAYS = "items", "arrays"


@dataclass(frozen=True)
class Outcome:
    """What became of one calculation.

    Attributes:
        id: Material id.
        origin: Where the calculation is.
        reason: Why there is no label, a key of `record.REASONS`; None if there is one.
        sentence: The same for people.
        stamp: What its files looked like; another stamp makes it anew.
    """

    id: str
    origin: str
    reason: str | None
    sentence: str
    stamp: str


@contextmanager
def open_store(folder: Path, settings: LabelSettings, overwrite: bool = False) -> Iterator[LabelStore]:
    """A folder of labels to write to, locked against other runs.

    Args:
        folder: The folder; made if it does not exist.
        settings: How labels are made.
        overwrite: Throw away what it holds if that was made with other settings.

    Raises:
        UserError: If it is in use, cannot be written to, holds something else, or labels made with other settings.
    """
    wanted = {
        "format_version": FORMAT_VERSION,
        "settings": settings.model_dump(mode="json"),
        "versions": provenance.versions(),
    }
    with hold(folder, ITEMS, ARRAYS):
        if not _holds_labels(folder, wanted, overwrite):
            with replacing(folder / SETTINGS) as file:
                file.write(json.dumps(wanted, indent=1).encode() + b"\n")
        for part in (ITEMS, ARRAYS):  # by which a folder of labels is known, even before the first
            (folder / part).mkdir(exist_ok=True)
        yield LabelStore(folder)


def _holds_labels(folder: Path, wanted: dict[str, Any], overwrite: bool) -> bool:
    """Whether the folder has labels made as wanted; others are removed where that is asked for."""
    if not (folder / SETTINGS).is_file():
        if any(not file.name.startswith(".mattergen_e") for file in folder.iterdir()):
            raise UserError(f"{folder} is not empty and holds no labels: choose another --out.")
        return False
    try:
        found = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        former, now = ({"format": part["format_version"], **part["settings"]} for part in (found, wanted))
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{folder / SETTINGS} is damaged: remove the folder and label anew.") from error
    differing = difference(former, now)
    if differing is None:
        return True
    if not overwrite:
        raise UserError(
            f"{folder} holds labels made with other settings ({differing}): choose another --out, or replace them with "
            "--overwrite."
        )
    for file in (*(folder / ITEMS).glob("*.json"), *(folder / ARRAYS).glob("*.npz")):
        file.unlink()
    for name in (LABELS, FAILED, SETTINGS):
        (folder / name).unlink(missing_ok=True)
    return False


@dataclass(frozen=True)
class LabelStore:
    """A folder of labels that `open_store` opened; workers on other machines may hold copies of it."""

    folder: Path

    def done(self, task_id: str, stamp: str) -> Outcome | None:
        """The outcome of a calculation that was made from the same files, if there is one."""
        try:
            item = self.read(task_id)
            outcome = Outcome(**item["outcome"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if outcome.stamp != stamp or outcome.id != task_id:
            return None
        if outcome.reason is None and item["label"].get("arrays") and task_id not in self._arrays:
            return None
        return outcome

    def read(self, task_id: str) -> dict[str, Any]:
        """What is kept of a calculation: its `outcome`, and its `label` unless it failed."""
        return json.loads(self._items.path(task_id).read_bytes())

    def write(self, outcome: Outcome, label: Label | None) -> None:
        """Store an outcome, with its label unless it failed."""
        content: dict[str, Any] = {"outcome": asdict(outcome)}
        if label is not None:
            arrays = {
                name: np.asarray(values, dtype=np.float32)
                for name, values in (label.site_values | label.crystal_values).items()
                if values.ndim == 1 or values.shape[1] > 1
            }
            if arrays:
                with self._arrays.write(outcome.id) as handle:
                    np.savez_compressed(handle, **arrays)  # pyright: ignore[reportArgumentType]
            content["label"] = _line(label, f"{ARRAYS}/{self._arrays.path(outcome.id).name}" if arrays else None)
        with self._items.write(outcome.id) as handle:
            handle.write(json.dumps(content).encode() + b"\n")

    def finish(self, outcomes: list[Outcome]) -> None:
        """Write labels.jsonl and failed.jsonl.

        Args:
            outcomes: Of all calculations, in the order of the sources.
        """

        def labels() -> Iterator[str]:
            for outcome in outcomes:
                if outcome.reason is None:
                    yield json.dumps(self.read(outcome.id)["label"]) + "\n"

        failed = (
            json.dumps({"id": o.id, "origin": o.origin, "reason": o.reason, "sentence": o.sentence}) + "\n"
            for o in outcomes
            if o.reason is not None
        )
        for name, lines in ((FAILED, failed), (LABELS, labels())):
            with replacing(self.folder / name) as handle:
                handle.writelines(line.encode() for line in lines)

    @property
    def _items(self) -> FileJournal:
        return FileJournal(self.folder / ITEMS, "{}.json")

    @property
    def _arrays(self) -> FileJournal:
        return FileJournal(self.folder / ARRAYS, "{}.npz")


def is_label_folder(path: Path) -> bool:
    """Whether a folder was written by `mattergen-e data label`."""
    return (path / SETTINGS).is_file() and (path / ITEMS).is_dir()


def read_settings(folder: Path) -> LabelSettings:
    """How the labels of a folder were made.

    Raises:
        UserError: If the folder holds no finished labels of a format that this version reads.
    """
    from pydantic import ValidationError

    try:
        found = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        if found["format_version"] != FORMAT_VERSION:
            raise UserError(f"{folder} holds labels of format {found['format_version']}: label anew.")
        settings = LabelSettings.model_validate(found["settings"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise UserError(f"{folder / SETTINGS} cannot be read: label anew with 'mattergen-e data label'.") from error
    if not (folder / LABELS).is_file():
        raise UserError(f"{folder} is not finished: run the same 'mattergen-e data label' command again.")
    return settings


def _line(label: Label, arrays: str | None) -> dict[str, Any]:
    scalars = {
        name: np.round(values[:, 0], 6).tolist()
        for name, values in label.site_values.items()
        if values.ndim == 2 and values.shape[1] == 1
    }
    structure = label.structure.copy()
    for name in list(structure.site_properties):
        structure.remove_site_property(name)
    return {
        "material_id": label.id,
        "structure": structure.as_dict(verbosity=0),
        **scalars,
        "properties": label.properties,
        "split": label.split,
        "arrays": arrays,
        "findings": [asdict(finding) for finding in label.findings],
        "origin": label.origin,
        "record": label.record,
        "inputs": label.inputs,
    }
