"""`mattergen-e export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mattergen_e.cli.settings import Trust
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
    trust: Trust = False,
) -> None:
    """Turn a training run into a model folder to share: weights, configuration and card."""
    from mattergen_e.quiet import quiet

    with quiet():
        from mattergen_e.training.export import export as write

    given = _notes(notes) if notes is not None else None
    with quiet():
        card = write(run, out, notes=given, cache=cache, overwrite=overwrite)
    size = (out / "checkpoints" / "last.ckpt").stat().st_size / 2**20
    typer.echo(f"{out}: {card.parameters:,} parameters, {size:.1f} MiB, weights {card.weights_sha256[:12]}")


def _notes(path: Path) -> dict[str, Any]:
    import yaml

    from mattergen_e.limits import read_yaml

    try:
        given = read_yaml(path)
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML ({' '.join(str(error).split())[:200]}).") from None
    if not isinstance(given, dict):
        raise UserError(f"{path} does not hold notes: write the card's name, description, licence and so on as keys.")
    return given
