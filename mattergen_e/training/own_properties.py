"""Adapters for properties that no file of `configs/adapter_property` is about: a user's own.

`adapter_property=[my_hardness,my_phase:category,my_moduli:list]` is read here, by the source of configurations of
`hydra_plugins/mattergen_e_searchpath.py`. What the cache knows of a property, its words or the length of its lists, is
written into the recipe by resolvers, when the model is built.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from mattergen_e.crystals.own_properties import Kind, check_name, split_kind
from mattergen_e.data.cache import PropertyInfo, load_manifest
from mattergen_e.descriptors.registry import known
from mattergen_e.errors import UserError
from mattergen_e.labels.quantities import COMMON, PRODUCED
from mattergen_e.upstream import exit_on_user_error

#: Where the adapters stand in a recipe.
PACKAGE = "adapter.adapter.property_embeddings_adapt"
#: Resolver of what a cache knows of a property: `${mattergen_e.property:NAME,KIND,PART}`.
RESOLVER = "mattergen_e.property"
_WIDTH = "${....hidden_dim}"


@exit_on_user_error
def adapter(word: str) -> dict[str, Any]:
    """The adapter of a property.

    Args:
        word: NAME or NAME:KIND.

    Returns:
        Content of a file of `configs/adapter_property`; the width is that of the pretrained denoiser, which
        mattergen-finetune puts beside this group.

    Raises:
        UserError: If the name means something else already, or the kind is unknown.
    """
    where = f"adapter_property=[{word}]"
    name, asked = split_kind(word, "adapter_property")
    check_name(name, where, {*known(), *(quantity.name for quantity in (*COMMON, *PRODUCED))})
    kind: Kind = asked or "number"
    ours = "mattergen_e.diffusion.own_properties"
    scaler: dict[str, Any] = {"_target_": "mattergen.common.utils.data_utils.StandardScalerTorch"}
    if kind == "number":
        embedding = {"_target_": "mattergen.diffusion.model_utils.NoiseLevelEncoding", "d_model": _WIDTH}
    elif kind == "category":
        words = f"${{{RESOLVER}:{name},{kind},categories}}"
        embedding = {"_target_": f"{ours}.CategoryEmbedding", "hidden_dim": _WIDTH, "categories": words}
        scaler = {"_target_": "torch.nn.Identity"}
    else:
        length = f"${{{RESOLVER}:{name},{kind},length}}"
        embedding = {"_target_": f"{ours}.ListEmbedding", "hidden_dim": _WIDTH, "length": length}
        scaler |= {"stats_dim": [length]}
    return {
        name: {
            "_target_": f"{ours}.OwnPropertyEmbedding",
            "name": name,
            "kind": f"${{{RESOLVER}:{name},{kind},kind}}",
            "unconditional_embedding_module": {
                "_target_": "mattergen.property_embeddings.EmbeddingVector",
                "hidden_dim": _WIDTH,
            },
            "conditional_embedding_module": embedding,
            "scaler": scaler,
        }
    }


def install() -> None:
    """Makes the resolver known to OmegaConf; does nothing the second time."""
    OmegaConf.register_new_resolver(RESOLVER, _resolve, replace=True)


@exit_on_user_error
def _resolve(name: str, kind: Kind, part: str, *, _root_: DictConfig) -> Any:
    """What the cache of a recipe knows of a property.

    Raises:
        UserError: If it has none of the name, or one of another kind.
    """
    return what_is_known(str(OmegaConf.select(_root_, "data_module.root_dir", throw_on_missing=True)), name, kind, part)


def what_is_known(cache: str, name: str, kind: Kind, part: str) -> Any:
    """What a cache knows of a property.

    Args:
        cache: Its folder.
        name: Of the property.
        kind: That it should have.
        part: `kind`, `categories` or `length`.

    Returns:
        The part.

    Raises:
        UserError: If the cache has none of the name, or one of another kind.
    """
    found: PropertyInfo | None = load_manifest(cache).properties.get(name)
    if found is None or found.kind is None:
        raise UserError(f"{cache} has no property '{name}': build it with --property {name}.")
    if found.kind != kind:
        word = name if found.kind == "number" else f"{name}:{found.kind}"
        raise UserError(f"'{name}' is a {found.kind} in {cache}: write adapter_property=[{word}].")
    return getattr(found, part)
