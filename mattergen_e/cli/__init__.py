"""The command `mattergen-e`: each sub-command is imported when it is called, so that help is immediate."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from mattergen_e import __version__
from mattergen_e.errors import UserError

#: Set to 1 to see tracebacks.
DEBUG = "MATTERGEN_E_DEBUG"


@dataclass(frozen=True)
class Entry:
    """A sub-command: where its function or its `typer.Typer` is, and what its line in the help says."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "data": Entry("mattergen_e.cli.data", "app", "Label calculations, build and show data sets."),
    "autoencoder": Entry("mattergen_e.cli.autoencoder", "app", "Train and evaluate the autoencoder of atomic DOS."),
    "dos-predictor": Entry("mattergen_e.cli.dos_predictor", "app", "Predict densities of states of structures."),
    "predict": Entry("mattergen_e.cli.predict", "predict", "Predict the descriptors of given structures."),
    "accuracy": Entry("mattergen_e.cli.predict", "accuracy", "Measure how well a model predicts descriptors."),
    "reference": Entry("mattergen_e.cli.reference", "app", "Build the reference of novelty and hull energies."),
    "evaluate": Entry("mattergen_e.cli.evaluate", "evaluate", "Evaluate generated crystals: U, N, S, V, success."),
    "compare": Entry("mattergen_e.cli.compare", "compare", "Compare the rates of evaluated runs."),
    "screen": Entry("mattergen_e.cli.screen", "screen", "Shortlist crystals nearest to a spectrum, for DFT."),
    "report": Entry("mattergen_e.cli.report", "report", "Write one HTML page about evaluated runs."),
    "plot": Entry("mattergen_e.cli.plot", "app", "Draw figures of generated crystals."),
    "export": Entry("mattergen_e.cli.export", "export", "Turn a training run into a model folder to share."),
    "demo": Entry("mattergen_e.cli.demo", "demo", "Generate, measure and report a few crystals."),
    "doctor": Entry("mattergen_e.cli.doctor", "doctor", "Check the installation and a trained model."),
}


class LazyCommand(TyperCommand):
    """Stands for a sub-command in the help until that is called."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name, help=entry.summary)
        self.entry = entry

    def load(self) -> Any:
        """Imports and returns the sub-command."""
        with contextlib.redirect_stdout(io.StringIO()):  # MatterGen prints its root folder on import
            found = getattr(importlib.import_module(self.entry.module), self.entry.attribute)
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(add_completion=False)
            found.command(self.name)(function)
        command = get_command(found)
        command.name = self.name
        return command


class LazyGroup(TyperGroup):
    """A group of `LazyCommand`s; the help lists them, calling one imports it."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        for name, entry in COMMANDS.items():
            self.add_command(LazyCommand(name, entry))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The called sub-command, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest

    def invoke(self, ctx: Any) -> Any:
        """Runs the sub-command; an interruption from the keyboard ends it with one line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _say("interrupted.")
            raise typer.Exit(130) from None


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mattergen-e {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Electronic variables in MatterGen's diffusion: data, predictions and checks.

    Training and generation are MatterGen's own commands: mattergen-train, mattergen-finetune, mattergen-generate.
    """


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and ends the process.

    A mistake of the user ends with one line and exit code 2, anything unexpected with one line and 1. With
    MATTERGEN_E_DEBUG=1 the traceback is shown instead.

    Args:
        arguments: Those of the command line; by default the process's own.
    """
    try:
        get_command(app)(arguments, prog_name="mattergen-e")
    except UserError as error:
        if _debugging():
            raise
        _say(str(error))
        sys.exit(2)
    except Exception as error:
        if _debugging():
            raise
        _say(f"unexpected {type(error).__name__}: {error} (run it again with {DEBUG}=1 for the traceback)")
        sys.exit(1)


def _debugging() -> bool:
    return os.environ.get(DEBUG, "") not in ("", "0")


def _say(sentence: str) -> None:
    print("mattergen-e: " + " ".join(sentence.split()), file=sys.stderr)
