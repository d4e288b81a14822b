"""Cost of descriptors: a joint model against the structure-only model with the same weights, on the same batch.

    python benchmarks/joint_cost.py [--model checkpoints/base_small] [--descriptors bader] [--crystals 32]

Prints the median time of a training step, of a network call and of a sampling step of both models, taken in turn, and
the ratio joint / base pair by pair; then the peak memory that a training step of each adds in a process of its own.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mattergen.common.data.chemgraph import ChemGraph
from mattergen.common.data.collate import collate

from mattergen_e.descriptors import AtomicDos, BaderCharge, Descriptor, Dummy
from mattergen_e.diffusion.joint import Shares, attach
from mattergen_e.diffusion.sampler import JointSampler, OutputSettings
from mattergen_e.upstream.models import load_model

AUTOENCODER = Path(__file__).resolve().parents[1] / "checkpoints" / "dos_autoencoder"
KNOWN: dict[str, Callable[[], Descriptor]] = {
    "bader": BaderCharge,
    "dummy": Dummy,
    "atomic_dos": lambda: AtomicDos(autoencoder=str(AUTOENCODER)),
}


def crystals(number: int, seed: int = 0) -> ChemGraph:
    """A batch of random crystals of ordinary density with 4 to 16 sites and neutral charges."""
    rng = np.random.default_rng(seed)
    graphs = []
    for _ in range(number):
        n = int(rng.integers(4, 17))
        cell = np.eye(3) * (n / 0.0577) ** (1 / 3) + rng.normal(0, 0.2, (3, 3))
        charges = rng.normal(0, 1, (n, 1))
        graphs.append(
            ChemGraph(
                pos=torch.tensor(rng.random((n, 3)), dtype=torch.float32),
                cell=torch.tensor((cell + cell.T) / 2, dtype=torch.float32)[None],
                atomic_numbers=torch.tensor(rng.choice([3, 8, 11, 12, 14, 16, 22, 26, 30, 38], n)),
                num_atoms=torch.tensor(n),
                num_nodes=torch.tensor(n),
                bader_charge=torch.tensor(charges - charges.mean(), dtype=torch.float32),
                bader_charge_batch=torch.zeros(n, dtype=torch.long),
                atomic_dos=torch.tensor(np.tanh(rng.normal(0, 0.2, (n, 30))), dtype=torch.float32),
                atomic_dos_batch=torch.zeros(n, dtype=torch.long),
            )
        )
    return collate(graphs)


def joint_copy(model: torch.nn.Module, names: list[str], predict: float) -> torch.nn.Module:
    """The same weights with descriptors attached."""
    joint = copy.deepcopy(model)
    descriptors = {d.name: d for d in (KNOWN[name]() for name in names)}
    attach(joint.diffusion_module, descriptors, Shares(predict=predict))
    for descriptor in descriptors.values():
        descriptor.begin_training()
    joint.descriptors = descriptors
    return joint.to(model.device)


def training_step(model: torch.nn.Module, batch: ChemGraph) -> None:
    """Loss and gradients of one batch."""
    torch.manual_seed(0)
    loss, _ = model.diffusion_module.train().calc_loss(batch)
    model.zero_grad()
    loss.backward()


def sampler(model: torch.nn.Module) -> JointSampler:
    """A sampler of few steps with MatterGen's predictors and correctors."""
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    folder = Path(__file__).resolve().parents[1] / "configs" / "sampling"
    with initialize_config_dir(str(folder), version_base="1.1"):
        config = compose("joint")
    steps = {c.N for c in model.diffusion_module.corruption.discrete_corruptions.values()}
    made = instantiate(config.sampler_partial, output={})(pl_module=model, N=min(steps))
    assert isinstance(made.output, OutputSettings)
    return made


def sampling_steps(made: JointSampler, batch: ChemGraph) -> None:
    """Five reverse steps (predictor and corrector) from ordinary crystals, at the middle of the schedule."""
    whole = made.N
    try:
        made.N = 5
        made._max_t, made._eps_t = 0.5, 0.49
        made.guard.begin(batch["num_atoms"])
        torch.manual_seed(0)
        made._denoise(made.with_fields(batch), mask={})
    finally:
        made.N = whole


def in_turn(first: Callable[[], None], second: Callable[[], None], repeats: int) -> tuple[float, float, float]:
    """Median seconds of both, run in turn, and the median of the ratios second / first."""
    times: list[tuple[float, float]] = []
    for i in range(repeats + 2):
        pair = []
        for run in (first, second):
            begin = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            pair.append(time.perf_counter() - begin)
        if i >= 2:
            times.append((pair[0], pair[1]))
    a, b = (statistics.median(t[k] for t in times) for k in (0, 1))
    return a, b, statistics.median(t[1] / t[0] for t in times)


def peak_memory(arguments: argparse.Namespace, joint: bool) -> float:
    """Peak resident memory (MiB) of a process that does three training steps."""
    command = [sys.executable, __file__, "--memory-of", "joint" if joint else "base"]
    command += ["--model", str(arguments.model), "--crystals", str(arguments.crystals)]
    command += ["--descriptors", *arguments.descriptors]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])["mib"]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("checkpoints/base_small"))
    parser.add_argument("--descriptors", nargs="+", default=["bader"], choices=sorted(KNOWN))
    parser.add_argument("--crystals", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--memory-of", choices=["base", "joint"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    base = load_model(arguments.model)
    batch = crystals(arguments.crystals).to(base.device)
    if arguments.memory_of is not None:
        model = joint_copy(base, arguments.descriptors, 0.0) if arguments.memory_of == "joint" else base
        for _ in range(3):
            training_step(model, batch)
        print(json.dumps({"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    joint = joint_copy(base, arguments.descriptors, 0.0)
    noisy = joint.diffusion_module.corruption.sample_marginal(
        joint.diffusion_module.pre_corruption_fn(batch), torch.full((arguments.crystals,), 0.3, device=base.device)
    )
    t = torch.full((arguments.crystals,), 0.3, device=base.device)
    samplers = [sampler(base), sampler(joint)]
    with torch.no_grad():
        base.eval(), joint.eval()
        call = in_turn(
            lambda: base.diffusion_module.model(noisy, t),
            lambda: joint.diffusion_module.model(noisy, t),
            arguments.repeats,
        )
        sampling = in_turn(
            lambda: sampling_steps(samplers[0], batch), lambda: sampling_steps(samplers[1], batch), arguments.repeats
        )
    training = in_turn(lambda: training_step(base, batch), lambda: training_step(joint, batch), arguments.repeats)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    sites = int(batch["num_atoms"].sum())
    print(
        f"{arguments.model}, {', '.join(arguments.descriptors)}: {arguments.crystals} crystals, {sites} sites, {device}"
    )
    for name, (a, b, ratio) in {"network call": call, "5 sampling steps": sampling, "training step": training}.items():
        print(f"{name:18s} base {1e3 * a:8.1f} ms   joint {1e3 * b:8.1f} ms   joint / base {ratio:.3f}")
    a, b = peak_memory(arguments, False), peak_memory(arguments, True)
    print(f"{'peak memory':18s} base {a:8.0f} MiB  joint {b:8.0f} MiB  joint / base {b / a:.3f}")


if __name__ == "__main__":
    main()
