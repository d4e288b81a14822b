"""Speed and quality of generation over the number of network calls, against the unmodified MatterGen's loop.

    python benchmarks/sampling_speed.py --model checkpoints/base_small [--calls 25 33 50 100] [--crystals 64]
        [--guidance 2 --condition dft_band_gap=2] [--eta 16 --times 1.5] [--reference FOLDER] [--out FOLDER]

The first row is MatterGen's own class with its own settings in as many steps as the model was trained with, for models
without descriptors; the second the settings `joint`, the others `fast` with so many calls. Seconds are of the process
on a CPU, of the clock on a GPU. Crystals that fall apart are not drawn anew and count as failed. Of the rest CHGNet
gives the largest force of each (single point), and a joint model predicts its charges for the crystals that it
generated. --reference also relaxes the unique and novel crystals, which takes seconds each, and adds the rates of
`mattergen-e evaluate`. The spread is that of log(volume per site): half the range of its middle 68 %.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Structure
from scipy.stats import bootstrap

from mattergen_e.evaluation.statistics import wilson
from mattergen_e.generation.conditions import ConditionLoader
from mattergen_e.generation.draw import draw
from mattergen_e.upstream.models import load_model

ROOT = Path(__file__).resolve().parents[1]
#: Calls of MatterGen's own models: 1,000 steps of a predictor and a corrector.
MATTERGEN_CALLS = 2000
Row = dict[str, Any]


def settings(name: str, folder: Path) -> Any:
    """Sampling settings of a folder."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(folder), version_base="1.1"):
        return compose(name).sampler_partial


def sampler(model: Any, **changes: Any) -> Any:
    """A sampler of this package that draws nothing anew."""
    from hydra.utils import instantiate

    return instantiate(settings("joint", ROOT / "configs/sampling"), output={})(
        pl_module=model, output={"redraws": 0, "existing": "overwrite"}, **changes
    )


def mattergens(model: Any, guidance: float) -> Any:
    """MatterGen's own sampler with its own settings, in the steps of the training."""
    from hydra.utils import instantiate

    from mattergen_e.upstream import package_data

    folder = next(piece.carried for piece in package_data() if piece.path.name == "sampling_conf")
    config = settings("default", Path(folder))
    steps = next(iter(model.diffusion_module.corruption.discrete_corruptions.values())).N
    config.N = steps
    return instantiate(config)(pl_module=model, guidance_scale=guidance)


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Time of a run and what it gives: of the process on a CPU, of the clock on a GPU."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    begin = clock()
    with contextlib.redirect_stderr(io.StringIO()):
        result = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - begin, result


def loader(arguments: argparse.Namespace) -> ConditionLoader:
    """The conditions of every row: the same seed and sizes."""
    return ConditionLoader(
        arguments.crystals,
        arguments.batch_size,
        num_atoms=arguments.sites,
        seed=arguments.seed,
        properties=dict(arguments.condition),
    )


# -- quality ----------------------------------------------------------------------------------------------------------


def shortest(structure: Structure) -> float:
    """Shortest distance between two sites, images of the same site included, in Å."""
    reduced = structure.get_reduced_structure()
    between = reduced.distance_matrix[~np.eye(len(reduced), dtype=bool)]
    return min([*between.tolist(), *reduced.lattice.abc])


def forces(structures: list[Structure]) -> NDArray[np.float64]:
    """Largest force of each crystal by CHGNet, eV/Å; NaN where it is no crystal that CHGNet can be asked of."""
    from mattergen_e.energies.calculators import make, silent
    from mattergen_e.energies.relaxation import RelaxError, _to_atoms, compact

    calculator, found = make("chgnet", "cuda" if torch.cuda.is_available() else "cpu"), []
    for structure in structures:
        try:
            with silent():
                atoms = _to_atoms(compact(structure), "chgnet")
                atoms.calc = calculator
                found.append(float(np.linalg.norm(atoms.get_forces(), axis=1).max()))
        except (RelaxError, ValueError, RuntimeError):
            found.append(np.nan)
    return np.array(found)


def disagreement(model: Any, structures: list[Structure], name: str) -> NDArray[np.float64]:
    """Mean |generated - predicted| of a descriptor over the sites of each crystal, in its unit."""
    from mattergen_e.crystals.reading import NamedStructure
    from mattergen_e.errors import UserError
    from mattergen_e.prediction.run import predict

    found = []
    for structure in structures:
        try:
            (made,) = predict(model, [NamedStructure("x", structure)], samples=4, steps=8)
        except UserError:  # no neighbours, or not reducible
            continue
        found.append(float(np.abs(made.mean[name][:, 0] - np.array(structure.site_properties[name])).mean()))
    return np.array(found)


def median(values: NDArray[np.float64]) -> str:
    """The median of the known values with its 95 % interval."""
    known = values[np.isfinite(values)]
    if len(known) < 3:
        return "-"
    made = bootstrap((known,), np.median, method="percentile", n_resamples=1000, rng=0).confidence_interval
    return f"{np.median(known):.3g} ({made.low:.3g} to {made.high:.3g})"


def share(count: int, total: int) -> str:
    """A share with its 95 % interval, in percent."""
    low, high = wilson(count, total)
    return f"{100 * count / total:.0f} ({100 * low:.0f} to {100 * high:.0f})"


def judged(arguments: argparse.Namespace, model: Any, structures: list[Structure], folder: Path) -> Row:
    """What a row's crystals are worth."""
    asked = arguments.crystals
    apart = [s for s in structures if shortest(s) > 0.5]
    volumes = np.array([s.volume / len(s) for s in structures])
    low, high = np.quantile(np.log(volumes), [0.16, 0.84])
    row: Row = {
        "healthy %": share(len(structures), asked),
        "> 0.5 Å %": share(len(apart), asked),
        "Å³/site": median(volumes),
        "spread": f"{(high - low) / 2:.2f}",
        "elements": f"{np.mean([len(s.composition) for s in structures]):.2f}",
        "formulas %": share(len({s.composition.reduced_formula for s in structures}), asked),
    }
    if not arguments.no_forces:
        largest = forces(apart)
        row |= {"max force eV/Å": median(largest), "< 1 eV/Å %": share(int((largest < 1).sum()), asked)}
    for name, descriptor in getattr(model, "descriptors", {}).items():
        if descriptor.dim == 1 and descriptor.place == "site":
            row[f"gen - pred {name}"] = median(disagreement(model, apart, name))
    if arguments.reference is not None:
        row |= evaluated(folder, arguments)
    return row


def evaluated(folder: Path, arguments: argparse.Namespace) -> Row:
    """Rates of `mattergen-e evaluate`."""
    from mattergen_e.energies.relaxation import RelaxSettings
    from mattergen_e.evaluation.run import evaluate

    relaxation = RelaxSettings(steps=arguments.relax_steps)
    result = evaluate(folder, arguments.reference, relaxation=relaxation, jobs=arguments.jobs, progress=False).summary
    rates = {
        name.upper() + " %": share(result["rates"][name]["count"], result["rates"][name]["total"])
        for name in ("un", "sun", "vsun")
        if result["rates"][name]["count"] is not None
    }
    for column, name in (("RMSD Å", "rmsd"), ("hull eV/atom", "energy_above_hull")):
        value = result["relaxation"][name]["median"]
        rates[column] = "-" if value is None else f"{value:.3f}"
    return rates


# -- rows -------------------------------------------------------------------------------------------------------------


def rows(arguments: argparse.Namespace, model: Any, folder: Path) -> Iterator[Row]:
    """Times and quality of each way to generate; MatterGen's own loop first."""
    steps = next(iter(model.diffusion_module.corruption.discrete_corruptions.values())).N
    call = None  # seconds of one call of MatterGen's loop
    if not getattr(model, "descriptors", {}):
        made, batches = mattergens(model, arguments.guidance), [data for data, _ in loader(arguments)]
        taken, _ = seconds(lambda: [made.sample(data) for data in batches])
        call = taken / (2 * steps)
        yield timed("MatterGen", 2 * steps, taken, call, arguments)
    ways: list[tuple[str, int, dict[str, Any]]] = [] if arguments.no_joint else [("joint", 2 * steps, {})]
    plan = {"eta": arguments.eta, "times": arguments.times}
    ways += [("fast", calls, {"steps": calls, **plan}) for calls in arguments.calls]
    for name, calls, changes in ways:
        made = sampler(model, guidance_scale=arguments.guidance, **changes)
        out = folder / f"{name}_{calls}"
        taken, structures = seconds(lambda m=made, o=out: draw(m, loader(arguments), dict(arguments.condition), o))
        call = taken / calls if call is None else call
        yield timed(name, calls, taken, call, arguments) | judged(arguments, model, structures, out)


def timed(name: str, calls: int, taken: float, call: float, arguments: argparse.Namespace) -> Row:
    """Speed of a row; `call` is what a call of the first row takes."""
    return {
        "sampler": name,
        "calls": str(calls),
        "s": f"{taken:.1f}",
        "crystals/s": f"{arguments.crystals / taken:.2f}",
        "ms/call": f"{1000 * taken / calls:.0f}",
        f"x {MATTERGEN_CALLS} calls": f"{MATTERGEN_CALLS * call / taken:.1f}",
    }


def condition(word: str) -> tuple[str, float]:
    """NAME=NUMBER."""
    name, _, value = word.partition("=")
    return name, float(value)


def arguments_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line."""
    parser.add_argument("--model", type=Path, default=Path("checkpoints/base_small"))
    parser.add_argument("--crystals", type=int, default=256, help="in each row")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--sites", type=int, nargs="+", default=[2, 3, 4, 5, 6, 7, 8])
    parser.add_argument("--calls", type=int, nargs="+", default=[25, 33, 50, 100])
    parser.add_argument("--eta", type=float, default=None)
    parser.add_argument("--times", type=float, default=None)
    parser.add_argument("--guidance", type=float, default=0.0)
    parser.add_argument("--condition", type=condition, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-joint", action="store_true", help="leave the row `joint` out")
    parser.add_argument("--no-forces", action="store_true", help="leave CHGNet out")
    parser.add_argument("--reference", type=Path, help="of `mattergen-e reference build`")
    parser.add_argument("--relax-steps", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1, help="relaxations at a time")
    parser.add_argument("--out", type=Path, help="keep the crystals here")
    return parser.parse_args()


def main() -> None:
    """Measures, and prints a table of Markdown at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments = arguments_of(parser)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = load_model(arguments.model)
    with tempfile.TemporaryDirectory() as place:
        found = []
        for row in rows(arguments, model, arguments.out or Path(place)):
            found.append(row)
            print(json.dumps(row, ensure_ascii=False), flush=True)
    columns = list(dict.fromkeys(key for row in found for key in row))
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)], *[[row.get(c, "") for c in columns] for row in found]]
    for line in lines:
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main()
