"""Reverse steps of the diffusion of masks over any times: the atom types of the sites.

In the forward process a site keeps its type up to time t with the probability a(t), else it is masked and stays so. So
of the sites that are masked at t, the share (a(s) - a(t)) / (1 - a(t)) shows its type at s < t: the exact posterior of
the chain, however many of its trained steps are skipped. Each site gets a random number U, uniform from a(t) to 1 where
the generation starts at t, and shows its type as soon as a(s) exceeds U, which has that probability at every step.

The numbers of the sites of a crystal are stratified: in a random order, one falls into each of as many equal parts.
Each site's own number is uniform, and fewer sites fall in one step, knowing nothing of each other.
"""

from __future__ import annotations

from typing import Any

import torch
from mattergen.diffusion.d3pm.d3pm import MaskDiffusion

from mattergen_e.errors import UserError

#: Logit of what cannot be drawn, as MatterGen's.
RULED_OUT = -1e10


class MaskChain:
    """One field of types on its way from masks to types."""

    def __init__(self, corruption: Any) -> None:
        """Takes the forward process, a `D3PMCorruption`.

        Raises:
            UserError: If it is none of masks.
        """
        chain: Any = corruption.d3pm
        if not isinstance(chain, MaskDiffusion):
            raise UserError(
                f"this model's atom types have the diffusion {type(chain).__name__}, not that of masks: set "
                "sampler_partial.steps to null."
            )
        self.corruption = corruption
        self.mask = chain.dim - 1
        self._survival: list[float] = chain.state.double().tolist()
        self._threshold = torch.empty(0)

    def survival(self, share: float) -> float:
        """Probability that a site is not masked at a share of the diffusion time; linear between trained steps."""
        place = min(max(share, 0.0), 1.0) * self.corruption.N
        low = min(int(place), self.corruption.N - 1)
        first, second = self._survival[low : low + 2]
        return first + (place - low) * (second - first)

    def begin(self, x: torch.Tensor, crystals: torch.Tensor, share: float) -> None:
        """Starts with types (n_sites,) at a share of the diffusion time; `crystals` has the crystal of each site."""
        masked = self._masked(x)
        # masked sites of a crystal in a random order: sorted by crystal, then unmasked ones last, then a random number
        chance = torch.rand(len(x), device=x.device, dtype=torch.float64)
        order = torch.argsort(2 * crystals.double() + torch.where(masked, 0.0, 1.0) + 0.999 * chance)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(x), device=x.device))
        counts = torch.zeros(2, len(x) + 1, device=x.device, dtype=torch.long)
        counts[0].index_add_(0, crystals, torch.ones_like(crystals))
        counts[1].index_add_(0, crystals, masked.long())
        first = counts[0].cumsum(0) - counts[0]
        rank, among = place - first[crystals], counts[1][crystals].clamp(min=1)
        low = self.survival(share)
        self._threshold = low + (1 - low) * (rank + torch.rand(len(x), device=x.device)) / among

    def advance(self, x: torch.Tensor, logits: torch.Tensor, share: float) -> torch.Tensor:
        """Types (n_sites,) at an earlier share of the diffusion time, at 0 without masks.

        Args:
            x: Types before.
            logits: The network's, of the clean types, (n_sites, n_types).
            share: Share of the diffusion time after the step.
        """
        possible = logits.clone()
        possible[:, self.mask] = RULED_OUT
        # as a draw of the categorical distribution, which would make a GPU wait for its checks
        drawn = (possible - torch.empty_like(possible).exponential_().log()).argmax(dim=1)
        drawn = self.corruption._to_non_zero_based(drawn)
        falls = self._masked(x) if share <= 0 else self._masked(x) & (self._threshold < self.survival(share))
        return torch.where(falls, drawn, x)

    def _masked(self, x: torch.Tensor) -> torch.Tensor:
        return self.corruption._to_zero_based(x) == self.mask
