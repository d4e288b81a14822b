"""What a checkpoint holds for a descriptor, without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mattergen_e.errors import UserError
from mattergen_e.upstream import load_checkpoint


def stored_companion(checkpoint: str | Path, descriptor: str) -> dict[str, Any]:
    """State of the companion of a descriptor, by the names that it has there.

    The file is mapped, not read: nothing of it comes into memory before it is looked at.

    Args:
        checkpoint: Of a joint model.
        descriptor: Name of the descriptor.

    Returns:
        The state; empty if the file cannot be read or has none, which is said when the model is loaded.
    """
    try:
        state = load_checkpoint(checkpoint, mapped=True)["state_dict"]
        before = f".companions.{descriptor}."
        return {name.split(before, 1)[1]: value for name, value in state.items() if before in name}
    except (UserError, LookupError, AttributeError, TypeError, ValueError, OSError):
        return {}
