"""Arrays of generated crystals that no column holds: spectra, grids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Artefact:
    """What one crystal adds to an npz file that all crystals of a run share.

    Attributes:
        file: Name of the file in the run's folder, e.g. generated_dos.npz.
        arrays: The crystal's own arrays by name; the file holds them as `<name>_<index>`.
        shared: Arrays that are the same for all crystals, such as energies; the file holds them once.
    """

    file: str
    arrays: Mapping[str, NDArray[Any]]
    shared: Mapping[str, NDArray[Any]] = field(default_factory=dict)
