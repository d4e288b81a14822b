"""What a model is: by its configuration, before anything of it is built or loaded, or as it was built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate
from mattergen.diffusion.model_utils import NoiseLevelEncoding
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.dos_embedding import DosEmbedding
from mattergen_e.diffusion.joint import Preparation
from mattergen_e.diffusion.site_conditions import SiteCondition
from mattergen_e.spectra.grid import TOTAL_GRID

#: Whose Lightning modules keep their parts under the names that are read here.
PACKAGES = ("mattergen.", "mattergen_e.")
PARTS = ("property_embeddings", "property_embeddings_adapt")
#: Names of `DosEmbedding` in configurations: today's, and that of models that were trained before it moved.
DOS_EMBEDDINGS = (f"{DosEmbedding.__module__}.{DosEmbedding.__qualname__}", "mattergen_e.conditioning.dos.DosEmbedding")
#: The embedding of conditions that are numbers.
NUMBER = f"{NoiseLevelEncoding.__module__}.{NoiseLevelEncoding.__qualname__}"


@dataclass(frozen=True)
class Outline:
    """A model as its configuration describes it.

    Attributes:
        descriptors: By name; what they take from a checkpoint, such as an autoencoder, they do not have.
        site_conditions: What sites can be told, by name.
        embeddings: Conditions of the crystal by name; for spectra the energies (eV) that the model has learned them
            between, for others None.
        corruption: Noise of the structure.
        given: Share of the training crystals whose descriptors were given.
        numbers: Names of the conditions that are numbers.
    """

    descriptors: Mapping[str, Descriptor]
    site_conditions: Mapping[str, SiteCondition]
    embeddings: Mapping[str, tuple[float, float] | None]
    corruption: Any
    given: float
    numbers: frozenset[str] = frozenset()

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
    lightning = OmegaConf.select(config, "lightning_module")
    if lightning is None or not str(lightning.get("_target_")).startswith(PACKAGES):
        return None
    try:
        diffusion = lightning.diffusion_module
        nodes = {name: node for part in PARTS for name, node in (diffusion.model.get(part) or {}).items()}
        made = {
            part: instantiate(lightning.get(part) or {}, _convert_="all") for part in ("descriptors", "site_conditions")
        }
        return Outline(
            descriptors={name: replace(item, name=name) for name, item in made["descriptors"].items()},
            site_conditions={name: replace(item, name=name) for name, item in made["site_conditions"].items()},
            embeddings={name: _reliable(node) for name, node in nodes.items()},
            corruption=instantiate(diffusion.corruption),
            given=float(OmegaConf.select(lightning, "shares.given") or 0.0),
            numbers=frozenset(
                name
                for name, node in nodes.items()
                if OmegaConf.select(node, "conditional_embedding_module._target_") == NUMBER
            ),
        )
    except (HydraException, OmegaConfBaseException, TypeError, AttributeError):
        return None


def outline_of(model: Any) -> Outline:
    """The outline of a built model, MatterGen's or this package's Lightning module."""
    return outline_of_diffusion(
        model.diffusion_module, getattr(model, "descriptors", {}), getattr(model, "site_conditions", {})
    )


def outline_of_diffusion(
    module: Any, descriptors: Mapping[str, Descriptor], site_conditions: Mapping[str, SiteCondition] | None = None
) -> Outline:
    """The outline of a built diffusion module, and of what is attached to it."""
    embeddings = {name: item for part in PARTS for name, item in getattr(module.model, part, {}).items()}
    inner = {name: getattr(item, "conditional_embedding_module", None) for name, item in embeddings.items()}
    preparation = module.pre_corruption_fn
    return Outline(
        descriptors=dict(descriptors),
        site_conditions=dict(site_conditions or {}),
        embeddings={n: item.reliable if isinstance(item, DosEmbedding) else None for n, item in inner.items()},
        corruption=module.corruption,
        given=preparation.shares.given if isinstance(preparation, Preparation) else 0.0,
        numbers=frozenset(name for name, item in inner.items() if isinstance(item, NoiseLevelEncoding)),
    )


def configured_conditions(config: Any) -> list[str] | None:
    """Names of the conditions in a model's configuration; None if it is not built as MatterGen's are."""
    model = OmegaConf.select(config, "lightning_module.diffusion_module.model")
    return None if model is None else [name for part in PARTS for name in model.get(part) or ()]


def _reliable(node: Any) -> tuple[float, float] | None:
    """The energies between which a condition's embedding has learned spectra; None if it is not of spectra."""
    embedding = node.get("conditional_embedding_module")
    if embedding is None or embedding.get("_target_") not in DOS_EMBEDDINGS:
        return None
    low, high = embedding.get("reliable", (TOTAL_GRID.minimum, TOTAL_GRID.maximum))
    return float(low), float(high)
