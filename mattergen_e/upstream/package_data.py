"""MatterGen's package data, which its PyPI wheel lacks: what there is, and what takes its place."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from mattergen_e.errors import UserError

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class PackageData:
    """One piece of MatterGen's package data: what it is, where MatterGen looks, and what takes its place."""

    name: str
    path: Path
    carried: Path

    @property
    def present(self) -> bool:
        """Whether MatterGen has its own."""
        return self.path.exists()


def package_data() -> list[PackageData]:
    """What MatterGen needs besides code, in the order of its commands."""
    spec = importlib.util.find_spec("mattergen")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("MatterGen is not installed: run `pip install --no-deps mattergen==1.0.3`.")
    root = Path(next(iter(spec.submodule_search_locations)))
    return [
        PackageData("recipes (conf)", root / "conf", DATA / "conf"),
        PackageData("sampling settings (sampling_conf)", root.parent / "sampling_conf", DATA / "sampling_conf"),
        PackageData(
            "GemNet scale factors",
            root / "common/gemnet/gemnet-dT.json",
            DATA / "package/common/gemnet/gemnet-dT.json",
        ),
    ]


def repair_scale_factors() -> None:
    """Makes `GemNetT()` read the scale factors that are carried here, where MatterGen has none."""
    import mattergen.common.gemnet.gemnet as gemnet

    # read as f"{MODELS_PROJECT_ROOT}/common/gemnet/gemnet-dT.json", and this module uses the root for nothing else
    if not (Path(gemnet.MODELS_PROJECT_ROOT) / "common/gemnet/gemnet-dT.json").exists():
        gemnet.MODELS_PROJECT_ROOT = DATA / "package"
