"""Batches that do not fit the memory: said in one sentence, or drawn in parts."""

from __future__ import annotations

import sys
from typing import Any

import torch
from mattergen.common.data.collate import collate

from mattergen_e.diffusion.sampler import JointSampler
from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import seed_batch
from mattergen_e.generation.results import BatchResult, is_healthy, to_crystals
from mattergen_e.upstream import is_out_of_memory, memory_sentence

HALVE = "sampler_partial.output.halve=true"


class Fitting:
    """Draws batches, in parts if need be and `sampler.output.halve` allows it.

    Attributes:
        largest: Crystals that are drawn at a time; None as long as whole batches fit.
    """

    def __init__(self, sampler: JointSampler) -> None:
        self.sampler = sampler
        self.largest: int | None = None

    def sample(self, conditions: Any, seed: int, batch: int) -> BatchResult:
        """Draws one batch; a part depends on the seed, the batch and its first crystal.

        Raises:
            UserError: If the batch does not fit the memory and may not be halved, or if one crystal does not fit.
        """
        graphs = conditions.to_data_list()
        whole = BatchResult([], [], [])
        first = 0
        while first < len(graphs):
            size = min(self.largest or len(graphs), len(graphs) - first)
            part = conditions if size == len(graphs) else collate(graphs[first : first + size])
            drawn = self._try(part, size, seed, batch, first)
            if drawn is None:
                self.largest = (size + 1) // 2
                continue
            whole.crystals += drawn.crystals
            whole.redraws += drawn.redraws
            whole.trajectories += drawn.trajectories
            first += size
        return whole

    def _try(self, conditions: Any, size: int, seed: int, batch: int, first: int) -> BatchResult | None:
        """A part of a batch; None if it has to be halved."""
        try:
            return sample_batch(self.sampler, conditions, seed, batch, first)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            sentence = memory_sentence(error, size)
        if size == 1:
            raise UserError(sentence)
        if not self.sampler.output.halve:
            raise UserError(f"{sentence.rstrip('.')}, or add {HALVE} to --sampling_config_overrides, which halves it.")
        print(f"mattergen-e: {sentence} Going on with {(size + 1) // 2} at a time.", file=sys.stderr)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def sample_batch(sampler: JointSampler, conditions: Any, seed: int, batch: int, first: int = 0) -> BatchResult:
    """Draws one batch, and draws anew what came out degenerate, up to `sampler.output.redraws` rounds.

    Args:
        sampler: The sampler.
        conditions: What the crystals are asked for.
        seed: Seed of the run.
        batch: Number of the batch.
        first: Place of the first crystal in the batch, of which this may be a part.
    """
    graphs = conditions.to_data_list()
    result = BatchResult([None] * len(graphs), [0] * len(graphs), [])
    pending = list(range(len(graphs)))
    for attempt in range(sampler.output.redraws + 1):
        seed_batch(seed, batch, attempt, first)
        data = collate([graphs[i] for i in pending])
        if sampler.output.trajectories and attempt == 0:
            _, mean, steps = sampler.sample_with_record(data, None)
            result.trajectories = _by_crystal(steps)
        else:
            _, mean = sampler.sample(data, None)
        healthy = is_healthy(mean, sampler.guard.parked, sampler.guard.largest_volume, sampler.descriptors).tolist()
        left = []
        for i, good, drawn in zip(pending, healthy, to_crystals(mean, sampler.descriptors, healthy), strict=True):
            if good:
                result.crystals[i] = drawn
                result.redraws[i] = attempt
            else:
                left.append(i)
        pending = left
        if not pending:
            break
    for i in pending:
        result.redraws[i] = sampler.output.redraws
    return result


def _by_crystal(steps: list[Any]) -> list[list[Any]]:
    """Recorded batches as one list of states per crystal."""
    per_step = [step.to_data_list() for step in steps]
    return [list(states) for states in zip(*per_step, strict=True)]
