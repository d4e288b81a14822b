"""Makes mattergen-e's recipes visible to MatterGen's commands, and stays out of every other Hydra application's way.

Hydra imports this file in every application of the environment, so it imports nothing but Hydra's own plugin types.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin

PROVIDER = "mattergen-e"
#: Group of the recipes' adapters, and the package of its files in a recipe.
ADAPTERS = "adapter_property"


def _package_folder() -> str | None:
    spec = importlib.util.find_spec("mattergen_e")
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(iter(spec.submodule_search_locations))


def _configs_folder(package: str) -> str:
    """The recipes: beside the package in a checkout, inside it in a wheel."""
    inside = os.path.join(package, "configs")
    return inside if os.path.isdir(inside) else os.path.join(os.path.dirname(package), "configs")


class MatterGenESearchPath(SearchPathPlugin):
    """Appends mattergen-e's configs, so that the host's own files win every tie.

    MatterGen reads its recipes from a folder `conf` and its sampling settings from a folder `sampling_conf`; the PyPI
    wheel of MatterGen 1.0.3 lacks both. A missing one is replaced by the copy of MatterGen's settings that mattergen-e
    carries; an existing one is left alone.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Adds `configs/` (recipes) or `configs/sampling/` (sampling), depending on what the host is looking for."""
        if "mattergen" not in sys.modules:
            return
        package = _package_folder()
        if package is None:
            return
        # The application at hand is MatterGen's (or uses it): now, and only now, the heavy part of the plugin is due.
        upstream = importlib.import_module("mattergen_e.upstream")
        upstream.prepare()
        if "mattergen.generator" in sys.modules:
            importlib.import_module("mattergen_e.generation.hooks").prepare()

        main = next((element for element in search_path.get_path() if element.provider == "main"), None)
        kind = _kind(main.path if main is not None else None)
        if main is not None and main.path is not None:
            folder = os.path.realpath(main.path.removeprefix("file://"))
            upstream.check_at_the_door(folder)
            for piece in upstream.package_data():  # an application's own folder is never replaced
                if not piece.present and os.path.realpath(piece.path) == folder:
                    main.path = f"file://{piece.carried}"
        configs = _configs_folder(package)
        folder = os.path.join(configs, "sampling") if kind == "sampling" else configs
        search_path.append(provider=PROVIDER, path="file://" + folder)
        for package_name, third_party in _third_party_configs() if kind == "recipes" else ():
            search_path.append(provider=package_name, path="file://" + third_party)
        if kind == "recipes":
            importlib.import_module("mattergen_e.training.own_properties").install()
            search_path.append(provider=PROVIDER, path=f"{OwnPropertySource.scheme()}://{ADAPTERS}")


class OwnPropertySource(ConfigSource):
    """The adapters that no file is about: of a user's own properties, whatever their names.

    It stands behind all folders, so that files win. Only this package's search path names its scheme.
    """

    @staticmethod
    def scheme() -> str:
        """Of its one path."""
        return "mattergen-e"

    def load_config(self, config_path: str) -> ConfigResult:
        """The adapter of a property, NAME or NAME:KIND."""
        from omegaconf import OmegaConf

        own = importlib.import_module("mattergen_e.training.own_properties")
        return ConfigResult(
            config=OmegaConf.create(own.adapter(_property(config_path))),
            path=self.full_path(),
            provider=self.provider,
            header={"package": own.PACKAGE},
        )

    def available(self) -> bool:
        """Always."""
        return True

    def is_group(self, config_path: str) -> bool:
        """The group itself belongs to the files."""
        return False

    def is_config(self, config_path: str) -> bool:
        """Whether it is the adapter of a property."""
        return bool(_property(config_path))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Nothing: any name will do."""
        return []


def _property(config_path: str) -> str:
    """The property that a path in the group of the adapters names; empty for any other path."""
    group, _, word = config_path.strip("/").rpartition("/")
    return word.removesuffix(".yaml") if group == ADAPTERS else ""


def _third_party_configs() -> Iterator[tuple[str, str]]:
    """Folders `configs` of the packages that register descriptors, found without importing the packages."""
    from importlib.metadata import entry_points

    names = {point.module.split(".")[0] for point in entry_points(group="mattergen_e.descriptors")}
    for name in sorted(names - {"mattergen_e"}):
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations or ()) if spec is not None else ():
            folder = os.path.join(place, "configs")
            if os.path.isdir(folder):
                yield name, folder


def _kind(main_path: str | None) -> str:
    """'sampling' or 'recipes': by the folder's name; for a user's own folder by which part of MatterGen is loaded."""
    name = os.path.basename(main_path.rstrip("/")) if main_path else ""
    if name in ("conf", "sampling_conf"):
        return "sampling" if name == "sampling_conf" else "recipes"
    return "sampling" if "mattergen.generator" in sys.modules else "recipes"
