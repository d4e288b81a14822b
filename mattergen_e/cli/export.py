"""`mattergen-e export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mattergen_e.errors import UserError


def export(
    run: Annotated[Path, typer.Argument(help="Run folder of mattergen-train or mattergen-finetune.")],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    notes: Annotated[
        Path | None, typer.Option(help="YAML with the card's name, description, licence, data, commands, metrics.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Cache trained on: adds the element means that `accuracy` compares with.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing folder.")] = False,
) -> None:
    """Turn a training run into a model folder to share: weights, configuration and card."""
    import yaml

    from mattergen_e.quiet import quiet

    with quiet():
        from mattergen_e.training.export import export as write

    if notes is not None and not notes.is_file():
        raise UserError(f"{notes} does not exist.")
    given = yaml.safe_load(notes.read_text()) if notes is not None else None
    with quiet():
        card = write(run, out, notes=given, cache=cache, overwrite=overwrite)
    size = (out / "checkpoints" / "last.ckpt").stat().st_size / 2**20
    typer.echo(f"{out}: {card.parameters:,} parameters, {size:.1f} MiB, weights {card.weights_sha256[:12]}")
