"""Sampling a joint model: MatterGen's guided predictor-corrector with the descriptors that the model brings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from mattergen.denoiser import mask_disallowed_elements
from mattergen.diffusion.lightning_module import DiffusionLightningModule
from mattergen.diffusion.sampling.classifier_free_guidance import GuidedPredictorCorrector

from mattergen_e.crystals.graphs import structure_rows
from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.classifier import Classifier
from mattergen_e.diffusion.held import Held
from mattergen_e.diffusion.placed import HeldCell, check_volume
from mattergen_e.diffusion.predictors import CrystalGuard, DescriptorPredictor, Guarded
from mattergen_e.diffusion.settings import reverse_steps, volume_bounds
from mattergen_e.errors import UserError
from mattergen_e.types import Graphs
from mattergen_e.upstream.graphs import shared_graph


@dataclass(frozen=True)
class OutputSettings:
    """What to do with results: `existing` is 'refuse', 'resume' or 'overwrite'; `redraws` of degenerate crystals.

    `halve`: whether a batch that does not fit the memory is drawn in parts.
    """

    existing: Literal["refuse", "resume", "overwrite"] = "refuse"
    trajectories: bool = False
    redraws: int = 3
    halve: bool = False

    def __post_init__(self) -> None:
        if self.existing not in ("refuse", "resume", "overwrite"):
            raise UserError(
                f"sampler_partial.output.existing is '{self.existing}': use 'refuse', 'resume' or 'overwrite'."
            )


class JointSampler(GuidedPredictorCorrector):
    """Generates structures and descriptors together; also samples a model that has no descriptors.

    Attributes:
        descriptors: The model's descriptors by field name.
        guard: Reports which crystals of the last batch became degenerate (`guard.parked`).
        held: What is held while the rest is generated.
        classifier: What pulls the scores towards spectra; None: nothing does.
        output: What the command does with the results.
        volume_per_site: Bounds in cubic angstrom that cells are held to during sampling.
    """

    def __init__(
        self,
        *,
        descriptors: Mapping[str, Descriptor],
        cutoff: float,
        output: OutputSettings,
        volume_per_site: Sequence[float | None] = (0.5, None),
        held: Held | None = None,
        classifier: Classifier | None = None,
        **arguments: Any,
    ) -> None:
        self.classifier = classifier
        self.held = Held() if held is None else held
        partials = dict(arguments.pop("predictor_partials") or {})
        for name, descriptor in descriptors.items():
            after_step = self.held.after_step(descriptor)
            make = partial(DescriptorPredictor, descriptor=descriptor, after_step=after_step)
            partials[name] = _without_score_fn(make)
        super().__init__(predictor_partials=partials, **arguments)
        if self._guidance_scale != 0:  # without guidance what is given is given all the same
            remove = self._remove_conditioning_fn
            self._remove_conditioning_fn = lambda x: remove(self.held.hide(x))
        self.descriptors = dict(descriptors)
        self.output = output
        self.guard = CrystalGuard(cutoff, *volume_bounds(volume_per_site))
        self._predictors = self._steps(self._predictors, {*descriptors})
        self._correctors = self._steps(self._correctors, set())

    def _steps(self, steps: Mapping[str, Any], held: set[str]) -> dict[str, Any]:
        """Predictors or correctors, guarded, and held but for the fields that are held already."""
        guarded = {name: Guarded(step, name, self.guard) for name, step in steps.items()}
        return guarded | self.held.wrap({name: step for name, step in guarded.items() if name not in held})

    @classmethod
    def from_pl_module(
        cls,
        pl_module: DiffusionLightningModule,
        *,
        N: int | None = None,
        eps_t: float | None = None,
        output: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> JointSampler:
        """Makes a sampler for a loaded model.

        Args:
            pl_module: The model; its descriptors are read from it.
            N: Number of reverse steps; by default as many as the atom types were trained with.
            eps_t: Last diffusion time that the network is evaluated at; by default 1/N.
            output: Fields of `OutputSettings`.
            **arguments: As of the constructor and of MatterGen's `GuidedPredictorCorrector`.

        Raises:
            UserError: If N contradicts the model, or a setting makes no sense.
        """
        module: Any = pl_module.diffusion_module
        if module.model.element_mask_func is None:  # mattergen-generate sets it; Python callers get the same
            module.model.element_mask_func = mask_disallowed_elements
        steps = reverse_steps(N, {c.N for c in module.corruption.discrete_corruptions.values()})
        return cls(
            diffusion_module=module,
            device=pl_module.device,
            N=steps,
            eps_t=1 / steps if eps_t is None else eps_t,
            descriptors=getattr(pl_module, "descriptors", {}),
            cutoff=float(module.model.gemnet.cutoff),
            output=OutputSettings(**(output or {})),
            **arguments,
        )

    def steps_record(self) -> dict[str, Any]:
        """What run.json says of the steps, and a resumed run must have in common with the run that it resumes."""
        return {"steps": self.N, "eps_t": self._eps_t, "corrector_steps": self._n_steps_corrector}

    def with_fields(self, conditioning_data: Graphs) -> Graphs:
        """Adds the descriptors' fields, of zeros, to conditions: the sampler takes the shapes from there."""
        fields: dict[str, torch.Tensor] = {}
        for name, descriptor in self.descriptors.items():
            rows = descriptor.rows(conditioning_data)
            if name not in conditioning_data:
                fields[name] = torch.zeros(len(rows), descriptor.dim, device=rows.device)
            fields[f"{name}_batch"] = rows
        return conditioning_data.replace(**fields)

    @torch.no_grad()
    def _sample_maybe_record(self, conditioning_data: Any, mask: Any = None, record: bool = False) -> Any:
        """As MatterGen's, with the descriptors' fields, a guard for the batch, and what is held."""
        conditioning_data = self.with_fields(conditioning_data.to(self._device))
        self.guard.begin(conditioning_data["num_atoms"])
        conditioning_data = self.held.begin(conditioning_data)
        self._check_cell(conditioning_data["num_atoms"])
        if self.classifier is not None:
            conditioning_data = self.classifier.tell(conditioning_data)
        return super()._sample_maybe_record(conditioning_data, mask=mask, record=record)

    def _check_cell(self, num_atoms: torch.Tensor) -> None:
        """Refuses a given cell that the guard would scale."""
        cell = self.held.placed.get("cell")
        if isinstance(cell, HeldCell):
            for n_sites in num_atoms.unique().tolist():
                check_volume(cell.volume, n_sites, self.guard.least_volume, self.guard.largest_volume)

    @torch.no_grad()
    def _denoise(self, batch: Any, mask: Any, record: bool = False) -> Any:
        """As MatterGen's, from the time on at which what is held starts."""
        with self._shortened(self.held.time) as first:
            batch, mean, steps = super()._denoise(batch=self.held.start(batch, first), mask=mask, record=record)
        return self.held.finish(batch), self.held.finish(mean), steps

    @contextmanager
    def _shortened(self, share: float | None) -> Iterator[float]:
        """Leaves the steps before a share of the diffusion time out; gives the time of the first step."""
        whole = self.N, self._max_t
        times = torch.linspace(self._max_t, self._eps_t, self.N)
        if share is not None:
            begin = min(int((times - share * self._max_t).abs().argmin()), self.N - 2)
            self.N, self._max_t = self.N - begin, float(times[begin])
        try:
            yield float(self._max_t)
        finally:
            self.N, self._max_t = whole

    def _score_fn(self, x: Any, t: torch.Tensor) -> Any:
        """The guided score; a crystal without neighbours is parked and the rest evaluated again."""
        x = self.held.before_score(x, t)
        try:
            score = self._guided_score(x, t)
        except (IndexError, RuntimeError) as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            lonely = self._without_neighbours(x)
            if not bool((lonely & ~self.guard.parked).any()):
                raise
            self.guard.park(lonely)
            x = x.replace(cell=self.guard.cell(x["cell"]))
            score = self._guided_score(x, t)
        score = self.held.restrict(score)
        if self.classifier is not None:
            score = self.classifier.guide(score, x, t, self.guard)
        fields = self._multi_corruption.corrupted_fields
        # With guidance, MatterGen after 1.0.3 cuts the score out of a joined batch, without the index of the crystals.
        rows = {name: self._rows(name, x) for name in fields}
        return self.guard.score(x.replace(**{name: score[name] for name in fields}), rows)

    def _guided_score(self, x: Any, t: torch.Tensor) -> Any:
        """MatterGen's score; with and without the condition, the neighbours of the sites are the same."""
        model: Any = self._diffusion_module.model
        with shared_graph(model.gemnet):
            return super()._score_fn(x, t)

    def _rows(self, name: str, x: Graphs) -> torch.Tensor:
        """Crystal of each row of a field."""
        return self.descriptors[name].rows(x) if name in self.descriptors else structure_rows(name, x)

    def _without_neighbours(self, x: Graphs) -> torch.Tensor:
        """Which crystals have no pair or no triplet of sites within the network's cutoff, shape (n_crystals,), bool."""
        model: Any = self._diffusion_module.model
        gemnet = model.gemnet
        lonely = []
        for i in range(len(x["num_atoms"])):
            sites = x.get_batch_idx("pos") == i
            cart = x["pos"][sites] @ x["cell"][i]
            try:
                edges, *_, triplets, _, _, _ = gemnet.generate_interaction_graph(
                    cart, x["cell"][i : i + 1], x["num_atoms"][i : i + 1], None, None, None
                )
                lonely.append(edges.shape[1] == 0 or triplets.shape[0] == 0)
            except (IndexError, RuntimeError):
                lonely.append(True)
        return torch.tensor(lonely, device=x["num_atoms"].device)


def _without_score_fn(make: Any) -> Any:
    """MatterGen hands every predictor a score function, None here; a descriptor's predictor takes none."""
    assert "score_fn" not in inspect.signature(DescriptorPredictor.__init__).parameters

    def predictor(corruption: Any, score_fn: Any = None) -> Any:
        return make(corruption=corruption)

    return predictor
