"""Training of the autoencoder with Lightning.

<out>/autoencoder.pt, autoencoder.yaml     the autoencoder of the best epoch, written at the end
<out>/run/last.ckpt, best.ckpt             of the training; `last` is what a resumed run goes on from
<out>/run/metrics/version_*/metrics.csv    loss curves, one folder each time it was started
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field, ValidationError
from torch import Tensor

from mattergen_e.errors import UserError
from mattergen_e.networks import scaffold
from mattergen_e.networks.autoencoder import folder
from mattergen_e.networks.autoencoder.data import (
    AugmentationSettings,
    InOrder,
    PairSampler,
    SiteSpectra,
    augment,
    make_loader,
    read_split,
)
from mattergen_e.networks.autoencoder.loss import LossSettings, reconstruction_loss
from mattergen_e.networks.autoencoder.model import Autoencoder
from mattergen_e.networks.autoencoder.network import Network, NetworkSettings
from mattergen_e.networks.scaffold import NetworkModule, Training, of_network, training_folder, warm_up_and_cosine
from mattergen_e.spectra.metrics import compare
from mattergen_e.spectra.processing import AtomicDosSettings

if TYPE_CHECKING:
    from pytorch_lightning.utilities.types import OptimizerLRScheduler

#: The best epoch has the least median Wasserstein distance of the validation split, eV.
MONITOR = "val_wasserstein"
TRAINING = Training("autoencoder", "an autoencoder's", MONITOR, ("processing", "settings"))


class TrainingSettings(scaffold.TrainingSettings):
    """All settings of a training. The paper gives none of the numbers here; all are chosen.

    Attributes:
        network: Shape of the network; its points are set to those of the grid.
        loss: Weights and parameters of the loss.
        augmentation: How spectra are varied.
        The others are those of every training; an epoch sees every spectrum once.
    """

    epochs: int = Field(default=80, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    warmup: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    network: NetworkSettings = NetworkSettings()
    loss: LossSettings = LossSettings()
    augmentation: AugmentationSettings = AugmentationSettings()


class AutoencoderModule(NetworkModule):
    """The network with its loss, optimiser and validation."""

    kind = TRAINING

    def __init__(self, settings: TrainingSettings, processing: AtomicDosSettings) -> None:
        """Makes the network with random weights from torch's global generator."""
        super().__init__()
        self.settings, self.processing = settings, processing
        self.network = Network(settings.network)
        self.validation: list[np.ndarray] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of augmented spectra; their random numbers depend on the seed and the step only."""
        generator = torch.Generator(self.device).manual_seed(self.settings.seed * 1_000_003 + self.global_step)
        step = self.processing.grid.step
        spectra = augment(*batch, self.settings.augmentation, step, generator)
        terms = reconstruction_loss(self.network(spectra), spectra, self.settings.loss, step)
        logged = {f"train_{name}": term.detach() for name, term in terms.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(spectra))
        return terms["loss"]

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Losses and Wasserstein distances of spectra as they are."""
        spectra, _ = batch
        log_spectra = self.network(spectra)
        terms = reconstruction_loss(log_spectra, spectra, self.settings.loss, self.processing.grid.step)
        self.log_dict({f"val_{name}": term for name, term in terms.items()}, batch_size=len(spectra))
        errors = compare(torch.expm1(log_spectra).cpu(), spectra.cpu(), self.processing.grid)
        self.validation.append(errors.wasserstein)

    def on_validation_epoch_end(self) -> None:
        """Logs median and mean Wasserstein distance over all sites."""
        distances = np.concatenate(self.validation)
        self.validation.clear()
        self.log(MONITOR, float(np.nanmedian(distances)), prog_bar=True)
        self.log(f"{MONITOR}_mean", float(np.nanmean(distances)))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a linear warm-up and a cosine to zero over the whole training."""
        optimiser = torch.optim.AdamW(
            self.parameters(), lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay
        )
        return warm_up_and_cosine(self, optimiser, self.settings.warmup)

    def description(self) -> dict[str, Any]:
        """Settings and processing, as plain values."""
        return {
            "settings": self.settings.model_dump(mode="json"),
            "processing": self.processing.model_dump(mode="json"),
        }


def train(
    cache: str | Path,
    out: str | Path,
    settings: TrainingSettings | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = False,
) -> Autoencoder:
    """Train an autoencoder on the `train` split of a cache, choose the best epoch on `val`, and write it.

    Args:
        cache: Cache with splits `train` and `val`.
        out: Folder of the autoencoder and of its training.
        settings: All settings.
        resume: Go on from `<out>/run/last.ckpt`, with the same settings.
        overwrite: Replace what is in the folder.
        device: auto, cpu or cuda.
        progress: Whether to show a progress bar.

    Returns:
        The autoencoder of the best epoch.

    Raises:
        UserError: If the cache cannot be used, the folder is taken or in use, there is nothing to resume, or it was
            begun with other settings or data.
    """
    out, settings = Path(out), settings or TrainingSettings()
    train_split, val_split = (read_split(Path(cache) / name) for name in ("train", "val"))
    network = settings.network.model_dump() | {"points": train_split.processing.grid.points}
    settings = settings.model_copy(update={"network": _network(network)})
    loaders = (
        make_loader(train_split, _sampler(train_split, settings), settings.workers),
        make_loader(val_split, InOrder(len(val_split.rows), 256)),
    )

    def make() -> AutoencoderModule:
        return AutoencoderModule(settings, train_split.processing)

    with training_folder(out, folder.exists(out), resume, overwrite) as goes_on:
        best = TRAINING.fit(make, settings, loaders, out, cache, goes_on, device, progress)
        autoencoder = from_checkpoint(best)
        folder.save(autoencoder, out, overwrite=True)
    return autoencoder


def from_checkpoint(path: str | Path) -> Autoencoder:
    """The autoencoder in a checkpoint of a training, with what made it as its record.

    Raises:
        UserError: If the file is missing or no such checkpoint.
    """
    described, state, record = TRAINING.read(path)
    network = Network(TrainingSettings.model_validate(described["settings"]).network)
    network.load_state_dict(of_network(state))
    record = {"settings": described["settings"], **record}
    return Autoencoder(network, AtomicDosSettings.model_validate(described["processing"]), record)


def _network(values: dict[str, Any]) -> NetworkSettings:
    try:
        return NetworkSettings.model_validate(values)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UserError(f"the network does not fit {values['points']} points: {reason}") from error


def _sampler(split: SiteSpectra, settings: TrainingSettings) -> PairSampler:
    return PairSampler(split.known_numbers, settings.batch_size, settings.augmentation.same_element, settings.seed)
