"""The noise that a predictor of noised crystals was trained on: it may guide a model that noises its crystals so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from mattergen_e.errors import UserError

#: Settings of the noise, plain values, by field of the structure and name.
Noise = dict[str, dict[str, Any]]

#: Largest relative difference of two numbers that count as the same.
TOLERANCE = 1e-6


def describe_noise(corruption: Any) -> Noise:
    """What there is to tell of the noise of a diffusion model.

    Args:
        corruption: MatterGen's `MultiCorruption`, or that of a joint model, whose descriptors are left out.

    Returns:
        By field of the structure: the kind of noise, its limits and rates. For elements the number of steps, and the
        shares `kept` of sites that still show their element after a quarter, half and three quarters of them.
    """
    discrete = corruption.discrete_corruptions
    fields = getattr(corruption, "structure_fields", corruption.corrupted_fields)
    return {
        name: _steps(discrete[name]) if name in discrete else _settings(corruption.sdes[name])
        for name in sorted(fields)
    }


def _settings(sde: Any) -> dict[str, Any]:
    """Numbers and words of a continuous noise."""
    given = {name.lstrip("_"): v.tolist() if isinstance(v, Tensor) else v for name, v in vars(sde).items()}
    plain = {name: value for name, value in given.items() if isinstance(value, float | int | str | list | None)}
    return {"kind": type(sde).__name__, **dict(sorted(plain.items()))}


def _steps(corruption: Any) -> dict[str, Any]:
    """Numbers of a discrete noise."""
    noise, steps = corruption.d3pm, int(corruption.N)
    told = {"kind": type(noise).__name__, "dim": int(noise.dim), "offset": int(corruption.offset), "steps": steps}
    kept = getattr(noise, "state", None)
    if isinstance(kept, Tensor) and len(kept) == steps + 1:
        told["kept"] = [round(float(kept[part * steps // 4]), 6) for part in (1, 2, 3)]
    return told


def require_same_noise(trained: Noise | None, guided: Noise, folder: str | Path) -> None:
    """Stop when a predictor was trained on other noise than that of the model that it is to guide.

    Args:
        trained: Of the predictor; None, which predictors of before have, is taken for the same.
        guided: Of the model.
        folder: Of the predictor.

    Raises:
        UserError: At the first difference.
    """
    for field in sorted({*trained, *guided} if trained is not None else ()):
        one, other = (trained or {}).get(field, {}), guided.get(field, {})
        for key in ("kind", *sorted({*one, *other} - {"kind"})):
            if not _same(one.get(key), other.get(key)):
                raise UserError(
                    f"{folder} was trained on crystals that are noised otherwise than those of this model ({field}: "
                    f"{key} {one.get(key)}, here {other.get(key)}): train a predictor with --noisy and --encoder of "
                    "the model that is guided."
                )


def _same(one: Any, other: Any) -> bool:
    """Whether two settings are equal, numbers but for rounding."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float | int) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=TOLERANCE)
    return one == other
