"""Which descriptors this installation knows: those of this package and of any other, by entry point."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from mattergen_e.descriptors.base import Descriptor

GROUP = "mattergen_e.descriptors"


@dataclass(frozen=True)
class Registration:
    """One registered descriptor: its configuration name, where it comes from, and its class or the reason it fails."""

    name: str
    target: str
    package: str
    cls: type[Descriptor] | None
    problem: str | None = None


def registered() -> dict[str, Registration]:
    """All descriptors registered under the entry point group `mattergen_e.descriptors`, by name.

    A third-party package registers a subclass of `Descriptor` in its pyproject.toml:

        [project.entry-points."mattergen_e.descriptors"]
        my_descriptor = "my_package.my_module:MyDescriptor"

    A registration that cannot be loaded is listed with its problem, not raised.
    """
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return {point.name: _load(point) for point in found}


def known() -> dict[str, Descriptor]:
    """Every registered descriptor that can be made without arguments, with its defaults, by the name of its field."""
    made: dict[str, Descriptor] = {}
    for registration in registered().values():
        try:
            make: Any = registration.cls
            descriptor = make() if make is not None else None
        except Exception:  # a descriptor of another package that wants arguments
            continue
        if descriptor is not None:
            made[descriptor.name] = descriptor
    return made


def _load(point: EntryPoint) -> Registration:
    package = point.dist.name if point.dist is not None else "?"
    try:
        cls = point.load()
    except Exception as error:  # a broken third-party package must not take this one down
        return Registration(point.name, point.value, package, None, f"{type(error).__name__}: {error}")
    if not (isinstance(cls, type) and issubclass(cls, Descriptor)):
        return Registration(point.name, point.value, package, None, "is not a subclass of mattergen_e's Descriptor")
    return Registration(point.name, point.value, package, cls)
