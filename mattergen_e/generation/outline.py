"""What a model is by its configuration, before anything of it is built or loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.site_conditions import SiteCondition

#: Whose Lightning modules keep their parts under the names that are read here.
PACKAGES = ("mattergen.", "mattergen_e.")
PARTS = ("property_embeddings", "property_embeddings_adapt")


@dataclass(frozen=True)
class Outline:
    """A model as its configuration describes it.

    Attributes:
        descriptors: By name; what they take from a checkpoint, such as an autoencoder, they do not have.
        site_conditions: What sites can be told, by name.
        embeddings: Settings of the conditions of the crystal, by name.
        corruption: Noise of the structure.
        given: Share of the training crystals whose descriptors were given.
    """

    descriptors: Mapping[str, Descriptor]
    site_conditions: Mapping[str, SiteCondition]
    embeddings: Mapping[str, Any]
    corruption: Any
    given: float

    @property
    def steps(self) -> set[int]:
        """Numbers of steps that the elements were trained with."""
        return {noise.N for noise in self.corruption.discrete_corruptions.values()}


def read_outline(config: Any) -> Outline | None:
    """Read a model's configuration.

    Args:
        config: MatterGen's `config.yaml`, composed.

    Returns:
        The outline; None for a model that is not built as MatterGen's or this package's, and for one that this
        installation cannot build: what is wrong is said when it is built.
    """
    from hydra.errors import HydraException
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    lightning = OmegaConf.select(config, "lightning_module")
    if lightning is None or not str(lightning.get("_target_")).startswith(PACKAGES):
        return None
    try:
        diffusion = lightning.diffusion_module
        made = {
            part: instantiate(lightning.get(part) or {}, _convert_="all") for part in ("descriptors", "site_conditions")
        }
        return Outline(
            descriptors={name: replace(item, name=name) for name, item in made["descriptors"].items()},
            site_conditions={name: replace(item, name=name) for name, item in made["site_conditions"].items()},
            embeddings={name: node for part in PARTS for name, node in (diffusion.model.get(part) or {}).items()},
            corruption=instantiate(diffusion.corruption),
            given=float(OmegaConf.select(lightning, "shares.given") or 0.0),
        )
    except (HydraException, OmegaConfBaseException, TypeError, AttributeError):
        return None
