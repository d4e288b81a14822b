"""Novelty against a reference as large as Alex-MP: seconds and memory of matching, at growing sizes.

    OMP_NUM_THREADS=1 python benchmarks/matching_scale.py REFERENCE OUT [--scratch FOLDER] [--size 845997]

REFERENCE was written by `mattergen-e reference build`, OUT is the output of a run. The larger references are made of
it, in the scratch folder: copies in which elements are exchanged for each other, as a permutation of all, and cells
scaled by up to 5 %, with the arrays that matching reads. Each size is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pymatgen.core import Composition, Element

from mattergen_e.generation.store import read_crystals
from mattergen_e.matching import ReferenceIndex, prepare, unique
from mattergen_e.reference import assemble
from mattergen_e.reference.folder import MANIFEST_NAME, Reference

SYMBOL = re.compile(r"[A-Z][a-z]?")
CELLS, SITES = ("cell", "reduced_cell"), ("atomic_numbers", "reduced_atomic_numbers")
KEPT = ("num_atoms", "reduced_num_atoms", "frac_coords", "reduced_frac_coords")


def enlarge(source: Reference, size: int, out: Path) -> None:
    """Writes a reference of so many crystals."""
    out.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    known = np.unique(source.array("atomic_numbers"))
    copies = -(-size // len(source))
    arrays: dict[str, list[np.ndarray]] = {name: [] for name in ("formulas", "ids", *CELLS, *SITES, *KEPT)}
    for copy in range(copies):
        mapping = np.arange(known.max() + 1)
        mapping[known] = known if copy == 0 else random.permutation(known)
        scale = 1.0 if copy == 0 else random.uniform(0.95, 1.05)
        names = {Element.from_Z(int(z)).symbol: Element.from_Z(int(mapping[z])).symbol for z in known}
        renamed = {f: Composition(SYMBOL.sub(lambda m: names[m[0]], f)).reduced_formula for f in set(source.formulas)}  # noqa: B023
        arrays["formulas"].append(np.array([renamed[formula] for formula in source.formulas]))
        arrays["ids"].append(np.array([f"{name}-{copy}" for name in source.ids]))
        for name in (*CELLS, *SITES, *KEPT):
            values = source.array(name)
            arrays[name].append(values * scale if name in CELLS else mapping[values] if name in SITES else values)
    whole = {name: np.concatenate(parts) for name, parts in arrays.items()}
    for name in ("formulas", "ids", *CELLS, "num_atoms", "reduced_num_atoms"):
        whole[name] = whole[name][:size]
    whole["formula_order"] = np.argsort(whole["formulas"], kind="stable")
    infos = {f"{name}.npy": assemble.write(out / f"{name}.npy", array) for name, array in whole.items()}
    manifest = source.manifest.model_copy(update={"structures": size, "arrays": infos})
    (out / MANIFEST_NAME).write_text(manifest.model_dump_json())


def measure(folder: Path, generated: Path) -> dict[str, float]:
    """Seconds of opening and matching, crystals that are novel, and the largest memory of this process."""
    crystals = [crystal.structure for crystal in read_crystals(generated)]
    unique(crystals[:2])  # imports and caches are not part of it
    before = largest_memory()
    start = time.process_time()
    found = ReferenceIndex(Reference.open(folder)).find(prepare(crystals), jobs=1)
    seconds = time.process_time() - start
    after = largest_memory()
    novel = sum(not names for names in found) / len(found)
    return {"seconds": seconds, "novel": novel, "memory": after, "more": after - before}


def largest_memory() -> float:
    """GiB that this process had at most, pages of mapped files included (Linux)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def main() -> None:
    """Makes the references and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("generated", type=Path)
    parser.add_argument("--scratch", type=Path, help="Default: a temporary folder.")
    parser.add_argument("--size", type=int, default=845_997)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.reference, arguments.generated)))
        return
    source = Reference.open(arguments.reference)
    print("| crystals in the reference | novel (%) | processor time (s) | memory (GiB), of that for matching |")
    print("| --: | --: | --: | --: |")
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        for size in (len(source), arguments.size // 8, arguments.size // 2, arguments.size):
            folder = Path(scratch) / str(size)
            enlarge(source, size, folder)
            command = [sys.executable, __file__, str(folder), str(arguments.generated), "--measure"]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
            found = json.loads(lines[-1])
            memory = f"{found['memory']:.2f}, {found['more']:.2f}"
            print(f"| {size:,} | {100 * found['novel']:.1f} | {found['seconds']:.2f} | {memory} |", flush=True)


if __name__ == "__main__":
    main()
