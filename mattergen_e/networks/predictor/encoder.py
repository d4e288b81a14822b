"""A trained MatterGen model as the encoder: its shape, its weights, its noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mattergen_e.errors import UserError
from mattergen_e.networks.predictor.network import Network
from mattergen_e.networks.predictor.settings import EncoderSettings
from mattergen_e.provenance import hash_weights
from mattergen_e.upstream.models import load_model

#: Parts of a MatterGen denoiser that the network has under the same names.
PARTS = ("gemnet.", "noise_level_encoding.")


@dataclass(frozen=True)
class Encoder:
    """What is taken of a trained model.

    Attributes:
        settings: Shape.
        state: Weights by MatterGen's names.
        corruption: Its noise of structures, for predictors of noised ones.
        source: Name of the folder and hash of the weights.
    """

    settings: EncoderSettings
    state: dict[str, Tensor]
    corruption: Any
    source: dict[str, str]

    def load_into(self, network: Network) -> None:
        """Gives a network of this shape the weights.

        Raises:
            UserError: If weights are missing or of another shape.
        """
        own = {key for key in network.state_dict() if key.startswith(PARTS)}
        missing = sorted(own - set(self.state))
        if missing:
            raise UserError(f"the encoder {self.source['model']} has no weights {missing[0]}: take a MatterGen model")
        try:
            network.load_state_dict({key: self.state[key] for key in own}, strict=False)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"the encoder {self.source['model']} does not fit: {reason}") from error


def read_encoder(folder: str | Path) -> Encoder:
    """A trained model's encoder.

    Args:
        folder: Of a MatterGen model, joint or not, with `config.yaml` and `checkpoints/`.

    Raises:
        UserError: If it holds no model, or one whose network is conditioned on properties of the crystal.
    """
    from omegaconf import OmegaConf

    model = load_model(folder, device="cpu")
    module = model.diffusion_module
    denoiser: Any = module.model
    config: Any = OmegaConf.load(Path(folder) / "config.yaml")
    shape = dict(config.lightning_module.diffusion_module.model.gemnet)
    hidden = int(denoiser.hidden_dim)
    if shape.get("latent_dim", hidden) != hidden:
        raise UserError(
            f"{folder} embeds properties of the crystal in its network: take a model that was trained without, such as "
            "checkpoints/base_small"
        )
    names = set(EncoderSettings.model_fields) - {"hidden_dim"}
    known = {name: shape[name] for name in names if name in shape}
    missing = {name: getattr(denoiser.gemnet, name) for name in names - set(known) if hasattr(denoiser.gemnet, name)}
    state = {key: value.detach().clone() for key, value in denoiser.state_dict().items() if key.startswith(PARTS)}
    return Encoder(
        settings=EncoderSettings(hidden_dim=hidden, **known, **missing),
        state=state,
        corruption=_of_structure(module.corruption),
        source={"model": Path(folder).name, "weights_sha256": hash_weights(state)},
    )


def _of_structure(corruption: Any) -> Any:
    """A model's noise without that of its descriptors, which the crystals of the training do not have."""
    from mattergen.diffusion.corruption.multi_corruption import MultiCorruption

    fields = set(getattr(corruption, "structure_fields", corruption.corrupted_fields))
    return MultiCorruption(
        sdes={name: sde for name, sde in corruption.sdes.items() if name in fields},
        discrete_corruptions=corruption.discrete_corruptions,
    )
