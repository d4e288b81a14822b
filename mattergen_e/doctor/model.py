"""What a trained model holds, and whether this installation can build and load it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mattergen_e import upstream
from mattergen_e.doctor.report import Finding, ModelSummary, first_lines
from mattergen_e.errors import UserError
from mattergen_e.upstream import trust
from mattergen_e.upstream.models import load_model


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
        config = trust.read_plain(folder)
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
    foreign = [] if trust.trusted() else trust.foreign(config)
    if foreign:
        text = f"config.yaml names code that no model of MatterGen or a descriptor needs: {'; '.join(foreign)}"
        advice = "Not built. If you trust the model, add --trust, or install the package that registers its descriptor."
        return summary, [*findings, Finding("model", "loading", "problem", text, advice)]
    parameters, loading = _load(folder)
    return replace(summary, parameters=parameters), [*findings, loading]


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
