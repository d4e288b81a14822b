"""Settings of a command: a YAML file, and options that win over it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from mattergen_e.errors import UserError, first_problem

Settings = TypeVar("Settings", bound=BaseModel)

#: The reference of this repository, where a command is called in a checkout.
SHIPPED = Path("checkpoints/reference_mp")


def _trust(wanted: bool) -> None:
    if wanted:
        from mattergen_e.upstream.trust import trust

        trust()


#: Option of every command that builds a model from its configuration; its callback does all.
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        callback=_trust,
        expose_value=False,
        help="Build the model whatever its config.yaml names: it can run any code.",
    ),
]


def read_settings(kind: type[Settings], path: Path | None, given: dict[str, Any], page: str) -> Settings:
    """Settings from a YAML file and the options, which win.

    Args:
        kind: Of the settings.
        path: YAML file, if any.
        given: What the options say.
        page: Where the settings are described.

    Raises:
        UserError: If the file cannot be read or has a wrong key or value.
    """
    import yaml

    from mattergen_e.limits import read_yaml

    read: Any = {}
    if path is not None:
        try:
            read = read_yaml(path) or {}
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{path} cannot be read as YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(read, dict):
        raise UserError(f"{path} does not hold settings: write keys and values, as in {page}.")
    try:
        return kind.model_validate(read | given)
    except ValidationError as error:
        key = error.errors()[0]["loc"][:1]
        source = path if path is not None and key not in [(name,) for name in given] else "the options"
        raise UserError(f"{source}: {first_problem(error, 'the settings')}; see the settings in {page}.") from error
