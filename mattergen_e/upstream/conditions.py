"""MatterGen's list of per-crystal conditions."""

from __future__ import annotations

from mattergen_e.errors import UserError

#: This package's own conditions, which are arrays: one row per crystal, read from a cache or from the user's files.
ARRAY_CONDITIONS = frozenset({"dos"})
#: Names that were added to MatterGen's list in this process.
_ADDED: set[str] = set()


def check_known(conditions: list[str], trained: list[str] | None) -> None:
    """Checks that a model was trained with the conditions that a user asks for.

    Args:
        conditions: Their names.
        trained: Names of those of the model; None if unknown: then nothing is checked.

    Raises:
        UserError: If one is missing.
    """
    for name in conditions if trained is not None else ():
        if name not in (trained or []):
            known = ", ".join(trained or []) or "no property"
            raise UserError(
                f"--properties_to_condition_on names '{name}', but this model was trained to be conditioned on {known}."
            )


def known_properties() -> list[str]:
    """Names of the per-crystal properties that MatterGen can be conditioned on, those that were added included."""
    from mattergen.common.utils.globals import PROPERTY_SOURCE_IDS

    return list(PROPERTY_SOURCE_IDS)


def mattergens_properties() -> tuple[str, ...]:
    """Names of the per-crystal properties that MatterGen itself knows, whatever was added in this process."""
    return tuple(name for name in known_properties() if name not in _ADDED)


def register_property(name: str) -> None:
    """Adds a per-crystal condition to MatterGen's list, which is shared by reference.

    Never for a generated field: whatever the list names is taken for a condition.
    """
    from mattergen.common.utils.globals import PROPERTY_SOURCE_IDS

    if name not in PROPERTY_SOURCE_IDS:
        PROPERTY_SOURCE_IDS.append(name)
        _ADDED.add(name)
