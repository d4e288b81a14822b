"""What a folder of generated crystals is worth at first sight.

    python benchmarks/check_generated.py OUT

Prints the share of requested crystals that are finite and whose CIF can be read, of those the share whose shortest
distance is above 0.5 Å, the largest sum of charges, and the share of sites whose charge has the sign that Pauling's
electronegativities suggest: negative above the crystal's mean electronegativity, positive below. Crystals of one
element do not count for the last.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from pymatgen.core import Structure

from mattergen_e.generation.store import load_record, read_crystals


def shortest_distance(structure: Structure) -> float:
    """Shortest distance between two sites, periodic images of the same site included, in Å."""
    reduced = structure.get_reduced_structure()
    between = reduced.distance_matrix[~np.eye(len(reduced), dtype=bool)]
    return min([*between.tolist(), *reduced.lattice.abc])


def expected_signs(structure: Structure) -> np.ndarray:
    """Sign of each site's charge by electronegativity, shape (n_sites,); 0 where all sites are alike."""
    values = np.array([site.specie.X for site in structure])
    return np.where(np.isclose(values, values.mean()), 0, np.sign(values.mean() - values))


def main() -> None:
    """Reads, checks and prints."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = Path(sys.argv[1])
    record = load_record(folder)
    crystals = read_crystals(folder / "generated_crystals.jsonl")
    asked = record.settings["num_samples"]
    warnings.simplefilter("ignore")
    with ZipFile(folder / "generated_crystals_cif.zip") as archive:
        read = [Structure.from_str(archive.read(name).decode(), fmt="cif") for name in archive.namelist()]
    finite = [s for s in read if np.isfinite(s.frac_coords).all() and np.isfinite(s.lattice.matrix).all()]
    distances = np.array([shortest_distance(c.structure) for c in crystals])
    volumes = [c.structure.volume / len(c.structure) for c in crystals]
    sums, right, counted = [], 0, 0
    for crystal in crystals:
        charges = np.array(crystal.structure.site_properties["bader_charge"])
        signs = expected_signs(crystal.structure)
        sums.append(abs(charges.sum()))
        right += int((np.sign(charges) == signs)[signs != 0].sum())
        counted += int((signs != 0).sum())
    print(f"requested                         {asked}")
    print(f"finite, CIF readable              {len(finite)} ({len(finite) / asked:.1%})")
    print(
        f"shortest distance above 0.5 Å     {(distances > 0.5).sum()} ({(distances > 0.5).mean():.1%} of the readable)"
    )
    print(f"median shortest distance          {np.median(distances):.2f} Å")
    print(f"median volume per site            {np.median(volumes):.1f} Å^3")
    print(f"largest sum of charges            {max(sums):.1e} e")
    print(f"signs as electronegativity says   {right} of {counted} sites ({right / max(counted, 1):.1%})")
    print(f"different reduced formulas        {len({c.structure.reduced_formula for c in crystals})}")
    print(f"degenerate draws                  {record.dropped}")
    print(json.dumps({"seed": record.seed, "batches": len(record.batches)}))


if __name__ == "__main__":
    main()
