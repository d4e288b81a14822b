"""The data room: files with crystals and site values in, a checked cache for training out.

The cache is MatterGen's own layout (so that MatterGen reads it without this package) with one more folder per split
that holds the values of the sites. Nothing heavy is imported before it is used.

Site values are always in the order of the sites of the reduced cell; charges in e (positive = electrons lost),
lengths in Å, energies in eV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mattergen_e.crystals.alignment import AlignmentError, merge_site_values, reduce_with_map
    from mattergen_e.crystals.checks import EntryError
    from mattergen_e.data.build import build_cache
    from mattergen_e.data.cache import Manifest, load_manifest, open_sites
    from mattergen_e.data.dataset import JointCrystalDataset
    from mattergen_e.data.sources import Entry, read_entries

_HOME = {
    "AlignmentError": "alignment",
    "merge_site_values": "alignment",
    "reduce_with_map": "alignment",
    "build_cache": "build",
    "Manifest": "cache",
    "load_manifest": "cache",
    "open_sites": "cache",
    "EntryError": "checks",
    "JointCrystalDataset": "dataset",
    "Entry": "sources",
    "read_entries": "sources",
}

__all__ = [
    "AlignmentError",
    "Entry",
    "EntryError",
    "JointCrystalDataset",
    "Manifest",
    "build_cache",
    "load_manifest",
    "merge_site_values",
    "open_sites",
    "read_entries",
    "reduce_with_map",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
