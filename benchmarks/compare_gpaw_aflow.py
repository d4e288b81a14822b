"""How well crystals computed by `mattergen-e data compute` agree with AFLOW's charges and with earlier spectra.

    mattergen-e data compute STRUCTURES --out COMPUTED
    python benchmarks/compare_gpaw_aflow.py COMPUTED REFERENCE

REFERENCE holds .npz files of the same names, with `bader_aflow` (e), `bader`, `energy_grid`, `dos`, `pdos` and
`density`. Prints for each crystal that is in both folders: the mean absolute deviation of its Bader charges from
AFLOW's (VASP, PBE) and from the reference's; the integral of |difference| of total and site DOS as a share of the
integral of the reference, over the occupied states (-15 to 0 eV) and up to 5 eV; and the largest difference of the
pseudo density as a share of its largest value.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

COLUMNS = (
    "|q - AFLOW|\ne",
    "|q - ref.|\ne",
    "DOS to 0 eV\n%",
    "site DOS to 0\n%",
    "DOS to 5 eV\n%",
    "site DOS to 5\n%",
    "density\n%",
    "k-points\nours, ref.",
)


def relative(ours: np.ndarray, reference: np.ndarray, below: np.ndarray) -> float:
    """Integral of |difference| over the integral of the reference, orbitals summed, in per cent."""
    ours, reference = (x.astype(float)[..., below] for x in (ours, reference))
    return 100 * float(np.abs(ours - reference).sum() / reference.sum())


def compare(ours: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> list[float]:
    """The numbers of one crystal, in the order of `COLUMNS` without the last; NaN where charges are missing.

    Raises:
        SystemExit: If the two hold different crystals or energies.
    """
    for name in ("numbers", "cell", "energy_grid"):
        if not np.allclose(ours[name], reference[name], atol=1e-4):
            raise SystemExit(f"{name} differs: the folders hold different crystals under one name")
    energies = reference["energy_grid"]
    charges = [
        float(np.abs(ours["bader"] - reference[key]).mean()) if "bader" in ours and key in reference else np.nan
        for key in ("bader_aflow", "bader")
    ]
    spectra = [
        relative(left, right, energies <= limit)
        for limit in (0, 5)
        for left, right in (
            (ours["dos"], reference["dos"]),
            (ours["pdos"].sum(axis=1), reference["pdos"].astype(np.float64).sum(axis=1)),
        )
    ]
    density = reference["density"].astype(float)
    deviation = 100 * float(np.abs(ours["density"] - density).max() / density.max())
    return [*charges, *spectra, deviation]


def main() -> None:
    """Compares and prints."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    computed, other = map(Path, sys.argv[1:])
    pairs = [(path, other / path.name) for path in sorted(computed.glob("*.npz")) if (other / path.name).exists()]
    if not pairs:
        raise SystemExit(f"no .npz of {computed} is in {other}")
    table, rows = Table("id", *COLUMNS), []
    for path, twin in pairs:
        with np.load(path, allow_pickle=False) as ours, np.load(twin, allow_pickle=False) as reference:
            rows.append(compare(ours, reference))
            points = f"{int(ours['n_kpts'])}, {int(reference['n_kpts'])}"
        table.add_row(path.stem, *(f"{value:.3f}" for value in rows[-1]), points)
    means = [f"{value:.3f}" for value in np.nanmean(np.array(rows), axis=0)]
    table.add_row("mean", *means, "", style="bold")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
