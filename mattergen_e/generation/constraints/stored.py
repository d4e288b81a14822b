"""The energies of a model's spectra, from its checkpoint but without its weights."""

from __future__ import annotations

import io
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from mattergen_e.descriptors.autoencoder_slot import DESCRIPTION, ENTRY
from mattergen_e.errors import UserError
from mattergen_e.networks.autoencoder.folder import Description
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.upstream import load_checkpoint


def stored_grid(checkpoint: str | Path, descriptor: str) -> EnergyGrid | None:
    """The grid of the spectra of a descriptor, as the description of the autoencoder in a checkpoint tells it.

    The file is mapped, not read: but for the bytes of the autoencoder, nothing of it comes into memory.

    Args:
        checkpoint: Of a joint model.
        descriptor: Name of a descriptor that is a spectrum.

    Returns:
        The grid; None if the file cannot be read or tells none, which is said when the model is loaded.
    """
    try:
        state = load_checkpoint(checkpoint, mapped=True)["state_dict"]
        content = next(value for name, value in state.items() if name.endswith(f".companions.{descriptor}.{ENTRY}"))
        with np.load(io.BytesIO(content.numpy().tobytes()), allow_pickle=False) as archive:
            return Description.model_validate_json(str(archive[DESCRIPTION])).processing.grid
    except (UserError, LookupError, StopIteration, AttributeError, TypeError, ValueError, OSError, BadZipFile):
        return None
