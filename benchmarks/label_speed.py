"""Speed and memory of reading VASP folders with one process: python benchmarks/label_speed.py FOLDER... [--repeat N].

Prints folders per minute and core, and the peak of the memory in MiB. The first folder is read once before the clock
starts: baderkit compiles on its first use. Set OMP_NUM_THREADS=1 and NUMBA_NUM_THREADS=1 for one core.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

from mattergen_e.crystals.findings import LabelError
from mattergen_e.labels.settings import LabelSettings
from mattergen_e.labels.vasp import calculation as vasp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    settings = LabelSettings()
    with tempfile.TemporaryDirectory() as place:
        copies = [
            Path(shutil.copytree(folder, Path(place) / f"{number}_{folder.name}"))
            for number in range(arguments.repeat)
            for folder in arguments.folders
        ]
        for folder in arguments.folders:
            read(folder, settings)
        start = time.process_time(), time.perf_counter()
        charges = sum(read(folder, settings) for folder in copies)
        cpu, wall = time.process_time() - start[0], time.perf_counter() - start[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{len(copies)} folders ({charges} with charges): {60 * len(copies) / cpu:.0f} per minute of processor time, "
        f"{60 * len(copies) / wall:.0f} per minute of the clock, peak {peak:.0f} MiB"
    )


def read(folder: Path, settings: LabelSettings) -> bool:
    """Whether the folder gives charges."""
    try:
        return vasp.read(folder, settings).bader_charge is not None
    except LabelError as error:
        print(f"{folder.name}: {error.reason}: {error.sentence}")
        return False


if __name__ == "__main__":
    main()
