"""Generation in any number of network calls: every field by its reverse step from any time to any earlier one."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from mattergen.diffusion.sampling.pc_sampler import _mask_replace
from tqdm.auto import tqdm

from mattergen_e.diffusion.masks import MaskChain
from mattergen_e.diffusion.plan import Plan
from mattergen_e.diffusion.rule import advance
from mattergen_e.diffusion.sampler import JointSampler

#: Parts of the whole diffusion time over which the schedule of a constraint is summed, so that it means the same at any
#: number of network calls.
CONSTRAINT_STEPS = 200


class FastSampler(JointSampler):
    """As `JointSampler`, with steps over the times of a plan in place of MatterGen's predictors and correctors.

    Attributes:
        plan: Times, and how fast the noise is renewed.
    """

    def __init__(self, *, plan: Plan, **arguments: Any) -> None:
        """Makes a sampler.

        Args:
            plan: Times, and how fast the noise is renewed.
            **arguments: As of `JointSampler`; predictors and correctors are ignored.

        Raises:
            UserError: If the types of the model are noised by other things than masks.
        """
        # MatterGen's constructor wants some predictor or corrector
        arguments |= {"predictor_partials": {"pos": _no_step}, "corrector_partials": None, "n_steps_corrector": 0}
        super().__init__(**arguments)
        self._predictors, self._correctors = {}, {}
        self.plan = plan
        self._chains = {name: MaskChain(c) for name, c in self._multi_corruption.discrete_corruptions.items()}

    def steps_record(self) -> dict[str, Any]:
        """What run.json says of the steps, and a resumed run must have in common with the run that it resumes."""
        return self.plan.record()

    @torch.no_grad()
    def _denoise(self, batch: Any, mask: Any, record: bool = False) -> Any:
        """From pure noise, or from what is held at the start, to crystals; as MatterGen's, gives sample and mean.

        The times are numbers of the host, so that no step waits for a GPU to tell them.
        """
        end, times = float(self._multi_corruption.T), self.plan.since(self.held.time)
        batch = self.held.start(batch, times[0] * end)
        rows = self._multi_corruption._get_batch_indices(batch)
        for name, chain in self._chains.items():
            chain.begin(batch[name], rows[name], times[0])
        fields = {**dict.fromkeys(self._multi_corruption.corrupted_fields), **mask}
        mean, recorded = batch.clone(), [] if record else None
        for before, after in tqdm([*pairwise(times)], mininterval=5):
            t = torch.full((batch.get_batch_size(),), before * end, device=self._device)
            score = self._score_fn(batch, t)
            moved = self._moved(batch, score, rows, before, after)
            if recorded is not None:
                recorded.append(batch.clone().to("cpu"))
            batch, mean = _mask_replace(samples_means=moved, batch=batch, mean_batch=mean, mask=fields)
        return self.held.finish(batch), self.held.finish(mean), recorded

    def _moved(
        self, batch: Any, score: Any, rows: dict[str, Any], before: float, after: float
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Sample and mean of all fields after a step between two shares of the diffusion time."""
        end, holds = float(self._multi_corruption.T), self.held.holds()
        fields = self._multi_corruption.sdes
        moved = {name: self._continuous(name, batch, score[name], rows[name], before, after) for name in fields}
        for name, chain in self._chains.items():
            types = self.held.settle(batch[name], chain.advance(batch[name], score[name], after), score[name])
            moved[name] = (types, types)
        for name, hold in holds.items():
            if name not in self.descriptors:  # what is held of those is held before their constraint
                sample, mean = moved[name]
                moved[name] = hold(sample, after * end), hold(mean, after * end)
        return moved

    def _continuous(
        self, name: str, batch: Any, score: torch.Tensor, rows: torch.Tensor | None, before: float, after: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample and mean of one continuous field after a step, with its descriptor's constraint, guarded."""
        end = float(self._multi_corruption.T)

        def at(share: float) -> torch.Tensor:
            return torch.full((batch.get_batch_size(),), share * end, device=self._device)

        results = advance(
            self._multi_corruption.sdes[name],
            batch[name],
            score,
            t=at(before),
            s=at(after) if after > 0 else None,
            eta=self.plan.eta_of(name),
            batch_idx=rows,
            batch=batch,
        )
        if name in self.descriptors and rows is not None:
            results = tuple(self._constrained(name, x, rows, before, after) for x in results)
        sample, mean = (self.guard.clean(name, x, rows) for x in results)
        return sample, mean

    def _constrained(self, name: str, x: torch.Tensor, rows: torch.Tensor, before: float, after: float) -> torch.Tensor:
        """A descriptor with its constraint, and what is held of it, in as many parts as a long pass would have."""
        constrain = self.held.after_step(self.descriptors[name])
        parts = math.ceil((before - after) * CONSTRAINT_STEPS)
        for i in range(1, parts + 1):
            share = after if i == parts else before - (before - after) * i / parts
            x = constrain(x, s=1.0 - share, ds=(before - after) / parts, batch_idx=rows)
        return x


def _no_step(corruption: Any, score_fn: Any = None) -> None:
    """In the place of a predictor."""
