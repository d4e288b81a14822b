"""One reverse step of a continuous field, from any time t to any time s before it, with one network call.

With the forward process x_t = a_t x_0 + (1 - a_t) mu + s_t eps, the network's score gives eps = -s_t score and so an
estimate of x_0; the field goes on as

    x_s = a_s x_0 + (1 - a_s) mu + s_s (rho eps + sqrt(1 - rho^2) z),
    rho = exp(-eta h),  h = log(s_t a_s / (s_s a_t)),  z fresh noise of the forward process.

mu is the mean of the cell at full noise, 0 for other fields; positions have a = 1 and are wrapped. The variance of the
noise at s is right for every rho (Song, Meng, Ermon 2021, eq. 12). eta = 0 keeps the noise (DDIM), eta = 1 is ancestral
sampling, the exact posterior of the forward process; above, noise is renewed faster, which is what correctors do, and
eta = inf draws all of it anew.

The cell's noise has six independent numbers, as in training. MatterGen's ancestral predictor draws one number for the
whole cell, in the shape of its coefficients (n_crystals, 1, 1), and so moves it along one direction only.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from mattergen.common.diffusion.corruption import LatticeVPSDE, make_noise_symmetric_preserve_variance
from mattergen.diffusion.corruption.sde_lib import SDE

from mattergen_e.types import Graphs


def advance(
    sde: SDE,
    x: torch.Tensor,
    score: torch.Tensor,
    *,
    t: torch.Tensor,
    s: torch.Tensor | None,
    eta: float,
    batch_idx: torch.Tensor | None,
    batch: Graphs | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One reverse step of a field.

    Args:
        sde: The forward process of the field.
        x: The field at time t, (n_rows, ...).
        score: The network's score there, of the same shape.
        t: (n_crystals,) times.
        s: (n_crystals,) times after the step, all before t; None: the end, where the estimate of x_0 is the result.
        eta: How fast the noise is renewed; 0 or more.
        batch_idx: Crystal of each row, (n_rows,); None where rows are crystals.
        batch: The crystals, which some processes depend on.

    Returns:
        The field at time s, and that without the fresh noise.
    """
    process: Any = sde
    alpha_t, sigma_t = process.mean_coeff_and_std(x=x, t=t, batch_idx=batch_idx, batch=batch)
    mu = process.get_limit_mean(x=x, batch=batch) if hasattr(process, "get_limit_mean") else 0.0
    eps = -sigma_t * score
    x0 = (x - (1 - alpha_t) * mu - sigma_t * eps) / alpha_t
    if s is None:
        end = process.wrap(x0) if hasattr(process, "wrap") else x0
        return end, end
    alpha_s, sigma_s = process.mean_coeff_and_std(x=x, t=s, batch_idx=batch_idx, batch=batch)
    h = torch.log(sigma_t * alpha_s / (sigma_s * alpha_t)).clamp(min=0)  # rounding, in tiny steps
    kept, fresh = renewal(h, eta)
    mean = alpha_s * x0 + (1 - alpha_s) * mu + sigma_s * kept * eps
    sample = mean + sigma_s * fresh * noise_like(sde, x)
    return (process.wrap(sample), process.wrap(mean)) if hasattr(process, "wrap") else (sample, mean)


def renewal(h: torch.Tensor, eta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors of the old and of the fresh noise, rho and sqrt(1 - rho^2), over a step of length h."""
    if math.isinf(eta):
        return torch.zeros_like(h), torch.ones_like(h)
    return torch.exp(-eta * h), torch.sqrt((-torch.expm1(-2 * eta * h)).clamp(min=0))


def noise_like(sde: SDE, x: torch.Tensor) -> torch.Tensor:
    """Noise of unit variance of a forward process, in the shape of a field; a cell's is symmetric."""
    noise = torch.randn_like(x)
    return make_noise_symmetric_preserve_variance(noise) if isinstance(sde, LatticeVPSDE) else noise
