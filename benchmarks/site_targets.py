"""Does a generated crystal have the spectrum that one of its sites was asked for? Four ways, the same targets.

    python benchmarks/site_targets.py cache/dos/test --adapter checkpoints/site_dos_small

Targets are sites of crystals that nothing was trained on, drawn at random. For each, crystals are generated whose site
0 shall have that spectrum: without being told (the baseline), by the condition site_dos at two strengths, and by
clamping the site's atomic_dos in a joint model. The forward predictor says what spectrum site 0 of each crystal has;
its own error on the sites that the targets come from is the last line. Crystals are judged as they are, unrelaxed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from mattergen_e.data.cache import load_array, open_sites
from mattergen_e.data.dataset import JointCrystalDataset
from mattergen_e.dos.grid import ATOMIC_GRID
from mattergen_e.dos.metrics import cosine, wasserstein
from mattergen_e.dos.predictor.folder import load
from mattergen_e.dos.predictor.output import predict_structures
from mattergen_e.errors import UserError
from mattergen_e.generation.store import read_crystals
from mattergen_e.prediction.structures import NamedStructure


def main() -> None:
    """Generates, predicts and prints."""
    arguments = parse()
    torch.set_num_threads(1)
    split = Path(arguments.split).absolute()
    spectra, counts = open_sites(split, "atomic_dos"), load_array(split / "num_atoms.npy")
    ids = load_array(split / "structure_id.npy").tolist()
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    random = np.random.default_rng(arguments.seed)
    rows = random.permutation(len(spectra))[: arguments.targets]  # the same first ones for any number
    owners = np.searchsorted(starts, rows, side="right") - 1
    predictor = load(arguments.predictor, "cpu")
    ways = {
        "not told": (arguments.adapter, "site_dos", ["sampler_partial.omega=-1.0"]),
        "site_dos, ω = 0": (arguments.adapter, "site_dos", ["sampler_partial.omega=0.0"]),
        "site_dos, ω = 1": (arguments.adapter, "site_dos", ["sampler_partial.omega=1.0"]),
        "atomic_dos clamped": (arguments.joint, "atomic_dos", []),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number, (row, owner) in enumerate(zip(rows.tolist(), owners.tolist(), strict=True)):
        target = {"file": str(split), "structure": ids[owner], "site": int(row - starts[owner])}
        for way, (model, key, overrides) in enumerate(ways.values()):
            out = Path(arguments.out).absolute() / f"target_{number}_{way}"
            generate(
                out, model, {"num_atoms": arguments.sizes, "sites": [{"site": 0, key: target}]}, overrides, arguments
            )
            name = list(ways)[way]
            found[name] += [judge(predictor, crystal, spectra[row]) for crystal in read_crystals(out)]
        print(f"target {number}: site {target['site']} of {ids[owner]}", file=sys.stderr, flush=True)
    dataset = JointCrystalDataset.from_cache_path(str(split))
    own = []
    for row, owner in zip(rows.tolist(), owners.tolist(), strict=True):
        predicted = predictor.predict([dataset[owner]]).sites[row - starts[owner]]
        own.append(distances(predicted, spectra[row]))
    print("| crystals whose site 0 | number | cosine, mean (standard error) | Wasserstein distance, mean (eV) |")
    print("| --- | --- | --- | --- |")
    for name, values in {**found, "the targets' own crystals": own}.items():
        c, w = (column[np.isfinite(column)] for column in np.array(values).T)
        print(f"| {name} | {len(c)} | {c.mean():.3f} ({c.std(ddof=1) / np.sqrt(len(c)):.3f}) | {w.mean():.2f} |")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("split", help="split of a cache with atomic_dos: unseen crystals")
    parser.add_argument("--adapter", required=True, help="model trained with the recipe site_dos")
    parser.add_argument("--joint", default="checkpoints/dos_joint_small", help="joint model that generates atomic_dos")
    parser.add_argument("--predictor", default="checkpoints/dos_predictor")
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--crystals", type=int, default=16, help="per target and way")
    parser.add_argument("--sizes", type=int, nargs="+", default=[3, 4, 5, 6])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="site_targets", help="folder for the crystals")
    return parser.parse_args()


def generate(out: Path, model: str, constraints: dict, overrides: list[str], arguments: argparse.Namespace) -> None:
    """Runs mattergen-generate with a constraints file; goes on where it was stopped."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "constraints.json"
    file.write_text(json.dumps(constraints))
    words = [f"sampler_partial.constraints={file}", *overrides]
    command = [
        str(Path(sys.executable).with_name("mattergen-generate")), str(out), f"--model_path={model}",
        "--sampling_config_name=joint", f"--batch_size={arguments.crystals}", "--num_batches=1",
        f"--sampling_config_overrides={words}",
    ]  # fmt: skip
    environment = os.environ | {"MATTERGEN_E_SEED": str(arguments.seed), "MATTERGEN_E_EXISTING": "resume"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])


def judge(predictor, crystal, target: np.ndarray) -> tuple[float, float]:
    """Cosine and Wasserstein distance (eV) of the predicted spectrum of site 0 to its target; NaN without one."""
    plain = crystal.structure.copy(site_properties={})
    try:
        return distances(predict_structures(predictor, [NamedStructure("", plain)])[0].sites[0], target)
    except UserError:
        return float("nan"), float("nan")


def distances(spectrum: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Cosine and Wasserstein distance (eV)."""
    a, b = spectrum[None].astype(float), target[None].astype(float)
    return float(cosine(a, b, ATOMIC_GRID)[0]), float(wasserstein(a, b, ATOMIC_GRID)[0])


if __name__ == "__main__":
    main()
