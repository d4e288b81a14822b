"""Sampling a joint model: MatterGen's guided predictor-corrector with the descriptors that the model brings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from mattergen.denoiser import mask_disallowed_elements
from mattergen.diffusion.lightning_module import DiffusionLightningModule
from mattergen.diffusion.sampling.classifier_free_guidance import GuidedPredictorCorrector

from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.predictors import CrystalGuard, DescriptorPredictor, Guarded
from mattergen_e.errors import UserError
from mattergen_e.upstream import exit_on_user_error


@dataclass(frozen=True)
class OutputSettings:
    """What to do with results: `existing` is 'refuse', 'resume' or 'overwrite'; `redraws` of degenerate crystals."""

    existing: Literal["refuse", "resume", "overwrite"] = "refuse"
    trajectories: bool = False
    redraws: int = 3

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
        output: What the command does with the results.
        volume_per_site: Bounds in cubic angstrom that cells are held to during sampling.
        draw: What runs the batches and writes them, in place of MatterGen's function of that kind; the sampling
            settings name it.
    """

    def __init__(
        self,
        *,
        descriptors: Mapping[str, Descriptor],
        cutoff: float,
        output: OutputSettings,
        volume_per_site: Sequence[float | None] = (0.5, None),
        draw: Callable[..., list] | None = None,
        **arguments: Any,
    ) -> None:
        partials = dict(arguments.pop("predictor_partials") or {})
        for name, descriptor in descriptors.items():
            partials[name] = _without_score_fn(partial(DescriptorPredictor, descriptor=descriptor))
        super().__init__(predictor_partials=partials, **arguments)
        self.descriptors = dict(descriptors)
        self.output = output
        self.draw = draw
        least, largest = volume_per_site
        if least is not None and largest is not None and least >= largest:
            raise UserError(f"sampler_partial.volume_per_site is [{least}, {largest}]: give the smaller volume first.")
        self.guard = CrystalGuard(cutoff, 0.5 if least is None else least, largest)
        self._predictors = {k: Guarded(v, k, self.guard) for k, v in self._predictors.items()}
        self._correctors = {k: Guarded(v, k, self.guard) for k, v in self._correctors.items()}

    @classmethod
    @exit_on_user_error
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
            **arguments: As of MatterGen's `GuidedPredictorCorrector`.

        Raises:
            UserError: If N contradicts the model, or the model does not generate the elements or lacks what its
                descriptors' results need.
        """
        module: Any = pl_module.diffusion_module
        for descriptor in getattr(pl_module, "descriptors", {}).values():
            descriptor.require_ready()
        if "atomic_numbers" not in module.corruption.corrupted_fields:
            raise UserError(
                "this model was trained for crystal structure prediction, without diffusion of atom types: generate "
                "with MatterGen's --sampling_config_name=csp and --target_compositions."
            )
        if module.model.element_mask_func is None:  # mattergen-generate sets it; Python callers get the same
            module.model.element_mask_func = mask_disallowed_elements
        trained: set[int] = {c.N for c in module.corruption.discrete_corruptions.values()}
        steps = min(trained, default=1000) if N is None else N
        if trained and trained != {steps}:
            raise UserError(
                f"sampler_partial.N is {N}, but this model's atom types were trained with {min(trained)} steps: "
                "leave N out or set it to that number."
            )
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

    def with_fields(self, conditioning_data: Any) -> Any:
        """Adds the descriptors' fields, of zeros, to conditions: the sampler takes the shapes from there."""
        sites = conditioning_data.get_batch_idx("pos")
        fields: dict[str, torch.Tensor] = {}
        for name, descriptor in self.descriptors.items():
            if name not in conditioning_data:
                fields[name] = torch.zeros(len(sites), descriptor.dim, device=sites.device)
            fields[f"{name}_batch"] = sites
        return conditioning_data.replace(**fields)

    @torch.no_grad()
    def _sample_maybe_record(self, conditioning_data: Any, mask: Any = None, record: bool = False) -> Any:
        """As MatterGen's, with the descriptors' fields and a guard for the batch."""
        conditioning_data = self.with_fields(conditioning_data.to(self._device))
        self.guard.begin(conditioning_data["num_atoms"])
        return super()._sample_maybe_record(conditioning_data, mask=mask, record=record)

    def _score_fn(self, x: Any, t: torch.Tensor) -> Any:
        """The guided score; a crystal without neighbours is parked and the rest evaluated again."""
        try:
            score = super()._score_fn(x, t)
        except (IndexError, RuntimeError) as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            lonely = self._without_neighbours(x)
            if not bool((lonely & ~self.guard.parked).any()):
                raise
            self.guard.park(lonely)
            score = super()._score_fn(x.replace(cell=self.guard.cell(x["cell"])), t)
        fields = self._multi_corruption.corrupted_fields
        # With guidance, MatterGen after 1.0.3 cuts the score out of a joined batch, without the index of the crystals.
        return self.guard.score(x.replace(**{name: score[name] for name in fields}), fields)

    def _without_neighbours(self, x: Any) -> torch.Tensor:
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
