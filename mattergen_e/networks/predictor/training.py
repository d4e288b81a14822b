"""Training of the predictor with Lightning.

<out>/predictor.pt, predictor.yaml       the predictor of the best epoch, written at the end
<out>/run/last.ckpt, best.ckpt           of the training; `last` is what a resumed run goes on from
<out>/run/metrics/version_*/metrics.csv  loss curves, one folder each time it was started
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor

from mattergen_e.crystals.graphs import structure_rows
from mattergen_e.errors import UserError
from mattergen_e.networks import scaffold
from mattergen_e.networks.predictor import folder
from mattergen_e.networks.predictor.data import (
    Batch,
    Crystals,
    Order,
    Processing,
    make_loader,
    read_processing,
    read_split,
)
from mattergen_e.networks.predictor.encoder import Encoder, read_encoder
from mattergen_e.networks.predictor.guidance import time_bin
from mattergen_e.networks.predictor.loss import LossSettings, spectra_loss
from mattergen_e.networks.predictor.model import Predictor, element_spectra
from mattergen_e.networks.predictor.network import Network, Spectra
from mattergen_e.networks.predictor.noise import describe_noise
from mattergen_e.networks.predictor.settings import TIMES, EncoderSettings, NetworkSettings
from mattergen_e.networks.scaffold import NetworkModule, Training, of_network, training_folder, warm_up_and_cosine

if TYPE_CHECKING:
    from pytorch_lightning.utilities.types import OptimizerLRScheduler

#: The best epoch has the least loss of the validation split.
MONITOR = "val_loss"
TRAINING = Training("predictor", "a predictor's", MONITOR, ("encoder", "processing", "network", "settings"))


class TrainingSettings(scaffold.TrainingSettings):
    """All settings of a training. The papers give none of the numbers here; all are chosen.

    Attributes:
        encoder_rate: Factor on the learning rate for an encoder that was trained before.
        jitter: Standard deviation of the displacements of sites in training, Å.
        clean: Share of the crystals of a noisy training that stay clean.
        width: Width of the head.
        layers: Residual layers of the head.
        dropout: Of the head.
        noisy: Also learn from noised structures, told their time.
        loss: Weights of the loss.
        The others are those of every training; an epoch sees every crystal once.
    """

    epochs: int = Field(default=40, ge=1)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    encoder_rate: float = Field(default=1.0, gt=0)
    warmup: int = Field(default=50, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    jitter: float = Field(default=0.05, ge=0)
    clean: float = Field(default=0.25, ge=0, le=1)
    width: int = Field(default=256, ge=1)
    layers: int = Field(default=2, ge=0)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    noisy: bool = False
    loss: LossSettings = LossSettings()


class PredictorModule(NetworkModule):
    """The network with its noise, loss, optimiser and validation."""

    kind = TRAINING

    def __init__(
        self, settings: TrainingSettings, network: NetworkSettings, processing: Processing, encoder: Encoder | None
    ) -> None:
        """Makes the network: the encoder's weights where there is one, the rest from torch's global generator."""
        super().__init__()
        self.settings, self.processing = settings, processing
        self.source = None if encoder is None else encoder.source
        self.corruption = None if encoder is None else encoder.corruption
        self.network = Network(network)
        self.register_buffer("variance", torch.zeros(TIMES))
        if encoder is not None:
            encoder.load_into(self.network)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of displaced or noised crystals; their random numbers depend on the seed and the step only."""
        seed = self.settings.seed * 1_000_003 + self.global_step
        terms, _, _ = self._loss(batch, seed, self.settings.clean, self.settings.jitter)
        logged = {f"train_{name}": term.detach() for name, term in terms.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(batch.total))
        return terms["loss"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss of crystals, noised likewise and always in the same way where the training is."""
        terms, predicted, t = self._loss(batch, 7 + batch_idx, self.settings.clean, 0.0)
        self.log_dict({f"val_{name}": term for name, term in terms.items()}, batch_size=len(batch.total))
        error = (predicted.total - torch.log1p(batch.total)).square().mean(dim=-1)
        known = error.isfinite()
        self.squares.index_add_(0, time_bin(t)[known], error[known])
        self.counts.index_add_(0, time_bin(t)[known], torch.ones_like(error[known]))

    def on_validation_epoch_start(self) -> None:
        """Clears the sums over the validation split."""
        self.squares, self.counts = (torch.zeros(TIMES, device=self.device) for _ in range(2))

    def on_validation_epoch_end(self) -> None:
        """Keeps the mean square error by time, the variance of the guidance; times without crystals take the mean."""
        overall = self.squares.sum() / self.counts.sum().clamp(min=1)
        self.variance = torch.where(self.counts > 0, self.squares / self.counts.clamp(min=1), overall)

    def _loss(self, batch: Batch, seed: int, clean: float, jitter: float) -> tuple[dict, Spectra, Tensor]:
        """Parts of the loss, predictions and times (n_crystals,); dropout too depends on the seed only."""
        structure, edges = batch.structure, batch.edges
        t = torch.zeros(len(batch.total), device=self.device)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            if self.settings.noisy:
                structure, t = noised(structure, self.corruption, clean)
            elif jitter > 0:
                structure = displaced(structure, jitter)
            predicted = self.network(structure, t, edges)
        terms = spectra_loss(predicted, batch.sites, batch.total, self.network.grids, self.settings.loss)
        return terms, predicted, t

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a linear warm-up and a cosine to zero over the whole training."""
        rate = self.settings.learning_rate
        encoder = [*self.network.gemnet.parameters(), *self.network.noise_level_encoding.parameters()]
        inside = {id(p) for p in encoder}
        factor = 1.0 if self.source is None else self.settings.encoder_rate
        groups = [
            {"params": [p for p in self.network.parameters() if id(p) not in inside], "lr": rate},
            {"params": encoder, "lr": rate * factor},
        ]
        optimiser = torch.optim.AdamW(groups, weight_decay=self.settings.weight_decay)
        return warm_up_and_cosine(self, optimiser, self.settings.warmup)

    def description(self) -> dict[str, Any]:
        """Settings, shape, processing, encoder and noise, as plain values."""
        noisy = self.settings.noisy and self.corruption is not None
        return {
            "settings": self.settings.model_dump(mode="json"),
            "network": self.network.settings.model_dump(mode="json"),
            "processing": self.processing.model_dump(mode="json"),
            "encoder": {"source": self.source},
            "noise": describe_noise(self.corruption) if noisy else None,
        }


def displaced(structure: Any, jitter: float) -> Any:
    """Structures whose sites are moved by normal displacements of so many Å."""
    moves = jitter * torch.randn_like(structure["pos"])
    inverse = structure["cell"].inverse()[structure.get_batch_idx("pos")]
    return structure.replace(pos=structure["pos"] + torch.einsum("ni,nij->nj", moves, inverse))


def noised(structure: Any, corruption: Any, clean: float) -> tuple[Any, Tensor]:
    """Structures at random times, as the diffusion model noises them; a share of them stays clean, at time 0."""
    pos = structure["pos"]
    n = structure.get_batch_size()
    t = torch.rand(n, device=pos.device) * corruption.T
    keep = torch.rand(n, device=pos.device) < clean
    noisy = corruption.sample_marginal(structure, t)
    fields = {}
    for name in corruption.corrupted_fields:
        rows = keep[structure_rows(name, structure)]
        rows = rows.reshape(-1, *[1] * (structure[name].dim() - 1))
        fields[name] = torch.where(rows, structure[name], noisy[name])
    return structure.replace(**fields), torch.where(keep, torch.zeros_like(t), t)


def train(
    cache: str | Path,
    out: str | Path,
    settings: TrainingSettings | None = None,
    *,
    encoder: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = False,
) -> Predictor:
    """Train a predictor on the `train` split of a cache, choose the best epoch on `val`, and write it.

    Args:
        cache: Cache with splits `train` and `val`, `atomic_dos` and `total_dos`.
        out: Folder of the predictor and of its training.
        settings: All settings.
        encoder: Folder of a trained MatterGen model whose encoder it starts from; a noisy training needs one, whose
            noise it learns.
        resume: Go on from `<out>/run/last.ckpt`, with the same settings.
        overwrite: Replace what is in the folder.
        device: auto, cpu or cuda.
        progress: Whether to show a progress bar.

    Returns:
        The predictor of the best epoch.

    Raises:
        UserError: If the cache or the encoder cannot be used, the folder is taken or in use, there is nothing to
            resume, or it was begun with other settings or data.
    """
    out, settings = Path(out), settings or TrainingSettings()
    if settings.noisy and encoder is None:
        raise UserError("a noisy predictor needs the model that it guides: add --encoder with the folder of that model")
    with training_folder(out, folder.exists(out), resume, overwrite) as goes_on:
        processing = read_processing(cache)
        splits = [read_split(Path(cache) / name, processing) for name in ("train", "val")]
        found = None if encoder is None else read_encoder(encoder)
        shape = NetworkSettings(
            encoder=EncoderSettings() if found is None else found.settings,
            grids=processing.grids,
            width=settings.width,
            layers=settings.layers,
            dropout=settings.dropout,
            noisy=settings.noisy,
        )
        spectra = element_spectra(splits[0], processing.grids)
        if not settings.noisy:
            splits = [crystals.with_neighbours(shape.encoder) for crystals in splits]
        loaders = (_loader(splits[0], settings, settings.seed), _loader(splits[1], settings))

        def make() -> PredictorModule:
            module = PredictorModule(settings, shape, processing, found)
            module.network.start_from(spectra)
            return module

        best = TRAINING.fit(make, settings, loaders, out, cache, goes_on, device, progress)
        predictor = from_checkpoint(best)
        folder.save(predictor, out, overwrite=True)
    return predictor


def from_checkpoint(path: str | Path) -> Predictor:
    """The predictor in a checkpoint of a training, with what made it as its record.

    Raises:
        UserError: If the file is missing or no such checkpoint.
    """
    described, state, record = TRAINING.read(path)
    network = Network(NetworkSettings.model_validate(described["network"]))
    network.load_state_dict(of_network(state))
    record = {"settings": described["settings"], "encoder": described["encoder"]["source"], **record}
    processing = Processing.model_validate(described["processing"])
    return Predictor(network, processing, state["variance"].tolist(), record, described.get("noise"))


def _loader(crystals: Crystals, settings: TrainingSettings, seed: int | None = None) -> Any:
    return make_loader(crystals, Order(len(crystals), settings.batch_size, seed), settings.workers)
