"""Interatomic potentials by name, as ASE calculators.

    chgnet, sevenn          their packages carry the weights
    mattersim, mace, orb    their packages download the weights; here they are used if they lie where those leave them
    module:factory          any function or class that makes an ASE calculator; it may take `device`

Nothing is ever downloaded here. CHGNet 0.3.0 follows energies with the corrections of Materials Project 2020 (Deng et
al., Nature Machine Intelligence 5, 1031 (2023)): energies of one calculator are consistent among themselves, not with
those of another.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.errors import UserError
from mattergen_e.provenance import hash_file, versions

if TYPE_CHECKING:
    from pymatgen.core import Structure

DEFAULT = "chgnet"
CHGNET_MODEL = "0.3.0"
CHGNET_ELEMENTS = 94
ORB_WEIGHTS = "ORB_WEIGHTS"

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class _Known:
    """A calculator that has a name: module and distribution of its package, model, file of weights, how it is made."""

    module: str
    distribution: str
    model: str
    weights: Callable[[Path], Path | None]
    make: Callable[[Path, str], Any]
    remedy: str = "install its package again"


def require(name: str) -> None:
    """Checks that a calculator can be made, without loading it.

    Args:
        name: chgnet, sevenn, mattersim, mace, orb or module:factory.

    Raises:
        UserError: If the name is unknown, the package is not installed, or its weights would need a download.
    """
    if name not in KNOWN:
        _check_factory_name(name)
        return
    known = KNOWN[name]
    folder = _package(known.module)
    if folder is None:
        raise UserError(
            f"The calculator {name!r} is not installed: run `pip install {known.distribution}`, or take "
            f"--calculator {DEFAULT}."
        )
    weights = known.weights(folder)
    if weights is None or not weights.is_file():
        raise UserError(
            f"The weights of the calculator {name!r} are not on this machine ({weights or 'no file is named'}) and "
            f"nothing is downloaded here: {known.remedy}, or take --calculator {DEFAULT}."
        )


def check_device(device: str) -> None:
    """Checks that a device is there.

    Raises:
        UserError: If it is neither cpu nor a GPU of this machine.
    """
    if device == "cpu":
        return
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise UserError(f"The device {device!r} is unknown: give cpu or cuda.")
    import torch

    if not torch.cuda.is_available():
        raise UserError(f"The device {device!r} is not there: torch sees no GPU; take --device cpu.")


def make(name: str, device: str = "cpu") -> Any:
    """Makes a calculator.

    Args:
        name: chgnet, sevenn, mattersim, mace, orb or module:factory.
        device: cpu or cuda.

    Returns:
        An ASE calculator, of energies in eV, forces in eV/Å and stresses in eV/Å^3.

    Raises:
        UserError: If it cannot be made; says why.
    """
    require(name)
    check_device(device)
    with silent():
        if name not in KNOWN:
            return _from_factory(name, device)
        known = KNOWN[name]
        folder = _package(known.module)
        weights = known.weights(folder) if folder is not None else None
        assert weights is not None  # `require` looked
        try:
            return known.make(weights, device)
        except Exception as error:
            raise UserError(f"The calculator {name!r} cannot be made ({_brief(error)}): check its package.") from error


def describe(name: str) -> dict[str, Any]:
    """What a calculator is, for provenance.

    Returns:
        name, version of the package, model, and sha256 of the weights (of the module for module:factory).

    Raises:
        UserError: If it is not there.
    """
    require(name)
    return dict(_described(name))


@cache
def _described(name: str) -> dict[str, Any]:
    if name in KNOWN:
        known = KNOWN[name]
        folder = _package(known.module)
        weights = known.weights(folder) if folder is not None else None
        found = {"name": name, "version": _version(known.distribution), "model": known.model}
        return found | ({"weights_sha256": hash_file(weights)} if weights is not None else {})
    module = name.partition(":")[0]
    spec = importlib.util.find_spec(module)
    file = Path(spec.origin) if spec is not None and spec.origin else None
    found = {"name": name, "version": _version(module.partition(".")[0])}
    return found | ({"module_sha256": hash_file(file)} if file is not None and file.is_file() else {})


def known_elements(name: str) -> frozenset[int] | None:
    """Atomic numbers that a calculator knows; None if it does not say beforehand."""
    return frozenset(range(1, CHGNET_ELEMENTS + 1)) if name == "chgnet" else None


def energies(calculator: Any, structures: Sequence[Structure], batch_size: int = 16) -> NDArray[np.float64]:
    """Single-point energies.

    CHGNet gets batches of its own, without forces and gradients: ten times faster than one by one through ASE.

    Args:
        calculator: From `make`.
        structures: n crystals.
        batch_size: Crystals in a batch of CHGNet's.

    Returns:
        (n,) in eV/atom; NaN where the calculator fails.
    """
    found = np.full(len(structures), np.nan)
    if not structures:
        return found
    model = getattr(calculator, "model", None)
    if type(calculator).__name__ == "CHGNetCalculator" and hasattr(model, "predict_graph"):
        sizes = np.array([len(structure) for structure in structures])
        for part in _batches(np.argsort(sizes, kind="stable"), batch_size):
            found[part] = _by_chgnet(model, [structures[i] for i in part])
        return found
    for i, structure in enumerate(structures):
        found[i] = _by_ase(calculator, structure)
    return found


def _batches(order: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _by_chgnet(model: Any, structures: list[Structure]) -> NDArray[np.float64]:
    import torch

    try:
        with torch.no_grad(), silent():
            graphs = [model.graph_converter(structure) for structure in structures]
            made = model.predict_graph(graphs, task="e", batch_size=len(graphs))
    except Exception:  # one bad crystal must not take its batch along
        if len(structures) == 1:
            return np.array([np.nan])
        return np.concatenate([_by_chgnet(model, [structure]) for structure in structures])
    rows = [made] if isinstance(made, dict) else made
    return np.array([float(row["e"]) for row in rows])


def _by_ase(calculator: Any, structure: Structure) -> float:
    from pymatgen.io.ase import AseAtomsAdaptor

    atoms: Any = AseAtomsAdaptor.get_atoms(structure)
    atoms.calc = calculator
    try:
        with silent():
            return float(atoms.get_potential_energy()) / len(atoms)
    except Exception:  # whatever a calculator raises, the crystal has no energy
        return float("nan")


@contextlib.contextmanager
def silent() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _package(module: str) -> Path | None:
    """Folder of a package, found without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None


def _version(distribution: str) -> str | None:
    return versions((distribution,)).get(distribution)


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _check_factory_name(name: str) -> None:
    if not _FACTORY.fullmatch(name):
        raise UserError(f"The calculator {name!r} is unknown: give {', '.join(KNOWN)} or module:factory.")
    module = name.partition(":")[0]
    try:
        found = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise UserError(
            f"The module of the calculator {name!r} cannot be found: install it, or put its folder into PYTHONPATH."
        )


def _from_factory(name: str, device: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
        takes_device = "device" in inspect.signature(factory).parameters
        made = factory(device=device) if takes_device else factory()
    except Exception as error:
        raise UserError(f"The calculator {name!r} cannot be made ({_brief(error)}).") from error
    if not hasattr(made, "get_potential_energy"):
        raise UserError(f"{name!r} made a {type(made).__name__}, which is no ASE calculator.")
    return made


def _chgnet(weights: Path, device: str) -> Any:
    from chgnet.model.dynamics import CHGNetCalculator  # type: ignore[import-not-found]
    from chgnet.model.model import CHGNet  # type: ignore[import-not-found]

    model = CHGNet.load(model_name=CHGNET_MODEL, use_device=device, verbose=False)
    return CHGNetCalculator(model=model, use_device=device, on_isolated_atoms="ignore")


def _sevenn(weights: Path, device: str) -> Any:
    from sevenn.calculator import SevenNetCalculator  # type: ignore[import-not-found]

    return SevenNetCalculator(str(weights), device=device)


def _mattersim(weights: Path, device: str) -> Any:
    from mattersim.forcefield.potential import MatterSimCalculator, Potential

    loader: Any = Potential
    potential = loader.from_checkpoint(load_path=str(weights), device=device, load_training_state=False)
    return MatterSimCalculator(potential=potential, device=device)


def _mace(weights: Path, device: str) -> Any:
    from mace.calculators import MACECalculator

    return MACECalculator(model_paths=str(weights), device=device, default_dtype="float64")


def _orb(weights: Path, device: str) -> Any:
    from orb_models.forcefield import pretrained  # type: ignore[import-not-found]
    from orb_models.forcefield.calculator import ORBCalculator  # type: ignore[import-not-found]

    made = pretrained.orb_v3_conservative_inf_omat(weights_path=str(weights), device=device, compile=False)
    return ORBCalculator(made, device=device)


def _in(folder: Path, pattern: str) -> Path | None:
    return next(iter(sorted(folder.glob(pattern))), None)


def _mace_weights(folder: Path) -> Path:
    inside = folder / "calculators" / "foundations_models" / "mace-mpa-0-medium.model"
    cached = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mace" / "macempa0mediummodel"
    return inside if inside.is_file() else cached


def _orb_weights(folder: Path) -> Path | None:
    return Path(os.environ[ORB_WEIGHTS]) if os.environ.get(ORB_WEIGHTS) else None


KNOWN = {
    "chgnet": _Known(
        "chgnet", "chgnet", CHGNET_MODEL, lambda folder: _in(folder, f"pretrained/{CHGNET_MODEL}/*.pth.tar"), _chgnet
    ),
    "sevenn": _Known(
        "sevenn",
        "sevenn",
        "7net-0_11Jul2024",
        lambda folder: _in(folder, "pretrained_potentials/SevenNet_0__11Jul*/*.pth"),
        _sevenn,
    ),
    "mattersim": _Known(
        "mattersim",
        "mattersim",
        "MatterSim-v1.0.0-1M",
        lambda folder: Path("~/.local/mattersim/pretrained_models/mattersim-v1.0.0-1M.pth").expanduser(),
        _mattersim,
        "put them there",
    ),
    "mace": _Known("mace", "mace-torch", "mace-mpa-0-medium", _mace_weights, _mace, "put them there"),
    "orb": _Known(
        "orb_models",
        "orb-models",
        "orb-v3-conservative-inf-omat",
        _orb_weights,
        _orb,
        f"set {ORB_WEIGHTS} to the file orb-v3-conservative-inf-omat-20250404.ckpt",
    ),
}
