"""`mattergen-e predict` and `mattergen-e accuracy`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mattergen_e.cli.settings import Trust
from mattergen_e.errors import UserError

ModelPath = Annotated[
    Path, typer.Option("--model_path", "--model-path", help="Folder with config.yaml and checkpoints/.")
]
Samples = Annotated[int, typer.Option(help="Samples per crystal.", min=1)]
Steps = Annotated[int, typer.Option(help="Reverse steps per sample.", min=1)]
BatchSize = Annotated[int, typer.Option("--batch_size", "--batch-size", help="Crystals per network call.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of the samples.")]


def predict(
    structures: Annotated[
        list[Path], typer.Argument(help="CIF, POSCAR, extxyz or JSON lines files, or folders of them.")
    ],
    model_path: ModelPath,
    out: Annotated[Path, typer.Option(help="JSON lines file to write; spectra and grids go into an npz beside it.")],
    samples: Samples = 8,
    steps: Steps = 4,
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing output.")] = False,
    trust: Trust = False,
) -> None:
    """Predict the descriptors of given structures with a joint model: mean and spread per site.

    What cannot be read or predicted is left out, and named at the end.
    """
    from rich.progress import track

    from mattergen_e.cli.console import name_left_out, stderr
    from mattergen_e.quiet import quiet

    if out.exists() and not overwrite:
        raise UserError(f"{out} exists: choose another --out or add --overwrite.")
    with quiet():
        from mattergen_e.crystals.reading import read_readable
        from mattergen_e.prediction import run
        from mattergen_e.upstream.models import load_model

        read, problems = read_readable(structures)
        model = load_model(model_path)
        named, unusable = run.usable(model, read)
    problems += unusable
    if not named:
        raise UserError(f"no structure can be predicted: {problems[0]}")
    beside, descriptors = run.spectra_path(out), getattr(model, "descriptors", {}).values()
    if (
        beside.exists()
        and not overwrite
        and any(descriptor.grid is not None or descriptor.place == "grid" for descriptor in descriptors)
    ):
        raise UserError(f"{beside} exists, where spectra and grids go: choose another --out or add --overwrite.")
    predictions = run.predict(model, named, samples=samples, steps=steps, batch_size=batch_size, seed=seed)
    shown = track(predictions, description="Predicting", total=len(named), console=stderr())
    count = run.write_predictions(out, shown)
    typer.echo(f"{count} structures written to {out}")
    name_left_out(problems)


def accuracy(
    source: Annotated[Path, typer.Argument(help="Cache written by `mattergen-e data build`, or labelled JSON lines.")],
    model_path: ModelPath,
    split: Annotated[str, typer.Option(help="Split of the cache to compare on.")] = "test",
    samples: Samples = 8,
    steps: Steps = 4,
    batch_size: BatchSize = 64,
    limit: Annotated[int | None, typer.Option(help="First so many crystals only.", min=1)] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")] = None,
    trust: Trust = False,
) -> None:
    """Measure how well a joint model predicts descriptors, beside the element-mean baseline."""
    from mattergen_e.cli.console import accuracy_tables, stdout
    from mattergen_e.quiet import quiet

    with quiet():
        from mattergen_e.journal import write_output
        from mattergen_e.prediction.accuracy import measure, measure_file
        from mattergen_e.upstream.models import load_model

        model = load_model(model_path)
    if source.is_file():
        results = measure_file(
            model, source, model_path, samples=samples, steps=steps, batch_size=batch_size, limit=limit, seed=seed
        )
    else:
        results = measure(
            model, source, split=split, samples=samples, steps=steps, batch_size=batch_size, limit=limit, seed=seed
        )
    for table in accuracy_tables(results):
        stdout().print(table)
    if out is not None:
        write_output(out, json.dumps([asdict(r) for r in results], indent=2).encode() + b"\n")
