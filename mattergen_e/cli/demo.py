"""`mattergen-e demo`: what the README's first command shows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer

from mattergen_e.cli.settings import SHIPPED
from mattergen_e.errors import UserError

#: Sites per crystal to choose from; the labelled crystals that the shipped model has learned from have up to 12.
SIZES = [2, 3, 4, 5, 6, 8]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the crystals.")] = Path("demo"),
    model_path: Annotated[
        Path, typer.Option("--model_path", "--model-path", help="Joint model with an adapter for the band gap.")
    ] = Path("checkpoints/bader_joint_small"),
    crystals: Annotated[Path, typer.Option(help="Crystals with known charges, JSON lines.")] = Path(
        "examples/textbook_crystals.jsonl"
    ),
    number: Annotated[int, typer.Option(help="Crystals to generate.", min=1)] = 8,
    band_gap: Annotated[float, typer.Option(help="Band gap to ask for, in eV.")] = 3.0,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
) -> None:
    """Generate crystals with Bader charges for a band gap, measure the charges of known crystals, write a report."""
    from rich.table import Table

    from mattergen_e.cli.console import accuracy_tables, stdout
    from mattergen_e.quiet import quiet

    for path in (model_path, crystals, SHIPPED):
        if not path.exists():
            raise UserError(f"{path} does not exist: run the demo in a checkout of mattergen-e.")
    _generate(out, model_path, number, band_gap, seed)
    with quiet():
        from mattergen_e.generation.store import read_crystals
        from mattergen_e.prediction.accuracy import measure_file
        from mattergen_e.upstream.models import load_model

        model = load_model(model_path)
    table = Table("formula", "sites", "band gap asked for (eV)", "mean charge by element (e)", title="Generated")
    for crystal in read_crystals(out / "generated_crystals.jsonl"):
        charges: dict[str, list[float]] = defaultdict(list)
        for site in crystal.structure:
            charges[site.specie.symbol].append(site.properties["bader_charge"])
        shown = ", ".join(f"{symbol} {sum(q) / len(q):+.2f}" for symbol, q in charges.items())
        table.add_row(
            crystal.structure.reduced_formula,
            str(len(crystal.structure)),
            f"{crystal.conditions['dft_band_gap']:.1f}",
            shown,
        )
    console = stdout()
    console.print(table)
    for accuracy in accuracy_tables(measure_file(model, crystals, model_path, seed=seed)):
        console.print(accuracy)
    console.print("The crystals are in")
    for name in ("generated_crystals.extxyz", "generated_crystals_cif.zip", "generated_crystals.jsonl"):
        console.print(f"  {out / name}", soft_wrap=True)
    _report(out, seed)
    console.print(f"Open {out / 'report.html'} in a browser.", soft_wrap=True)


def _report(out: Path, seed: int) -> None:
    """Evaluates the crystals against the shipped reference and writes the page."""
    for words in (
        ["evaluate", str(out), "--seed", str(seed)],
        ["report", str(out), "--out", str(out / "report.html")],
    ):
        typer.echo("$ " + " ".join(["mattergen-e", *words]))
        result = subprocess.run([str(Path(sys.executable).with_name("mattergen-e")), *words])
        if result.returncode != 0:
            raise UserError(f"mattergen-e {words[0]} ended with exit code {result.returncode}: see above.")


def _generate(out: Path, model_path: Path, number: int, band_gap: float, seed: int) -> None:
    """Runs MatterGen's own command, as a user would."""
    command = [
        str(Path(sys.executable).with_name("mattergen-generate")),
        str(out),
        f"--model_path={model_path}",
        "--sampling_config_name=joint",
        f"--batch_size={number}",
        "--num_batches=1",
        f"--properties_to_condition_on={{'dft_band_gap': {band_gap}}}",
        "--diffusion_guidance_factor=1.0",
        f"--sampling_config_overrides=['condition_loader_partial.num_atoms={SIZES}']",
    ]
    typer.echo("$ " + " ".join(["mattergen-generate", *(_quoted(word) for word in command[1:])]))
    environment = os.environ | {"MATTERGEN_E_SEED": str(seed), "MATTERGEN_E_EXISTING": "overwrite"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        raise UserError(f"mattergen-generate ended with exit code {result.returncode}:\n{result.stderr[-2000:]}")


def _quoted(word: str) -> str:
    return f'"{word}"' if "{" in word or "[" in word else word
