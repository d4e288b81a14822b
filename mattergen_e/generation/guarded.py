"""MatterGen's own samplers with a guard: a crystal that its network cannot be evaluated on does not end the run."""

from __future__ import annotations

import sys
from typing import Any

import torch

from mattergen_e.crystals.graphs import structure_rows
from mattergen_e.diffusion.predictors import CrystalGuard
from mattergen_e.diffusion.sampler import JointSampler
from mattergen_e.upstream import is_out_of_memory

#: What is not moved of a crystal that is held.
FIELDS = ("pos", "cell")


class ScoreGuard:
    """Stands before the scores of one of MatterGen's samplers, and does nothing until the network raises.

    GemNet raises for a whole batch if one of its crystals has no two sites within the cutoff, or no three. From then on
    such a crystal has a cube of ordinary density whenever the network is evaluated, and the network does not move it;
    the others get the scores that they would have had without it.

    Attributes:
        degenerate: Number of crystals of the run that were held so.
    """

    def __init__(self, sampler: Any) -> None:
        """Takes a sampler whose denoiser is MatterGen's; its scores pass the guard from now on."""
        self.sampler = sampler
        self.original = sampler._score_fn
        self.guard = CrystalGuard(float(sampler.diffusion_module.model.gemnet.cutoff))
        self.degenerate = 0
        self._last = torch.inf
        sampler._score_fn = self.score

    def score(self, x: Any, t: torch.Tensor) -> Any:
        """The score of a batch at times t (n_crystals,)."""
        if float(t[0]) > self._last or len(self.guard.parked) != len(x["num_atoms"]):
            self._begin(x)
        self._last = float(t[0])
        if not bool(self.guard.parked.any()):
            try:
                return self.original(x, t)
            except (IndexError, RuntimeError) as error:
                if is_out_of_memory(error):
                    raise
                lonely = self._lonely(x)
                if not bool(lonely.any()):
                    raise
                self._park(lonely)
        return self._without(x, t)

    def _without(self, x: Any, t: torch.Tensor) -> Any:
        """The score with the parked crystals in their cubes, where it is zero."""
        held = self._held(x)
        try:
            score = self.original(held, t)
        except (IndexError, RuntimeError) as error:
            lonely = self._lonely(held) & ~self.guard.parked
            if is_out_of_memory(error) or not bool(lonely.any()):
                raise
            self._park(lonely)
            score = self.original(self._held(x), t)
        changes = {}
        for name in FIELDS:
            parked = self.guard.parked[structure_rows(name, x)].reshape(-1, *[1] * (score[name].dim() - 1))
            changes[name] = torch.where(parked, torch.zeros_like(score[name]), score[name])
        return score.replace(**changes)

    def _held(self, x: Any) -> Any:
        """The batch with the parked crystals in their cubes."""
        cell = torch.where(self.guard.parked[:, None, None], self.guard.cube.to(x["cell"]), x["cell"])
        return x.replace(cell=cell)

    def _lonely(self, x: Any) -> torch.Tensor:
        return JointSampler._without_neighbours(self.sampler, x)

    def _begin(self, x: Any) -> None:
        self.guard.begin(x["num_atoms"])

    def _park(self, lonely: torch.Tensor) -> None:
        self.guard.park(lonely)
        count = int(lonely.sum())
        self.degenerate += count
        anew = "atomic_numbers" in self.sampler.diffusion_module.corruption.corrupted_fields
        print(
            f"mattergen-e: {count} of {len(lonely)} crystals of a batch have no neighbouring sites, and come out as no "
            "crystals" + (": --sampling_config_name=joint draws such crystals anew." if anew else "."),
            file=sys.stderr,
        )


def guard(sampler: Any) -> None:
    """Puts a guard before one of MatterGen's samplers; ours have their own, and other networks are left alone."""
    gemnet = getattr(sampler.diffusion_module.model, "gemnet", None)
    if not isinstance(sampler, JointSampler) and gemnet is not None:
        ScoreGuard(sampler)
