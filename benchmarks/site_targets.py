"""Do the sites of a generated crystal have the spectra that were asked for? The same targets in several ways.

    python benchmarks/site_targets.py cache/dos/test --adapter checkpoints/site_dos_small
    python benchmarks/site_targets.py cache/dos/test --adapter checkpoints/site_dos_small --whole

Targets are sites of crystals that nothing was trained on, drawn at random, or with --whole all sites of such crystals.
For each, crystals are generated that shall have these spectra, at site 0 or at all sites: without being told (the
baseline), by the condition site_dos at two strengths, by clamping atomic_dos in a joint model that never saw it given
(re-noised on the way), by giving it to one that did, the mirror of prediction, at two strengths, and by a classifier
that guides a model that is told nothing. The forward predictor says what spectra the crystals have; its own error on
the crystals that the targets come from is the last line. With --whole the last column is the share of crystals with the
composition of the target's. Crystals are judged as they are, unrelaxed. Standard errors are over the targets' means.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mattergen_e.crystals.reading import NamedStructure
from mattergen_e.data.cache import load_array, open_sites
from mattergen_e.data.dataset import JointCrystalDataset
from mattergen_e.errors import UserError
from mattergen_e.generation.formats import Generated
from mattergen_e.generation.store import read_crystals
from mattergen_e.networks.predictor.folder import load
from mattergen_e.networks.predictor.model import Predictor
from mattergen_e.networks.predictor.output import predict_structures
from mattergen_e.spectra.grid import ATOMIC_GRID
from mattergen_e.spectra.metrics import cosine, wasserstein

OWN = "the targets' own crystals"


def main() -> None:
    """Generates, predicts and prints."""
    arguments = parse()
    torch.set_num_threads(1)
    split = Path(arguments.split).absolute()
    targets = draw_targets(split, arguments)
    predictor = load(arguments.predictor, "cpu")
    found: dict[str, list[np.ndarray]] = {way.label: [] for way in ways(arguments)} | {OWN: []}
    dataset = JointCrystalDataset.from_cache_path(str(split))
    for number, target in enumerate(targets):
        for way in ways(arguments):
            out = Path(arguments.out).absolute() / f"target_{number}_{way.name}"
            generate(out, way, target.constraints(split, way.key, arguments), arguments)
            found[way.label].append(np.array([judge(predictor, crystal, target) for crystal in read_crystals(out)]))
        own = predictor.predict([dataset[target.row]]).sites[target.sites]
        found[OWN].append(np.array([[*distances(own, target.spectra), 1.0]]))
        print(f"target {number}: sites {target.sites} of {target.structure}", file=sys.stderr, flush=True)
    show(found)


@dataclass(frozen=True)
class Target:
    """Spectra that sites 0, 1, ... of a crystal shall have: those of `sites` of a row of the split."""

    row: int
    structure: str
    sites: list[int]
    spectra: np.ndarray
    numbers: list[int] | None

    def constraints(self, split: Path, key: str, arguments: argparse.Namespace) -> dict:
        """What the constraints file says."""
        sites = [
            {"site": i, key: {"file": str(split), "structure": self.structure, "site": site}}
            for i, site in enumerate(self.sites)
        ]
        return {"num_atoms": arguments.sizes if self.numbers is None else len(self.sites), "sites": sites}


def draw_targets(split: Path, arguments: argparse.Namespace) -> list[Target]:
    """Random ones; a larger number begins with those of a smaller one."""
    spectra, counts = open_sites(split, "atomic_dos"), load_array(split / "num_atoms.npy")
    ids, numbers = load_array(split / "structure_id.npy").tolist(), load_array(split / "atomic_numbers.npy")
    ends = np.cumsum(counts)
    random = np.random.default_rng(arguments.seed)
    if arguments.whole:
        chosen = [(row, range(counts[row])) for row in random.permutation(len(counts)).tolist()]
    else:
        rows = random.permutation(len(spectra))
        owners = np.searchsorted(ends, rows, side="right")
        chosen = [(o, [r - (ends[o] - counts[o])]) for r, o in zip(rows.tolist(), owners.tolist(), strict=True)]
    targets = []
    for row, sites in chosen[: arguments.targets]:
        inside = slice(ends[row] - counts[row], ends[row])
        own = spectra[inside][list(sites)]
        composition = sorted(numbers[inside].tolist()) if arguments.whole else None
        targets.append(Target(row, ids[row], [int(site) for site in sites], own, composition))
    return targets


@dataclass(frozen=True)
class Way:
    """A way to tell sites their spectra: a model, what its sites are told by, and the strength of its guidance."""

    name: str
    label: str
    model: str
    key: str
    omega: float | None = None
    classifier: str | None = None


def ways(arguments: argparse.Namespace) -> list[Way]:
    """Those that there are models for."""
    found = [
        Way("untold", "not told", arguments.adapter, "site_dos", -1.0),
        Way("condition", "site_dos, ω = 0", arguments.adapter, "site_dos", 0.0),
        Way("guided", "site_dos, ω = 1", arguments.adapter, "site_dos", 1.0),
    ]
    if arguments.joint:
        found.append(Way("clamped", "atomic_dos clamped", arguments.joint, "atomic_dos"))
    if arguments.given:
        found.append(Way("given", "atomic_dos given, ω = 0", arguments.given, "atomic_dos", 0.0))
        found.append(Way("given_guided", "atomic_dos given, ω = 1", arguments.given, "atomic_dos", 1.0))
    if arguments.classifier:
        words = f"{{predictor: {Path(arguments.classifier).absolute()}, strength: {arguments.strength}}}"
        label = f"classifier, λ = {arguments.strength:g}"
        found.append(Way("classifier", label, arguments.base, "site_dos", classifier=words))
    return found


def show(found: dict[str, list[np.ndarray]]) -> None:
    """The table."""
    print("| crystals | number | cosine, mean (standard error) | Wasserstein distance, mean (eV) | composition (%) |")
    print("| --- | --- | --- | --- | --- |")
    for name, targets in found.items():
        judged = [values[np.isfinite(values[:, 0])] for values in targets]
        means = np.array([values[:, 0].mean() for values in judged if len(values)])
        every = np.concatenate(judged)
        error = means.std(ddof=1) / np.sqrt(len(means))
        same = f"{100 * every[:, 2].mean():.0f}" if np.isfinite(every[:, 2]).all() else "–"
        print(f"| {name} | {len(every)} | {means.mean():.3f} ({error:.3f}) | {every[:, 1].mean():.2f} | {same} |")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("split", help="split of a cache with atomic_dos: unseen crystals")
    parser.add_argument("--adapter", required=True, help="model trained with the recipe site_dos")
    parser.add_argument("--joint", help="joint model that generates atomic_dos, trained without giving it")
    parser.add_argument("--given", help="one that was trained with lightning_module.shares.given above 0")
    parser.add_argument("--classifier", help="predictor of noised crystals (dos-predictor train --noisy)")
    parser.add_argument("--base", default="checkpoints/base_small", help="model that the classifier guides")
    parser.add_argument("--strength", type=float, default=5.0, help="of the classifier")
    parser.add_argument("--whole", action="store_true", help="tell all sites of a crystal, not one")
    parser.add_argument("--predictor", default="checkpoints/dos_predictor")
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--crystals", type=int, default=16, help="per target and way")
    parser.add_argument("--sizes", type=int, nargs="+", default=[3, 4, 5, 6])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="site_targets", help="folder for the crystals")
    return parser.parse_args()


def generate(out: Path, way: Way, constraints: dict, arguments: argparse.Namespace) -> None:
    """Runs mattergen-generate with a constraints file; goes on where it was stopped."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "constraints.json"
    file.write_text(json.dumps(constraints))
    words = [f"sampler_partial.constraints={file}"]
    words += [] if way.omega is None else [f"sampler_partial.omega={way.omega}"]
    words += [] if way.classifier is None else [f"sampler_partial.classifier={way.classifier}"]
    command = [
        str(Path(sys.executable).with_name("mattergen-generate")), str(out), f"--model_path={way.model}",
        "--sampling_config_name=joint", f"--batch_size={arguments.crystals}", "--num_batches=1",
        f"--sampling_config_overrides={words}",
    ]  # fmt: skip
    environment = os.environ | {"MATTERGEN_E_SEED": str(arguments.seed), "MATTERGEN_E_EXISTING": "resume"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])


def judge(predictor: Predictor, crystal: Generated, target: Target) -> tuple[float, float, float]:
    """Cosine and Wasserstein distance (eV) of the predicted spectra to the target's, and whether the elements agree.

    NaN where a crystal has no spectrum, and where no composition was asked for.
    """
    plain = crystal.structure.copy(site_properties={})
    same = float("nan") if target.numbers is None else float(sorted(plain.atomic_numbers) == target.numbers)
    try:
        sites = predict_structures(predictor, [NamedStructure("", plain)])[0].sites[: len(target.sites)]
    except UserError:
        return float("nan"), float("nan"), same
    return *distances(sites, target.spectra), same


def distances(spectra: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Cosine and Wasserstein distance (eV), means over sites."""
    a, b = spectra.astype(float), targets.astype(float)
    return float(cosine(a, b).mean()), float(wasserstein(a, b, ATOMIC_GRID).mean())


if __name__ == "__main__":
    main()
