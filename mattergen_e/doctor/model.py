"""What a trained model holds, and whether this installation can build and load it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mattergen_e import upstream
from mattergen_e.descriptors.registry import registered
from mattergen_e.doctor.report import Finding, ModelSummary, first_lines
from mattergen_e.errors import UserError
from mattergen_e.upstream.models import load_model

#: Packages whose code a model's configuration may name; those of registered descriptors come in addition.
TRUSTED_PACKAGES = frozenset({"mattergen", "mattergen_e", "torch"})


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
