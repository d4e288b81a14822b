"""What is right and what is wrong with this installation and with a trained model: `mattergen-e doctor`."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mattergen_e import upstream
from mattergen_e.console import quiet
from mattergen_e.errors import UserError

Level = Literal["ok", "warning", "problem"]

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
    "xtalmet": "==1.0.*",
    "emmet-core": ">=0.88,<0.89",
}

#: Packages whose code a model's configuration may name; those of registered descriptors come in addition.
TRUSTED_PACKAGES = frozenset({"mattergen", "mattergen_e", "torch"})


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: Group of findings.
        subject: What was looked at.
        level: 'ok'; 'warning' where something may not work; 'problem' where something does not.
        text: What was found.
        remedy: What to do about a warning or problem.
    """

    section: str
    subject: str
    level: Level
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.level != "ok" and not self.remedy:
            raise ValueError(f"the finding '{self.subject}' is a {self.level} and names no remedy")


@dataclass(frozen=True)
class ModelSummary:
    """What a folder with a trained model holds, as its configuration and its checkpoint tell."""

    path: str
    fields: list[str]
    descriptors: dict[str, str]
    properties: list[str]
    hidden_dim: int | None
    blocks: int | None
    steps: int | None
    parameters: int | None = None
    epoch: int | None = None
    global_step: int | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All findings, and the model if one was asked for."""

    findings: list[Finding]
    model: ModelSummary | None = None

    @property
    def healthy(self) -> bool:
        """Whether there is no problem; warnings are allowed."""
        return all(finding.level != "problem" for finding in self.findings)


def examine(model_path: str | Path | None = None) -> Report:
    """Runs every check.

    Args:
        model_path: Folder of a trained model to look at as well.
    """
    findings = [*check_versions()]
    with quiet():
        for check in CHECKS:
            findings += _guarded(check)
        if model_path is None:
            return Report(findings)
        summary, of_model = check_model(model_path)
    return Report([*findings, *of_model], summary)


def _guarded(check: Any) -> list[Finding]:
    """Findings of a check; an error inside it is a finding as well, so that the others still run."""
    try:
        return check()
    except Exception as error:
        name = check.__name__.removeprefix("check_")
        text = f"the check failed: {type(error).__name__}: {first_lines(error)}"
        return [Finding(name, name, "problem", text, "Repair the packages named above, then run this command again.")]


def first_lines(error: BaseException, limit: int = 2) -> str:
    """The first lines of an error's message, in one line."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return " ".join(lines[:limit]) or type(error).__name__


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
    from mattergen_e.descriptors.registry import registered

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


#: What `examine` runs after the versions, in this order.
CHECKS = (check_device, check_scatter, check_mattergen, check_published, check_hydra, check_descriptors)


# -- a trained model --------------------------------------------------------------------------------------------------


def check_model(path: str | Path) -> tuple[ModelSummary | None, list[Finding]]:
    """What a trained model holds and whether this installation can build and load it.

    Args:
        path: Folder that holds `config.yaml` and `checkpoints/`.

    Returns:
        The summary, as far as it can be read, and the findings.
    """
    folder = Path(path).expanduser().resolve()
    remedy = "Give the folder that holds config.yaml and checkpoints/: the run folder of a training."
    try:
        config = _read_config(folder)
        summary = summarise(folder, config)
    except UserError as error:
        return None, [Finding("model", str(path), "problem", str(error), remedy)]
    findings = [Finding("model", "config.yaml", "ok", "readable")]
    try:
        summary = _with_checkpoint(summary, folder)
    except UserError as error:
        # what cannot be read safely is not handed to the loader, which might be less careful
        return summary, [*findings, Finding("model", "checkpoint", "problem", str(error), remedy)]
    findings.append(Finding("model", "checkpoint", "ok", "weights and plain data only"))
    foreign = foreign_code(config)
    if foreign:
        text = f"config.yaml names code that neither MatterGen nor a registered descriptor has: {', '.join(foreign)}"
        trust = "Not built. If you trust the model, install the package that registers it as a descriptor."
        return summary, [*findings, Finding("model", "loading", "problem", text, trust)]
    parameters, loading = _load(folder)
    return replace(summary, parameters=parameters), [*findings, loading]


def _read_config(folder: Path) -> dict[str, Any]:
    """The configuration as it stands in the file, nothing resolved."""
    import yaml

    file = folder / "config.yaml"
    if not file.is_file():
        raise UserError(f"{folder} has no config.yaml.")
    try:
        config = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{file} cannot be read: {first_lines(error)}.") from None
    if not isinstance(config, dict) or not isinstance(config.get("lightning_module"), dict):
        raise UserError(f"{file} is not the configuration of a MatterGen model: it has no lightning_module.")
    return config


def _get(config: Any, *keys: str) -> Any:
    """A value by its path; None where the path ends early."""
    for key in keys:
        config = config.get(key) if isinstance(config, dict) else None
    return config


def summarise(folder: Path, config: dict[str, Any]) -> ModelSummary:
    """What a model's configuration tells.

    Args:
        folder: Where the configuration is.
        config: Content of `config.yaml`.
    """
    lightning = config["lightning_module"]
    module = _get(lightning, "diffusion_module")
    denoiser = _get(module, "model")
    if not isinstance(denoiser, dict):
        raise UserError(f"{folder / 'config.yaml'} has no lightning_module.diffusion_module.model.")
    discrete = _get(module, "corruption", "discrete_corruptions") or {}
    descriptors = {name: _get(d, "_target_") or "?" for name, d in (_get(lightning, "descriptors") or {}).items()}
    return ModelSummary(
        path=str(folder),
        fields=[*(_get(module, "corruption", "sdes") or {}), *discrete, *descriptors],
        descriptors=descriptors,
        properties=[
            name for key in ("property_embeddings", "property_embeddings_adapt") for name in denoiser.get(key) or {}
        ],
        hidden_dim=denoiser.get("hidden_dim"),
        blocks=_get(denoiser, "gemnet", "num_blocks"),
        steps=_get(discrete, "atomic_numbers", "d3pm", "schedule", "num_steps"),
    )


def _with_checkpoint(summary: ModelSummary, folder: Path) -> ModelSummary:
    """Adds what the last checkpoint records of its training."""
    last = next((path for path in sorted(folder.rglob("*.ckpt")) if path.name == "last.ckpt"), None)
    if last is None:
        raise UserError(f"{folder} holds no last.ckpt.")
    content = upstream.load_checkpoint(last)
    if not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{last} holds no weights (state_dict).")
    versions = {"pytorch-lightning": content.get("pytorch-lightning_version"), **(_recorded_versions(content) or {})}
    return replace(
        summary,
        epoch=content.get("epoch"),
        global_step=content.get("global_step"),
        versions={name: str(version) for name, version in versions.items() if version is not None},
    )


def _recorded_versions(content: dict[str, Any]) -> dict[str, Any] | None:
    """The versions that mattergen-e's training records in a checkpoint; None in other checkpoints."""
    versions = _get(content, "mattergen_e", "versions")
    return versions if isinstance(versions, dict) else None


def foreign_code(config: dict[str, Any]) -> list[str]:
    """Targets and expressions that building the model would run, and that are not of MatterGen or a descriptor.

    A configuration is as powerful as a script: building a model calls whatever its `_target_` entries name.

    Args:
        config: Content of `config.yaml`.
    """
    from mattergen_e.descriptors.registry import registered

    trusted = TRUSTED_PACKAGES | {item.target.split(".")[0].split(":")[0] for item in registered().values()}
    suspicious = []
    for key, value in _strings(config["lightning_module"]):
        unknown = key == "_target_" and value.split(".")[0] not in trusted
        if unknown or ("${" in value and "eval" in value):
            suspicious.append(value)
    return sorted(set(suspicious))


def _strings(value: Any, key: str = "") -> Iterable[tuple[str, str]]:
    """All strings of nested dictionaries and lists, with the key that they stand under."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _strings(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)
    elif isinstance(value, str):
        yield key, value


def _load(folder: Path) -> tuple[int | None, Finding]:
    """Builds the model and loads its weights strictly, as MatterGen's commands do; the number of its parameters."""
    from mattergen_e.models import load_model

    remedy = "Use the versions that the model was trained with, or train it anew with this installation."
    try:
        model = load_model(folder, device="cpu")
    except UserError as error:
        cause = error.__cause__
        text = f"{error} [{type(cause).__name__}: {first_lines(cause, 3)}]" if cause is not None else str(error)
        if cause is not None and "Error locating target" in str(cause):
            remedy = "Install the package that has the missing class, or a version of it that still has it."
        return None, Finding("model", "loading", "problem", text, remedy)
    except Exception as error:
        text = f"building the model failed: {type(error).__name__}: {first_lines(error)}"
        return None, Finding("model", "loading", "problem", text, remedy)
    parameters = sum(p.numel() for p in model.parameters())
    return parameters, Finding("model", "loading", "ok", "this installation builds it and loads all its weights")
