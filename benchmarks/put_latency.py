"""How long a put and its flush take while everything becomes hash stores all the time, and while nothing does.

Run it with a folder on the disk that is to be measured: ``python benchmarks/put_latency.py FOLDER``. Records come in
without a pause; a small index is incarnated and merged again and again, a large one never.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import siltstone

MIB = 1 << 20
ROWS = 1_000


def latencies_ms(path: Path, workers: int, index_memory: int, seconds: float) -> tuple[np.ndarray, int]:
    """Of each put of ROWS records and its flush [ms]; how many hash stores there are in the end."""
    random = np.random.default_rng(1)
    sectors = np.arange(ROWS, dtype=np.uint64)
    taken = []
    with siltstone.open(path, workers=workers, index_memory=index_memory) as store:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            hashes = random.integers(0, 256, (ROWS, 32), np.uint8)
            start = time.perf_counter()
            store.put_many(hashes, sectors, sectors)
            store.flush()
            taken.append(time.perf_counter() - start)
        return 1e3 * np.array(taken), store.info().hash_stores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--index-memory", type=int, nargs="+", default=[256, 8], help="MiB")
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args()
    for workers in options.workers:
        for memory in options.index_memory:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                path = Path(folder, "store.silt")
                taken, hash_stores = latencies_ms(path, workers, memory * MIB, options.seconds)
            half, nine, rare = np.percentile(taken, (50, 99, 99.9))
            print(
                f"{workers} workers, index of {memory} MiB: {len(taken):,} puts, median {half:.2f} ms,"
                f" 99 % {nine:.2f}, 99.9 % {rare:.2f}, largest {taken.max():.0f}; {hash_stores} hash stores"
            )


if __name__ == "__main__":
    main()
