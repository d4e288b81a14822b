"""What is right and what is wrong with this installation: versions, device, packages, recipes, descriptors."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mattergen_e import upstream
from mattergen_e.descriptors.registry import registered
from mattergen_e.doctor.report import Finding, Level, first_lines
from mattergen_e.errors import UserError

#: Versions that this release was run with, beside the requirements of the package, which are looser.
CHECKED = {
    "python": "==3.12.*",
    "mattergen-e": "",
    "mattergen": f"=={upstream.CHECKED_VERSION}",
    "torch": ">=2.15,<2.16",
    "pytorch-lightning": ">=2.6,<2.7",
    "torch-geometric": ">=2.8,<2.9",
    "hydra-core": ">=1.3.2,<1.4",
    "pymatgen": ">=2025.10,<2027",
    "numpy": ">=1.26,<2",
    "emmet-core": ">=0.88,<0.89",
    "baderkit": ">=0.10,<0.11",
    "mp-api": ">=0.47,<0.48",
    "xtalmet": "==1.0.*",
}

#: Packages that only some commands need, and what for.
OPTIONAL = {
    "baderkit": "needed for Bader charges of densities: `pip install --no-deps baderkit`, with the extra labels",
    "mp-api": "needed for downloads of the Materials Project (extra: labels)",
    "xtalmet": "needed for the validity and novelty of generated crystals",
}


# -- versions ---------------------------------------------------------------------------------------------------------


def check_versions() -> list[Finding]:
    """Versions of Python and of the packages that matter, against what is required and what was checked."""
    required = _requirements()
    return [_check_version(name, SpecifierSet(checked), required.get(name)) for name, checked in CHECKED.items()]


def _requirements() -> dict[str, SpecifierSet]:
    """Version ranges that mattergen-e's own metadata demands, by package."""
    try:
        metadata = importlib.metadata.metadata("mattergen-e")
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = {r.name: r.specifier for r in map(Requirement, metadata.get_all("Requires-Dist") or [])}
    return {**found, "python": SpecifierSet(metadata.get("Requires-Python") or "")}


def _check_version(name: str, checked: SpecifierSet, required: SpecifierSet | None) -> Finding:
    try:
        version = platform.python_version() if name == "python" else importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if name in OPTIONAL:
            return Finding("versions", name, "ok", f"not installed; {OPTIONAL[name]}")
        return Finding("versions", name, "problem", "not installed", _install(name, checked))
    if required is not None and not required.contains(version, prereleases=True):
        return Finding(
            "versions", name, "problem", f"{version}, but {required} is required", _install(name, checked or required)
        )
    if not checked.contains(version, prereleases=True):
        return Finding(
            "versions",
            name,
            "warning",
            f"{version}, which mattergen-e was not checked with ({checked})",
            f"Should anything fail: {_install(name, checked)}",
        )
    return Finding("versions", name, "ok", version)


def _install(name: str, versions: SpecifierSet) -> str:
    if name == "python":
        return f"Make an environment with Python {versions}, e.g. `uv venv --python 3.12`."
    alone = "--no-deps " if name == "mattergen" else ""  # its own requirements are on no registry
    return f"Install a checked version: `pip install {alone}'{name}{versions}'`."


# -- device -----------------------------------------------------------------------------------------------------------


def check_device() -> list[Finding]:
    """Threads of the CPU, and the GPUs that torch can use or why it can use none."""
    import torch

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    findings = [Finding("device", "CPU", "ok", f"{torch.get_num_threads()} threads of torch on {allowed} cores")]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            text = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
            findings.append(Finding("device", f"GPU {index}", "ok", text))
    elif torch.backends.mps.is_available():
        findings.append(Finding("device", "GPU", "ok", "Apple GPU (mps)"))
    else:
        findings.append(_no_gpu(has_nvidia_gpu(), torch.version.cuda))
    return findings


def has_nvidia_gpu() -> bool:
    """Whether this machine shows an NVIDIA GPU or driver, independently of torch."""
    return Path("/proc/driver/nvidia").exists() or Path("/dev/nvidiactl").exists() or bool(shutil.which("nvidia-smi"))


def _no_gpu(present: bool, cuda: str | None) -> Finding:
    """Why torch has no GPU, given whether the machine has one and the CUDA version that torch was built for."""
    built = f"torch is built for CUDA {cuda}" if cuda else "torch is built without CUDA"
    if not present:
        return Finding("device", "GPU", "ok", f"none: this machine shows no NVIDIA driver ({built})")
    if cuda is None:
        remedy = "Install torch for your driver's CUDA version: https://pytorch.org/get-started/locally."
        return Finding("device", "GPU", "warning", f"not used: {built}", remedy)
    remedy = f"Compare `nvidia-smi` with CUDA {cuda}: update the driver or install torch for an older CUDA."
    return Finding("device", "GPU", "warning", f"not used: {built}, but {_cuda_complaint()}", remedy)


def _cuda_complaint() -> str:
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return first_lines(error, 1)
    return "it finds no device (is CUDA_VISIBLE_DEVICES empty?)"


# -- packages ---------------------------------------------------------------------------------------------------------


def check_scatter() -> list[Finding]:
    """Whether torch_scatter and torch_sparse are the compiled packages or mattergen-e's replacements."""
    return [_check_extension(name) for name in ("torch_scatter", "torch_sparse")]


def _check_extension(name: str) -> Finding:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a compiled package that does not fit torch fails in many ways
        text = f"cannot be imported ({type(error).__name__}: {first_lines(error, 1)})"
        remedy = f"`pip uninstall {name.replace('_', '-')}`: mattergen-e then uses its own, in plain PyTorch."
        if importlib.util.find_spec(name) is None:
            remedy = "Install mattergen-e again: its replacement is missing as well."
        return Finding("packages", name, "problem", text, remedy)
    version = getattr(module, "__version__", "?")
    if version.endswith("+fallback"):
        return Finding("packages", name, "ok", "mattergen-e's replacement in plain PyTorch (runs on CPU and GPU)")
    return Finding("packages", name, "ok", f"compiled, {version}")


def check_mattergen() -> list[Finding]:
    """Whether MatterGen has its package data, or whose take their place."""
    try:
        pieces = upstream.package_data()
    except UserError as error:
        return [Finding("packages", "mattergen", "problem", str(error), "Run the command in the message.")]
    findings = []
    for piece in pieces:
        subject = f"MatterGen's {piece.name}"
        if piece.present:
            findings.append(_outdated_recipe(piece) or Finding("packages", subject, "ok", "complete"))
        elif piece.carried.exists():
            text = "missing in this installation of MatterGen; mattergen-e's copy is used"
            findings.append(Finding("packages", subject, "ok", text))
        else:
            remedy = "Install mattergen-e again, from its wheel or with `pip install -e .` in a checkout."
            findings.append(Finding("packages", subject, "problem", "missing, and so is mattergen-e's copy", remedy))
    return findings


def _outdated_recipe(piece: upstream.PackageData) -> Finding | None:
    """A warning where MatterGen's own recipes ask for what this torch has no more."""
    import torch

    file = piece.path / "lightning_module" / "default.yaml"
    recent = SpecifierSet(">=2.7").contains(torch.__version__.split("+")[0], prereleases=True)
    if not recent or not file.is_file() or "verbose" not in file.read_text():
        return None
    text = (
        f"complete, but with torch {torch.__version__} the recipes default, csp and finetune cannot train as they are"
    )
    remedy = "Use mattergen-e's recipes, or remove the line `verbose: true` from lightning_module/default.yaml."
    return Finding("packages", f"MatterGen's {piece.name}", "warning", text, remedy)


# -- recipes and descriptors ------------------------------------------------------------------------------------------


def check_hydra() -> list[Finding]:
    """Whether Hydra finds the plugin, and which recipes and sampling settings that makes visible."""
    importlib.import_module("mattergen")  # the plugin acts in MatterGen's applications only
    conf, sampling, *_ = upstream.package_data()
    findings = []
    for subject, piece in (("recipes", conf), ("sampling settings", sampling)):
        folder = _plugin_folder(piece.path)
        if folder is None:
            remedy = "Install mattergen-e with pip or uv (`pip install -e .` in a checkout), not by PYTHONPATH alone."
            findings.append(Finding("recipes", subject, "problem", "Hydra does not find mattergen-e's plugin", remedy))
            continue
        names = sorted(path.stem for path in folder.glob("*.yaml"))
        if names:
            findings.append(Finding("recipes", subject, "ok", ", ".join(names)))
        else:
            remedy = "Install mattergen-e again: its configuration files are missing."
            findings.append(Finding("recipes", subject, "problem", f"none in {folder}", remedy))
    return findings


def _plugin_folder(main: Path) -> Path | None:
    """The folder that the plugin appends for a host with this configuration folder; None if it is not asked."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_dir(str(main), version_base="1.1"):
        elements = GlobalHydra.instance().config_loader().get_search_path().get_path()
        found = next((element.path for element in elements if element.provider == "mattergen-e"), None)
    return Path(found.removeprefix("file://")) if found else None


def check_descriptors() -> list[Finding]:
    """The registered descriptors; a broken one of another package is a warning, one of ours a problem."""
    registrations = registered()
    if not registrations:
        remedy = "Install mattergen-e again: its entry points are missing."
        return [Finding("descriptors", "registered", "problem", "none", remedy)]
    findings = []
    for name, item in registrations.items():
        if item.problem is None:
            findings.append(Finding("descriptors", name, "ok", f"{item.target} ({item.package})"))
            continue
        level: Level = "problem" if item.package == "mattergen-e" else "warning"
        text = f"{item.target} of the package {item.package} cannot be used: {item.problem}"
        remedy = f"Repair or uninstall the package {item.package}."
        findings.append(Finding("descriptors", name, level, text, remedy))
    return findings


def check_published() -> list[Finding]:
    """Which of MatterGen's published checkpoints are on this machine."""
    from typing import get_args

    from huggingface_hub import try_to_load_from_cache
    from mattergen.common.utils.data_classes import PRETRAINED_MODEL_NAME

    files = "checkpoints/{}/checkpoints/last.ckpt", "checkpoints/{}/config.yaml"
    here = [
        name
        for name in get_args(PRETRAINED_MODEL_NAME)
        if all(isinstance(try_to_load_from_cache("microsoft/mattergen", f.format(name)), str) for f in files)
    ]
    text = ", ".join(here) or "none on this machine; naming one fetches it from the Hugging Face hub"
    return [Finding("packages", "published checkpoints", "ok", text)]
