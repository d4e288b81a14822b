"""`mattergen-e autoencoder train` and `mattergen-e autoencoder evaluate`."""

from __future__ import annotations

import io
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mattergen_e.cli.settings import read_settings
from mattergen_e.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from mattergen_e.networks.autoencoder.evaluation import Evaluation

HELP = "Train the autoencoder of atomic densities of states, and measure its reconstructions."
app = typer.Typer(no_args_is_help=True, add_completion=False, help=HELP)

#: Elements in the table of `evaluate`; the JSON has all.
SHOWN = 12


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]


@app.callback()
def main() -> None:
    """Train the autoencoder of atomic densities of states, and measure its reconstructions."""


@app.command()
def train(
    cache: Annotated[Path, typer.Argument(help="Cache written by `mattergen-e data build`, with atomic_dos.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the autoencoder.")],
    settings: Annotated[
        Path | None, typer.Option(help="YAML with network, loss, augmentation and optimiser; see docs/dos.md.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Times that every spectrum is seen.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch_size", "--batch-size", min=1, help="Spectra per step.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights, order and augmentation.")] = None,
    precision: Annotated[str | None, typer.Option(help="32-true or bf16-mixed.")] = None,
    device: DeviceOption = Device.auto,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a training in the folder.")] = False,
) -> None:
    """Train on the `train` split; the best epoch on `val` is kept."""
    from mattergen_e.quiet import quiet

    given = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "precision": precision}
    from mattergen_e.networks.autoencoder.training import TrainingSettings

    chosen = read_settings(
        TrainingSettings, settings, {key: value for key, value in given.items() if value is not None}, "docs/dos.md"
    )
    with quiet():
        from mattergen_e.networks.autoencoder.training import train as run

        check_device(device)
        autoencoder = run(cache, out, chosen, resume=resume, overwrite=overwrite, device=device.value, progress=True)
    metrics = autoencoder.record["metrics"]
    typer.echo(
        f"Autoencoder {autoencoder.fingerprint[:12]} of epoch {autoencoder.record['epoch']} written to {out}: median "
        f"Wasserstein distance of the validation spectra {metrics['val_wasserstein']:.4f} eV"
    )


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of an autoencoder.")],
    cache: Annotated[Path, typer.Argument(help="Cache whose spectra were made as those it was trained on.")],
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "test",
    baseline_split: Annotated[
        str, typer.Option("--baseline-split", help="Split that principal components are fitted on.")
    ] = "train",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write all figures as JSON.")] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw reconstructions by quantile of the error: .png, .svg or .pdf.")
    ] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Measure reconstructions of spectra, beside principal components of the same number."""
    from mattergen_e.cli.console import stdout
    from mattergen_e.quiet import quiet

    with quiet():
        from mattergen_e.journal import write_output
        from mattergen_e.networks.autoencoder import evaluation
        from mattergen_e.networks.autoencoder.folder import load

        if figure is not None:
            evaluation.check_figure(figure)
        autoencoder = load(folder, check_device(device))
        found = evaluation.evaluate(autoencoder, cache, split, baseline_split)
    for table in tables(found):
        stdout().print(table)
    shown = {name: f"{value:.3f}" for name, value in found.latents.items()}
    typer.echo(
        f"Latents: rms {shown['rms']}, standard deviations {shown['smallest_deviation']} to "
        f"{shown['largest_deviation']}, largest absolute value {shown['largest']}."
    )
    if out is not None:
        write_output(out, json.dumps(found.to_json(), indent=2).encode() + b"\n")
    if figure is not None:
        content = io.BytesIO()
        evaluation.draw(found, autoencoder).savefig(content, dpi=200, format=figure.suffix[1:].lower())
        write_output(figure, content.getvalue(), "choose another --figure")


def check_device(device: Device) -> str:
    """Name of the device for torch.

    Raises:
        UserError: If CUDA is asked for and there is none.
    """
    import torch

    if device is Device.cuda and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here: use --device cpu.")
    if device is Device.auto:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device.value


def tables(found: Evaluation) -> list[Table]:
    """All methods over all sites, then the Wasserstein distance by element."""
    from rich.table import Table

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    which = f"{found.sites:,} sites of {found.crystals:,} {found.split} crystals"
    total = Table("method", title=f"reconstructions, {which}", title_justify="left")
    for column in (
        "Wasserstein\nmedian [eV]",
        "\nmean [eV]",
        "\n95 % [eV]",
        "MAE, mean\n[states/eV]",
        "cosine\nmedian",
    ):
        total.add_column(column.replace("[", r"\["), justify="right")
    for method in found.methods:
        w, mae, cosine = (method.errors[name] for name in ("wasserstein", "mae", "cosine"))
        total.add_row(method.name, *map(number, (w.median, w.mean, w.quantiles.get("0.95"), mae.mean, cosine.median)))
    elements = Table("element", title=f"median Wasserstein distance \\[eV], {which}", title_justify="left")
    elements.add_column("sites", justify="right")
    for method in found.methods:
        elements.add_column(method.name, justify="right")
    for symbol, summary in list(found.methods[0].by_element.items())[:SHOWN]:
        medians = (number(method.by_element[symbol].median) for method in found.methods)
        elements.add_row(symbol, f"{summary.sites:,}", *medians)
    return [total, elements]
