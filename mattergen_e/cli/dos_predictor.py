"""`mattergen-e dos-predictor train`, `evaluate`, `predict` and `fill`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mattergen_e.cli.autoencoder import Device, DeviceOption, check_device
from mattergen_e.cli.settings import Trust, read_settings
from mattergen_e.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from mattergen_e.networks.predictor.evaluation import Evaluation

HELP = "Train the forward predictor of densities of states, measure it, and predict spectra of structures."
app = typer.Typer(no_args_is_help=True, add_completion=False, help=HELP)

#: Elements in the table of `evaluate`; the JSON has all.
SHOWN = 12

BatchSize = Annotated[int, typer.Option("--batch_size", "--batch-size", min=1, help="Crystals per network call.")]


@app.callback()
def main() -> None:
    """Train the forward predictor of densities of states, measure it, and predict spectra of structures."""


@app.command()
def train(
    cache: Annotated[Path, typer.Argument(help="Cache of `mattergen-e data build` with atomic_dos and total_dos.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the predictor.")],
    encoder: Annotated[
        Path | None, typer.Option(help="Folder of a trained MatterGen model whose network it starts from.")
    ] = None,
    noisy: Annotated[
        bool, typer.Option("--noisy", help="Also learn from noised structures, to guide generations of --encoder.")
    ] = False,
    settings: Annotated[Path | None, typer.Option(help="YAML with any setting; see docs/dos.md.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Times that every crystal is seen.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch_size", "--batch-size", min=1, help="Crystals per step.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights, order and noise.")] = None,
    precision: Annotated[str | None, typer.Option(help="32-true or bf16-mixed.")] = None,
    device: DeviceOption = Device.auto,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a training in the folder.")] = False,
    trust: Trust = False,
) -> None:
    """Train on the `train` split; the best epoch on `val` is kept."""
    from mattergen_e.quiet import quiet

    given = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "precision": precision, "noisy": noisy or None}
    with quiet():
        from mattergen_e.networks.predictor.training import TrainingSettings

        chosen = read_settings(
            TrainingSettings, settings, {key: value for key, value in given.items() if value is not None}, "docs/dos.md"
        )
        from mattergen_e.networks.predictor.training import train as run

        check_device(device)
        predictor = run(
            cache,
            out,
            chosen,
            encoder=encoder,
            resume=resume,
            overwrite=overwrite,
            device=device.value,
            progress=True,
        )
    metrics = predictor.record["metrics"]
    typer.echo(
        f"Predictor {predictor.fingerprint[:12]} of epoch {predictor.record['epoch']} written to {out}: loss of the "
        f"validation split {metrics['val_loss']:.4f}. Measure it with `mattergen-e dos-predictor evaluate`."
    )


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of a predictor.")],
    cache: Annotated[Path, typer.Argument(help="Cache whose spectra were made as those it was trained on.")],
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "test",
    baseline_split: Annotated[
        str, typer.Option("--baseline-split", help="Split that the means of the elements are taken from.")
    ] = "train",
    batch_size: BatchSize = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random pairings and intervals.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write all figures as JSON.")] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Measure predictions for crystals of a cache, beside the means of the elements and random pairing."""
    from mattergen_e.cli.console import stdout
    from mattergen_e.quiet import quiet

    with quiet():
        from mattergen_e.journal import write_output
        from mattergen_e.networks.predictor import evaluation
        from mattergen_e.networks.predictor.folder import load

        predictor = load(folder, check_device(device))
        found = evaluation.evaluate(predictor, cache, split, baseline_split, batch_size=batch_size, seed=seed)
    for table in tables(found):
        stdout().print(table)
    if out is not None:
        write_output(out, json.dumps(found.to_json(), indent=2).encode() + b"\n")


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(help="Folder of a predictor.")],
    structures: Annotated[
        list[Path], typer.Argument(help="CIF, POSCAR, extxyz or JSON lines files, or folders of them.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="npz file to write, with the layout of generated_dos.npz.")],
    batch_size: BatchSize = 64,
    device: DeviceOption = Device.auto,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
) -> None:
    """Predict the spectra of structures: of each site, and of the crystal per atom.

    What cannot be read or predicted is left out, and named at the end.
    """
    from mattergen_e.cli.console import name_left_out
    from mattergen_e.quiet import quiet

    if out.exists() and not overwrite:
        raise UserError(f"{out} exists: choose another --out or add --overwrite.")
    with quiet():
        from mattergen_e.crystals.reading import read_readable
        from mattergen_e.networks.predictor.folder import load
        from mattergen_e.networks.predictor.output import predict_structures, usable, write_spectra

        predictor = load(folder, check_device(device))
        read, problems = read_readable(structures)
        named, unusable = usable(predictor, read)
        problems += unusable
        if not named:
            raise UserError(f"no structure can be predicted: {problems[0]}")
        spectra = predict_structures(predictor, named, batch_size=batch_size, progress=True)
    write_spectra(out, spectra, predictor)
    typer.echo(f"Spectra of {len(spectra)} structures written to {out}")
    name_left_out(problems)


@app.command()
def fill(
    folder: Annotated[Path, typer.Argument(help="Folder of a predictor.")],
    cache: Annotated[Path, typer.Argument(help="Cache of `mattergen-e data build` with structures.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Cache to write: the same crystals, with a total DOS.")],
    calculated: Annotated[
        Path | None,
        typer.Option(
            help="Cache with calculated DOS: its train split wins over predictions, its other splits get none."
        ),
    ] = None,
    batch_size: BatchSize = 64,
    device: DeviceOption = Device.auto,
) -> None:
    """Give the crystals of a cache predicted spectra, for training a model that is conditioned on them."""
    from mattergen_e.quiet import quiet

    with quiet():
        from mattergen_e.networks.predictor.fill import fill as run
        from mattergen_e.networks.predictor.folder import load

        counts = run(
            load(folder, check_device(device)), cache, out, calculated=calculated, batch_size=batch_size, progress=True
        )
    for name, found in counts.items():
        typer.echo(
            f"{name}: {found.predicted:,} predicted, {found.calculated:,} calculated, {found.withheld:,} withheld"
        )
    typer.echo(f"Written to {out}")


def tables(found: Evaluation) -> list[Table]:
    """Spectra of the sites, by element too, then the crystals' metrics beside the baselines."""
    from rich.table import Table

    from mattergen_e.networks.predictor.evaluation import ELEMENT_MEAN, PREDICTOR

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    which = f"{found.n_sites:,} sites of {found.crystals:,} {found.split} crystals"
    sites = Table("method", title=f"spectra of {which}", title_justify="left")
    for column in ("Wasserstein\nmedian [eV]", "\nmean [eV]", "MAE, mean\n[states/eV]", "cosine\nmedian"):
        sites.add_column(column.replace("[", r"\["), justify="right")
    for name, method in found.sites.items():
        w, mae, cosine = (method.errors[key] for key in ("wasserstein", "mae", "cosine"))
        sites.add_row(name, *map(number, (w.median, w.mean, mae.mean, cosine.median)))
    elements = Table("element", "sites", title="median Wasserstein distance \\[eV]", title_justify="left")
    for name in found.sites:
        elements.add_column(name, justify="right")
    for symbol, summary in list(found.sites[PREDICTOR].by_element.items())[:SHOWN]:
        medians = (number(method.by_element[symbol].median) for method in found.sites.values())
        elements.add_row(symbol, f"{summary.sites:,}", *medians)
    total = Table("metric", "unit", title=f"spectra per atom of {found.crystals:,} crystals", title_justify="left")
    for column in ("predictor", "95 % interval", "random pairing", "element mean"):
        total.add_column(column, justify="right")
    for name, metric in found.total[PREDICTOR].items():
        interval = f"{number(metric.low)} to {number(metric.high)}"
        baseline = found.total[ELEMENT_MEAN][name].mean
        total.add_row(
            name, metric.unit, *map(number, (metric.mean,)), interval, number(metric.random), number(baseline)
        )
    return [sites, elements, total]
