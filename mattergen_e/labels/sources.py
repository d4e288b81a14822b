"""Where calculations are: finding them, and reading one with the reader of its kind."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mattergen_e.crystals.findings import LabelError
from mattergen_e.errors import UserError
from mattergen_e.labels import arrays
from mattergen_e.labels.folder import is_label_folder
from mattergen_e.labels.materials_project import source as materials_project
from mattergen_e.labels.record import Calculation
from mattergen_e.labels.settings import LabelSettings
from mattergen_e.labels.vasp import calculation as vasp
from mattergen_e.labels.vasp.files import is_calculation, walk

KINDS = ("vasp", "npz", "materials_project")


@dataclass(frozen=True)
class Task:
    """One calculation to label.

    Attributes:
        kind: One of `KINDS`.
        id: Material id.
        path: Folder or file.
        stamp: Changes when its files change.
        manifest: What a manifest beside it says of it.
        problem: Why it cannot be read, if that is known already.
    """

    kind: str
    id: str
    path: Path
    stamp: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    problem: tuple[str, str] | None = None


def find_tasks(sources: Sequence[Path]) -> list[Task]:
    """The calculations of folders and files, in the order given and sorted within each.

    A folder that `mattergen-e data fetch` wrote holds downloads. Any other is searched for VASP calculations and for
    .npz labels of others or of `mattergen-e data compute`, side by side; other .npz files and folders of labels are
    passed over.

    Args:
        sources: Folders, or single .npz files.

    Returns:
        One task per calculation. A second one with the same id has a `problem`.

    Raises:
        UserError: If a source does not exist or holds no calculation.
    """
    tasks: list[Task] = []
    seen: dict[str, Path] = {}
    for source in sources:
        found = list(_find(source))
        if not found:
            raise UserError(
                f"{source} holds no calculation: expected folders with vasprun.xml or CHGCAR, .npz files, or downloads "
                "of 'mattergen-e data fetch'."
            )
        for task in found:
            if task.id in seen:
                sentence = f"the id {task.id!r} was already used for {seen[task.id]}"
                task = Task(task.kind, f"{task.id} ({task.path})", task.path, task.stamp, {}, ("duplicate", sentence))
            else:
                seen[task.id] = task.path
            tasks.append(task)
    return tasks


def _find(source: Path) -> Iterator[Task]:
    if not source.exists():
        raise UserError(f"{source} does not exist: check the path.")
    if source.is_file() and source.suffix != ".npz":
        raise UserError(
            f"{source} is no folder and no .npz file: JSON lines and CSV need no labelling, give them to "
            "'mattergen-e data build'."
        )
    if source.is_file():
        yield from _npz(source.parent, [source.name])
        return
    yield from _tree(source)


def _tree(source: Path) -> Iterator[Task]:
    """All calculations below a folder; a folder is what its files say, whatever lies beside it."""
    denied: list[OSError] = []
    root = source.resolve()
    for folder, names in walk(source, denied.append, _is_whole):
        if materials_project.is_download(folder):
            for material in materials_project.find(folder):
                yield Task("materials_project", material.name, material, _stamp(material))
            continue
        if is_label_folder(folder):
            continue
        yield from _npz(folder, [name for name in names if arrays.is_label(folder / name)])
        if is_calculation(names):
            relative = folder.resolve().relative_to(root).parts if folder.resolve() != root else (root.name,)
            yield Task("vasp", "_".join(relative), folder, _stamp(folder))
    for error in denied:
        path = Path(str(error.filename))
        sentence = f"the folder {path.name} cannot be opened ({error.strerror})"
        yield Task("vasp", str(path), path, "", {}, ("unreadable_file", sentence))


def _is_whole(folder: Path) -> bool:
    return materials_project.is_download(folder) or is_label_folder(folder)


def _npz(folder: Path, names: list[str]) -> Iterator[Task]:
    manifest = arrays.read_manifest(folder) if names else {}
    for file in (folder / name for name in names):
        yield Task("npz", file.stem, file, _stamp(file), manifest.get(file.stem, {}))


def _stamp(path: Path) -> str:
    """Hash of names, sizes and times of the files of a folder, or of one file."""
    digest = hashlib.sha256()
    try:
        for file in [path] if path.is_file() else sorted(path.iterdir()):
            if file.is_file():
                stat = file.stat()
                digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    except OSError:
        return ""
    return digest.hexdigest()[:16]


def read_calculation(task: Task, settings: LabelSettings, properties: Mapping[str, str]) -> Calculation:
    """Read one calculation.

    Args:
        task: From `find_tasks`.
        settings: For the checks.
        properties: Key of a manifest by MatterGen's name of the property.

    Returns:
        The calculation, under the id of the task.

    Raises:
        LabelError: If it cannot be used.
    """
    if task.problem is not None:
        raise LabelError(*task.problem)
    if task.kind == "vasp":
        return vasp.read(task.path, settings, task.id)
    if task.kind == "materials_project":
        return materials_project.calculation(task.path, settings)
    calculation = arrays.read(task.path, task.manifest, settings, properties=properties)
    calculation.id = task.id
    return calculation
