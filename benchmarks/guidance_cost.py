"""Cost of each kind of guidance and of constraints: sampling steps against those of the model without condition.

    python benchmarks/guidance_cost.py [--base checkpoints/base_small] [--cdosgen FOLDER] [--site-dos FOLDER]
        [--given FOLDER] [--predictor FOLDER] [--crystals 16] [--steps 20] [--repeats 3]

All kinds run in turn on the same batch; printed are the median seconds per step (predictor and corrector) of each and
the median of its ratios to the base model of the same round. On a CPU it is the process's own time that counts, which
other work on the machine disturbs less. Kinds whose folder is not given are left out.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joint_cost import crystals
from mattergen.common.data.chemgraph import ChemGraph

from mattergen_e import provenance
from mattergen_e.diffusion.classifier import Classifier
from mattergen_e.diffusion.guidance_target import ClassifierSettings, GuidanceTarget
from mattergen_e.diffusion.held import ClampedDescriptor, FixedTypes, Held, SiteTargets
from mattergen_e.diffusion.sampler import JointSampler
from mattergen_e.networks.predictor.folder import load
from mattergen_e.spectra.grid import TOTAL_GRID
from mattergen_e.targets.targets import Request, Targets
from mattergen_e.upstream.models import load_model

#: A DOS that looks like one, states/eV per atom.
SPECTRUM = (2.0 * np.exp(-0.5 * ((TOTAL_GRID.energies + 3.0) / 1.5) ** 2)).astype(np.float32)


def steps_of(made: JointSampler, batch: ChemGraph, steps: int) -> None:
    """Reverse steps from ordinary crystals, at the middle of the schedule."""
    whole = made.N, made._max_t, made._eps_t
    try:
        made.N, made._max_t, made._eps_t = steps, 0.5, 0.49
        made.guard.begin(batch["num_atoms"])
        data = made.held.begin(made.with_fields(batch))
        if made.classifier is not None:
            data = made.classifier.tell(data)
        torch.manual_seed(0)
        made._denoise(data, mask={})
    finally:
        made.N, made._max_t, made._eps_t = whole


def sampler(model: Any, **changes: Any) -> JointSampler:
    """A sampler with MatterGen's predictors and correctors, and with these changes of the settings."""
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    folder = Path(__file__).resolve().parents[1] / "configs" / "sampling"
    with initialize_config_dir(str(folder), version_base="1.1"):
        config = compose("joint")
    return instantiate(config.sampler_partial, output={})(pl_module=model, **changes)


def classifier(folder: Path, device: torch.device) -> Classifier:
    """A predictor that pulls all crystals towards the spectrum."""
    predictor = load(folder, device)
    grid = predictor.grids.total
    values = np.interp(grid.energies, TOTAL_GRID.energies, SPECTRUM).astype(np.float32)[None]
    targets = Targets("classifier", Request(file=Path("none")), ("spectrum",), values, "", grid)
    settings = ClassifierSettings(predictor=folder, target=Path("none"))
    return Classifier(predictor, GuidanceTarget(settings, targets, predictor.grids.sites, predictor.fingerprint))


def kinds(arguments: argparse.Namespace, batch: ChemGraph) -> dict[str, tuple[JointSampler, ChemGraph]]:
    """Samplers with their batches by name, the base model first."""
    base: Any = load_model(arguments.base)
    told = batch.replace(dos=torch.from_numpy(SPECTRUM).to(base.device).expand(len(batch["num_atoms"]), -1))
    found = {"without condition": (sampler(base), batch)}
    found["fixed type"] = sampler(base, constraints=Held(types=FixedTypes({0: 8}))), batch
    if arguments.cdosgen is not None:
        model: Any = load_model(arguments.cdosgen)
        for gamma in (1.0, 2.0):
            found[f"dos, gamma {gamma:g}"] = sampler(model, guidance_scale=gamma), told
    if arguments.site_dos is not None:
        model = load_model(arguments.site_dos)
        values = torch.full((model.site_conditions["site_dos"].dim,), 0.5)
        for omega in (0.0, 1.0):
            held = Held(targets=[SiteTargets("site_dos", {0: values})])
            found[f"site_dos, omega {omega:g}"] = sampler(model, omega=omega, constraints=held), batch
    if arguments.given is not None:
        model = load_model(arguments.given)
        (descriptor,) = model.descriptors.values()
        for omega in (0.0, 1.0):
            clamp = ClampedDescriptor(descriptor, {0: torch.zeros(descriptor.dim)}, clean=True)
            held = Held(clamped={descriptor.name: clamp})
            found[f"{descriptor.name} given, omega {omega:g}"] = sampler(model, omega=omega, constraints=held), batch
    if arguments.predictor is not None:
        found["classifier"] = sampler(base, classifier=classifier(arguments.predictor, base.device)), batch
    return found


def seconds(run: Callable[[], None]) -> float:
    """Time that a run takes: of the process on a CPU, of the clock on a GPU."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    begin = clock()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - begin


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=Path("checkpoints/base_small"))
    for name in ("--cdosgen", "--site-dos", "--given", "--predictor"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--crystals", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = crystals(arguments.crystals).to(device)
    runs = {
        name: functools.partial(steps_of, made, data, arguments.steps)
        for name, (made, data) in kinds(arguments, batch).items()
    }
    for run in runs.values():
        run()
    rounds = [{name: seconds(run) / arguments.steps for name, run in runs.items()} for _ in range(arguments.repeats)]
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {hardware}, {provenance.hardware()}")
    print(f"{arguments.crystals} crystals, {int(batch['num_atoms'].sum())} sites, {arguments.steps} steps, in turn")
    first = next(iter(runs))
    for name in runs:
        ratio = statistics.median(times[name] / times[first] for times in rounds)
        per_step = statistics.median(times[name] for times in rounds)
        print(f"{name:30s} {1e3 * per_step:9.1f} ms per step   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
