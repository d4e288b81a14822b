"""The place of an autoencoder in a joint model.

Latents mean nothing without the autoencoder that made them, and another one decodes them to a plausible spectrum that
is wrong. So the autoencoder is a part of the model's weights: one entry of the state dictionary holds it whole, as
bytes. Whatever carries the weights carries it, and there is no path that could lead to another one.
"""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from mattergen_e.errors import UserError
from mattergen_e.limits import open_npz
from mattergen_e.networks.autoencoder.folder import Description
from mattergen_e.networks.autoencoder.model import Autoencoder
from mattergen_e.networks.autoencoder.network import Network
from mattergen_e.networks.folder import DAMAGED, SHOWN
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.upstream import exit_on_user_error

#: Last part of the entry's name in a state dictionary; the parts before it lead to the slot.
ENTRY = "autoencoder"
DESCRIPTION = "description"
WEIGHT = "weight:"


class AutoencoderSlot(nn.Module):
    """Holds an autoencoder, or nothing yet; reads and writes it with the state of the model that it is a part of.

    It has neither parameters nor buffers: no optimiser, average or cast touches what it holds. All copies of a model
    share it, since an autoencoder never changes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: Autoencoder | None = None
        self._bytes = torch.empty(0, dtype=torch.uint8)

    @property
    def held(self) -> Autoencoder | None:
        """The autoencoder; None while there is none."""
        return self._held

    def put(self, autoencoder: Autoencoder, where: str) -> None:
        """Fill the slot, which may hold the same autoencoder already.

        Args:
            autoencoder: What to put in.
            where: Where it comes from, as it begins a sentence.

        Raises:
            UserError: If the slot holds another one.
        """
        self._put(autoencoder, None, where)

    def _put(self, autoencoder: Autoencoder, content: torch.Tensor | None, where: str) -> None:
        if self._held is None:
            self._held = autoencoder
            self._bytes = to_bytes(autoencoder) if content is None else content
        elif autoencoder.fingerprint != self._held.fingerprint:
            raise UserError(
                f"{where} holds autoencoder {autoencoder.fingerprint[:SHOWN]}, but the model was made with "
                f"{self._held.fingerprint[:SHOWN]}: go on with that one, or train a model anew with the other"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> AutoencoderSlot:
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + ENTRY] = self._bytes

    @exit_on_user_error
    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        content = state_dict.get(prefix + ENTRY)
        if content is None:
            raise UserError(
                f"the checkpoint has no entry '{prefix}{ENTRY}', the autoencoder of its spectra: take a checkpoint "
                "that was trained with this descriptor"
            )
        if content.numel() > 0:  # a model that is yet to be trained has none
            content = content.detach().cpu().clone()
            self._put(from_bytes(content, "the checkpoint"), content, "the checkpoint")


def to_bytes(autoencoder: Autoencoder) -> torch.Tensor:
    """An autoencoder as bytes, shape (n,), uint8: a numpy archive of its weights and its description."""
    description = Description(
        fingerprint=autoencoder.fingerprint,
        network=autoencoder.settings,
        processing=autoencoder.processing,
        record=autoencoder.record,
    )
    arrays = {WEIGHT + name: value.detach().cpu().numpy() for name, value in autoencoder.network.state_dict().items()}
    buffer = io.BytesIO()
    np.savez(buffer, **{DESCRIPTION: np.array(description.model_dump_json())}, **arrays)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def from_bytes(content: torch.Tensor, where: str) -> Autoencoder:
    """The autoencoder that `to_bytes` wrote.

    Args:
        content: Shape (n,), uint8.
        where: What holds it, as it begins a sentence.

    Raises:
        UserError: If the bytes are damaged, or the fingerprint is not that of what was read.
    """
    try:
        with open_npz(io.BytesIO(content.numpy().tobytes())) as archive:
            description = Description.model_validate_json(str(archive[DESCRIPTION]))
            weights = {n.removeprefix(WEIGHT): torch.from_numpy(archive[n]) for n in archive.files if WEIGHT in n}
        with torch.random.fork_rng(devices=[]):  # the first weights are random
            network = Network(description.network)
        network.load_state_dict(weights)
    except (*DAMAGED, ValidationError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{where} holds a damaged autoencoder ({reason}): copy it anew from where it was trained"
        ) from error
    autoencoder = Autoencoder(network, description.processing, description.record)
    if autoencoder.fingerprint != description.fingerprint:
        raise UserError(
            f"{where} holds an autoencoder that was changed: it is {autoencoder.fingerprint[:SHOWN]}, but says "
            f"{description.fingerprint[:SHOWN]}; copy it anew from where it was trained"
        )
    return autoencoder


def described_grid(content: torch.Tensor | None) -> EnergyGrid | None:
    """The energies of the spectra of an autoencoder as its bytes describe it, without its weights; None: not told."""
    if content is None:
        return None
    try:
        with open_npz(io.BytesIO(content.numpy().tobytes())) as archive:
            return Description.model_validate_json(str(archive[DESCRIPTION])).processing.grid
    except (LookupError, AttributeError, TypeError, ValueError, OSError, zipfile.BadZipFile):
        return None
