"""The joint diffusion: descriptors attached to any MatterGen diffusion module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from mattergen.diffusion.corruption.multi_corruption import MultiCorruption
from mattergen.diffusion.diffusion_module import DiffusionModule
from mattergen.diffusion.lightning_module import DiffusionLightningModule
from mattergen.diffusion.losses import SummedFieldLoss
from mattergen.diffusion.model_target import ModelTarget
from mattergen.diffusion.training.field_loss import denoising_score_matching

from mattergen_e.crystals.graphs import structure_rows
from mattergen_e.descriptors.base import Descriptor
from mattergen_e.descriptors.rows import any_of_crystal
from mattergen_e.diffusion.fields import STRUCTURE_TIME, JointFields, time_key
from mattergen_e.diffusion.site_conditions import SiteCondition, attach_site_conditions, draw_shares
from mattergen_e.errors import UserError
from mattergen_e.types import Graphs
from mattergen_e.upstream import exit_on_user_error

#: What a training example of each mode has clean: nothing, the structure, the descriptors of some rows.
JOINT, PREDICT, GIVEN = 0, 1, 2
MODE = "joint_mode"
#: Batch entry that tells in which crystals what is given is hidden, shape (n_crystals,), bool.
HIDDEN = "joint_hidden"

#: Share of the crystals with given descriptors to which these are not shown, as MatterGen drops its conditions: the
#: unconditional half of a guidance needs it.
P_HIDDEN = 0.2

#: The time that a clean field is said to be at; the smallest time of MatterGen's training.
CLEAN_TIME = 1e-5


def known_key(name: str) -> str:
    """Batch entry that tells which crystals have labels of a descriptor, shape (n_crystals,), bool."""
    return f"{name}_known"


def given_key(name: str) -> str:
    """Batch entry that tells at which rows a descriptor is given, shape (n_rows,), bool."""
    return f"{name}_given"


@dataclass(frozen=True)
class Shares:
    """Shares of the training crystals whose structure is clean (predict) or whose descriptors are (given).

    Attributes:
        predict: Share of crystals that teach the prediction of descriptors.
        given: Share of crystals that teach the generation for given descriptors, of all sites or of some.
        whole: Share of the latter that have all sites given; of the others a random share of the sites is. Chosen.
    """

    predict: float = 0.3
    given: float = 0.0
    whole: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.whole <= 1:
            raise UserError(f"the share 'whole' is {self.whole:g}: give one from 0 to 1.")
        if min(self.predict, self.given) < 0 or self.predict + self.given > 1:
            raise UserError("the shares 'predict' and 'given' must be at least 0 and add up to at most 1.")

    def draw(self, n_crystals: int, device: torch.device) -> torch.Tensor:
        """A mode for each crystal, shape (n_crystals,)."""
        u = torch.rand(n_crystals, device=device)
        return torch.where(u < self.predict, PREDICT, torch.where(u < self.predict + self.given, GIVEN, JOINT))


def per_crystal_all(condition: torch.Tensor, batch_idx: torch.Tensor, n_crystals: int) -> torch.Tensor:
    """Whether a condition (n_rows,) holds at every row of a crystal, shape (n_crystals,)."""
    return ~any_of_crystal(~condition, batch_idx, n_crystals)


class Preparation:
    """Turns a batch of labelled crystals into the joint model's variables; runs before the corruption."""

    def __init__(self, first: Callable, descriptors: Mapping[str, Descriptor], shares: Shares) -> None:
        self.first = first
        self.descriptors = descriptors
        self.shares = shares

    def __call__(self, batch: Graphs) -> Graphs:
        """Adds descriptors in diffused units, who knows them, where they are given, and the mode of each crystal."""
        batch = self.first(batch)
        n_crystals, device = batch.get_batch_size(), batch["pos"].device
        mode = self.shares.draw(n_crystals, device)
        fields: dict[str, torch.Tensor] = {}
        any_known = torch.zeros(n_crystals, dtype=torch.bool, device=device)
        for name, descriptor in self.descriptors.items():
            rows = descriptor.rows(batch)
            x = descriptor.encode(descriptor.training_values(batch)).to(batch["pos"].dtype)
            known = per_crystal_all(x.isfinite().all(dim=-1), rows, n_crystals)
            fields[name] = torch.where(known[rows, None], x, torch.zeros_like(x))
            fields[known_key(name)] = known
            fields[f"{name}_batch"] = rows
            any_known |= known
        # nothing to predict and nothing given where no descriptor is known: such a crystal trains the structure
        fields[MODE] = torch.where(any_known, mode, torch.full_like(mode, JOINT))
        return batch.replace(**fields, **self._given(fields))

    def _given(self, fields: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """At which rows each descriptor is given, and in which crystals that is hidden; empty without such a share."""
        if self.shares.given == 0:
            return {}
        mode = fields[MODE]
        device = mode.device
        drawn = {HIDDEN: torch.rand(len(mode), device=device) < P_HIDDEN}
        for name in self.descriptors:
            share, rows = draw_shares(self.shares.whole, len(mode), device), fields[f"{name}_batch"]
            chosen = torch.rand(len(rows), device=device) < share[rows]
            drawn[given_key(name)] = chosen & ((mode == GIVEN) & fields[known_key(name)])[rows]
        return drawn


class JointCorruption(MultiCorruption):
    """MatterGen's corruptions with the descriptors', able to leave the structure or the descriptors clean."""

    def __init__(self, base: Any, descriptors: Mapping[str, Descriptor]) -> None:
        super().__init__(
            sdes={**base.sdes, **{name: d.corruption() for name, d in descriptors.items()}},
            discrete_corruptions=base.discrete_corruptions,
        )
        self.structure_fields = list(base.corruptions)
        self.descriptors = dict(descriptors)

    def sample_marginal(self, batch: Graphs, t: torch.Tensor) -> Graphs:
        """Noises a batch at times t (n_crystals,), field by field as the crystals' modes say.

        A crystal without labels of a descriptor has that descriptor at full noise: it is generated without. So have the
        rows where it is given but hidden.
        """
        noisy = super().sample_marginal(batch, t)
        if MODE not in batch:
            return noisy
        mode = batch[MODE]
        changes: dict[str, torch.Tensor] = {}
        for name in self.structure_fields:
            clean = (mode == PREDICT)[structure_rows(name, batch)]
            changes[name] = _rows(clean, batch[name], noisy[name])
        changes[STRUCTURE_TIME] = torch.where(mode == PREDICT, torch.full_like(t, CLEAN_TIME), t)
        for name, descriptor in self.descriptors.items():
            rows = descriptor.rows(batch)
            untold, time = ~batch[known_key(name)][rows], t[rows]
            if given_key(name) in batch:
                given, hidden = batch[given_key(name)], batch[HIDDEN][rows]
                noisy = noisy.replace(**{name: _rows(given, batch[name], noisy[name])})
                time, untold = torch.where(given, CLEAN_TIME, time), untold | (given & hidden)
            changes[name] = _rows(untold, torch.randn_like(noisy[name]), noisy[name])
            changes[time_key(name)] = torch.where(untold, float(self.T), time)
        return noisy.replace(**changes)


def _rows(choose: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """`first` in the rows in `choose` (n,), else `second`."""
    return torch.where(choose.reshape(-1, *[1] * (first.dim() - 1)), first, second)


class FieldLossInMode:
    """A loss of one field, averaged over the crystals in which that field was noised."""

    def __init__(self, loss: Callable, name: str, descriptor: Descriptor | None) -> None:
        self.loss = loss
        self.name = name
        self.descriptor = descriptor

    def __call__(self, *, t: torch.Tensor, batch: Graphs, **arguments: Any) -> torch.Tensor:
        """Loss per crystal, shape (n_crystals,), whose mean is the mean over the crystals that count."""
        if self.descriptor is None:
            counts = batch[MODE] != PREDICT
            loss = self.loss(t=t, batch=batch, **arguments)
        else:
            counts, arguments["node_is_unmasked"] = self._counting(batch)
            loss = self.loss(t=t, batch=batch, **arguments)
            if self.descriptor.weighting == "velocity":
                alpha = arguments["corruption"].mean_coeff_and_std(x=t, t=t)[0]
                loss = loss / alpha**2
        return torch.where(counts, loss, torch.zeros_like(loss)) * (len(counts) / counts.sum().clamp(min=1))

    def _counting(self, batch: Graphs) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Crystals (n_crystals,) with free rows of a known descriptor, and these rows (n_rows,); None: all."""
        known = batch[known_key(self.name)]
        if given_key(self.name) not in batch:
            return known, None
        given, rows = batch[given_key(self.name)], batch.get_batch_idx(self.name)
        whole = per_crystal_all(given, rows, len(known))
        # a crystal that does not count keeps its rows: a mean over none would not be a number
        return known & ~whole, (~given | whole[rows]).to(batch[self.name].dtype)


def joint_loss(base: Any, descriptors: Mapping[str, Descriptor]) -> SummedFieldLoss:
    """MatterGen's sum of losses with a noise-prediction term for each descriptor (Okuda et al., eq. 4 and 5).

    The terms of sites are summed over a crystal's sites, as MatterGen's are; those of probes are averaged, since their
    number is a choice that must not weigh.
    """
    reduce: Any = getattr(base, "reduce", "sum")
    fresh = {
        name: partial(
            denoising_score_matching,
            reduce=reduce if descriptor.place == "site" else "mean",
            model_target=ModelTarget.score_times_std,
        )
        for name, descriptor in descriptors.items()
    }
    losses: dict[str, Any] = {name: FieldLossInMode(fn, name, None) for name, fn in base.loss_fns.items()}
    losses |= {name: FieldLossInMode(fn, name, descriptors[name]) for name, fn in fresh.items()}
    return SummedFieldLoss(
        loss_fns=losses,
        model_targets={**base.model_targets, **dict.fromkeys(descriptors, ModelTarget.score_times_std)},
        weights={**base.loss_weights, **{name: d.loss_weight for name, d in descriptors.items()}},
    )


def attach(module: DiffusionModule, descriptors: Mapping[str, Descriptor], shares: Shares) -> JointFields:
    """Attaches descriptors to the corruption, the loss and the denoiser of a MatterGen diffusion module, in place.

    Args:
        module: Any diffusion module of MatterGen: base or adapter, fresh or pretrained.
        descriptors: By field name.
        shares: Shares of the training modes.

    Returns:
        The new parameters, registered as `module.joint_fields`.

    Raises:
        UserError: If a descriptor's name is taken or the module has descriptors already.
    """
    if hasattr(module, "joint_fields"):
        raise UserError("this diffusion module has descriptors already: attach all of them at once.")
    taken = sorted(set(descriptors) & set(module.corruption.corrupted_fields))
    if taken:
        raise UserError(f"descriptor name '{taken[0]}' is taken by a field of the structure: choose another name.")
    denoiser: Any = module.model
    gemnet = denoiser.gemnet
    fields = JointFields(
        descriptors, denoiser.hidden_dim, atom_dim=gemnet.atom_emb.emb_size, blocks=len(gemnet.int_blocks)
    )
    fields.attach(denoiser)
    module.joint_fields = fields
    module.corruption = JointCorruption(module.corruption, descriptors)
    module.loss_fn = joint_loss(module.loss_fn, descriptors)
    module.model_targets = {k: ModelTarget(v) for k, v in module.loss_fn.model_targets.items()}
    module.pre_corruption_fn = Preparation(module.pre_corruption_fn, descriptors, shares)
    return fields


class JointDiffusionLightningModule(DiffusionLightningModule):
    """MatterGen's Lightning module with descriptors and conditions of sites attached to its diffusion module.

    Named by `lightning_module._target_` in a recipe; everything else of MatterGen's training stays as it is.
    """

    @exit_on_user_error
    def __init__(
        self,
        diffusion_module: DiffusionModule,
        descriptors: Mapping[str, Descriptor],
        shares: Mapping[str, float] | None = None,
        site_conditions: Mapping[str, SiteCondition] | None = None,
        **lightning: Any,
    ) -> None:
        """Attaches the descriptors and the conditions.

        Args:
            diffusion_module: Any MatterGen diffusion module.
            descriptors: By field name; the names in the descriptors are set to the keys. Without any, the structure
                alone is generated, as by MatterGen.
            shares: Fields of `Shares`.
            site_conditions: What sites can be told, by name.
            **lightning: `optimizer_partial` and `scheduler_partials`, as in MatterGen.

        Raises:
            UserError: If the descriptors, the shares or the conditions do not make sense.
        """
        super().__init__(diffusion_module=diffusion_module, **lightning)
        self.descriptors = {name: replace(d, name=name) for name, d in descriptors.items()}
        self.site_conditions = {name: replace(c, name=name) for name, c in (site_conditions or {}).items()}
        shared = Shares(**(shares or {}))
        if self.site_conditions:
            attach_site_conditions(self.diffusion_module, self.site_conditions)
        if self.descriptors:
            attach(self.diffusion_module, self.descriptors, shared)

    @exit_on_user_error
    def setup(self, stage: str) -> None:
        """Before a training the descriptors take what belongs to the model, e.g. an autoencoder.

        Raises:
            UserError: If it is missing or does not fit the model.
        """
        if stage == "fit":
            for descriptor in self.descriptors.values():
                descriptor.begin_training()

    def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
        """Stores none: the configuration lies beside the weights, and objects would make them unsafe to load."""
