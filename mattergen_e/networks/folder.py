"""The two files of a trained network: `<name>.pt` with its weights and `<name>.yaml` with all else.

A folder may hold other files too: the autoencoder of a joint model lies in the folder of that model.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mattergen_e.errors import UserError, first_problem
from mattergen_e.files import replacing
from mattergen_e.limits import read_yaml
from mattergen_e.upstream.checkpoints import require_finite

#: Digits of a fingerprint that are shown.
SHOWN = 12

#: What loading raises on a file that is damaged, or holds something else than plain values.
DAMAGED = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class BaseDescription(BaseModel):
    """What every `<name>.yaml` says.

    Attributes:
        format_version: Of these files.
        fingerprint: Identity of the trained network.
    """

    model_config = ConfigDict(extra="forbid")

    format_version: Literal[1] = 1
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")


class Trained(Protocol):
    """A trained network with what its numbers mean, and an identity."""

    @property
    def network(self) -> torch.nn.Module:
        """The layers."""
        ...

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights and all that gives the numbers their meaning."""
        ...

    def to(self, device: str | torch.device) -> Any:
        """Moves the network, and returns the object itself."""
        ...


@dataclass(frozen=True)
class Folder[D: BaseDescription, M: Trained]:
    """How trained networks of one kind are written and read.

    Attributes:
        name: Of the kind and of its files.
        a: The name with its article.
        command: What trains one, for errors.
        schema: Of the description.
        describe_trained: Description of a trained network.
        build: The network of a description, whose weights are yet to be loaded, and what makes it a trained one.
        optional: Keys of the description that are left out where they are None.
    """

    name: str
    a: str
    command: str
    schema: type[D]
    describe_trained: Callable[[M], D]
    build: Callable[[D], tuple[torch.nn.Module, Callable[[], M]]]
    optional: Sequence[str] = ()

    @property
    def weights(self) -> str:
        """Name of the file with the weights."""
        return f"{self.name}.pt"

    @property
    def description(self) -> str:
        """Name of the file with all else."""
        return f"{self.name}.yaml"

    def exists(self, folder: str | Path) -> bool:
        """Whether a folder holds one, or a part of one."""
        return any((Path(folder) / name).exists() for name in (self.weights, self.description))

    def save(self, trained: M, folder: str | Path, overwrite: bool = False) -> Path:
        """Write a trained network.

        Args:
            trained: The trained network.
            folder: Where to; it is made.
            overwrite: Replace one that is there.

        Returns:
            The folder.

        Raises:
            UserError: If there is one already.
        """
        folder = Path(folder)
        if self.exists(folder) and not overwrite:
            raise UserError(f"{folder} holds {self.a} already: choose another folder or add --overwrite")
        folder.mkdir(parents=True, exist_ok=True)
        content = self.describe_trained(trained).model_dump(mode="json")
        content = {key: value for key, value in content.items() if value is not None or key not in self.optional}
        with replacing(folder / self.weights) as file:
            torch.save({name: value.detach().cpu() for name, value in trained.network.state_dict().items()}, file)
        with replacing(folder / self.description) as file:
            file.write(yaml.safe_dump(content, sort_keys=False).encode())
        return folder

    def describe(self, folder: str | Path) -> D:
        """Read what a folder says of its trained network, without the weights.

        Raises:
            UserError: If the file is missing or does not follow the schema.
        """
        path = Path(folder) / self.description
        try:
            return self.schema.model_validate(read_yaml(path))
        except FileNotFoundError:
            raise UserError(f"{path} does not exist: give the folder of {self.a} ({self.command})") from None
        except ValidationError as error:
            raise UserError(f"{path} does not describe {self.a}: {first_problem(error)}") from error
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{path} cannot be read ({' '.join(str(error).split())})") from error

    def require_weights(self, folder: str | Path) -> None:
        """Stop when a folder has no weights beside its description.

        Raises:
            UserError: If that is so.
        """
        path = Path(folder) / self.weights
        if not path.is_file():
            raise UserError(f"{path} does not exist: the folder holds only a part of {self.a}")

    def load(self, folder: str | Path, device: str | torch.device = "cpu") -> M:
        """Read a trained network and check its identity.

        Args:
            folder: With both files.
            device: Where to put the network.

        Returns:
            The trained network.

        Raises:
            UserError: If a file is missing or damaged, or the fingerprint is not that of what was read.
        """
        description, path = self.describe(folder), Path(folder) / self.weights
        with torch.random.fork_rng(devices=[]):  # the first weights are random
            network, finish = self.build(description)
        self.require_weights(folder)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            require_finite(state, path)
            network.load_state_dict(state)
        except DAMAGED as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{path} does not hold the weights of this {self.name} ({reason}): copy it anew") from error
        trained = finish()
        if trained.fingerprint != description.fingerprint:
            raise UserError(
                f"{folder} was changed: its files belong to {self.name} {trained.fingerprint[:SHOWN]}, but say "
                f"{description.fingerprint[:SHOWN]}; copy both files anew from where it was trained"
            )
        return trained.to(device)
