"""pymatgen's StructureMatcher, told which lattice mappings to look at."""

from __future__ import annotations

from collections.abc import Generator
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure


class NarrowedMatcher(StructureMatcher):
    """A StructureMatcher for reduced cells that skips the mappings that cannot pass (see `outlook`).

    The mappings themselves come from pymatgen, bit by bit as without this class. `_get_lattices` is not part of
    pymatgen's public interface (checked with 2026.10.16): were it renamed, all mappings would be looked at and the
    verdicts stay the same.
    """

    _wanted: frozenset[bytes] = frozenset()

    def fits(self, first: Structure, second: Structure, wanted: NDArray[np.int64]) -> bool:
        """Whether two reduced cells match by one of the mappings (n, 3, 3)."""
        matcher = copy(self)  # threads share this one
        matcher._wanted = frozenset(mapping.tobytes() for mapping in np.ascontiguousarray(wanted, dtype=np.int64))
        return bool(matcher.fit(first, second, skip_structure_reduction=True))

    def _get_lattices(self, target_lattice: Any, s: Any, supercell_size: int = 1) -> Generator[Any, Any, None]:
        for lattice, mapping in super()._get_lattices(target_lattice, s, supercell_size):
            if np.ascontiguousarray(mapping, dtype=np.int64).tobytes() in self._wanted:
                yield lattice, mapping
