"""Speed and memory of building a cache: python benchmarks/cache_speed.py SOURCE... [--jobs N].

Prints crystals per second of the clock, and the peak memory in MiB of this process and of the largest worker.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from mattergen_e.data.build import build_cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        manifest = build_cache(arguments.sources, Path(place) / "cache", jobs=arguments.jobs)
        seconds = time.perf_counter() - start
    crystals = manifest.crystals + len(manifest.dropped)
    own, workers = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        f"{crystals} crystals in {seconds:.1f} s with {arguments.jobs} workers: {crystals / seconds:.0f} per second, "
        f"peak memory {own:.0f} MiB, of a worker {workers:.0f} MiB"
    )


if __name__ == "__main__":
    main()
