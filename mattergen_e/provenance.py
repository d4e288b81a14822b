"""What made an artefact: versions, hardware and hashes, recorded in every cache, checkpoint and result."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

#: What shapes results.
PACKAGES = (
    "python",
    "mattergen-e",
    "mattergen",
    "torch",
    "pytorch-lightning",
    "torch-geometric",
    "hydra-core",
    "pymatgen",
    "numpy",
    "ase",
)


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Version of each package, and of Python by the name "python"; packages that are not installed are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = platform.python_version() if name == "python" else version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor cores and, where there is one, the GPU; nothing that names the machine."""
    import torch

    found: dict[str, Any] = {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_weights(state: Mapping[str, Any]) -> str:
    """SHA-256 over names, shapes, types and values of a state dictionary: the same weights give the same hash."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
