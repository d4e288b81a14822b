"""Structure prediction with a fixed composition: how many of twenty known simple crystals does a model find?

    python benchmarks/structure_prediction.py [--model checkpoints/base_small] [--crystals 10] [--hold-cell]

For each known crystal a constraints file asks for its composition, in the number of formula units of its primitive cell
and, with --hold-cell, for that cell. Counted are the generated crystals that pymatgen's StructureMatcher takes for the
known one: with its own tolerances (0.2, 0.3, 5 degrees), and with a third of the displacements (stol 0.1), since the
former are coarse for two sites. What chance finds stands beside: the same sites at random positions in the known
crystal's own cell. Crystals are compared as they are generated, unrelaxed. The lattice
parameters are experimental ones at room temperature, rounded.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from guidance_cost import sampler
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from mattergen_e import provenance
from mattergen_e.generation.conditions import ConditionLoader
from mattergen_e.generation.draw import draw
from mattergen_e.upstream.models import load_model

MATCHERS = (StructureMatcher(), StructureMatcher(stol=0.1))
#: Of the sampler, in cubic angstrom per site: a cell that collapses on the way is slow, and none of these.
BOUNDS = (5.0, 60.0)
#: Cube of the longest vector of a reduced cell over the volume, below 4 in all known crystals, of one that is no match.
FLAT = 50
ZERO, HALF, QUARTER = [0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]


def known() -> dict[str, Structure]:
    """Twenty crystals of textbooks by formula, in their primitive cells."""

    def cubic(group: str, a: float, species: list[str], *places: list[float]) -> Structure:
        return Structure.from_spacegroup(group, Lattice.cubic(a), species, [*places])

    rock_salt = {"NaCl": 5.64, "MgO": 4.21, "LiF": 4.03, "KBr": 6.60, "CaO": 4.81, "TiC": 4.33, "PbS": 5.94}
    zinc_blende = {"ZnS": 5.41, "GaAs": 5.65, "InSb": 6.48, "CuCl": 5.42}
    caesium_chloride = {"CsCl": 4.12, "NiAl": 2.89, "CuZn": 2.95}

    found = {f: cubic("Fm-3m", a, pair(f), ZERO, HALF) for f, a in rock_salt.items()}
    found |= {f: cubic("F-43m", a, pair(f), ZERO, QUARTER) for f, a in zinc_blende.items()}
    found |= {f: cubic("Pm-3m", a, pair(f), ZERO, HALF) for f, a in caesium_chloride.items()}
    found["CaF2"] = cubic("Fm-3m", 5.46, ["Ca", "F"], ZERO, QUARTER)
    found["Li2O"] = cubic("Fm-3m", 4.62, ["O", "Li"], ZERO, QUARTER)
    found["Ni3Al"] = cubic("Pm-3m", 3.57, ["Al", "Ni"], ZERO, [0.5, 0.5, 0])
    found["SrTiO3"] = cubic("Pm-3m", 3.91, ["Sr", "Ti", "O"], ZERO, HALF, [0.5, 0.5, 0])
    found["ZnO"] = Structure.from_spacegroup(
        "P6_3mc", Lattice.hexagonal(3.25, 5.21), ["Zn", "O"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.382]]
    )
    found["TiO2"] = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [ZERO, [0.305, 0.305, 0]]
    )
    return {formula: crystal.get_primitive_structure() for formula, crystal in found.items()}


def pair(formula: str) -> list[str]:
    """The two elements of a formula, in its order."""
    second = max(i for i, letter in enumerate(formula) if letter.isupper())
    return [formula[:second], formula[second:]]


def same(crystal: Structure, structure: Structure) -> list[bool]:
    """Whether a structure is the known crystal, by each matcher; a flat one is not, and would take hours."""
    reduced = structure.get_reduced_structure("LLL")
    longest = max(reduced.lattice.abc)
    compact = longest**3 <= FLAT * reduced.volume
    return [compact and bool(matcher.fit(crystal, reduced)) for matcher in MATCHERS]


def chance(crystal: Structure, number: int = 100) -> np.ndarray:
    """Shares, by matcher, of the known crystal's sites at random positions in its cell that are taken for it."""
    rng = np.random.default_rng(0)
    drawn = (Structure(crystal.lattice, crystal.species, rng.random((len(crystal), 3))) for _ in range(number))
    return np.mean([same(crystal, structure) for structure in drawn], axis=0)


def main() -> None:
    """Generates, compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("checkpoints/base_small"))
    parser.add_argument("--crystals", type=int, default=10, help="generated crystals per known one")
    parser.add_argument("--hold-cell", action="store_true", help="give the known crystal's cell as well")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model: Any = load_model(arguments.model)
    begin, found, random = time.process_time(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for formula, crystal in known().items():
            path = Path(folder) / f"{formula}.yaml"
            asked: dict[str, Any] = {"composition": {str(e): int(n) for e, n in crystal.composition.items()}}
            if arguments.hold_cell:
                asked["cell"] = crystal.get_reduced_structure("niggli").lattice.matrix.tolist()
            path.write_text(yaml.safe_dump(asked), encoding="utf-8")
            loader = ConditionLoader(arguments.crystals, arguments.crystals, constraints=path, seed=arguments.seed)
            made = draw(sampler(model, constraints=path, volume_per_site=BOUNDS), loader, {})
            if any(structure.composition != crystal.composition for structure in made):
                raise AssertionError(f"a crystal asked for as {crystal.composition} has another composition")
            found.append(np.sum([same(crystal, structure) for structure in made], axis=0) / arguments.crystals)
            random.append(chance(crystal))
            print(
                f"{formula:8s}{len(crystal):3d} sites   {shares(found[-1])}   by chance {shares(random[-1])}",
                flush=True,
            )
    seconds = time.process_time() - begin
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {hardware}, {provenance.hardware()}")
    print(f"{arguments.model}, {arguments.crystals} crystals each, {seconds:.0f} s of processor time")
    for place, name in enumerate(("own tolerances", "stol 0.1")):
        rates = np.array(found)[:, place]
        print(f"{name}: {(rates > 0).sum()} of {len(rates)} known crystals found; of all that were generated ", end="")
        print(f"{rates.mean():.1%}; by chance {np.mean(random, axis=0)[place]:.1%}")


def shares(values: np.ndarray) -> str:
    """Percentages side by side."""
    return " ".join(f"{value:5.0%}" for value in values)


if __name__ == "__main__":
    main()
