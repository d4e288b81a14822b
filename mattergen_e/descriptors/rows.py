"""Rows of a field in a batch: which crystal each belongs to, and how rows and sites hear of each other."""

from __future__ import annotations

import torch

from mattergen_e.crystals.quantity import Place
from mattergen_e.types import Graphs


def rows_per_crystal(place: Place, probes: tuple[int, int, int], num_atoms: torch.Tensor) -> torch.Tensor:
    """Number of rows of each crystal, shape (n_crystals,); `num_atoms` has the sites of each."""
    if place == "site":
        return num_atoms
    each = 1 if place == "crystal" else probes[0] * probes[1] * probes[2]
    return torch.full_like(num_atoms, each)


def crystal_of_rows(place: Place, probes: tuple[int, int, int], batch: Graphs) -> torch.Tensor:
    """Crystal of each row, shape (n_rows,), of a batch that need not hold the field yet."""
    if place == "site":
        return batch.get_batch_idx("pos")
    counts = rows_per_crystal(place, probes, batch["num_atoms"])
    return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)


def probe_positions(probes: tuple[int, int, int], device: torch.device | None = None) -> torch.Tensor:
    """Fractional positions of the probes of a grid, c running fastest, shape (n_probes, 3)."""
    axes = [torch.arange(n, device=device) / n for n in probes]
    return torch.cartesian_prod(*axes)


def any_of_crystal(condition: torch.Tensor, crystals: torch.Tensor, n_crystals: int) -> torch.Tensor:
    """Whether a condition (n_rows,) holds at any row of a crystal, shape (n_crystals,)."""
    return torch.zeros(n_crystals, device=condition.device).index_add_(0, crystals, condition.float()) > 0
